"""Tier T1. Containment is decided in rationals against T0, so no comparison with T0 has a tolerance."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import flint
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from liquid_ssm.oracle import enclosure, exact
from liquid_ssm.oracle.enclosure import DEFAULT_TARGET, Enclosure, enclose, enclose_kernel, working_precision
from liquid_ssm.oracle.enclosure_trajectory import Discs, norm_bound, spectral_norm_bound
from liquid_ssm.oracle.errors import OutputOverflow, PrecisionExhausted
from liquid_ssm.oracle.realization import Realization

RECURRENT = ("s4", "liquid", "truncated")
CASES = [
    *((s, m, "all", None) for s in ("diagonal", "dplr", "dense", "mimo") for m in RECURRENT),
    *(
        (s, m, c, w)
        for s in ("diagonal", "dplr", "dense")
        for m in ("kb", "pb")
        for c in ("all", "adjacent")
        for w in (None, 1, 3, 5)
    ),
]
# One test function per case shares out the examples of the profile.
few = settings(max_examples=max(5, settings().max_examples // 8))
# Targets that 64 and 128 bits reach: with the first, the balls' radii are far larger than the rounding of hi + lo.
targets = st.sampled_from([2.0**-8, DEFAULT_TARGET])
eighths = st.integers(-12, 12).map(lambda i: i / 8)
# 2^-1060 makes subnormal inputs, 2^±900 makes squares of C underflow and overflow.
scales = st.sampled_from([(1.0, 1.0), (2.0**-1060, 1.0), (1.0, 2.0**900), (1.0, 2.0**-900)])


def reals(shape: tuple[int, ...]) -> Any:
    return hnp.arrays(np.float64, shape, elements=eighths)


def complexes(shape: tuple[int, ...]) -> Any:
    return st.tuples(reals(shape), reals(shape)).map(lambda z: z[0] + 1j * z[1])


@st.composite
def realizations(draw: Any, structure: str) -> Realization:
    H, M, R = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(0, 2))
    pairs = structure != "dense" and draw(st.booleans())
    if structure == "mimo":
        return Realization("mimo", *(draw(complexes(s)) for s in ((M,), (M, H), (H, M))), conjugate_pairs=pairs)
    A, B, C = (draw(complexes((H, M, M) if i == 0 and structure == "dense" else (H, M))) for i in range(3))
    P, Q = (draw(complexes((R, H, M))) if structure == "dplr" else None for _ in range(2))
    return Realization(structure, A, B, C, P, Q, conjugate_pairs=pairs)


@st.composite
def states(draw: Any, r: Realization, mode: str, batch: int, order: int) -> Any:
    single = (r.n_modes,) if r.structure == "mimo" else r.C.shape
    shapes: list[Any] = [(batch, *single)] if mode in RECURRENT else []
    if mode == "truncated":
        shapes.append((batch, order, *single))
    shape = draw(st.sampled_from([None, *shapes]))
    return None if shape is None else draw(complexes(shape))


def stable(seed: int, structure: str, n_channels: int, n_modes: int, radius: float = 0.95) -> Realization:
    """A random system with full mantissas and ‖Ā‖₂ about `radius`; B̄ about 0.3, C about 1."""
    rng = np.random.default_rng(seed)

    def numbers(*shape: int) -> Any:
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    H, M = n_channels, n_modes
    if structure == "dense":
        A = numbers(H, M, M)
        A *= radius / np.linalg.norm(A, 2, axis=(1, 2), keepdims=True)
        return Realization("dense", A, 0.3 * numbers(H, M), numbers(H, M), conjugate_pairs=False)
    A = radius * np.exp(1j * rng.uniform(0, 2 * np.pi, (H, M)))
    if structure == "mimo":
        return Realization("mimo", A[0], 0.3 * numbers(M, H), numbers(H, M))
    P, Q = (0.1 * numbers(1, H, M) for _ in range(2)) if structure == "dplr" else (None, None)
    return Realization(structure, A, 0.3 * numbers(H, M), numbers(H, M), P, Q)


def signal(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def assert_encloses(e: Enclosure, y: Any, target: float) -> None:
    """|y - hi - lo| ≤ radius ≤ target · max_k |y_k| in rationals; 2^-1073 is the documented floor."""
    assert e.hi.shape == e.lo.shape == e.radius.shape == y.shape
    for row in np.ndindex(*y.shape[:-1]):
        peak = max((abs(v) for v in y[row]), default=Fraction(0))
        limit = max(Fraction(target) * peak, Fraction(2) ** -1073)
        for k, value in enumerate(y[row]):
            hi, lo, radius = (Fraction(float(part[row][k])) for part in (e.hi, e.lo, e.radius))
            assert abs(value - hi - lo) <= radius <= limit, (row, k)


@pytest.mark.parametrize(("structure", "mode", "correlations", "window"), CASES)
@few
@given(data=st.data())
def test_encloses_exact_values(
    structure: str, mode: str, correlations: str, window: int | None, data: st.DataObject
) -> None:
    u_scale, C_scale = data.draw(scales)
    r = data.draw(realizations(structure))
    r = replace(r, C=r.C * C_scale)
    batch, order = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 4))
    u = u_scale * data.draw(reals((batch, r.n_channels, data.draw(st.integers(0, 7)))))
    state, target = data.draw(states(r, mode, batch, order)), data.draw(targets)
    options: dict[str, Any] = {"order": order, "correlations": correlations, "window": window, "state": state}
    assert_encloses(enclose(r, u, mode, **options, target=target), exact.outputs(r, u, mode, **options), target)


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense", "mimo"])
@pytest.mark.parametrize("mode", RECURRENT)
@pytest.mark.parametrize("target", [2.0**-8, DEFAULT_TARGET])
def test_encloses_exact_values_over_several_blocks(structure: str, mode: str, target: float) -> None:
    # Three blocks of a diagonal system, nine of a matrix: the radii carried from one to the next matter.
    n_channels = 2 if structure == "mimo" else 1
    r, u = stable(1, structure, n_channels, 2), signal(2, 1, n_channels, 35)
    e = enclose(r, u, mode, target=target)
    assert e.precision == (64 if target == 2.0**-8 else 128)
    assert_encloses(e, exact.outputs(r, u, mode), target)


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense"])
@few
@given(data=st.data())
def test_kernel_encloses_exact_kernel(structure: str, data: st.DataObject) -> None:
    r = data.draw(realizations(structure))
    length, power, target = data.draw(st.integers(0, 20)), data.draw(st.integers(1, 3)), data.draw(targets)
    assert_encloses(enclose_kernel(r, length, power, target=target), exact.kernel(r, length, power), target)


def test_mutated_enclosures_are_caught() -> None:
    r, u = stable(3, "diagonal", 1, 2), signal(4, 1, 1, 20)
    e, y = enclose(r, u, "liquid"), exact.outputs(r, u, "liquid")
    assert_encloses(e, y, DEFAULT_TARGET)
    largest = float(np.abs(e.hi).max())
    for bad in (
        replace(e, radius=0 * e.radius),
        replace(e, lo=e.lo + 2.0**-90 * largest),
        replace(e, hi=np.roll(e.hi, 1, axis=-1)),
        replace(e, radius=e.radius + 2.0**-60 * largest),
    ):
        with pytest.raises(AssertionError):
            assert_encloses(bad, y, DEFAULT_TARGET)


@pytest.mark.parametrize("drive", [0.003, 0.3])
def test_rotation_needs_no_long_precision(drive: float) -> None:
    # Plain balls would need about L/2 = 2048 bits; |a_k| > 1 at about half of the steps, and
    # with the larger drive the state grows to 10^188.
    length, rng = 4096, np.random.default_rng(5)
    a = 0.9999 * np.exp(1j * np.array([0.7, 0.8, 1.9, 2.5]))
    b, c = drive * np.exp(1j * rng.uniform(0, 6, 4)), rng.normal(size=4) + 1j
    u = rng.normal(size=length)
    assert (np.abs(a[:, None] + b[:, None] * u) > 1).mean() > 0.4
    e = enclose(Realization("diagonal", a[None], b[None], c[None]), u[None, None], "liquid")
    assert e.precision <= 256
    assert (e.radius <= DEFAULT_TARGET * np.abs(e.hi).max()).all()
    # Plain balls do not reach that with 1024 bits; with twice the wrapping's bits they must meet every enclosure.
    assert float(plain_balls(a, b, c, u, 1024)[-1].rad()) > 1
    for k, y in enumerate(plain_balls(a, b, c, u, length)):
        with working_precision(length):
            distance = (y - float(e.hi[0, 0, k]) - float(e.lo[0, 0, k])).abs_upper()
            assert distance <= flint.arb(float(e.radius[0, 0, k]))


def plain_balls(a: Any, b: Any, c: Any, u: Any, bits: int) -> list[Any]:
    """Eq. 11 in balls from beginning to end."""
    with working_precision(bits):
        A, B, C = ([flint.acb(z.real, z.imag) for z in v.tolist()] for v in (a, b, c))
        x, outputs = [flint.acb(0)] * len(A), []
        for u_k in u.tolist():
            x = [(an + bn * u_k) * xn + bn * u_k for an, bn, xn in zip(A, B, x, strict=True)]
            outputs.append(2 * sum(cn * xn for cn, xn in zip(C, x, strict=True)).real)
    return outputs


@pytest.mark.parametrize("structure", ["dplr", "dense"])
def test_matrices_of_norm_below_one_need_no_long_precision(structure: str) -> None:
    r, u = stable(6, structure, 1, 4, radius=0.5), signal(7, 1, 1, 1000)
    assert enclose(r, 0.1 * u, "liquid").precision <= 192


def test_precision_follows_the_growth_of_a_matrix_norm() -> None:
    # ‖Ā‖ = 2^60 but Ā² = 0: the a-priori growth of the discs is 60 bits a step, the trajectory has none.
    A = np.array([[[0, 2.0**60], [0, 0]]], dtype=complex)
    r = Realization("dense", A, np.array([[1, 1]]), np.array([[1, 1]]), conjugate_pairs=False)
    u = signal(8, 1, 1, 50)
    e = enclose(r, u, "s4")
    assert e.precision > 50 * 60
    assert_encloses(e, exact.outputs(r, u, "s4"), DEFAULT_TARGET)


def test_cancelled_output_is_refined_to_the_floor() -> None:
    r = Realization("diagonal", np.full((1, 2), 0.3 + 0.1j), np.full((1, 2), 0.7 + 0.2j), np.array([[1, -1]]))
    for mode in exact.MODES:
        assert_encloses(enclose(r, signal(9, 1, 1, 40), mode), np.full((1, 1, 40), Fraction(0)), DEFAULT_TARGET)


@pytest.mark.parametrize("mode", exact.MODES)
@pytest.mark.parametrize("shape", [(0, 2, 5), (3, 2, 0), (0, 2, 0)])
def test_empty_batch_and_length(mode: str, shape: tuple[int, ...]) -> None:
    e = enclose(stable(10, "diagonal", 2, 3), np.zeros(shape), mode)
    assert e.hi.shape == e.lo.shape == e.radius.shape == shape


def test_float32_parameters_count_as_they_are() -> None:
    r, u = stable(11, "diagonal", 1, 3), signal(12, 1, 1, 9).astype(np.float32)
    r = replace(r, A=r.A.astype(np.complex64), B=r.B.astype(np.complex64), C=r.C.real.astype(np.float32))
    assert_encloses(enclose(r, u, "liquid"), exact.outputs(r, u, "liquid"), DEFAULT_TARGET)


def test_lo_is_the_rest_of_hi() -> None:
    e = enclose(stable(13, "diagonal", 1, 3), signal(14, 1, 1, 50), "s4")
    assert (np.abs(e.lo) <= np.spacing(np.abs(e.hi)) / 2).all()
    assert (e.lo != 0).any()


def test_flint_precision_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    r, u = stable(15, "diagonal", 1, 2), signal(16, 1, 1, 600)
    with working_precision(77):
        enclose(r, u, "liquid")
        assert flint.ctx.prec == 77
        with pytest.raises(OutputOverflow, match=r"mode 'liquid', batch element 0, channel 0"):
            enclose(r, 1e10 * u, "liquid")
        assert flint.ctx.prec == 77
        monkeypatch.setattr(enclosure, "MAX_PRECISION", 64)
        with pytest.raises(PrecisionExhausted, match="64 bits"):
            enclose(r, u, "liquid")
        assert flint.ctx.prec == 77
        with pytest.raises(PrecisionExhausted, match="64 bits"):
            enclose_kernel(r, 10)
        assert flint.ctx.prec == 77


@pytest.mark.parametrize("target", [2.0**-101, 2.0, float("nan")])
def test_target_outside_its_range(target: float) -> None:
    r = stable(17, "diagonal", 1, 2)
    with pytest.raises(ValueError, match="target"):
        enclose(r, np.zeros((1, 1, 2)), "s4", target=target)
    with pytest.raises(ValueError, match="target"):
        enclose_kernel(r, 2, target=target)


def test_kernel_arguments() -> None:
    with pytest.raises(ValueError, match="mimo"):
        enclose_kernel(stable(18, "mimo", 2, 2), 3)
    for length, power in ((3, 0), (-1, 1)):
        with pytest.raises(ValueError, match=f"power is {power} and length {length}"):
            enclose_kernel(stable(18, "diagonal", 2, 2), length, power)


def test_discs_follow_their_recursion() -> None:
    # |δ^p_k| ≤ growth |δ^p| + coupling |δ^{p-1}|, radii joining every block; three orders, two discs, two outputs.
    rng = np.random.default_rng(19)
    length, block, n_orders, n_discs = 10, 4, 3, 2
    growth, coupling = rng.uniform(0.5, 2, (2, length, n_discs))
    discs = Discs(growth, coupling, rng.uniform(0.5, 2, (n_discs, 2)), True, block, 1.0)
    errors = [(rng.uniform(size=(n_orders, n_discs)), exponent) for exponent in (-5000, -4990, -5003)]
    bounds, exponents = discs.outputs(errors)
    delta = np.full((n_orders, n_discs), Fraction(0))
    for k in range(length):
        if k % block == 0:
            values, exponent = errors[k // block]
            delta = delta + exact.exact_array(values) * Fraction(2) ** exponent
        lower = np.concatenate([np.full((1, n_discs), Fraction(0)), delta[:-1]])
        delta = exact.exact_array(growth[k]) * delta + exact.exact_array(coupling[k]) * lower
        expected = delta.sum(axis=0) @ exact.exact_array(discs.readout)
        for bound, value in zip(bounds[k].tolist(), expected, strict=True):
            assert 1 <= Fraction(bound) * Fraction(2) ** exponents[k // block] / value < 1 + Fraction(2) ** -28


@pytest.mark.parametrize("n", [1, 2, 7, 24])
@pytest.mark.parametrize("exponent", [0, 900, -900, -1040])
def test_spectral_norm_bound(n: int, exponent: int) -> None:
    rng = np.random.default_rng(n)
    normal = rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n))
    nilpotent = np.triu(np.full((n, n), 1 + 1j))
    for A in (normal, nilpotent, np.eye(n) + 0j):
        norm = np.linalg.norm(A, 2)
        bound = np.ldexp(spectral_norm_bound(A * 2.0**exponent), -exponent)
        # LAPACK's norm is good to n · 2^-50; the bound's own excess is below N^{2^-12} ≤ 1.002, and at 2^-1040
        # the entries keep 34 bits.
        assert norm * (1 - n * 2.0**-34) <= bound <= 1.002 * norm
    assert spectral_norm_bound(np.zeros((n, n), dtype=complex)) == 0
    assert spectral_norm_bound(np.full((n, n), np.inf + 0j)) == np.inf


@pytest.mark.parametrize("scale", [1.0, 2.0**-700, 2.0**700])
def test_norm_bound_survives_squares(scale: float) -> None:
    bound = float(norm_bound(scale * np.array([3 + 4j, 12.0]))) / scale
    assert 13 <= bound <= 13 * (1 + 2.0**-20)
