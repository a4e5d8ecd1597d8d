"""The paper's recurrences and sums, term by term as printed, over any ring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from math import prod
from typing import Any

from .ring import System, Vector, add, apply, dot, hadamard, power, repeat, scale, total

# The exponent of Ā in Eq. 13 as a function of k, p and the smallest index i.
Exponent = Callable[[int, int, int], int]


def printed_exponent(k: int, p: int, i: int) -> int:
    """k + 1 − p − i, Eq. 13."""
    return k + 1 - p - i


def states(s: System, *, liquid: bool) -> list[Vector]:
    """x_0 … x_{L-1} from rest: Eq. 11 if `liquid`, else Eq. 2."""
    x: Vector = [0] * len(s.B)
    result: list[Vector] = []
    for u_k in s.u:
        drive = scale(u_k, s.B)
        x = add(apply(s.A, x), hadamard(drive, x), drive) if liquid else add(apply(s.A, x), drive)
        result.append(x)
    return result


def outputs(s: System, *, liquid: bool) -> list[Any]:
    """y_0 … y_{L-1} from rest: Eq. 11 if `liquid`, else Eq. 2."""
    return [dot(s.C, x) for x in states(s, liquid=liquid)]


def truncated_outputs(s: System, order: int) -> list[Any]:
    """Orders 1 … P of Eq. 12: x^(p)_k = Ā x^(p)_{k-1} + (B̄ u_k) ∘ x^(p-1)_{k-1}, and x^(0) = 1."""
    x: list[Vector] = [[0] * len(s.B) for _ in range(order)]
    ones = [1] * len(s.B)
    result = []
    for u_k in s.u:
        drive = scale(u_k, s.B)
        x = [add(apply(s.A, own), hadamard(drive, below)) for own, below in zip(x, [ones, *x[:-1]], strict=True)]
        result.append(dot(s.C, add(*x)))
    return result


def chain_outputs(s: System, p: int) -> list[Any]:
    """The order-p sum of Eq. 13 as p recurrences: v¹ is driven by B̄^p u_k, vʲ by u_k vʲ⁻¹_{k-1}; C v^p."""
    v: list[Vector] = [[0] * len(s.B) for _ in range(p)]
    start = power(s.B, p)
    result = []
    for u_k in s.u:
        v = [add(apply(s.A, own), scale(u_k, below)) for own, below in zip(v, [start, *v[:-1]], strict=True)]
        result.append(dot(s.C, v[-1]))
    return result


def kernel(s: System, length: int, p: int = 1) -> list[Any]:
    """C Āⁱ B̄^p for i = 0 … length − 1: Eq. 6, and for p ≥ 2 the numbers of Eq. 14."""
    x: Vector = power(s.B, p)
    result = []
    for _ in range(length):
        result.append(dot(s.C, x))
        x = apply(s.A, x)
    return result


def convolution(K: Vector, u: Vector) -> list[Any]:
    """y_k = Σ_{i ≤ k} K_{k-i} u_i, not circular."""
    return [total(K[k - i] * u[i] for i in range(k + 1)) for k in range(len(u))]


def index_tuples(k: int, p: int, *, adjacent: bool = False) -> Iterator[tuple[int, ...]]:
    """Π(k + 1, p): all i₁ < … < i_p ≤ k, or only those with i_{j+1} = i_j + 1."""
    if adjacent:
        return (tuple(range(i, i + p)) for i in range(k + 2 - p))
    return combinations(range(k + 1), p)


def correlation_terms(
    s: System, k: int, p: int, *, adjacent: bool = False, exponent: Exponent = printed_exponent
) -> Any:
    """The order-p sum of Eq. 13 at step k."""
    numbers: dict[int, Any] = {}
    for indices in index_tuples(k, p, adjacent=adjacent):
        m = exponent(k, p, indices[0])
        numbers.setdefault(m, []).append(prod(s.u[i] for i in indices))
    return total(dot(s.C, repeat(s.A, power(s.B, p), m)) * total(products) for m, products in numbers.items())


def equation_13(s: System, order: int, *, adjacent: bool = False, exponent: Exponent = printed_exponent) -> list[Any]:
    """y_0 … y_{L-1} by Eq. 13 with orders 2 … P."""
    linear = convolution(kernel(s, len(s.u)), s.u)
    return [
        total(
            [
                linear[k],
                *(
                    correlation_terms(s, k, p, adjacent=adjacent, exponent=exponent)
                    for p in range(2, min(order, k + 1) + 1)
                ),
            ]
        )
        for k in range(len(s.u))
    ]


def elementary(u: Vector, order: int) -> list[list[Any]]:
    """e_1 … e_P of u_0 … u_k for every k, by e_p(k) = e_p(k−1) + u_k e_{p−1}(k−1); shape (L, P)."""
    e: list[Any] = [1] + [0] * order
    result = []
    for u_k in u:
        e = [1, *(e[p] + u_k * e[p - 1] for p in range(1, order + 1))]
        result.append(e[1:])
    return result
