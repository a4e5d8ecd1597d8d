from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from liquid_ssm.errors import ParameterError
from liquid_ssm.hippo import diagonalise, hippo, low_rank

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "initialisations.npz")
SIZES = (4, 8, 16, 64)

# Both sides diagonalise with a backward stable solver.  Relative to ||S|| and ||B|| that is N u times a modest
# number over the relative eigenvalue gap; the golden file states 1e-12.
GOLDEN_TOLERANCE = 1e-12


def golden(measure: str, N: int, key: str) -> np.ndarray:
    return GOLDEN[f"{measure}/N{N}/{key}"]


def on_full_state(V: np.ndarray, Lambda: np.ndarray, P: np.ndarray) -> np.ndarray:
    """V Λ V* − (V P)(V P)* summed over both halves of every conjugate pair."""
    low = 2 * (V @ P).real
    return 2 * ((V * Lambda) @ V.conj().T).real - np.outer(low, low)


@pytest.mark.parametrize("N", SIZES)
@pytest.mark.parametrize("measure", ["legs", "fout"])
def test_matrices_match_the_published_ones(measure: str, N: int) -> None:
    A, B = hippo(measure, N)
    # Entries are products of square roots: a few ulp.
    np.testing.assert_allclose(A, golden(measure, N, "A"), rtol=1e-15, atol=0)
    np.testing.assert_allclose(B, golden(measure, N, "B_real"), rtol=1e-15, atol=0)


@pytest.mark.parametrize("N", SIZES)
@pytest.mark.parametrize("measure", ["legs", "fout"])
def test_diagonal_form_matches_the_published_one(measure: str, N: int) -> None:
    form = diagonalise(measure, N)
    w, B, P = (golden(measure, N, key) for key in ("w", "B", "P"))
    size = np.linalg.norm(golden(measure, N, "B_real"))
    assert form.Lambda.shape == (N // 2,)
    np.testing.assert_allclose(form.Lambda, w, rtol=0, atol=GOLDEN_TOLERANCE * np.abs(w).max())
    np.testing.assert_allclose(form.Lambda.real, w.real, rtol=1e-12, atol=0)
    np.testing.assert_allclose(np.abs(form.B), np.abs(B), rtol=0, atol=GOLDEN_TOLERANCE * size)
    np.testing.assert_allclose(np.abs(form.P), np.abs(P[0]), rtol=0, atol=GOLDEN_TOLERANCE * size)


@pytest.mark.parametrize("N", SIZES)
@pytest.mark.parametrize("measure", ["legs", "fout"])
def test_low_rank_form_gives_the_matrix_that_the_published_form_gives(measure: str, N: int) -> None:
    form = diagonalise(measure, N)
    V, w, P = (golden(measure, N, key) for key in ("V", "w", "P"))
    published = on_full_state(V, w, P[0])
    atol = GOLDEN_TOLERANCE * np.linalg.norm(published, 2)
    np.testing.assert_allclose(on_full_state(form.V, form.Lambda, form.P), published, rtol=0, atol=atol)


@pytest.mark.parametrize("N", SIZES)
def test_legs_form_gives_the_hippo_matrix(N: int) -> None:
    form = diagonalise("legs", N)
    A = hippo("legs", N)[0]
    np.testing.assert_allclose(
        on_full_state(form.V, form.Lambda, form.P), A, rtol=0, atol=GOLDEN_TOLERANCE * np.linalg.norm(A, 2)
    )


@pytest.mark.parametrize("N", SIZES)
def test_fout_form_is_off_by_the_published_float32_rounding(N: int) -> None:
    form = diagonalise("fout", N)
    A = hippo("fout", N)[0]
    # P P^T is rounded to float32 (2 becomes 2 - 2^-23), the normal part keeps the rounding on its diagonal only as
    # a mean, and the low-rank part carries (sqrt 2 in float32)^2: each at most 2^-23, and V of the zero pair
    # has 5e-9 times sqrt(2) of each other vector.
    error = np.abs(on_full_state(form.V, form.Lambda, form.P) - A).max()
    assert 1e-8 < error < 2 * 2.0**-23


@pytest.mark.parametrize(("N", "real"), [(4, -(2.0**-25)), (8, -3 * 2.0**-26), (64, -31 * 2.0**-29)])
def test_fout_real_part_is_the_float32_rounding(N: int, real: float) -> None:
    # -2^-23 (N/2 - 1)/N plus the double rounding of B B^T, N/2 ulp of 2 in the mean at most.
    np.testing.assert_allclose(diagonalise("fout", N).Lambda.real, real, rtol=0, atol=2.0**-51)


@pytest.mark.parametrize("N", [4, 5, 8, 64])
def test_fout_has_one_pair_of_zero_frequency(N: int) -> None:
    form = diagonalise("fout", N)
    assert form.Lambda.imag[-1] == 0
    assert np.all(form.Lambda.imag[:-1] < -3)
    np.testing.assert_array_equal(form.V[:, -1], [np.sqrt(0.5), 1j * np.sqrt(0.5), *[0] * (2 * (N // 2) - 2)])
    assert form.B[-1] == np.sqrt(0.5)


@pytest.mark.parametrize("N", SIZES)
def test_phases_are_fixed_and_the_published_ones_up_to_sign(N: int) -> None:
    legs, fout = diagonalise("legs", N), diagonalise("fout", N)
    assert np.all(legs.V[0].real > 0)
    np.testing.assert_allclose(legs.V[0].imag, 0, atol=1e-15)
    assert np.all(fout.B[:-1].imag > 0)
    np.testing.assert_allclose(fout.B[:-1].real, 0, atol=1e-14)
    # The published FouT phases differ by the part of 5e-9 that float32 mixes in.
    for measure, form, atol in (("legs", legs, GOLDEN_TOLERANCE * N), ("fout", fout, 6e-9)):
        B = golden(measure, N, "B")
        np.testing.assert_allclose(np.minimum(np.abs(form.B - B), np.abs(form.B + B)), 0, atol=atol)


@pytest.mark.parametrize("N", [3, 7, 31])
def test_odd_legs_drops_the_real_mode(N: int) -> None:
    form = diagonalise("legs", N)
    A = hippo("legs", N)[0]
    P = low_rank("legs", N)
    normal = A + np.outer(P, P)
    assert form.Lambda.shape == (N // 2,)
    assert np.all(form.Lambda.imag < -0.1)
    residual = normal @ form.V - form.V * form.Lambda
    np.testing.assert_allclose(residual, 0, atol=1e-14 * N * np.linalg.norm(normal, 2))


def test_odd_fout_is_that_of_the_even_size_below() -> None:
    for odd, even in zip(diagonalise("fout", 9), diagonalise("fout", 8), strict=True):
        np.testing.assert_array_equal(odd, even)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: hippo("legz", 4), "unknown measure 'legz'.*Did you mean 'legs'"),
        (lambda: low_rank("legz", 4), "unknown measure"),
        (lambda: diagonalise("legz", 4), "unknown measure"),
        (lambda: hippo("legs", 0), "n_state is 0"),
        (lambda: hippo("fout", 5), "n_state is 5.*even"),
        (lambda: diagonalise("legs", 1), "n_state is 1; legs needs at least 2"),
        (lambda: diagonalise("fout", 3), "n_state is 3; fout needs at least 4.*Re λ = 0"),
    ],
)
def test_bad_input(call: object, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        call()  # type: ignore[operator]
