from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
import pytest

from liquid_ssm.errors import ParameterError
from liquid_ssm.hippo import diagonalise
from liquid_ssm.initialize import DEFAULT_DISCRETIZATION, INITIALIZATIONS, initialize

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "initialisations.npz")
SIZES = (4, 8, 16, 64)
UNIT = 2.0**-53

# Name here, name in the golden file.
DIAGONAL = {"s4d-legs": "diag-legs", "dss": "diag-legs", "s4d-inv": "diag-inv", "s4d-lin": "diag-lin"}


@pytest.mark.parametrize("N", SIZES)
@pytest.mark.parametrize("name", DIAGONAL)
def test_diagonal_forms_match_the_published_ones(name: str, N: int) -> None:
    system = initialize(name, n_channels=3, n_state=N)
    w = GOLDEN[f"{DIAGONAL[name]}/N{N}/w"]
    assert system.structure == "diagonal"
    for channel in range(3):
        # The golden file is float32; its README states 1e-5.
        np.testing.assert_allclose(system.Lambda[channel], w, rtol=1e-5, atol=0)
        np.testing.assert_array_equal(system.B[channel], GOLDEN[f"{DIAGONAL[name]}/N{N}/B"])


@pytest.mark.parametrize("N", [2, 7, 64, 255])
def test_lin_and_inv_are_accurate(N: int) -> None:
    lin = initialize("s4d-lin", n_channels=1, n_state=N).Lambda[0]
    inv = initialize("s4d-inv", n_channels=1, n_state=N).Lambda[0]
    assert lin.shape == inv.shape == (N // 2,)
    with mpmath.workdps(40):
        for n in range(N // 2):
            ratio = Fraction(N) * (Fraction(N, 2 * n + 1) - 1)
            exact_inv = mpmath.mpf(ratio.numerator) / ratio.denominator / mpmath.pi
            # pi, division, division, each within u, and the product is exact.
            assert abs(inv[n].imag - exact_inv) <= 4 * UNIT * abs(exact_inv)
            assert abs(lin[n].imag - n * mpmath.pi) <= 2 * UNIT * n * mpmath.pi
            assert lin[n].real == inv[n].real == -0.5


@pytest.mark.parametrize("N", SIZES)
@pytest.mark.parametrize("measure", ["legs", "fout"])
def test_low_rank_forms_match_the_published_ones(measure: str, N: int) -> None:
    system = initialize(measure, n_channels=2, n_state=N)
    w, P, B = (GOLDEN[f"{measure}/N{N}/{key}"] for key in ("w", "P", "B"))
    assert system.structure == "dplr"
    assert system.P.shape == (1, 2, N // 2)
    # As in test_hippo.py.
    size = np.linalg.norm(GOLDEN[f"{measure}/N{N}/B_real"])
    for channel in range(2):
        np.testing.assert_allclose(system.Lambda[channel], w, rtol=0, atol=1e-12 * np.abs(w).max())
        np.testing.assert_allclose(np.abs(system.B[channel]), np.abs(B), rtol=0, atol=1e-12 * size)
        np.testing.assert_allclose(np.abs(system.P[:, channel]), np.abs(P), rtol=0, atol=1e-12 * size)


@pytest.mark.parametrize(("H", "first"), [(1, 1), (4, 2), (5, 3)])
def test_legs_fout_splits_the_channels(H: int, first: int) -> None:
    both = initialize("legs/fout", n_channels=H, n_state=8)
    for channel in range(H):
        form = diagonalise("legs" if channel < first else "fout", 8)
        np.testing.assert_array_equal(both.Lambda[channel], form.Lambda)
        np.testing.assert_array_equal(both.B[channel], form.B)
        np.testing.assert_array_equal(both.P[0, channel], form.P)


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_s5_blocks(blocks: int) -> None:
    N, H = 16, 400
    system = initialize("s5", n_channels=H, n_state=N, n_blocks=blocks)
    form = diagonalise("legs", N // blocks)
    M = N // 2
    assert system.structure == "mimo"
    assert (system.B.shape, system.C.shape, system.dt.shape) == ((M, H), (H, M), (M,))
    np.testing.assert_array_equal(system.Lambda, np.tile(form.Lambda, blocks))
    # B = V* B' with B' real: the real parts of V B over both halves give B' back, and its entries are a normal
    # distribution cut at two standard deviations of variance 1/N.
    per_block = system.B.reshape(blocks, -1, H)
    real_B = 2 * np.einsum("nm,jmh->jnh", form.V, per_block).real.reshape(N, H)
    scaled = real_B * np.sqrt(N) * 0.8796256610342398
    assert np.abs(scaled).max() <= 2 + 1e-12
    # N H independent samples: mean within 5/sqrt(N H), variance within 5 sqrt(2/(N H)) of their values.
    samples = N * H
    assert abs(real_B.mean() * np.sqrt(N)) < 5 / np.sqrt(samples)
    assert abs(real_B.var() * N - 1) < 5 * np.sqrt(2 / samples)


def test_s5_odd_block_drops_its_real_mode() -> None:
    system = initialize("s5", n_channels=2, n_state=6, n_blocks=2)
    assert system.Lambda.shape == (2,)
    np.testing.assert_array_equal(system.Lambda, np.tile(diagonalise("legs", 3).Lambda, 2))


@pytest.mark.parametrize("name", INITIALIZATIONS)
def test_c_is_complex_standard_normal_and_dt_log_uniform(name: str) -> None:
    system = initialize(name, n_channels=500, n_state=16, dt_min=1e-3, dt_max=1e-1)
    C = system.C
    count = C.size
    # Five standard deviations of the mean, of E|C|^2 = 1 (variance 1) and of E C^2 = 0 (variance 1).
    assert abs(C.mean()) < 5 / np.sqrt(count)
    assert abs((np.abs(C) ** 2).mean() - 1) < 5 / np.sqrt(count)
    assert abs((C**2).mean()) < 5 * np.sqrt(2 / count)
    steps = system.dt
    assert steps.min() >= 1e-3
    assert steps.max() <= 1e-1
    place = (np.log(steps) - np.log(1e-3)) / np.log(100)
    assert abs(place.mean() - 0.5) < 5 / np.sqrt(12 * steps.size)
    if steps.size > 100:
        assert abs(place.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / steps.size)


@pytest.mark.parametrize("name", INITIALIZATIONS)
def test_same_seed_same_arrays(name: str) -> None:
    first, second, other = (initialize(name, n_channels=4, n_state=8, seed=seed) for seed in (3, 3, 4))
    for key in ("Lambda", "B", "C", "dt"):
        np.testing.assert_array_equal(getattr(first, key), getattr(second, key))
    assert np.all(first.C != other.C)
    assert np.all(first.dt != other.dt)


@pytest.mark.parametrize("name", ["legs", "s4d-lin"])
def test_more_channels_leave_the_first_ones_alone(name: str) -> None:
    few, many = (initialize(name, n_channels=H, n_state=8) for H in (3, 5))
    np.testing.assert_array_equal(few.C, many.C[:3])
    np.testing.assert_array_equal(few.dt, many.dt[:3])


@pytest.mark.parametrize("name", INITIALIZATIONS)
@pytest.mark.parametrize("N", [4, 5, 6, 7])
def test_stored_modes(name: str, N: int) -> None:
    assert initialize(name, n_channels=1, n_state=N).n_modes == N // 2


@pytest.mark.parametrize("name", INITIALIZATIONS)
def test_default_discretization(name: str) -> None:
    assert DEFAULT_DISCRETIZATION[name] == ("zoh" if name == "dss" else "bilinear")
    initialize(name, n_channels=2, n_state=8).discretize(DEFAULT_DISCRETIZATION[name])


def test_equal_dt_limits_give_that_dt() -> None:
    np.testing.assert_array_equal(initialize("s4d-lin", n_channels=9, dt_min=0.1, dt_max=0.1).dt, np.full(9, 0.1))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("s4d-line", {}, "unknown initialization 's4d-line'.*Did you mean 's4d-lin'"),
        ("legs", {"n_channels": 0}, "n_channels is 0; the least is 1"),
        ("legs", {"n_channels": 2.5}, "n_channels is 2.5; it must be a whole number"),
        ("legs", {"n_channels": True}, "n_channels is True"),
        ("s4d-lin", {"n_state": 1}, "n_state is 1; the least is 2"),
        ("fout", {"n_state": 2}, "n_state is 2; fout needs at least 4"),
        ("s4d-lin", {"seed": -1}, "seed is -1"),
        ("s4d-lin", {"dt_min": 0.0}, "dt_min = 0.0"),
        ("s4d-lin", {"dt_min": 0.2, "dt_max": 0.1}, "dt_min = 0.2 and dt_max = 0.1"),
        ("s4d-lin", {"dt_max": float("inf")}, "dt_max = inf"),
        ("s4d-lin", {"dt_min": float("nan")}, "dt_min = nan"),
        ("legs", {"n_blocks": 2}, "n_blocks is 2, but 'legs' has no blocks"),
        ("s5", {"n_blocks": 0}, "n_blocks is 0"),
        ("s5", {"n_blocks": 3}, "n_state is 64 and n_blocks is 3"),
        ("s5", {"n_blocks": 64}, "blocks of at least 2"),
    ],
)
def test_bad_input(name: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        initialize(name, **{"n_channels": 2, **options})  # type: ignore[arg-type]
