"""Rounding bounds of the discretisation formulas against rationals and 40-digit arithmetic."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from liquid_ssm.continuous import ContinuousSystem
from liquid_ssm.discretize import phi1
from liquid_ssm.oracle.discretisation import discretize as exact_discretize
from liquid_ssm.oracle.discretisation_rounding import (
    COMPLEX_QUOTIENT,
    METHODS,
    _solve_error,
    discretisation_bounds,
    phi1_bound,
)
from liquid_ssm.oracle.exact import exact_array, full_system
from liquid_ssm.oracle.realization import Realization
from liquid_ssm.oracle.rounding import RoundingModel

UNIT = 2.0**-53
SINGLE, DOUBLE = RoundingModel.of_dtype(np.float32), RoundingModel.of_dtype(np.float64)
# NumPy's own single precision functions: at most 4 units in the last place (numpy pull request 19478).
SINGLE_ELEMENTARY = 8.0
REGIONS = ("anywhere", "near zero", "stiff", "imaginary", "near zeros of A_bar", "whole turns")


def to_float(value: Any) -> complex:
    """A number of the oracle, exact or of mpmath, as the nearest complex128."""
    if isinstance(value, (mpmath.mpf, mpmath.mpc)):
        return complex(value)
    return complex(float(value.real), float(value.imag))


def distances(computed: Any, exact: Any) -> Any:
    """|computed − exact|, the subtraction without rounding."""
    computed = np.asarray(computed)
    with mpmath.workdps(40):
        pairs = zip(exact_array(computed).ravel(), np.asarray(exact).ravel(), strict=True)
        result = [
            abs(to_float(c - e)) if not isinstance(e, (mpmath.mpf, mpmath.mpc)) else abs(complex(_mp(c) - e))
            for c, e in pairs
        ]
    return np.array(result).reshape(computed.shape)


def _mp(value: Any) -> Any:
    def ratio(x: Any) -> Any:
        return mpmath.mpf(x.numerator) / x.denominator

    return mpmath.mpc(ratio(value.real), ratio(value.imag))


def modes(region: str, seed: int, count: int = 24) -> tuple[Any, Any, Any]:
    """λ, B and δt, (count, 1), (count, 1), (count,): δt from 1e-6 to 1, |λ| up to 1e4."""
    rng = np.random.default_rng(seed)

    def scale(low: float, high: float) -> Any:
        return 10.0 ** rng.uniform(low, high, count)

    dt, sign = scale(-6, 0), rng.choice([-1.0, 1.0], count)
    real, imag = -scale(-8, 4), sign * scale(-8, 4)
    if region == "near zero":
        real, imag = -scale(-300, -8), sign * scale(-300, -8)
    elif region == "stiff":
        real, imag = -scale(2, 4), sign * scale(-3, 1)
    elif region == "imaginary":
        real = -scale(-300, -20)
    elif region == "near zeros of A_bar":
        # z = -2, the zero of the bilinear Ā, and z = -1, that of Euler's
        real, imag = -rng.choice([1.0, 2.0], count) / dt * (1 + scale(-16, -2)), sign * scale(-16, -2)
    elif region == "whole turns":
        real, imag = -scale(-12, 0), sign * 2 * np.pi * rng.integers(1, 20, count) / dt
    B = (rng.normal(size=count) + 1j * rng.normal(size=count)) * scale(-3, 3)
    return (real + 1j * imag)[:, None], B[:, None], dt


def computed(Lambda: Any, B: Any, dt: Any, method: str) -> Any:
    return ContinuousSystem(Lambda, B, np.ones_like(B), dt).discretize(method)


@pytest.mark.parametrize("method", METHODS)
@given(st.sampled_from(REGIONS), st.integers(0, 2**32 - 1))
def test_the_package_is_within_the_bounds(method: str, region: str, seed: int) -> None:
    Lambda, B, dt = modes(region, seed, 8)
    system = computed(Lambda, B, dt, method)
    A_bar, B_bar = exact_discretize(Lambda, B, dt, method, precision="exact" if method != "zoh" else 40)
    for result, stored in ((system, None), (system.astype("float32"), SINGLE)):
        bounds = discretisation_bounds(Lambda, B, dt, method, stored=stored)
        assert np.isfinite(bounds.A).all()
        assert np.isfinite(bounds.B).all()
        assert np.all(distances(result.A_bar, A_bar) <= bounds.A)
        assert np.all(distances(result.B_bar, B_bar) <= bounds.B)


def in_single_precision(Lambda: Any, B: Any, dt: Any, method: str) -> tuple[Any, Any]:
    """The same formulas with every operation in float32."""
    z, drive = dt[:, None] * Lambda, dt[:, None] * B
    if method == "euler":
        return 1 + z, drive
    if method == "bilinear":
        return (1 + z / 2) / (1 - z / 2), drive / (1 - z / 2)
    return np.exp(z), phi1(z) * drive


@pytest.mark.parametrize("method", METHODS)
@given(st.sampled_from(REGIONS), st.integers(0, 2**32 - 1))
def test_single_precision_arithmetic_is_within_the_bounds(method: str, region: str, seed: int) -> None:
    Lambda, B, dt = modes(region, seed, 8)
    Lambda, B, dt = Lambda.astype(np.complex64), B.astype(np.complex64), dt.astype(np.float32)
    if method == "zoh":
        # The reciprocal of a number below 2^-128 overflows in float32; `phi1` takes care of it in float64 only.
        Lambda = np.where(np.abs(dt[:, None] * Lambda) < 1e-30, np.complex64(-1), Lambda)
    A_bar, B_bar = in_single_precision(Lambda, B, dt, method)
    assert A_bar.dtype == B_bar.dtype == np.complex64
    exact = exact_discretize(Lambda, B, dt, method, precision="exact" if method != "zoh" else 40)
    bounds = discretisation_bounds(Lambda, B, dt, method, model=SINGLE, elementary=SINGLE_ELEMENTARY)
    assert np.all(distances(A_bar, exact[0]) <= bounds.A)
    assert np.all(distances(B_bar, exact[1]) <= bounds.B)


@pytest.mark.parametrize("method", METHODS)
@given(st.sampled_from(REGIONS), st.integers(0, 2**32 - 1))
def test_closed_forms_of_the_docs_hold_on_the_left_half_plane(method: str, region: str, seed: int) -> None:
    Lambda, B, dt = modes(region, seed)
    bounds = discretisation_bounds(Lambda, B, dt, method)
    z, drive, slack = dt[:, None] * Lambda, np.abs(dt[:, None] * B), 8 * 2.0**-1074
    if method == "euler":
        limits = 1 + 2 * np.abs(z), drive
    elif method == "bilinear":
        limits = 9.42 + 0 * drive, 9.42 * drive / np.abs(1 - z / 2)
    else:
        A_bar, factor = np.exp(z), phi1(z)
        limits = (np.abs(z) + 5) * np.abs(A_bar), drive * (np.abs(A_bar - factor) + 25.66 * np.abs(factor))
        # e^z − φ₁ is z φ₁' and evaluated here in float64
        limits = limits[0], limits[1] * (1 + 1e-3) + 1e-11 * drive * np.abs(A_bar)
    for bound, limit in zip((bounds.A, bounds.B), limits, strict=True):
        assert np.all(bound <= UNIT * limit * (1 + 2.0**-5) + slack)


@given(st.sampled_from(REGIONS), st.integers(0, 2**32 - 1))
@example("near zero", 0)
def test_phi1_is_within_its_bound_and_the_constant(region: str, seed: int) -> None:
    Lambda, _, dt = modes(region, seed, 12)
    z = dt[:, None] * Lambda
    exact = exact_discretize(z, np.ones_like(z), np.ones(len(z)), "zoh", precision=40)[1]
    bound = phi1_bound(z)
    assert np.all(distances(phi1(z), exact) <= bound)
    size = np.abs(np.array([to_float(v) for v in exact.ravel()]).reshape(z.shape))
    assert np.all(bound <= 22.5 * UNIT * (1 + 2.0**-5) * size)


def test_the_constant_of_phi1_is_reached() -> None:
    # e^a -> 0 and b an odd multiple of π: three products of size 1, of which the sum has size 1.
    z = np.array([-40 + 1j * np.pi])
    assert phi1_bound(z)[0] > 0.99 * (16 + COMPLEX_QUOTIENT) * UNIT * np.abs(phi1(z))[0]


def test_elementary_functions_are_as_accurate_as_the_bounds_take_them() -> None:
    # Not a proof: a sample of the hypothesis of docs/bounds-discretisation.md on the machine at hand.
    rng = np.random.default_rng(0)
    x = 10.0 ** rng.uniform(-10, 4, 500) * rng.choice([-1.0, 1.0], 500)
    for name in ("exp", "expm1", "sin", "cos"):
        argument = -np.abs(np.minimum(np.abs(x), 600)) if name.startswith("exp") else x
        for dtype, limit in ((np.float64, 2 * UNIT), (np.float32, SINGLE_ELEMENTARY * 2.0**-24)):
            at = argument.astype(dtype)
            values = getattr(np, name)(at)
            with mpmath.workdps(60):
                true = [getattr(mpmath, name)(mpmath.mpf(float(v))) for v in at]
                off = [float(abs(mpmath.mpf(float(v)) - t)) for v, t in zip(values, true, strict=True)]
            allowed = limit * np.abs(np.array([float(t) for t in true])) + float(np.finfo(dtype).smallest_subnormal)
            assert np.all(np.array(off) <= allowed), (name, dtype)


def complex_normal(rng: Any, *shape: int) -> Any:
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def low_rank(seed: int, M: int, R: int, pairs: bool, size: float) -> ContinuousSystem:
    rng = np.random.default_rng(seed)
    Lambda = -(10.0 ** rng.uniform(-3, 3, (2, M))) + 1j * rng.choice([-1, 1], (2, M)) * 10.0 ** rng.uniform(
        -3, 4, (2, M)
    )
    dt = 10.0 ** rng.uniform(-6, 0, 2)
    P, B = size * complex_normal(rng, R, 2, M), complex_normal(rng, 2, M)
    return ContinuousSystem(Lambda, B, B, dt, P, conjugate_pairs=pairs)


def low_rank_bounds(c: ContinuousSystem, method: str = "bilinear", **options: Any) -> Any:
    return discretisation_bounds(c.Lambda, c.B, c.dt, method, P=c.P, conjugate_pairs=c.conjugate_pairs, **options)


def factors_by_definition(c: ContinuousSystem) -> dict[str, Any]:
    """Λ̄, P̄, Q̄, B̄ of Woodbury's formula with 40 digits, P̄ = 2h D P (I + h P* D P)⁻¹."""
    assert c.Lambda is not None
    assert c.P is not None
    R, H, M = c.P.shape
    result = {n: np.empty(s, object) for n, s in (("A", (H, M)), ("B", (H, M)), ("P", (R, H, M)), ("Q", (R, H, M)))}
    with mpmath.workdps(40):
        for k in range(H):
            lam, B = ([mpmath.mpc(complex(v)) for v in row] for row in (c.Lambda[k], c.B[k]))
            P = [[mpmath.mpc(complex(v)) for v in row] for row in c.P[:, k]]
            h = mpmath.mpf(float(c.dt[k])) / 2

            def project(p: Any, v: Any) -> Any:
                s = mpmath.fsum(x.conjugate() * y for x, y in zip(p, v, strict=True))
                return 2 * s.real if c.conjugate_pairs else s

            D = [1 / (1 - h * z) for z in lam]
            DP = [[d * v for d, v in zip(D, row, strict=True)] for row in P]
            G = mpmath.matrix([[project(P[r], DP[s]) for s in range(R)] for r in range(R)])
            W = mpmath.inverse(mpmath.eye(R) + h * G)
            DB = [2 * h * d * b for d, b in zip(D, B, strict=True)]
            for m in range(M):
                result["A"][k, m] = (1 + h * lam[m]) * D[m]
                for r in range(R):
                    result["P"][r, k, m] = 2 * h * mpmath.fsum(DP[s][m] * W[s, r] for s in range(R))
                    result["Q"][r, k, m] = P[r][m] * D[m].conjugate()
            for m in range(M):
                low = mpmath.fsum(result["P"][r, k, m] * project(P[r], DB) for r in range(R))
                result["B"][k, m] = DB[m] - low / 2
    return result


SIZES = st.tuples(st.integers(1, 5), st.integers(1, 3))


@given(st.integers(0, 2**32 - 1), SIZES, st.booleans(), st.sampled_from([0.0, 1e-3, 1.0, 10.0]))
def test_woodbury_factors_are_within_their_bounds(seed: int, sizes: tuple[int, int], pairs: bool, size: float) -> None:
    continuous = low_rank(seed, *sizes, pairs, size)
    system: Any = continuous.discretize("bilinear")
    exact = factors_by_definition(continuous)
    names = {"A": "Lambda_bar", "B": "B_bar", "P": "P_bar", "Q": "Q_bar"}
    for result, stored in ((system, None), (system.astype("float32"), SINGLE)):
        bounds = low_rank_bounds(continuous, stored=stored)
        for name, attribute in names.items():
            assert np.all(distances(getattr(result, attribute), exact[name]) <= getattr(bounds, name)), name


@pytest.mark.parametrize("method", ["euler", "bilinear"])
@given(st.integers(0, 2**32 - 1), SIZES, st.booleans())
def test_the_transition_of_a_low_rank_system_is_within_its_bound(
    method: str, seed: int, sizes: tuple[int, int], pairs: bool
) -> None:
    # On the full state, where nothing of Woodbury's formula is used; computed factors are multiplied exactly.
    continuous = low_rank(seed, *sizes, pairs, 1.0)
    s: Any = continuous.discretize(method)
    A_bar, B_bar, _ = full_system(Realization("dplr", s.Lambda_bar, s.B_bar, s.C, s.P_bar, s.Q_bar, pairs))
    c = continuous
    exact = exact_discretize(c.Lambda, c.B, c.dt, method, P=c.P, conjugate_pairs=pairs, precision=40)
    bounds = low_rank_bounds(c, method)
    off_A, off_B = distances(A_bar, exact[0]), distances(B_bar, exact[1])
    both = np.concatenate([bounds.B, bounds.B], axis=-1) if pairs else bounds.B
    assert np.all(off_A <= bounds.transition)
    assert np.all(off_B <= both)
    assert np.all(np.linalg.norm(off_A, 2, axis=(1, 2)) <= np.linalg.norm(bounds.transition, 2, axis=(1, 2)))


def stable_matrices(seed: int, N: int, kind: str) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(2, N, N)) if kind == "real" else complex_normal(rng, 2, N, N)
    A = 10.0 ** rng.uniform(-3, 4) * (A - (3 * np.sqrt(N) + 1) * np.eye(N))
    return A, rng.normal(size=(2, N)), 10.0 ** rng.uniform(-6, 0, 2)


@pytest.mark.parametrize("method", ["euler", "bilinear"])
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from(["real", "complex"]))
def test_full_matrices_are_within_their_bounds(method: str, seed: int, N: int, kind: str) -> None:
    A, B, dt = stable_matrices(seed, N, kind)
    system: Any = ContinuousSystem.dense(A, B, B, dt).discretize(method)
    exact = exact_discretize(A, B, dt, method)
    bounds = discretisation_bounds(A, B, dt, method)
    assert np.isfinite(bounds.A).all()
    assert bounds.transition is bounds.A or np.array_equal(bounds.transition, bounds.A)
    assert np.all(distances(system.A_bar, exact[0]) <= bounds.A)
    assert np.all(distances(system.B_bar, exact[1]) <= bounds.B)


@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.booleans())
def test_elimination_with_ties_falls_back_on_the_guaranteed_growth(seed: int, N: int, complex_: bool) -> None:
    # I − z/2 of entries ±1 only: every choice of the first pivot is a tie.
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (1, N, N))
    guaranteed = (3 * N + 2) * N * 2.0 ** (N - 1)
    np.testing.assert_array_equal(_solve_error(signs[0], UNIT, complex_steps=False), guaranteed)
    # A real pivot twice as large as all others leaves nothing to choose at the first step of two.
    K = np.array([[2.0, 1.0], [0.5, 1.0]])
    assert _solve_error(K, UNIT, complex_steps=False).max() <= 8 * 2.25 * (1 + 1e-9)
    A, B = 2 * (np.eye(N) - signs) * (1 + 0j * complex_), np.ones((1, N))
    bounds = discretisation_bounds(A, B, [1.0], "bilinear")
    if np.isinf(bounds.A).all():
        return  # singular
    solved = np.linalg.solve(np.eye(N) - A[0] / 2, np.eye(N) + A[0] / 2)
    exact = exact_discretize(A, B, [1.0], "bilinear")[0]
    assert np.all(distances(solved[None], exact) <= bounds.A)


def test_mimo_modes_are_channels_of_their_own() -> None:
    Lambda, B, dt = (v[:4] for v in modes("anywhere", 3))
    B = np.concatenate([B, 1j * B, B[::-1]], axis=1)
    for method in METHODS:
        shared = discretisation_bounds(Lambda[:, 0], B, dt, method)
        for h in range(3):
            alone = discretisation_bounds(Lambda, B[:, h : h + 1], dt, method)
            np.testing.assert_array_equal(shared.A, alone.A[:, 0])
            np.testing.assert_array_equal(shared.B[:, h], alone.B[:, 0])


def median_of_bound_over_error(errors: Any, bounds: Any) -> float:
    errors, bounds = np.concatenate([e.ravel() for e in errors]), np.concatenate([b.ravel() for b in bounds])
    return float(np.median(bounds[errors > 0] / errors[errors > 0]))


# Near zero both results are right to the last bit and their errors, |z| and less, say nothing about a bound.
# Per case: about 16u allowed for a diagonal system, of which rounding uses about one on average.  Woodbury of rank 1
# and 5 modes allows about 2√2·10 + 40 on top where the low-rank part dominates; a matrix of 4 rows N² times as much.
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("region", [region for region in REGIONS if region != "near zero"])
def test_diagonal_bounds_are_tight(method: str, region: str) -> None:
    Lambda, B, dt = modes(region, 5, 200)
    system = computed(Lambda, B, dt, method)
    exact = exact_discretize(Lambda, B, dt, method, precision=40)
    bounds = discretisation_bounds(Lambda, B, dt, method)
    errors = distances(system.A_bar, exact[0]), distances(system.B_bar, exact[1])
    median = median_of_bound_over_error(errors, (bounds.A, bounds.B))
    print(f"{method}, {region}: median of bound/error {median:.1f}")
    assert median <= 100


@pytest.mark.parametrize("kind", ["low rank", "full"])
def test_bounds_of_matrices_are_tight(kind: str) -> None:
    errors, sizes = [], []
    for seed in range(20):
        if kind == "low rank":
            c = low_rank(seed, 5, 1, True, 1.0)
            s: Any = c.discretize("bilinear")
            exact, bounds = factors_by_definition(c), low_rank_bounds(c)
            pairs = [(s.Lambda_bar, exact["A"], bounds.A), (s.P_bar, exact["P"], bounds.P)]
            pairs += [(s.Q_bar, exact["Q"], bounds.Q), (s.B_bar, exact["B"], bounds.B)]
        else:
            A, B, dt = stable_matrices(seed, 4, "real")
            d: Any = ContinuousSystem.dense(A, B, B, dt).discretize("bilinear")
            full, bounds = (
                exact_discretize(A, B, dt, "bilinear", precision=40),
                discretisation_bounds(A, B, dt, "bilinear"),
            )
            pairs = [(d.A_bar, full[0], bounds.A), (d.B_bar, full[1], bounds.B)]
        errors += [distances(value, true) for value, true, _ in pairs]
        sizes += [bound for *_, bound in pairs]
    median = median_of_bound_over_error(errors, sizes)
    print(f"{kind}: median of bound/error {median:.1f}")
    assert median <= 100


def naive_phi1(z: Any) -> Any:
    return (np.exp(z) - 1) / z


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        # the misprint of the paper's main text
        ("euler", lambda A, B, dt: (1 + dt * A / 2, dt * B)),
        ("euler", lambda A, B, dt: (1 + dt * A, dt * B * (1 + 2 * UNIT))),
        ("bilinear", lambda A, B, dt: ((1 + dt * A / 2) / (1 - dt * A / 2), dt * B)),
        ("bilinear", lambda A, B, dt: ((1 + dt * A / 2) / (1 - dt * A / 2).conj(), dt * B / (1 - dt * A / 2))),
        ("zoh", lambda A, B, dt: (np.exp(dt * A), dt * naive_phi1(dt * A) * B)),
        ("zoh", lambda A, B, dt: (np.exp(dt * A).astype(np.complex64), dt * phi1(dt * A) * B)),
        ("zoh", lambda A, B, dt: (np.exp(dt * A), phi1(dt * A) * B)),
    ],
)
def test_wrong_formulas_exceed_the_bounds(method: str, wrong: Any) -> None:
    Lambda, B, dt = modes("anywhere", 0, 100)
    bounds = discretisation_bounds(Lambda, B, dt, method)
    exact = exact_discretize(Lambda, B, dt, method, precision=40)
    A_bar, B_bar = wrong(Lambda, B, dt[:, None])
    assert np.any(distances(A_bar, exact[0]) > bounds.A) or np.any(distances(B_bar, exact[1]) > bounds.B)


@pytest.mark.parametrize("name", ["A", "B", "P", "Q"])
def test_wrong_woodbury_factors_exceed_the_bounds(name: str) -> None:
    c = low_rank(1, 3, 2, True, 1.0)
    exact, bounds = factors_by_definition(c), low_rank_bounds(c)
    # Without the capacitance P̄ is 2h D P, with G for its transpose W is transposed; half an epsilon too much of h.
    values = np.array([to_float(v) for v in exact[name].ravel()]).reshape(exact[name].shape)
    assert np.all(distances(values, exact[name]) <= getattr(bounds, name))
    for changed in (values * (1 + 1e-12), values.conj(), values[..., ::-1]):
        assert np.any(distances(changed, exact[name]) > getattr(bounds, name))


def test_outside_the_domain_the_bound_is_infinite() -> None:
    one = np.ones((1, 1))
    # rounding z = 1e18 moves the angle of e^z by more than a turn; I − z/2 is singular; a model of one bit
    assert np.isinf(discretisation_bounds(-one + 1e18j, one, [1.0], "zoh").A).all()
    assert np.isinf(discretisation_bounds(2 * one, one, [1.0], "bilinear").B).all()
    assert np.isinf(discretisation_bounds(2 * one[None], one, [1.0], "bilinear").A).all()
    assert np.isinf(discretisation_bounds(2 * one, one, [1.0], "bilinear", P=0 * one[None]).transition).all()
    assert np.isinf(discretisation_bounds(-one, one, [1.0], "euler", model=RoundingModel(0.25, 0.0)).A).all()


@pytest.mark.parametrize("shape", [(0, 2), (2, 0)])
def test_shapes_with_nothing_in_them(shape: tuple[int, int]) -> None:
    nothing, dt = np.zeros(shape), np.ones(shape[0])
    for method in METHODS:
        assert discretisation_bounds(nothing, nothing, dt, method).A.shape == shape
    assert discretisation_bounds(nothing, nothing, dt, "bilinear", P=np.zeros((1, *shape))).B.shape == shape
    full = np.zeros((*shape, shape[1]))
    assert discretisation_bounds(full, nothing, dt, "bilinear").A.shape == full.shape


ONE = np.ones((1, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "tustin"}, "method is 'tustin'; allowed: euler, bilinear, zoh"),
        ({"dt": [0.0]}, "every step size must be real and greater than 0"),
        ({"dt": [1j]}, "every step size must be real and greater than 0"),
        ({"dt": [1.0, 1.0]}, r"dt \(2,\); they must be"),
        ({"A": np.ones((1, 2))}, r"A has shape \(1, 2\), B \(1, 1\)"),
        ({"A": ONE * np.nan}, "A has dtype float64 and may hold NaN or inf"),
        ({"P": ONE}, r"P has shape \(1, 1\)"),
        ({"A": ONE[None], "method": "zoh"}, "zoh of a matrix"),
        ({"P": ONE[None], "method": "zoh"}, "zoh of a matrix"),
        ({"A": ONE[None], "model": RoundingModel(2.0**-64, 0.0)}, "float64 and coarser"),
    ],
)
def test_wrong_arguments_are_refused(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"A": -ONE, "B": ONE, "dt": [0.5], "method": "bilinear"}
    with pytest.raises(ValueError, match=message):
        discretisation_bounds(**{**arguments, **changes})
