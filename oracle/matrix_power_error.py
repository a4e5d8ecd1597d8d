"""Errors of a dense kernel from tables of C Ā^(kQ) and Āʲ B̄ that grow by doubling.

The tables are formed again in float64, each with a bound on the error of every entry and on the 2-norm of the
error of every vector; the smaller of the two counts at every step.  Derivation: docs/bounds-kernels.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from .rounding import COMPLEX_PRODUCT
from .scaling import normalised, scaled

Array = npt.NDArray[Any]

_ROOM = 1 + 2.0**-10  # the float64 evaluation of these formulas


@dataclass(frozen=True)
class _Table:
    """Vectors that a computation only approximates.

    Attributes:
        value: (N, K), one vector per column.
        entry: |error| of every entry at most, (N, K).
        norm: ‖error‖₂ of every vector at most, (K,).
    """

    value: Array
    entry: Array
    norm: Array

    @property
    def size(self) -> Array:
        """Bounds on the moduli of the computed entries."""
        return np.asarray(np.abs(self.value) + self.entry)

    @property
    def length(self) -> Array:
        """Bounds on the 2-norms of the computed vectors."""
        return np.asarray(np.linalg.norm(self.value, axis=0) + self.norm)

    def first(self, count: int) -> _Table:
        return _Table(self.value[:, :count], self.entry[:, :count], self.norm[:count])

    def joined(self, other: _Table) -> _Table:
        return _Table(
            np.concatenate([self.value, other.value], axis=1),
            np.concatenate([self.entry, other.entry], axis=1),
            np.concatenate([self.norm, other.norm]),
        )


@dataclass(frozen=True)
class _Square:
    """A power of Ā: value (N, N), a bound on every entry's error, a bound on the error's spectral norm."""

    value: Array
    entry: Array
    norm: float


def matrix_power_error(A: Array, B: Array, C: Array, length: int, power: int, unit: float) -> Array:
    """Componentwise error (length,) of K_i = Re(C Āⁱ B̄^{∘power}) of one channel.

    Args:
        A, B, C: (N, N), (N,), (N,); real if the computation is.
        unit: unit roundoff in which the tables are computed.
    """
    if length == 0:
        return np.zeros(0)
    real = not any(np.iscomplexobj(v) for v in (A, B, C))
    kind = float if real else complex
    A, B, C = (v.astype(kind) for v in (A, B, C))
    # N real or 2N real terms in any order; then two parts
    terms = len(A) if real else 2 * len(A)
    part = terms * unit / (1 - terms * unit)
    gamma = part if real else sqrt(2) * part
    n_baby = 1 << isqrt(length - 1).bit_length()
    n_giant = -(-length // n_baby)

    square = _Square(A, np.zeros(A.shape), 0.0)
    # the bound is linear in both vectors; squares of tiny entries would underflow
    (B, scale_B), (C, scale_C) = normalised(B**power), normalised(C)
    columns = _exact(B, (1.0 if real else COMPLEX_PRODUCT) * (power - 1) * unit)
    rows = _exact(C, 0.0)
    while len(columns.norm) < n_baby:
        columns = columns.joined(_applied(square, columns, gamma))
        square = _squared(square, gamma)
    while len(rows.norm) < n_giant:
        transposed = _Square(square.value.T, square.entry.T, square.norm)
        rows = rows.joined(_applied(transposed, rows.first(n_giant - len(rows.norm)), gamma))
        if len(rows.norm) < n_giant:
            square = _squared(square, gamma)

    # C Ā^(kQ) Āʲ B̄: the error of one side, of the other, of both, and the rounding of a real part
    error = np.minimum(rows.entry.T @ np.abs(columns.value), np.outer(rows.norm, np.linalg.norm(columns.value, axis=0)))
    error = error + np.minimum(rows.size.T @ columns.entry, np.outer(rows.length, columns.norm))
    error = error + part * (rows.size.T @ columns.size)
    return scaled(error.reshape(-1)[:length] * _ROOM, scale_B + scale_C)


def _exact(vector: Array, relative: float) -> _Table:
    entry = relative * (1 + relative) * np.abs(vector)[:, None]
    return _Table(vector[:, None], entry, np.linalg.norm(entry, axis=0))


def _applied(matrix: _Square, table: _Table, gamma: float) -> _Table:
    """The table multiplied by the matrix from the left, in floating point."""
    size = np.abs(matrix.value) + matrix.entry
    local = gamma * (size @ table.size)
    entry = np.abs(matrix.value) @ table.entry + matrix.entry @ table.size + local
    norm = np.linalg.norm(matrix.value, 2) * table.norm + matrix.norm * table.length + np.linalg.norm(local, axis=0)
    return _smaller(_Table(matrix.value @ table.value, entry, norm))


def _squared(matrix: _Square, gamma: float) -> _Square:
    size = np.abs(matrix.value) + matrix.entry
    local = gamma * (size @ size)
    entry = np.abs(matrix.value) @ matrix.entry + matrix.entry @ size + local
    norm = float(2 * np.linalg.norm(matrix.value, 2) * matrix.norm + matrix.norm**2 + spectral_bound(local))
    norm = min(norm, spectral_bound(entry)) * _ROOM
    return _Square(matrix.value @ matrix.value, np.minimum(entry * _ROOM, norm), norm)


def _smaller(table: _Table) -> _Table:
    norm = np.minimum(table.norm, np.linalg.norm(table.entry, axis=0)) * _ROOM
    return _Table(table.value, np.minimum(table.entry * _ROOM, norm), norm)


def spectral_bound(moduli: Array) -> float:
    """Bound on the spectral norm of every matrix with at most these moduli: ‖·‖_F, or (‖·‖₁ ‖·‖_∞)^{1/2}."""
    rows, columns = moduli.sum(axis=1), moduli.sum(axis=0)
    product = sqrt(float(rows.max(initial=0.0))) * sqrt(float(columns.max(initial=0.0)))
    return min(float(np.linalg.norm(moduli)), product)
