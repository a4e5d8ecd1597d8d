from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest

from liquid_ssm.continuous import ContinuousSystem
from liquid_ssm.errors import DTypeError, ParameterError, ShapeError, UnstableRecurrence
from liquid_ssm.integrators import AdamsBashforth, AdamsBashforthState, BilinearExact, BilinearExactState

H, M, R = 2, 3, 2
STRUCTURES = ("diagonal", "dplr", "dplr, no pairs", "mimo", "dense", "dense, complex")
METHODS = {"adams-bashforth": AdamsBashforth, "bilinear-exact": BilinearExact}
UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}


def continuous(structure: str, dt: float = 0.1) -> ContinuousSystem:
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        # Rounded to float32, so that both precisions compute with the same parameters.
        drawn = random.normal(size=shape) + 1j * random.normal(size=shape)
        return drawn.astype(np.complex64)

    steps = np.float32(dt)
    if structure == "mimo":
        Lambda = normal(M) * 3 - 4
        return ContinuousSystem(Lambda, normal(M, H), normal(H, M), steps * np.array([1, 0.5, 2], np.float32))
    steps = steps * np.array([1, 0.5], np.float32)
    if structure.startswith("dense"):
        A, B, C = 2 * normal(H, M, M) - 8 * np.eye(M, dtype=np.float32), normal(H, M), normal(H, M)
        if "complex" not in structure:
            A, B, C = A.real, B.real, C.real
        return ContinuousSystem.dense(A, B, C, steps)
    Lambda, B, C, P = normal(H, M) * 3 - 9, normal(H, M), normal(H, M), normal(R, H, M)
    pairs = "no pairs" not in structure
    return ContinuousSystem(Lambda, B, C, steps, P if "dplr" in structure else None, conjugate_pairs=pairs)


def inputs(length: int, dtype: str = "float64", batch: int = 2) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(batch, H, length)).astype(dtype)


EVERY = pytest.mark.parametrize("structure", STRUCTURES)
BOTH = pytest.mark.parametrize("method", METHODS)
PRECISIONS = pytest.mark.parametrize("dtype", UNIT)


@EVERY
@BOTH
def test_attributes(method: str, structure: str) -> None:
    system = continuous(structure)
    integrator = system.discretize(method)
    assert type(integrator) is METHODS[method]
    assert (integrator.name, integrator.structure) == (method, "integrator")
    assert (integrator.n_channels, integrator.n_modes) == (H, M)
    assert (integrator.conjugate_pairs, integrator.weight) == (system.conjugate_pairs, system.weight)
    assert integrator.dtype == np.float64
    assert integrator.continuous is system
    single = integrator.astype("float32")
    assert single.dtype == np.float32
    assert single.continuous is system
    assert integrator.astype(np.float64) is integrator
    for name, array in single.parameters.items():
        assert array.dtype in (np.float32, np.complex64)
        np.testing.assert_array_equal(array, getattr(system, name))
    assert integrator.state_shape(5) == ((5, M) if structure == "mimo" else (5, H, M))


@EVERY
@BOTH
@PRECISIONS
def test_step_by_step_is_the_whole_sequence_bitwise(method: str, structure: str, dtype: str) -> None:
    integrator = continuous(structure).discretize(method)
    u = inputs(7, dtype)
    before = u.copy()
    y, final = integrator.scan(u)
    state = None
    for k in range(7):
        y_k, state = integrator.step(u[..., k], state)
        np.testing.assert_array_equal(y_k, y[..., k])
    for last, part in zip(state, final, strict=True):
        np.testing.assert_array_equal(last, part)
        assert part.shape == integrator.state_shape(2)
        assert part.real.dtype == dtype
    assert y.dtype == dtype
    np.testing.assert_array_equal(u, before)


@EVERY
@BOTH
@pytest.mark.parametrize("cut", [0, 1, 4, 7])
def test_carrying_the_state_is_one_call_bitwise(method: str, structure: str, cut: int) -> None:
    integrator = continuous(structure).discretize(method)
    u = inputs(7)
    y, final = integrator.scan(u)
    head, state = integrator.scan(u[..., :cut])
    kept = [None if part is None else part.copy() for part in state]
    tail, last = integrator.scan(u[..., cut:], state)
    np.testing.assert_array_equal(np.concatenate([head, tail], axis=-1), y)
    for part, other in zip(last, final, strict=True):
        np.testing.assert_array_equal(part, other)
    for part, other in zip(state, kept, strict=True):
        np.testing.assert_array_equal(part, other)


@BOTH
@pytest.mark.parametrize(("batch", "length"), [(0, 4), (2, 0), (0, 0)])
def test_nothing_to_do(method: str, batch: int, length: int) -> None:
    for structure in STRUCTURES:
        integrator = continuous(structure).discretize(method)
        y, state = integrator.scan(inputs(length, batch=batch))
        assert y.shape == (batch, H, length)
        if length == 0:
            np.testing.assert_array_equal(state.x, np.zeros(integrator.state_shape(batch)))
            assert method == "bilinear-exact" or state.f is None


@BOTH
def test_an_array_is_the_state_x(method: str) -> None:
    integrator = continuous("diagonal").discretize(method)
    x = np.random.default_rng(2).normal(size=(2, H, M)) + 0j
    u = inputs(5)
    for plain, wrapped in zip(integrator.scan(u, x), integrator.scan(u, integrator.state_type(x)), strict=True):
        for a, b in zip(plain, wrapped, strict=True):
            np.testing.assert_array_equal(a, b)
    real = integrator.scan(u, np.ones((2, H, M)))[0]
    np.testing.assert_array_equal(real, integrator.scan(u, np.ones((2, H, M), complex))[0])


def exact(value: complex) -> Any:
    return mpmath.mpc(complex(value))


def exact_trajectory(method: str, A: np.ndarray, P: Any, B: np.ndarray, dt: np.ndarray, u: np.ndarray) -> list[Any]:
    """States after every step of one sequence through one system, on the full state, 40 digits.

    A is a matrix or its diagonal; P (R, N) its low-rank part; B (N,) or (N, H); dt (N,); u (L, inputs).
    """
    N = len(B)
    full = mpmath.matrix([[exact(v) for v in row] for row in (A if A.ndim == 2 else np.diag(A))])
    for row in () if P is None else P:
        full = full - mpmath.matrix([[exact(a) * mpmath.conj(exact(b)) for b in row] for a in row])
    step = [exact(v) for v in dt]
    x, last, states = mpmath.zeros(N, 1), None, []
    for u_k in u:
        drive = [sum((exact(b) * exact(v) for b, v in zip(np.atleast_1d(B[n]), u_k, strict=True)), 0) for n in range(N)]
        matrix = full + mpmath.diag(drive)
        drive = mpmath.matrix(drive)
        if method == "adams-bashforth":
            f = matrix * x + drive
            slope = f if last is None else (3 * f - last) / 2
            x, last = x + mpmath.matrix([step[n] * slope[n] for n in range(N)]), f
        else:
            half = mpmath.diag([h / 2 for h in step])
            right = x + half * (matrix * x) + 2 * half * drive
            x = mpmath.lu_solve(mpmath.eye(N) - half * matrix, right)
        states.append(x)
    return states


def rounding(method: str, system: ContinuousSystem, A: Any, P: Any, B: Any, dt: Any, u: Any, unit: float) -> np.ndarray:
    """Bound on the 2-norm of the error of the state after every step, (L,); the documented one-step bounds
    put through the recurrence: an error in x_{k-1} passes through the step's matrix."""
    N = len(B)
    terms = R + 2 if P is not None else N if A.ndim == 2 else 1
    count = 6 if terms == 1 and B.ndim == 1 else 9 + R + int(np.ceil(np.log2(N))) + int(B.ndim == 2)
    full = (A if A.ndim == 2 else np.diag(A)).astype(complex)
    size = np.abs(full)
    for row in () if P is None else P:
        full = full - np.outer(row, row.conj())
        size = size + np.outer(np.abs(row), np.abs(row))
    x, last, error, f_error, errors = np.zeros(N, complex), None, 0.0, 0.0, []
    unity, norm = np.eye(N), np.linalg.norm
    for u_k in u:
        drive, drive_size = np.atleast_2d(B.T).T @ u_k, np.atleast_2d(np.abs(B).T).T @ np.abs(u_k)
        matrix = full + np.diag(drive)
        h = dt[:, None]
        if method == "adams-bashforth":
            f = matrix @ x + drive
            F = norm(size @ np.abs(x) + drive_size * np.abs(x) + drive_size)
            slope, before = (f, 0.0) if last is None else (1.5 * f - 0.5 * last, norm(last))
            weight = 1.0 if last is None else 1.5
            advance = norm(unity + weight * h * matrix, 2)
            x, local = x + dt * slope, dt.max() * unit * ((1.5 * count + 5) * F + before)
            # The previous f has the error that M had on x then, and its own rounding.
            error = advance * error + dt.max() / 2 * f_error + local + unit * norm(x)
            f_error, last = norm(matrix, 2) * error + unit * count * F, f
        else:
            left = unity - h / 2 * matrix
            old = x
            x = np.linalg.solve(left, x + h / 2 * (matrix @ x) + dt * drive)
            inverse = norm(np.linalg.inv(left), 2)
            if terms == 1:
                m, mu = h[:, 0] / 2 * (np.diag(matrix)), h[:, 0] / 2 * (2 * np.abs(A) + 3 * drive_size)
                extra = 1 if B.ndim == 1 else 2
                top = mu * (np.abs(old) + np.abs(x)) + 5 * np.abs(1 + m) * np.abs(old) + 3 * np.abs(dt * drive_size)
                local = extra * unit * norm(top / np.abs(1 - m) + 11 * np.abs(x))
            else:
                sizes = 1 + dt.max() / 2 * (norm(size, 2) + norm(drive_size))
                right = sizes * norm(old) + norm(dt * drive_size)
                # LU with partial pivoting on N < 8: growth far below 2^(N-1); 10 N stands for it.
                local = 10 * N * unit * inverse * (sizes * norm(x) + right)
            error = norm(np.linalg.solve(left, unity + h / 2 * matrix), 2) * error + local
        errors.append(error)
    return np.array(errors)


@EVERY
@BOTH
@PRECISIONS
def test_against_high_precision(method: str, structure: str, dtype: str) -> None:
    system = continuous(structure)
    unit, length = UNIT[dtype], 12
    u = inputs(length, dtype)
    y, _ = system.discretize(method).scan(u)
    states = [system.discretize(method).scan(u[..., : k + 1])[1].x for k in range(length)]

    def both(v: np.ndarray) -> np.ndarray:
        return system.both_halves(np.asarray(v))

    for b in range(2):
        for h in range(1 if structure == "mimo" else H):
            if structure == "mimo":
                A, P, B, dt = both(system.Lambda), None, both(system.B.T).T, np.tile(system.dt, 2)
                signal = u[b].T.astype(float)
            else:
                A = system.A[h] if system.A is not None else both(system.Lambda[h])
                P = None if system.P is None else both(system.P[:, h])
                B, dt, signal = both(system.B[h]), np.full(len(both(system.B[h])), system.dt[h]), u[b, h, :, None]
            with mpmath.workdps(40):
                true = exact_trajectory(method, A, P, B, dt, signal)
            bound = rounding(method, system, A, P, B, dt, signal.astype(float), unit)
            for k in range(length):
                computed = both(states[k][b] if structure == "mimo" else states[k][b, h])
                difference = [abs(exact(v) - true[k][n]) for n, v in enumerate(computed)]
                assert mpmath.norm(difference) <= bound[k] * (1 + 1e-3), k
                for channel in range(H) if structure == "mimo" else (h,):
                    C = both(system.C[channel])
                    exact_y = sum(exact(c) * true[k][n] for n, c in enumerate(C)).real
                    # log2 of the terms, two roundings per product and one for the factor 2, and the state's error.
                    own = (3 + np.ceil(np.log2(M))) * unit * 2 * sum(np.abs(C) * np.abs(computed))
                    assert abs(float(y[b, channel, k]) - exact_y) <= own + np.linalg.norm(C) * bound[k], k


def test_first_adams_bashforth_step_is_euler() -> None:
    system = continuous("diagonal")
    integrator = system.discretize("adams-bashforth")
    u = inputs(1)[..., 0]
    x = np.random.default_rng(3).normal(size=(2, H, M)) + 0j
    _, state = integrator.step(u, x)
    drive = system.B * u[..., None]
    f = (system.Lambda + drive) * x + drive
    np.testing.assert_allclose(state.f, f, rtol=1e-14)
    np.testing.assert_allclose(state.x, x + system.dt[:, None] * f, rtol=1e-14)
    # With the same f before, Adams-Bashforth and Euler agree.
    _, again = integrator.step(u, AdamsBashforthState(x, state.f))
    np.testing.assert_allclose(again.x, state.x, rtol=1e-14)


def smooth(t: Any) -> Any:
    return np.sin(3 * t) + 0.5 * np.cos(t)


def slope(method: str, place: float, *, held: bool = False) -> float:
    """Order of convergence of the state at t = 2, fitted over four halvings of the step.

    place: where in its step the input is sampled; held: the input is constant over intervals of 1/8.
    """
    from scipy.integrate import solve_ivp

    Lambda, B = np.array([-1 + 2j, -0.3 - 1j, -2 + 0j]), np.array([1 - 0.5j, 0.3j, -0.7])
    end = 2.0
    signal = (lambda t: smooth(np.floor(8 * t) / 8)) if held else smooth

    def derivative(t: float, x: np.ndarray, piece: float | None = None) -> np.ndarray:
        drive = B * (signal(t) if piece is None else piece)
        return (Lambda + drive) * x + drive

    reference = np.zeros(3, complex)
    for start in np.arange(0, end, 1 / 8):
        piece = float(smooth(start)) if held else None
        span = (start, start + 1 / 8)
        # Tolerances far below the errors of the finest step, about 1e-6.
        found = solve_ivp(derivative, span, reference, "DOP853", args=(piece,), rtol=1e-12, atol=1e-13)
        reference = found.y[:, -1]
    counts = np.array([128, 256, 512, 1024])
    errors = []
    for count in counts:
        dt = end / count
        u = signal((np.arange(count) + place) * dt)
        system = ContinuousSystem(Lambda[None], B[None], np.ones((1, 3)), dt)
        discrete = system.discretize(method)
        if discrete.structure == "integrator":
            x = discrete.scan(u[None, None])[1].x[0, 0]
        else:
            x = np.zeros(3, complex)
            for u_k in u:
                x = (discrete.A_bar[0] + discrete.B_bar[0] * u_k) * x + discrete.B_bar[0] * u_k
        errors.append(np.linalg.norm(x - reference))
    return float(-np.polyfit(np.log(counts), np.log(errors), 1)[0])


@pytest.mark.parametrize(
    ("method", "place", "held", "order"),
    [
        ("adams-bashforth", 0.0, False, 2),
        ("bilinear-exact", 0.5, False, 2),
        ("bilinear-exact", 0.0, True, 2),
        # Sampled at the start of the step, the input itself is only of first order.
        ("bilinear-exact", 0.0, False, 1),
        # Eq. 11 with any Ā and B̄: M_k enters to first order only.
        ("euler", 0.0, False, 1),
        ("bilinear", 0.5, False, 1),
        ("zoh", 0.5, False, 1),
    ],
)
def test_order_of_convergence(method: str, place: float, held: bool, order: int) -> None:
    # The next term of the error changes the slope by O(dt), dt ≤ 1/64 with factors of order |λ| ≤ 3.
    assert slope(method, place, held=held) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "mimo"])
@pytest.mark.parametrize("dt", [0.1, 3.0])
def test_bilinear_exact_contracts_below_its_input_bound(structure: str, dt: float) -> None:
    integrator = continuous(structure, dt).discretize("bilinear-exact")
    bounds = np.array([integrator.input_bound(channel) for channel in range(H)])
    u = 0.999 * bounds[:, None] * np.random.default_rng(4).choice([-1.0, 1.0], size=(1, H, 30))
    x = np.random.default_rng(5).normal(size=integrator.state_shape(1)) + 0j
    other = np.zeros_like(x)
    for k in range(30):
        before = np.linalg.norm(x - other, axis=-1)
        # In a mimo system every mode has its own step, and the modes contract one by one.
        x, other = (integrator.step(u[..., k], state)[1].x for state in (x, other))
        assert np.all(np.linalg.norm(x - other, axis=-1) < before)


def test_input_bound_is_where_a_mode_stops_decaying() -> None:
    diagonal = ContinuousSystem([[-2 + 5j, -1.0], [-3.0, -4.0]], [[1j, 4.0], [0.0, 0.0]], np.ones((2, 2)), 0.1)
    integrator = BilinearExact(diagonal)
    assert integrator.input_bound(0) == 0.25
    assert integrator.input_bound(1) == np.inf
    mimo = ContinuousSystem([-2 + 5j, -1.0], [[1j, 4.0], [0.0, 0.5]], np.ones((2, 2)), 0.1)
    assert BilinearExact(mimo).input_bound(1) == 0.4
    assert BilinearExact(continuous("dense")).input_bound(0) is None
    assert AdamsBashforth(diagonal).input_bound(0) is None


def pole_system(structure: str) -> tuple[ContinuousSystem, float]:
    """A system with λ = -1, B = 1, δt = 1/8 in channel 1 and the input 17 at which 1 = δt/2 (λ + B u)."""
    B = np.array([[0.5], [1.0]])
    dt = 0.125
    if structure == "mimo":
        return ContinuousSystem([-1.0], B.T, np.ones((2, 1)), dt), 17.0
    if structure == "dense":
        return ContinuousSystem.dense(-np.ones((2, 1, 1)), B, np.ones((2, 1)), dt), 17.0
    if structure == "dplr":
        # 2 x 2 in pairs: (I - δt/2 (λ - P P* + B u)) has 1 + (1 + 2 - u)/16 = 0 on (1, 1) for P = 1, λ = -1.
        return ContinuousSystem(-np.ones((2, 1)), B, np.ones((2, 1)), dt, np.ones((1, 2, 1))), 19.0
    return ContinuousSystem(-np.ones((2, 1)), B, np.ones((2, 1)), dt), 17.0


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "mimo", "dense"])
@PRECISIONS
def test_a_pole_is_named(structure: str, dtype: str) -> None:
    system, pole = pole_system(structure)
    u = np.ones((3, 2, 5), dtype)
    u[2, :, 3] = 0.0, pole
    with pytest.raises(UnstableRecurrence, match=r"bilinear-exact has a pole.*at step 3, channel") as caught:
        BilinearExact(system).scan(u)
    assert caught.value.step == 3
    assert caught.value.channel == (0 if structure == "mimo" else 1)
    assert caught.value.input_bound == (None if structure == "dense" else 2.0 / 3 if structure == "mimo" else 1.0)
    # Away from the pole the same input passes.
    u[2, :, 3] = 0.0, pole + 1
    assert np.isfinite(BilinearExact(system).scan(u)[0]).all()


@pytest.mark.parametrize("structure", ["diagonal", "dense"])
@PRECISIONS
def test_a_pole_up_to_rounding_is_named(structure: str, dtype: str) -> None:
    B = np.array([[1.0, 1.0]])
    if structure == "diagonal":
        # 1 - δt/2 (λ + B u) is three units roundoff, out of terms of size 1 to 2.
        system = ContinuousSystem([[-8.0, -8.0]], B, B, 0.125)
        u = np.full((1, 1, 1), 24 * (1 - 2 * UNIT[dtype]), dtype)
        assert 1 - (-8 + u.item()) / 16 != 0
    else:
        # (1, 1) is mapped to zero but for the rounding of u and of the sums.
        third = float(np.array(1 / 3, dtype))
        system = ContinuousSystem.dense([[[-8.0, third], [third, -8.0]]], B, B, 0.125)
        u = np.full((1, 1, 1), 24 - third, dtype)
        left = np.eye(2) - (system.A[0] + np.eye(2) * u.item()) / 16
        assert np.linalg.det(left) != 0 or dtype == "float64"
    with pytest.raises(UnstableRecurrence, match="has a pole"):
        BilinearExact(system).scan(u)


@PRECISIONS
def test_overflow_is_named(dtype: str) -> None:
    # δt (λ + B u) = z = -39 999: every Adams-Bashforth step multiplies the state of channel 1 by about 1.5 z.
    system = ContinuousSystem([[-1.0], [-4e4]], np.ones((2, 1)), np.ones((2, 1)), 1.0)
    u = np.ones((1, 2, 200), dtype)
    last = np.log(float(np.finfo(dtype).max)) / np.log(6e4)
    with pytest.raises(UnstableRecurrence, match=r"adams-bashforth left the range of float.*no input bound") as caught:
        AdamsBashforth(system).scan(u)
    assert caught.value.channel == 1
    assert caught.value.input_bound is None
    assert abs(caught.value.step - last) < 3
    # The step before is fine, and one step on from there is not.
    y, state = AdamsBashforth(system).scan(u[..., : caught.value.step])
    assert np.isfinite(y).all()
    with pytest.raises(UnstableRecurrence, match="at step 0, channel 1"):
        AdamsBashforth(system).step(u[..., 0], state)


@BOTH
def test_bad_input(method: str) -> None:
    integrator = continuous("diagonal").discretize(method)
    u = inputs(4)
    with pytest.raises(ShapeError, match="u has 3 channels"):
        integrator.scan(np.ones((1, 3, 4)))
    with pytest.raises(ShapeError, match=r"u has shape \(2, 2\)"):
        integrator.scan(u[..., 0])
    with pytest.raises(ShapeError, match="step takes"):
        integrator.step(u)
    with pytest.raises(DTypeError, match="u has dtype int64"):
        integrator.scan(np.ones((1, H, 4), np.int64))
    u[1, 0, 2] = np.nan
    with pytest.raises(ParameterError, match="batch 1, channel 0, step 2"):
        integrator.scan(u)


@BOTH
def test_bad_states(method: str) -> None:
    integrator = continuous("diagonal").discretize(method)
    other = BilinearExactState if method == "adams-bashforth" else AdamsBashforthState
    u, x = inputs(4), np.zeros((2, H, M), complex)
    with pytest.raises(ParameterError, match=f"not as {other.__name__}"):
        integrator.scan(u, other(x))
    with pytest.raises(ShapeError, match=r"state has shape \(2, 3\); .* has \(2, 2, 3\)"):
        integrator.scan(u, np.zeros((2, 3)))
    with pytest.raises(ShapeError, match="x has shape"):
        integrator.scan(u, integrator.state_type(x[:1]))
    with pytest.raises(DTypeError, match="state has dtype object"):
        integrator.scan(u, x.astype(object))
    with pytest.raises(ParameterError, match="state holds NaN or infinite"):
        integrator.scan(u, x + np.nan)
    with pytest.raises(DTypeError, match=r"state has dtype complex128; .* is float64"):
        continuous("dense").discretize(method).scan(u, x)


def test_bad_f() -> None:
    integrator = continuous("diagonal").discretize("adams-bashforth")
    with pytest.raises(ShapeError, match="f has shape"):
        integrator.scan(inputs(4), AdamsBashforthState(np.zeros((2, H, M)), np.zeros((2, H, M + 1))))


@BOTH
def test_bad_precision(method: str) -> None:
    integrator = continuous("diagonal").discretize(method)
    with pytest.raises(DTypeError, match="cannot compute in float16"):
        integrator.astype(np.float16)
    wide = ContinuousSystem([[-1.0]], [[1.0]], [[1e300]], 0.1).discretize(method)
    with pytest.raises(ParameterError, match="range of float32"):
        wide.scan(np.ones((1, 1, 1), np.float32))
