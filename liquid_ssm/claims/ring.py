"""Vectors and matrices over any commutative ring, as lists: rationals, polynomials, balls, counted numbers.

Lists, not object arrays: NumPy would take a polynomial, which is iterable, for a sequence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any, NamedTuple

Vector = Sequence[Any]
Matrix = Sequence[Vector]


class System(NamedTuple):
    """Discrete parameters and inputs in one ring: x_k = (Ā + diag(B̄) u_k) x_{k-1} + B̄ u_k, y_k = C x_k.

    Attributes:
        A, B, C: Ā (N × N), B̄ (N), C (N).
        u: inputs u_0 … u_{L-1}.
    """

    A: Matrix
    B: Vector
    C: Vector
    u: Vector


def total(terms: Iterable[Any]) -> Any:
    """The sum, without a zero to start from; 0 for no terms."""
    terms = iter(terms)
    result = next(terms, 0)
    for term in terms:
        result = result + term
    return result


def dot(v: Vector, w: Vector) -> Any:
    return total(a * b for a, b in zip(v, w, strict=True))


def add(*vectors: Vector) -> list[Any]:
    return [total(entries) for entries in zip(*vectors, strict=True)]


def scale(factor: Any, v: Vector) -> list[Any]:
    return [factor * a for a in v]


def hadamard(v: Vector, w: Vector) -> list[Any]:
    return [a * b for a, b in zip(v, w, strict=True)]


def power(v: Vector, exponent: int) -> list[Any]:
    """The elementwise power, exponent ≥ 0."""
    return [prod([a] * exponent) for a in v]


def apply(A: Matrix, x: Vector) -> list[Any]:
    return [dot(row, x) for row in A]


def transpose(A: Matrix) -> list[list[Any]]:
    return [list(column) for column in zip(*A, strict=True)]


def multiply(A: Matrix, B: Matrix) -> list[list[Any]]:
    columns = transpose(B)
    return [[dot(row, column) for column in columns] for row in A]


def combine(A: Matrix, B: Matrix, factor: Any = 1) -> list[list[Any]]:
    """A + factor · B."""
    return [[a + factor * b for a, b in zip(r, s, strict=True)] for r, s in zip(A, B, strict=True)]


def diagonal(v: Vector) -> list[list[Any]]:
    return [[a if i == j else 0 for j in range(len(v))] for i, a in enumerate(v)]


def identity(n: int) -> list[list[int]]:
    return [[int(i == j) for j in range(n)] for i in range(n)]


def repeat(A: Matrix, x: Vector, times: int) -> Vector:
    """A^times x."""
    for _ in range(times):
        x = apply(A, x)
    return x


def flat(A: Matrix) -> list[Any]:
    return [entry for row in A for entry in row]


def all_zero(values: Iterable[Any]) -> bool:
    return all(value == 0 for value in values)


def difference(v: Vector, w: Vector) -> list[Any]:
    return [a - b for a, b in zip(v, w, strict=True)]
