from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from mpmath import mp

from liquid_ssm.continuous import ContinuousSystem
from liquid_ssm.discretize import DISCRETIZATIONS, discretize, phi1
from liquid_ssm.errors import ParameterError
from liquid_ssm.hippo import diagonalise, hippo
from liquid_ssm.oracle.discretisation_rounding import discretisation_bounds
from liquid_ssm.systems import DPLRSystem

UNIT = 2.0**-53


@pytest.fixture(autouse=True)
def precise() -> Any:
    with mpmath.workdps(50):
        yield


def exact(value: complex) -> Any:
    return mpmath.mpc(complex(value))


def matrix(array: np.ndarray) -> Any:
    return mpmath.matrix([[exact(v) for v in row] for row in np.atleast_2d(array)])


def phi1_exact(z: Any) -> Any:
    """The power series for small z, where it is independent of e^z - 1."""
    if abs(z) > 5:
        return (mpmath.exp(z) - 1) / z
    term = total = mpmath.mpf(1)
    for k in range(2, 80):
        term = term * z / k
        total += term
    return total


ONE_STEP: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "euler": (lambda z: 1 + z, lambda z: mpmath.mpf(1)),
    "bilinear": (lambda z: (2 + z) / (2 - z), lambda z: 2 / (2 - z)),
    "zoh": (mpmath.exp, phi1_exact),
}


def modes(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """λ, B and δt over many scales; the first ones are where formulas cancel or lose range."""
    random = np.random.default_rng(1)
    real = -(10.0 ** random.uniform(-8, 2, count))
    imag = 10.0 ** random.uniform(-8, 4, count) * random.choice([-1, 1], count)
    dt = 10.0 ** random.uniform(-6, 0, count)
    Lambda = real + 1j * imag
    # z = -2 (zero of bilinear), -1 (zero of Euler), 2πi (zero of φ₁ nearby), tiny, real, large, no rotation.
    special = [-20, -10, -1e-9 + 62.83185307179586j, -1e-300 + 1e-300j, -3.0, -1e5 + 1e5j, -1e-3 + 31.4159265j]
    Lambda[: len(special)] = special
    dt[: len(special)] = 0.1
    B = (random.normal(size=count) + 1j * random.normal(size=count)) * 10.0 ** random.uniform(-3, 3, count)
    return Lambda, B, dt


@pytest.mark.parametrize("method", ONE_STEP)
def test_diagonal_is_within_its_bounds(method: str) -> None:
    Lambda, B, dt = modes(300)
    system = discretize(ContinuousSystem(Lambda[:, None], B[:, None], np.ones((300, 1)), dt), method)
    bounds = discretisation_bounds(Lambda[:, None], B[:, None], dt, method)
    for k in range(300):
        z, drive = exact(Lambda[k]) * exact(dt[k]), exact(B[k]) * exact(dt[k])
        A, factor = (formula(z) for formula in ONE_STEP[method])
        assert abs(exact(system.A_bar[k, 0]) - A) <= bounds.A[k, 0], (Lambda[k], dt[k])
        assert abs(exact(system.B_bar[k, 0]) - factor * drive) <= bounds.B[k, 0], (Lambda[k], dt[k])


@pytest.mark.parametrize("method", ONE_STEP)
def test_mimo_uses_the_step_of_each_mode(method: str) -> None:
    Lambda, B, dt = (array[20:24] for array in modes(24))
    B = np.stack([B, B[::-1], 1j * B], axis=1)
    C = np.ones((3, 4))
    shared = discretize(ContinuousSystem(Lambda, B, C, dt), method)
    for h in range(3):
        # Every mode as a channel of its own.
        alone = discretize(ContinuousSystem(Lambda[:, None], B[:, h : h + 1], np.ones((4, 1)), dt), method)
        np.testing.assert_array_equal(shared.A_bar, alone.A_bar[:, 0])
        np.testing.assert_array_equal(shared.B_bar[:, h], alone.B_bar[:, 0])


@pytest.mark.parametrize("method", ONE_STEP)
def test_real_systems_stay_real(method: str) -> None:
    diagonal = ContinuousSystem(-np.ones((1, 2)), np.ones((1, 2)), np.ones((1, 2)), 0.1, conjugate_pairs=False)
    dense = ContinuousSystem.dense(-np.eye(2)[None], np.ones((1, 2)), np.ones((1, 2)), 0.1)
    for continuous in (diagonal, dense):
        system = discretize(continuous, method)
        assert system.A_bar.dtype == system.B_bar.dtype == np.float64
        assert not system.conjugate_pairs


def test_phi1_is_within_its_bound() -> None:
    random = np.random.default_rng(2)
    z = -(10.0 ** random.uniform(-12, 3, 400)) + 1j * 10.0 ** random.uniform(-12, 3, 400)
    z = np.concatenate([z, z.conj(), 1j * z.imag, z.real + 0j, -1e-3 + 2j * np.pi * np.arange(1, 20)])
    computed = phi1(z)
    for value, result in zip(z, computed, strict=True):
        true = (mpmath.exp(exact(value)) - 1) / exact(value)
        assert abs(exact(result) - true) <= 22.5 * UNIT * abs(true), value


def test_phi1_at_and_near_zero() -> None:
    np.testing.assert_array_equal(phi1(np.array([0.0, 0j, -0.0])), 1)
    np.testing.assert_array_equal(phi1(np.array([0.0, -1e-20])), 1)
    assert phi1(np.array([0.0])).dtype == np.float64
    # 1/z overflows where z is subnormal; φ₁ is 1 to 2^-1023 there.
    subnormal = np.array([-5e-324, -1e-310 + 1e-310j, -1e-309j, -1e-308 + 0j])
    np.testing.assert_array_equal(phi1(subnormal), 1)
    np.testing.assert_array_equal(phi1(subnormal.real), 1)
    # 1 + z/2 + z²/6 with z = 1e-8: (e^z - 1)/z computed as written is off by 6e-9 there.
    assert abs(phi1(np.array([1e-8j]))[0] - (1 + 0.5e-8j)) < 1e-16


def dplr_parameters(M: int, R: int, pairs: bool, dt: float) -> ContinuousSystem:
    random = np.random.default_rng(M + 10 * R)

    def complex_normal(*shape: int) -> np.ndarray:
        return random.normal(size=shape) + 1j * random.normal(size=shape)

    Lambda = -random.uniform(0.1, 3, (1, M)) + 20j * random.normal(size=(1, M))
    P, B, C = 3 * complex_normal(R, 1, M), complex_normal(1, M), complex_normal(1, M)
    return ContinuousSystem(Lambda, B, C, np.array([dt]), P, conjugate_pairs=pairs)


def full_transition(system: DPLRSystem) -> Any:
    """Ā on the full state of a single-channel system, from its factors."""

    def both(v: np.ndarray) -> np.ndarray:
        return np.concatenate([v, v.conj()], axis=-1) if system.conjugate_pairs else v

    P, Q = matrix(both(system.P_bar[:, 0])), matrix(both(system.Q_bar[:, 0]))
    return mpmath.diag([exact(v) for v in both(system.Lambda_bar[0])]) - P.T * Q.conjugate()


def exact_full(continuous: ContinuousSystem) -> tuple[Any, Any]:
    """A and B of a single-channel system on the full state, without rounding."""
    both = continuous.both_halves
    A = mpmath.diag([exact(v) for v in both(continuous.Lambda[0])])
    if continuous.P is not None:
        P = matrix(both(continuous.P[:, 0]))
        A = A - P.T * P.conjugate()
    return A, matrix(both(continuous.B)).T


@pytest.mark.parametrize("dt", [1e-3, 0.3, 10.0])
@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize(("M", "R"), [(1, 1), (4, 1), (3, 2), (2, 3)])
def test_dplr_bilinear_is_within_its_bounds(M: int, R: int, pairs: bool, dt: float) -> None:
    continuous = dplr_parameters(M, R, pairs, dt)
    system = discretize(continuous, "bilinear")
    assert isinstance(system, DPLRSystem)
    assert system.rank == R
    A, B = exact_full(continuous)
    N, h = A.rows, exact(dt) / 2
    inverse = mpmath.inverse(mpmath.eye(N) - h * A)
    A_bar, B_bar = 2 * inverse - mpmath.eye(N), 2 * h * inverse * B

    c = continuous
    bounds = discretisation_bounds(c.Lambda, c.B, c.dt, "bilinear", P=c.P, conjugate_pairs=pairs)
    bound_B = np.abs(continuous.both_halves(bounds.B))[0]
    computed = full_transition(system)
    computed_B = continuous.both_halves(system.B_bar)[0]
    for i in range(N):
        for j in range(N):
            assert abs(computed[i, j] - A_bar[i, j]) <= bounds.transition[0, i, j], (i, j)
        assert abs(exact(computed_B[i]) - B_bar[i]) <= bound_B[i], i


@pytest.mark.parametrize("pairs", [True, False])
def test_dplr_euler(pairs: bool) -> None:
    continuous = dplr_parameters(3, 2, pairs, 0.3)
    system = discretize(continuous, "euler")
    A, B = exact_full(continuous)
    expected = mpmath.eye(A.rows) + exact(0.3) * A
    computed = full_transition(system)
    c = continuous
    bounds = discretisation_bounds(c.Lambda, c.B, c.dt, "euler", P=c.P, conjugate_pairs=pairs)
    for i in range(A.rows):
        for j in range(A.rows):
            assert abs(computed[i, j] - expected[i, j]) <= bounds.transition[0, i, j]
    for m in range(3):
        assert abs(exact(system.B_bar[0, m]) - exact(0.3) * B[m]) <= bounds.B[0, m]


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_dplr_zoh_is_dense_on_the_full_state(pairs: bool, scale: float) -> None:
    continuous = dplr_parameters(3, 2, pairs, 0.1)
    continuous = ContinuousSystem(
        continuous.Lambda, scale * continuous.B, continuous.C, continuous.dt, continuous.P, conjugate_pairs=pairs
    )
    system = discretize(continuous, "zoh")
    A, B = exact_full(continuous)
    N = A.rows
    assert system.structure == "dense"
    assert (system.n_modes, system.conjugate_pairs) == (N, False)
    step = exact(0.1)
    A_bar = mp.expm(step * A, method="taylor")
    B_bar = mpmath.lu_solve(A, (A_bar - mpmath.eye(N)) * B)
    # A + A* < 0, so ‖e^(tA)‖ ≤ 1 for t ≥ 0 and the condition number of the exponential is at most ‖z‖.
    size = float(mpmath.mnorm(step * A, 2 if N == 1 else "f"))
    bound = N * UNIT * 10 * (1 + size)
    errors = [abs(exact(system.A_bar[0, i, j]) - A_bar[i, j]) for i in range(N) for j in range(N)]
    assert max(errors) <= bound
    drive = float(mpmath.mnorm(step * B, "f"))
    assert max(abs(exact(system.B_bar[0, i]) - B_bar[i]) for i in range(N)) <= bound * drive
    np.testing.assert_array_equal(system.C[0], continuous.both_halves(continuous.C)[0])


@pytest.mark.parametrize("method", ["euler", "bilinear", "zoh"])
@pytest.mark.parametrize("measure", ["legs", "random complex"])
def test_dense_against_high_precision(method: str, measure: str) -> None:
    N, dt = 6, 0.3
    random = np.random.default_rng(4)
    if measure == "legs":
        A, B = hippo("legs", N)
    else:
        A = random.normal(size=(N, N)) + 1j * random.normal(size=(N, N)) - 8 * np.eye(N)
        B = random.normal(size=N) + 1j * random.normal(size=N)
    system = discretize(ContinuousSystem.dense(A[None], B[None], B[None], dt), method)
    z, drive, unit = exact(dt) * matrix(A), exact(dt) * matrix(B).T, mpmath.eye(N)
    if method == "euler":
        A_bar, B_bar = unit + z, drive
    elif method == "bilinear":
        inverse = mpmath.inverse(unit - z / 2)
        A_bar, B_bar = inverse * (unit + z / 2), inverse * drive
    else:
        A_bar = mp.expm(z, method="taylor")
        B_bar = mpmath.lu_solve(z, (A_bar - unit) * drive)
    if method == "zoh":
        # No bound is derived. Both matrices are dissipative, A + A* < 0: ‖e^(tz)‖ ≤ 1, so the condition number is at
        # most 1 + ‖z‖; N u times 10 stands for the backward error of the Padé approximant.
        assert np.linalg.eigvalsh(A + A.conj().T).max() < 0
        allowed_A = np.full((N, N), 10 * N * UNIT * (1 + 0.3 * np.linalg.norm(A)))
        allowed_B = allowed_A[0] * 0.3 * np.linalg.norm(B)
    else:
        bounds = discretisation_bounds(A[None], B[None], [dt], method)
        allowed_A, allowed_B = bounds.A[0], bounds.B[0]
    for i in range(N):
        for j in range(N):
            assert abs(exact(system.A_bar[0, i, j]) - A_bar[i, j]) <= allowed_A[i, j]
        assert abs(exact(system.B_bar[0, i]) - B_bar[i]) <= allowed_B[i]


@pytest.mark.parametrize("method", ["euler", "bilinear", "zoh"])
def test_low_rank_and_dense_hippo_have_the_same_kernel(method: str) -> None:
    N, dt, length = 8, 0.05, 40
    A, B = hippo("legs", N)
    form = diagonalise("legs", N)
    C = np.random.default_rng(6).normal(size=N)
    dense = discretize(ContinuousSystem.dense(A[None], B[None], C[None], dt), method)
    continuous = ContinuousSystem(form.Lambda[None], form.B[None], (C @ form.V)[None], dt, form.P[None, None])
    low_rank = discretize(continuous, method)
    x, v = dense.B_bar[0], low_rank.B_bar[0]
    for _ in range(length):
        # C V and V* B stand for the real ones, and the pair of conjugates for their real part.
        assert abs(dense.C[0] @ x - low_rank.weight * (low_rank.C[0] @ v).real) < 1e-11
        x = dense.A_bar[0] @ x
        if low_rank.structure == "dense":
            v = low_rank.A_bar[0] @ v
        else:
            inner = 2 * (low_rank.Q_bar[:, 0].conj() @ v).real
            v = low_rank.Lambda_bar[0] * v - inner @ low_rank.P_bar[:, 0]


@pytest.mark.parametrize(("N", "ratio"), [(4, 40), (7, 349), (16, 9.0e3), (64, 1.4e6)])
def test_appendix_d_bound_does_not_hold(N: int, ratio: float) -> None:
    dt = 1e-3
    A, B = hippo("legs", N)
    continuous = ContinuousSystem.dense(A[None], B[None], B[None], dt)
    euler, bilinear = (discretize(continuous, method).A_bar[0] for method in ("euler", "bilinear"))
    difference = np.linalg.norm(euler - bilinear, 2)
    # Two figures of the specification; Appendix D claims a ratio below 1.
    assert difference / dt**2 == pytest.approx(ratio, rel=0.05)
    # The identity behind it, to rounding: N u times the sizes involved.
    remainder = dt**2 / 2 * A @ A @ np.linalg.inv(np.eye(N) - dt / 2 * A)
    np.testing.assert_allclose(
        bilinear - euler, remainder, rtol=0, atol=10 * N * UNIT * np.linalg.norm(dt * A) ** 2 + 1e-14
    )


def test_difference_of_normal_matrices() -> None:
    Lambda, B, dt = modes(300)
    dt = np.minimum(dt, 1 / np.abs(Lambda))
    continuous = ContinuousSystem(Lambda[:, None], B[:, None], np.ones((300, 1)), dt)
    euler, bilinear = (discretize(continuous, method).A_bar[:, 0] for method in ("euler", "bilinear"))
    arguments = (Lambda[:, None], B[:, None], dt)
    rounding = sum(discretisation_bounds(*arguments, method).A[:, 0] for method in ("euler", "bilinear"))
    assert np.all(np.abs(euler - bilinear) <= np.abs(dt * Lambda) ** 2 / 2 * (1 + 4 * UNIT) + rounding)


@pytest.mark.parametrize(("N", "euler", "bilinear"), [(16, 0.9, 0.905), (64, 5.4, 0.905)])
def test_spectral_radius_of_legs(N: int, euler: float, bilinear: float) -> None:
    A, B = hippo("legs", N)
    continuous = ContinuousSystem.dense(A[None], B[None], B[None], 0.1)
    for method, radius in (("euler", euler), ("bilinear", bilinear)):
        A_bar = discretize(continuous, method).A_bar[0]
        # LegS is triangular, so its eigenvalues are the diagonal; the figures have two to three digits.
        atol = 10 * N * UNIT * (1 + 0.1 * np.linalg.norm(A))
        np.testing.assert_allclose(np.triu(A_bar, 1), 0, atol=atol)
        assert np.abs(np.diagonal(A_bar)).max() == pytest.approx(radius, rel=2e-3)


def test_euler_is_stable_up_to_its_limit() -> None:
    Lambda = np.array([[-0.5 + 3j], [-2.0], [-1 - 1j]])
    limit = -2 * Lambda.real / np.abs(Lambda) ** 2
    for factor, stable in ((1 - 1e-9, True), (1 + 1e-9, False)):
        continuous = ContinuousSystem(Lambda, np.ones((3, 1)), np.ones((3, 1)), factor * limit[:, 0])
        assert np.all((np.abs(discretize(continuous, "euler").A_bar) < 1) == stable)
        assert np.all(np.abs(discretize(continuous, "bilinear").A_bar) < 1)


def test_methods_are_those_of_the_list() -> None:
    continuous = ContinuousSystem(-np.ones((1, 1)), np.ones((1, 1)), np.ones((1, 1)), 0.1)
    for method in DISCRETIZATIONS:
        discretize(continuous, method)
    with pytest.raises(ParameterError, match=r"unknown discretization 'zho'.*Did you mean 'zoh'"):
        discretize(continuous, "zho")


@pytest.mark.parametrize("method", ["euler", "bilinear", "zoh"])
def test_overflow_is_reported(method: str) -> None:
    huge = -1e300 * np.eye(2)[None]
    ones = np.ones((1, 2))
    with pytest.raises(ParameterError, match="leaves the range of float64"):
        discretize(ContinuousSystem.dense(huge, ones, ones, 1e10), method)
    with pytest.raises(ParameterError, match=r"A_bar is not finite|B_bar is not finite"):
        discretize(ContinuousSystem(-1e300 * ones, 1e300 * ones, ones, 1e10), method)
