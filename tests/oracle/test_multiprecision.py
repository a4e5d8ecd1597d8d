"""Tier T2: agrees with T1 inside its enclosure widened by T2's own digits, and with closed forms."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liquid_ssm.oracle import multiprecision
from liquid_ssm.oracle.enclosure import enclose
from liquid_ssm.oracle.errors import OracleDisagreement
from liquid_ssm.oracle.multiprecision import outputs
from liquid_ssm.oracle.realization import Realization

RECURRENT = ("s4", "liquid", "truncated")
CASES = [
    *((s, m) for s in ("diagonal", "dplr", "dense", "mimo") for m in RECURRENT),
    *((s, m) for s in ("diagonal", "dplr", "dense") for m in ("kb", "pb")),
]
# One test function per case shares out the examples of the profile.
few = settings(max_examples=max(5, settings().max_examples // 5))


def numbers(rng: np.random.Generator, *shape: int) -> Any:
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def random_realization(rng: np.random.Generator, structure: str, H: int, M: int, R: int, pairs: bool) -> Realization:
    if structure == "mimo":
        return Realization("mimo", 0.6 * numbers(rng, M), numbers(rng, M, H), numbers(rng, H, M), conjugate_pairs=pairs)
    if structure == "dense":
        A = 0.5 * numbers(rng, H, M, M)
        return Realization("dense", A, numbers(rng, H, M), numbers(rng, H, M), conjugate_pairs=False)
    low_rank = [0.6 * numbers(rng, R, H, M) if structure == "dplr" else None for _ in range(2)]
    A, B, C = (numbers(rng, H, M) for _ in range(3))
    return Realization(structure, 0.6 * A, B, C, *low_rank, conjugate_pairs=pairs)


@pytest.mark.parametrize(("structure", "mode"), CASES)
@few
@given(data=st.data())
def test_agrees_with_enclosure(structure: str, mode: str, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))
    H, M, R = (data.draw(st.integers(low, 3)) for low in (1, 1, 0))
    r = random_realization(rng, structure, H, M, R, data.draw(st.booleans()))
    batch, order, length = (data.draw(st.integers(low, high)) for low, high in ((0, 2), (1, 4), (0, 9)))
    options: dict[str, Any] = {"order": order}
    if mode in RECURRENT:
        single = (M,) if structure == "mimo" else (H, M)
        shapes: list[Any] = [None, (batch, *single)]
        if mode == "truncated":
            shapes.append((batch, order, *single))
        shape = data.draw(st.sampled_from(shapes))
        options["state"] = None if shape is None else numbers(rng, *shape)
    else:
        options["correlations"] = data.draw(st.sampled_from(["all", "adjacent"]))
        options["window"] = data.draw(st.sampled_from([None, 1, 2, 4, 20]))
    u = rng.normal(size=(batch, H, length))
    e, y = enclose(r, u, mode, **options), outputs(r, u, mode, **options)
    assert y.shape == u.shape
    for b, h, k in np.ndindex(y.shape):
        assert isinstance(y[b, h, k], mpmath.mpf)
        with mpmath.workdps(120):
            middle = mpmath.mpf(float(e.hi[b, h, k])) + mpmath.mpf(float(e.lo[b, h, k]))
            own = mpmath.mpf(10) ** -50 * max(abs(v) for v in y[b, h])
            assert abs(y[b, h, k] - middle) <= float(e.radius[b, h, k]) + own


def test_liquid_with_constant_input_is_a_geometric_sum() -> None:
    # x_k = b u Σ_{i≤k} (a + b u)^i = b u ((a + b u)^{k+1} - 1)/(a + b u - 1) for u_k = u; all floats below are exact.
    a, b, u = 0.5 + 0.25j, 0.375, 0.5
    r = Realization("diagonal", np.array([[a]]), np.array([[b]]), np.array([[1.0]]))
    y = outputs(r, np.full((1, 1, 30), u), "liquid", dps=80)
    with mpmath.workdps(100):
        step = mpmath.mpc(a) + b * u
        for k, value in enumerate(y[0, 0]):
            exact = 2 * mpmath.re(b * u * (step ** (k + 1) - 1) / (step - 1))
            assert abs(value - exact) < mpmath.mpf(10) ** -80


def test_digits_follow_the_request() -> None:
    # 0.9^40 as a product of floats needs 40 · 53 bits; the result is the evaluation with 2 dps + 15 digits.
    r = Realization("diagonal", np.array([[0.9]]), np.array([[1.0]]), np.array([[1.0]]), conjugate_pairs=False)
    impulse = np.eye(1, 41)[None]
    with mpmath.workprec(41 * 53):
        exact = mpmath.mpf(0.9) ** 40
        for dps in (15, 60, 300):
            assert abs(outputs(r, impulse, "s4", dps=dps)[0, 0, 40] - exact) <= mpmath.mpf(10) ** (-2 * dps)


def test_disagreement_is_an_error() -> None:
    # y_1 = u_1 + (a + u_1) u_0 = 2^250 - (2^-60 + 2^250): 65 digits lose a, 115 keep it, and y_0 = -1 sets the scale.
    a, u = np.array([[2.0**-60]]), np.array([[[-1, 2.0**250]]])
    r = Realization("diagonal", a, np.ones((1, 1)), np.ones((1, 1)), conjugate_pairs=False)
    with pytest.raises(OracleDisagreement, match=r"mode 'liquid', batch element 0, channel 0: .* Give a larger dps"):
        outputs(r, u, "liquid")
    assert outputs(r, u, "liquid", dps=100)[0, 0].tolist() == [-1, -(2.0**-60)]


def test_mpmath_precision_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    r = Realization("diagonal", np.array([[0.5]]), np.array([[1.0]]), np.array([[1.0]]))
    with mpmath.workdps(23):
        outputs(r, np.ones((1, 1, 3)), "liquid")
        assert mpmath.mp.dps == 23

        def fail(*_: Any) -> Any:
            raise RuntimeError("inside the evaluation")

        monkeypatch.setattr(multiprecision, "_evaluate", fail)
        with pytest.raises(RuntimeError, match="inside"):
            outputs(r, np.ones((1, 1, 3)), "liquid")
        assert mpmath.mp.dps == 23


def test_too_few_digits() -> None:
    r = Realization("diagonal", np.array([[0.5]]), np.array([[1.0]]), np.array([[1.0]]))
    with pytest.raises(ValueError, match="dps is 14"):
        outputs(r, np.ones((1, 1, 3)), "s4", dps=14)
