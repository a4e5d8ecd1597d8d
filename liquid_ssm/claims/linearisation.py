"""Eq. 9, the nonlinear liquid time-constant network, and its linearisation, solved as stiff ODEs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp  # type: ignore[import-untyped, unused-ignore]

from .claim import Claim, Finding, ruling
from .convergence import has_order, slope

# Rates between 1 and 300 per unit of time: stiff on the time span below.
_A = np.array([1.0, 20.0, 300.0])
_B = np.array([0.8, -6.0, 90.0])
_TIMES = np.linspace(0.0, 2.0, 41)
_SIZES = (0.1, 0.05, 0.025)

# The right side of an ODE from the state and the input, (…, 3) and a number that broadcasts against it.
RightSide = Callable[[Any, Any], Any]


def _odd(x: Any, u: Any) -> Any:
    """f(0) = 0, f_u = 1, f_uu = 0."""
    return np.tanh(u)


def _curved(x: Any, u: Any) -> Any:
    """f(0) = 0, f_u = 1, f_uu ≠ 0."""
    return (np.tanh(u + 0.5) - np.tanh(0.5)) * np.cosh(0.5) ** 2


def _recurrent(x: Any, u: Any) -> Any:
    """f(0) = 0, f_u = 1, f_x = 1/2: the network feeds back on itself."""
    return np.tanh(u + x / 2)


def _offset(x: Any, u: Any) -> Any:
    """f(0) ≠ 0."""
    return np.tanh(u + 0.5)


def network(f: RightSide) -> RightSide:
    """Eq. 9."""
    return lambda x, u: -(_A + _B * f(x, u)) * x + _B * f(x, u)


def linear(A: Any, B: Any, coupling: Any) -> RightSide:
    """x' = (A + diag(coupling) u) x + B u; Eq. 10 where the coupling is B."""
    return lambda x, u: (A + coupling * u) * x + B * u


def _input(t: float) -> float:
    return float(np.sin(2 * t) + 0.5 * np.cos(5 * t))


def solutions(systems: Sequence[RightSide]) -> Any:
    """x(t) of every system for the input size · u(t) and every size, from rest, (systems, sizes, 3, times).

    All of them are one system of equations with a diagonal Jacobian, which keeps an implicit solver cheap.
    """
    shape = (len(systems), len(_SIZES), 3)
    sizes = np.array(_SIZES)[:, None]

    def right_side(t: float, x: Any) -> Any:
        u = sizes * _input(t)
        return np.stack([f(part, u) for f, part in zip(systems, x.reshape(shape), strict=True)]).ravel()

    span, rest = (_TIMES[0], _TIMES[-1]), np.zeros(int(np.prod(shape)))
    found = solve_ivp(right_side, span, rest, "LSODA", _TIMES, rtol=1e-11, atol=1e-14, lband=0, uband=0)
    return found.y.reshape(*shape, len(_TIMES))


def equation_9(rate: Callable[[Any], Any] = lambda f: _A + _B * f) -> Finding:
    """With a constant input the state relaxes to B f/(A + B f) at the rate A + B f, which depends on the input."""
    worst, rates = 0.0, []
    for u in (0.0, 0.5, 1.0):
        f = float(np.tanh(u))

        def right_side(t: float, x: Any, f: float = f) -> Any:
            return -(_A + _B * f) * x + _B * f

        start = np.array([1.0, -1.0, 0.5])
        times = np.array([0.0, 0.003, 0.05, 1.0])
        solved = solve_ivp(right_side, (0.0, 1.0), start, "LSODA", times, rtol=1e-11, atol=1e-14, lband=0, uband=0).y
        rest = _B * f / (_A + _B * f)
        expected = rest[:, None] + (start - rest)[:, None] * np.exp(-np.multiply.outer(np.asarray(rate(f)), times))
        worst = max(worst, float(np.abs(solved - expected).max()))
        rates.append(float((_A + _B * f)[0]))
    return Finding(
        ruling(worst < 1e-8),
        {
            "largest_difference_to_closed_form": worst,
            "rate_without_input": rates[0],
            "rate_at_input_1": rates[-1],
        },
    )


def linearisation(sign: int = -1) -> Finding:
    """Order in the size of the input by which Eq. 10 misses Eq. 9; both solved by an implicit method.

    With z = −x, Eq. 9 with f = u reads z' = (−A − B u) z − B u: Eq. 10 with −A, −B and −C.

    Args:
        sign: of Eq. 10's B and x relative to those of Eq. 9; +1 takes Eq. 10 with B as printed.
    """
    names = ("curved", "odd", "recurrent", "offset")
    systems = [network(f) for f in (_curved, _odd, _recurrent, _offset)]
    approximations = [
        linear(-_A, sign * _B, sign * _B),
        linear(-_A + _B / 2, sign * _B, sign * _B),
        linear(-_A, sign * _B, 0 * _B),
    ]
    exact, (printed, with_feedback, without_product) = np.split(solutions([*systems, *approximations]), [len(systems)])
    solved = dict(zip(names, exact, strict=True))

    def error_order(name: str, approximation: Any) -> float:
        return slope(_SIZES, [float(error) for error in np.abs(solved[name] - sign * approximation).max(axis=(1, 2))])

    curved, odd = error_order("curved", printed), error_order("odd", printed)
    recurrent, offset = error_order("recurrent", with_feedback), error_order("offset", printed)
    dropped = error_order("odd", without_product)
    first_order = all(fitted > 2 - 0.2 for fitted in (curved, odd, recurrent))
    return Finding(
        ruling(
            first_order and has_order(odd, 3) and offset > 1.8,
            condition="f = 0 at x = 0, u = 0, and B and C of Eq. 10 are −B and −C of Eq. 9",
            under_condition=first_order and has_order(odd, 3),
        ),
        {
            "error_order_f_curved": curved,
            "error_order_f_odd_in_u": odd,
            "error_order_f_of_x_and_u": recurrent,
            "error_order_f_not_zero_at_rest": offset,
            "error_order_without_the_product_term": dropped,
        },
        f"the error falls with the input's size to the power {curved:.1f}, {odd:.1f} where f″(0) = 0, and "
        f"{round(offset, 1) + 0.0} where f(0, 0) ≠ 0; leaving out the term B u x gives {dropped:.1f}",
    )


CLAIMS = (
    Claim(
        "equation-9",
        "Eq. 9",
        "ẋ = −[A + B ⊙ f(x, u, t, θ)] ⊙ x + B ⊙ f(x, u, t, θ), with the liquid time-constant A + B ⊙ f.",
        "f does not depend on x and the input is constant: then A + B f is the rate of every exponential.",
        "holds",
        equation_9,
    ),
    Claim(
        "linearisation",
        "Eq. 9 and 10",
        "Linearising Eq. 9 gives the first-order bilinear Taylor approximation ẋ = [A + I_N B u] x + B u (Eq. 10).",
        "The difference of the two solutions is of second order in the size of the input, and of third order where "
        "f″(0) = 0, which only the right product term B u x can give. The signs of Eq. 9 and 10 differ: the state of "
        "one is minus that of the other. Derivatives f_u and f_x at rest are absorbed in B and A.",
        "holds if f = 0 at x = 0, u = 0, and B and C of Eq. 10 are −B and −C of Eq. 9",
        linearisation,
    ),
)
