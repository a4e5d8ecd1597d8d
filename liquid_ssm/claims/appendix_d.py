"""Appendix D: how the liquid system is discretised."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp  # type: ignore[import-untyped, unused-ignore]

from ..continuous import ContinuousSystem
from ..hippo import hippo
from ..integrators import AdamsBashforth, BilinearExact
from ..oracle.discretisation import discretize
from .claim import Claim, Finding, percent, ruling
from .convergence import has_order, slope
from .ring import (
    Vector,
    add,
    all_zero,
    apply,
    combine,
    difference,
    flat,
    hadamard,
    identity,
    multiply,
    scale,
)
from .samples import indexed, rational_system, variables

Array = Any

# A diagonal liquid system with smooth input, one of each conjugate pair.
_LAMBDA = np.array([-0.5 + 0j, -0.5 + 3.0j, -1.0 + 6.0j])
_B = np.array([0.8 + 0j, 1.0 + 0.5j, -0.7 + 1.0j])
_C = np.array([1.0 + 0j, 0.5 - 0.3j, 0.2 + 0.6j])
_TIME = 2.0


def _input(t: Any) -> Any:
    return np.sin(3.0 * t) + 0.4


def _exact_output(coupling: float) -> float:
    """y(2) of x' = (Λ + coupling · B u) x + B u by an ODE solver at tight tolerances."""

    def right_side(t: float, x: Array) -> Array:
        drive = _B * _input(t)
        return (_LAMBDA + coupling * drive) * x + drive

    found = solve_ivp(right_side, (0.0, _TIME), np.zeros(3, complex), "DOP853", rtol=1e-13, atol=1e-14)
    return float(2 * (_C @ found.y[:, -1]).real)


def _matrices(method: str, h: float) -> tuple[Array, Array]:
    """Ā and B̄ of the diagonal test system as the package computes them."""
    row = (_LAMBDA[None], _B[None], _C[None])
    system: Any = ContinuousSystem(*row, np.array([h])).discretize(method)
    return system.A_bar[0], system.B_bar[0]


def _final_output(method: str, count: int, coupling: float, sample: Callable[[Array, float], Array]) -> float:
    """y(2) by `count` steps of Eq. 11 (coupling 1) or Eq. 2 (coupling 0), or by one of the integrators."""
    h = _TIME / count
    u = sample(h * np.arange(count), h)
    if method in ("adams-bashforth", "bilinear-exact"):
        continuous = ContinuousSystem(_LAMBDA[None], _B[None], _C[None], np.array([h]))
        integrator = AdamsBashforth(continuous) if method == "adams-bashforth" else BilinearExact(continuous)
        return float(integrator.scan(u[None, None])[0][0, 0, -1])
    A_bar, B_bar = _matrices(method, h)
    x = np.zeros(3, complex)
    for u_k in u:
        drive = B_bar * u_k
        x = (A_bar + coupling * drive) * x + drive
    return float(2 * (_C @ x).real)


def _at_start(t: Array, h: float) -> Array:
    return np.asarray(_input(t))


def _at_middle(t: Array, h: float) -> Array:
    return np.asarray(_input(t + h / 2))


_COUNTS = (200, 400, 800, 1600)


def fitted_order(method: str, coupling: float = 1.0, sample: Callable[[Array, float], Array] = _at_middle) -> float:
    """Order of convergence to the solution of Eq. 10 (coupling 1) or Eq. 1 (coupling 0) for a smooth input."""
    exact = _exact_output(coupling)
    errors = [abs(_final_output(method, count, coupling, sample) - exact) for count in _COUNTS]
    return slope([_TIME / count for count in _COUNTS], errors)


def euler(order: int = 1) -> Finding:
    """Order of convergence of Eq. 11 with Ā = I + δt A, B̄ = δt B.

    Args:
        order: the order that is claimed.
    """
    fitted = fitted_order("euler", sample=_at_start)
    exact = _exact_output(1.0)
    error = abs(_final_output("euler", _COUNTS[-1], 1.0, _at_start) - exact)
    return Finding(
        ruling(has_order(fitted, order)),
        {"fitted_order": fitted, "error_with_1600_steps": error, "exact_output": exact},
    )


def _forward_euler(A: Any, B: Vector, x: Vector, u: Any, h: Any) -> list[Any]:
    return add(x, scale(h, add(apply(A, x), scale(u, hadamard(B, x)), scale(u, B))))


def euler_conditions(step: Callable[..., list[Any]] = _forward_euler) -> Finding:
    """Euler's step depends on x_{k−1} and u_k alone, and is of degree one in each: as polynomials.

    Args:
        step: x_k from A, B, x_{k−1}, u_k and δt.
    """
    n = 2
    v = variables(*indexed("a", n * n), *indexed("b", n), *indexed("x", n), "u", "h")
    A = [v[i * n : (i + 1) * n] for i in range(n)]
    B, x, (u, h) = v[n * n : n * n + n], v[n * n + n : n * n + 2 * n], v[-2:]
    after = step(A, B, x, u, h)
    first = n * n + n
    in_state = max(sum(e[first : first + n]) for part in after for e in part.to_dict())
    in_input = max(e[-2] for part in after for e in part.to_dict())
    return Finding(
        ruling(in_state == 1 and in_input == 1),
        {"degree_in_the_state": int(in_state), "degree_in_the_input": int(in_input)},
    )


def euler_stability(frequency_factor: int = 1) -> Finding:
    """|1 + sδt|² − 1 = δt (2σ + δt (σ² + ω²)), so |λ| ≤ 1 ⇔ δt ≤ −2σ/|s|²; spectral radii for HiPPO-LegS.

    Args:
        frequency_factor: of ω² δt² in the printed condition.
    """
    sigma, omega, h = variables("s", "w", "h")
    left = (1 + sigma * h) * (1 + sigma * h) + frequency_factor * omega * omega * h * h - 1
    proved = left == h * (2 * sigma + h * (sigma * sigma + omega * omega))
    evidence: dict[str, float] = {}
    agree = True
    for n in (16, 64):
        A, _ = hippo("legs", n)
        # A is triangular: its eigenvalues are its diagonal, −1 … −N.
        s = np.diagonal(A)
        agree = agree and bool((s == -np.arange(1, n + 1)).all())
        evidence[f"radius_euler_N_{n}"] = float(np.abs(1 + 0.1 * s).max())
        evidence[f"radius_bilinear_N_{n}"] = float(np.abs((1 + 0.05 * s) / (1 - 0.05 * s)).max())
        limit = -2 * s / s**2
        agree = agree and (evidence[f"radius_euler_N_{n}"] <= 1) == bool((limit >= 0.1).all())
    # s = iω: |1 + iωδt| > 1 however small the step.
    undamped = 1 + Fraction(1, 10**6) ** 2
    return Finding(
        ruling(
            bool(proved) and agree and undamped <= 1,
            condition="every Re s < 0",
            under_condition=bool(proved) and agree,
        ),
        {**evidence, "squared_radius_minus_1_for_s_i_dt_1e_6": float(undamped - 1)},
        "with s = i (Re s = 0) and δt = 1e-6 still |1 + sδt|² = 1 + 1e-12, so no step is small enough; HiPPO-LegS "
        f"at δt = 0.1 has the radius {evidence['radius_euler_N_16']:.2g} for N = 16 and "
        f"{evidence['radius_euler_N_64']:.2g} for N = 64",
    )


def _difference_norm(n: int, dt: float) -> float:
    """‖Ā_bilinear − Ā_euler‖₂ of HiPPO-LegS."""
    A, _ = hippo("legs", n)
    unit = np.eye(n)
    bilinear = np.linalg.solve(unit - dt / 2 * A, unit + dt / 2 * A)
    return float(np.linalg.norm(bilinear - (unit + dt * A), 2))


def delta_t_squared_bound(factor: Callable[[int], float] = lambda n: 1.0) -> Finding:
    """‖Ā_euler − Ā_bilinear‖₂/δt² for HiPPO-LegS, δt = 1e-3.

    Args:
        factor: the bound is factor(N) · δt².
    """
    dt = 1e-3
    ratios = {n: _difference_norm(n, dt) / dt**2 for n in (4, 7, 16, 64)}
    scalar = abs((1 - dt / 2) / (1 + dt / 2) - (1 - dt)) / dt**2
    held = all(ratio < factor(n) for n, ratio in ratios.items())
    return Finding(
        ruling(held),
        {**{f"ratio_N_{n}": ratio for n, ratio in ratios.items()}, "ratio_scalar_a_minus_1": scalar},
        ""
        if held
        else "for HiPPO-LegS at δt = 1e-3 the difference is "
        + ", ".join(f"{ratio:.2g} δt² (N = {n})" for n, ratio in ratios.items()),
    )


def closeness(factor: Fraction = Fraction(1, 2)) -> Finding:
    """Ā_bilinear − Ā_euler = (δt²/2) A² (I − δt/2 A)⁻¹: as polynomials, in fractions, and its size for HiPPO-LegS.

    Args:
        factor: the ½ of the formula.
    """
    gaps: list[Any] = []
    twice = int(2 * factor)
    for n in (1, 2, 3):
        v = variables(*indexed("a", n * n), "h")
        A, h = [v[i * n : (i + 1) * n] for i in range(n)], v[-1]
        # Both sides times I − δt/2 A, with δt = 2h: (I + hA) − (I − hA)(I + 2hA) = 2h² A².
        unit = identity(n)
        left = combine(combine(unit, A, h), multiply(combine(unit, A, -h), combine(unit, A, 2 * h)), -1)
        gaps += flat(combine(left, multiply(A, A), -2 * twice * h * h))
    s = rational_system(3, 0, seed=5)
    A_, B_, dt = np.empty((1, 3, 3), object), np.empty((1, 3), object), np.array([Fraction(1, 5)], object)
    A_[0], B_[0] = [list(row) for row in s.A], list(s.B)
    (bilinear, B_bilinear), (by_euler, B_euler) = (
        discretize(A_, B_, dt, method, precision="exact") for method in ("bilinear", "euler")
    )
    half = dt[0] / 2
    left_factor = combine(identity(3), s.A, -half)
    difference_A = combine(bilinear[0], by_euler[0], -1)
    gaps += flat(combine(multiply(left_factor, difference_A), multiply(s.A, s.A), -factor * dt[0] ** 2))
    # The same for B̄: (I − δt/2 A)(B̄_bilinear − B̄_euler) = (δt²/2) A B.
    difference_B = difference(B_bilinear[0], B_euler[0])
    gaps += difference(apply(left_factor, difference_B), scale(factor * dt[0] ** 2, apply(s.A, s.B)))

    steps = [1e-4 / 2**j for j in range(4)]
    order = slope(steps, [_difference_norm(4, h) for h in steps])
    relative, size = {}, {}
    for n, h in ((4, 1e-3), (64, 0.1)):
        legs, _ = hippo("legs", n)
        size[n] = h * float(np.linalg.norm(legs, 2))
        relative[n] = _difference_norm(n, h) / float(np.linalg.norm(np.eye(n) + h * legs, 2))
    formula = all_zero(gaps) and has_order(order, 2)
    return Finding(
        ruling(
            formula and max(relative.values()) < 0.01,
            condition="δt ‖A‖ is small",
            under_condition=formula and relative[4] < 0.01,
        ),
        {
            "relative_difference_N_64": relative[64],
            "relative_difference_N_4": relative[4],
            "dt_times_norm_N_64": size[64],
            "dt_times_norm_N_4": size[4],
            "fitted_order_in_dt": order,
            "formula_proved": int(all_zero(gaps)),
        },
        f"for HiPPO-LegS they differ by {percent(relative[4])} at N = 4, δt = 1e-3 and by {percent(relative[64])} at "
        "N = 64, δt = 0.1; exactly by (δt²/2) A² (I − δt/2 A)⁻¹",
    )


def adams_bashforth(weights: tuple[float, float] = (1.5, -0.5)) -> Finding:
    """Local and global order of x_{k+1} = x_k + δt (3/2 f_k − 1/2 f_{k−1}) on the liquid system.

    Args:
        weights: of f_k and f_{k−1}.
    """
    grid = [0.02 / 2**j for j in range(4)]

    def right_side(t: float, x: Array) -> Array:
        drive = _B * _input(t)
        return (_LAMBDA + drive) * x + drive

    start = 0.5
    times = sorted({start, *(start + h for h in grid), *(start - h for h in grid)})
    found = solve_ivp(right_side, (0.0, times[-1]), np.zeros(3, complex), "DOP853", times, rtol=1e-13, atol=1e-15)
    solution = {t: found.y[:, i] for i, t in enumerate(times)}
    local = []
    for h in grid:
        now, before = right_side(start, solution[start]), right_side(start - h, solution[start - h])
        step = solution[start] + h * (weights[0] * now + weights[1] * before)
        local.append(float(np.abs(step - solution[start + h]).max()))
    local_order = slope(grid, local)

    # The whole run from exact starting values, with the given weights.
    def run(count: int) -> float:
        h = _TIME / count
        x, f = np.zeros(3, complex), right_side(0.0, np.zeros(3, complex))
        x = x + h * f
        for k in range(1, count):
            previous, f = f, right_side(k * h, x)
            x = x + h * (weights[0] * f + weights[1] * previous)
        return float(2 * (_C @ x).real)

    exact = _exact_output(1.0)
    global_order = slope([_TIME / c for c in _COUNTS], [abs(run(c) - exact) for c in _COUNTS])
    package = fitted_order("adams-bashforth", sample=_at_start)
    return Finding(
        ruling(local_order > 1.9 and has_order(global_order, 2) and has_order(package, 2)),
        {
            "fitted_local_order": local_order,
            "fitted_global_order": global_order,
            "fitted_global_order_of_the_package": package,
        },
    )


def _two_step(x: Any, f: Any, u: Any, a: Any, b: Any, h: Any, memory: int = 1) -> tuple[Any, Any]:
    """(2 x_k, f_k) of one mode from x_{k−1}, f_{k−1} and u_k; twice x_k, so that integers are enough."""
    f_k = a * x + b * u * x + b * u
    return 2 * x + h * ((2 + memory) * f_k - memory * f), f_k


def adams_bashforth_conditions(memory: int = 1) -> Finding:
    """Whether a step is a function of x_{k−1} and u_k alone; whether it is bilinear in (x_{k−1}, f_{k−1}) and u_k.

    Args:
        memory: twice the weight of f_{k−1}; 0 is Euler.
    """
    x, f, u, a, b, h = variables("x", "f", "u", "a", "b", "h")
    after = _two_step(x, f, u, a, b, h, memory)
    depends = any(exponents[1] for exponents in after[0].to_dict())
    bilinear = all(e[0] + e[1] <= 1 and e[2] <= 1 for part in after for e in part.to_dict())
    apart = [_two_step(0, before, 1, 0, 1, 1, memory)[0] / 2 for before in (0, 1)]
    return Finding(
        ruling(
            bilinear and not depends,
            condition="the state also holds f(k−1), twice the numbers of Eq. 10",
            under_condition=bilinear,
        ),
        {"x_after_f_0": apart[0], "x_after_f_1": apart[1], "bilinear_with_f_in_the_state": int(bilinear)},
        f"x_{{k+1}} depends on f(k−1): for a = 0, b = 1, δt = 1, x = 0, u = 1 it is {apart[0]:g} after f(k−1) = 0 and "
        f"{apart[1]:g} after f(k−1) = 1",
    )


def bilinear_is_open(method: str = "bilinear-exact") -> Finding:
    """The bilinear transform of A + diag(B) u against the form of Eq. 11, which is affine in u_k.

    For one mode x_k = ((1 + h m) x_{k−1} + 2h b u)/(1 − h m), m = a + b u. Three inputs tell an affine function.

    Args:
        method: `bilinear-exact`, or `euler` for a step that has the form of Eq. 11.
    """
    a, b, x, h = Fraction(-1), Fraction(1), Fraction(1), Fraction(1, 20)

    def step(u: int) -> Fraction:
        m = a + b * u
        if method == "euler":
            return (1 + 2 * h * m) * x + 2 * h * b * u
        return ((1 + h * m) * x + 2 * h * b * u) / (1 - h * m)

    curvature = step(2) - 2 * step(1) + step(0)
    order = fitted_order(method)
    return Finding(
        ruling(curvature != 0 and has_order(order, 2)),
        {"second_difference_in_u": float(curvature), "fitted_order": order},
    )


def bilinear_in_equation_11(methods: tuple[str, ...] = ("euler", "bilinear", "zoh")) -> Finding:
    """Orders of convergence to Eq. 10 and, without the liquid term, to Eq. 1, for a smooth input.

    Args:
        methods: those whose Ā and B̄ go into Eq. 11.
    """
    liquid = {method: fitted_order(method) for method in methods}
    linear = {method: fitted_order(method, coupling=0.0) for method in ("euler", "bilinear")}
    # For an input that is held over each step the zero-order hold is exact: one constant input.
    held = _held_error("zoh", 50)
    integrators = {
        "adams-bashforth": fitted_order("adams-bashforth", sample=_at_start),
        "bilinear-exact": fitted_order("bilinear-exact"),
    }
    return Finding(
        ruling(all(has_order(fitted, 1) for fitted in liquid.values())),
        {
            **{f"order_liquid_{method}": fitted for method, fitted in liquid.items()},
            **{f"order_liquid_{method.replace('-', '_')}": fitted for method, fitted in integrators.items()},
            **{f"order_linear_{method}": fitted for method, fitted in linear.items()},
            "relative_error_linear_zoh_held_input": held,
        },
    )


def _held_error(method: str, count: int) -> float:
    """Relative error of Eq. 2 at time 2 for the constant input 1, whose solution is (e^{λt} − 1)/λ · B."""
    exact = float(2 * (_C @ (np.expm1(_LAMBDA * _TIME) / _LAMBDA * _B)).real)
    found = _final_output(method, count, 0.0, lambda t, h: np.ones_like(t))
    return abs(found - exact) / abs(exact)


CLAIMS = (
    Claim(
        "appendix-d-euler",
        "Appendix D",
        "Forward Euler, ẋ = (x_{k+1} − x_k)/δt + O(δt), has a first-order error; it gives Ā = I + δt A, B̄ = δt B.",
        "Order of convergence to Eq. 10, fitted to the errors of 200 to 1600 steps for a smooth input.",
        "holds",
        euler,
    ),
    Claim(
        "appendix-d-euler-conditions",
        "Appendix D",
        "Forward Euler 1) satisfies the first-order form of the model and 2) preserves the bilinear structure.",
        "1) x_k is a function of x_{k−1} and u_k alone; 2) it is of degree one in the state and of degree one in "
        "the input. As polynomials, N = 2.",
        "holds",
        euler_conditions,
    ),
    Claim(
        "appendix-d-euler-stability",
        "Appendix D",
        "Euler stays stable for Re s ≤ 0 if |λ| = |1 + sδt| ≤ 1, (1 + σδt)² + ω²δt² ≤ 1; a small enough δt ensures it.",
        "The linear part. Proved for all values: |1 + sδt|² − 1 = δt (2σ + δt|s|²), so δt ≤ −2 Re s/|s|² for every "
        "eigenvalue s.",
        "holds if every Re s < 0",
        euler_stability,
    ),
    Claim(
        "appendix-d-bound",
        "Appendix D",
        "|Ā_ForwardEuler − Ā_bilinear| < γ with 0 < γ < δt².",
        "The 2-norm, for the HiPPO-LegS matrix that the paper uses.",
        "fails",
        delta_t_squared_bound,
    ),
    Claim(
        "appendix-d-closeness",
        "Appendix D",
        "Due to the range of δt and the properties of A and B, the bilinear matrices of Eq. 3 are close to those of "
        "forward Euler.",
        "Close: to 1 % in the 2-norm, relative to Euler's Ā. The difference is (δt²/2) A² (I − δt/2 A)⁻¹ for Ā and "
        "(δt²/2)(I − δt/2 A)⁻¹ A B for B̄; proved for all values with N ≤ 3.",
        "holds if δt ‖A‖ is small",
        closeness,
    ),
    Claim(
        "appendix-d-adams-bashforth",
        "Appendix D",
        "The second-order Adams-Bashforth method is x_{k+1} = x_k + 3δt/2 f(k) − δt/2 f(k−1) + O(δt²), f(k) the "
        "right side of Eq. 8 at t = kδt.",
        "f is the right side of Eq. 10; Eq. 8 has none. The remainder of one step is O(δt³), which is O(δt²) too; "
        "summed over the steps it is O(δt²), the order of the method.",
        "holds",
        adams_bashforth,
    ),
    Claim(
        "appendix-d-adams-bashforth-conditions",
        "Appendix D",
        "The Adams-Bashforth method also satisfies the two conditions we required.",
        "The conditions of appendix-d-euler-conditions.",
        "holds if the state also holds f(k−1), twice the numbers of Eq. 10",
        adams_bashforth_conditions,
    ),
    Claim(
        "appendix-d-bilinear-open",
        "Appendix D",
        "A bilinear transform of a continuous-time bilinear SSM that preserves its first-order structure is an open "
        "problem; it is hard to preserve the form while keeping the bilinear (liquid) structure.",
        "Applied to A + diag(B) u the transform exists and is of second order, but it is a rational function of "
        "u_k, so no Ā and B̄ bring it into the form of Eq. 11, which is affine in u_k.",
        "holds",
        bilinear_is_open,
    ),
    Claim(
        "appendix-d-orders",
        "Appendix D",
        "We use the bilinear transform form of A, B and C presented in Eq. 3 for the discrete weights of Eq. 11, as "
        "this approximation is close to forward Euler.",
        "Eq. 11 with the Ā and B̄ of any of the three discretisations converges to Eq. 10 with Euler's order, one; the "
        "second order of Eq. 3 is that of its linear part. Fitted as in appendix-d-euler, inputs at midpoints.",
        "holds",
        bilinear_in_equation_11,
    ),
)
