"""Polynomials in t without their terms from t^order on, as lists of coefficients.

A coefficient is an array or a number, lowest power first; a missing one is zero, so `[]` is the zero
polynomial and nothing is multiplied by known zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Polynomial = Sequence[Any]


def coefficient(a: Polynomial, b: Polynomial, power: int) -> Any | None:
    """Coefficient of t^power in a·b, None if it is zero for lack of terms.

    Accuracy:
        One rounded product per term, and for n terms n - 1 rounded additions, lowest power of a first.
    """
    total = None
    for i in range(max(0, power - len(b) + 1), min(power + 1, len(a))):
        term = a[i] * b[power - i]
        total = term if total is None else total + term
    return total


def multiply(a: Polynomial, b: Polynomial, order: int) -> list[Any]:
    """a·b mod t^order."""
    if not a or not b:
        return []
    return [coefficient(a, b, power) for power in range(min(order, len(a) + len(b) - 1))]


def add(a: Polynomial, b: Polynomial) -> list[Any]:
    """a + b."""
    short, long = sorted((a, b), key=len)
    return [x + y for x, y in zip(short, long, strict=False)] + list(long[len(short) :])
