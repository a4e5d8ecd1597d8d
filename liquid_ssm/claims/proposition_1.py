"""Proposition 1: the liquid kernel from the S4 kernel and powers of B̄, before and after summing over the state."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from . import formulas
from .claim import Claim, Finding, ruling
from .ring import System, Vector, diagonal, dot, hadamard, power, repeat, transpose
from .samples import generic_system

# The weight of one state's share of the kernel, from B̄ and p.
Factor = Callable[[Vector, int], Vector]


def unsummed(s: System, i: int) -> list[Any]:
    """(C Āⁱ) ∘ B̄: entry i of the S4 kernel before it is summed over the state."""
    return hadamard(repeat(transpose(s.A), s.C, i), s.B)


def _printed_factor(B: Vector, p: int) -> Vector:
    return power(B, p - 1)


def before_sum(factor: Factor = _printed_factor) -> Finding:
    """Σ_n ((C Āⁱ) ∘ B̄)_n B̄_n^{p−1} = C Āⁱ B̄^p, and the flip into the order of Eq. 14, as polynomials."""
    proved, identities = 0, 0
    for n in (1, 2, 3):
        length = 4
        s = generic_system(n, 0)
        for p in (2, 3, 4):
            products = [dot(unsummed(s, i), factor(s.B, p)) for i in range(length)]
            # Eq. 14: C Ā^{L̃−p} B̄^p, …, C B̄^p.
            flipped = products[::-1]
            wanted = [dot(s.C, repeat(s.A, power(s.B, p), m)) for m in reversed(range(length))]
            proved += sum(a == b for a, b in zip(flipped, wanted, strict=True))
            identities += length
    return Finding(ruling(proved == identities), {"identities_proved": proved, "identities": identities})


def after_sum(n_state: int = 2) -> Finding:
    """Whether one number, the same for every i, takes K_i = C Āⁱ B̄ to C Āⁱ B̄^p.

    If it does, K_0 · C Ā B̄^p − K_1 · C B̄^p = 0.

    Args:
        n_state: N of the generic system.
    """
    proportional = 0
    for p in (2, 3, 4):
        s = generic_system(n_state, 0)
        K, wanted = formulas.kernel(s, 2), formulas.kernel(s, 2, p)
        proportional += K[0] * wanted[1] - K[1] * wanted[0] == 0
    example = System(diagonal([Fraction(1, 2), Fraction(1, 4)]), [Fraction(1), Fraction(2)], [1, 1], ())
    ratios = [b / a for a, b in zip(formulas.kernel(example, 2), formulas.kernel(example, 2, 2), strict=True)]
    return Finding(
        ruling(proportional == 3),
        {"ratio_i_0": float(ratios[0]), "ratio_i_1": float(ratios[1]), "orders_proportional": proportional},
        ""
        if proportional == 3
        else "for Ā = diag(1/2, 1/4), B̄ = (1, 2), C = (1, 1), p = 2 the liquid kernel is "
        f"{ratios[0]} of K at i = 0 and {ratios[1]} at i = 1, so no factor made of B̄ does it",
    )


CLAIMS = (
    Claim(
        "proposition-1-before-sum",
        "Proposition 1",
        "K_liquid for each order p is the anti-diagonal transformation (flip) of the product of the S4 convolution "
        "kernel with a vector B̄^{p−1}.",
        "The kernel before its sum over the state, k_i = (C Āⁱ) ∘ B̄ ∈ C^N, is multiplied elementwise by B̄^{p−1} "
        "and then summed. Proved for all values and every Ā with N ≤ 3, i < 4, p = 2, 3, 4.",
        "holds",
        before_sum,
    ),
    Claim(
        "proposition-1-after-sum",
        "Proposition 1",
        "The liquid kernel can be obtained from the precomputed S4 kernel K = (CB̄, CĀB̄, …, CĀ^{L−1}B̄) and a "
        "Hadamard product of that kernel with B̄^{p−1}.",
        "K as line 5 of Algorithm 1 returns it, one number per step; B̄^{p−1} has one per state, so the product "
        "can only be with some number made of it. Decided by polynomials with N = 2.",
        "fails",
        after_sum,
    ),
)
