"""Ā as balls: what multiplies a state, the recurrences' steps, kernels, and the float64 bounds beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import isqrt

import numpy as np
from flint import acb, acb_mat, arb

from .arguments import Parameters
from .enclosure_trajectory import (
    Discs,
    State,
    Step,
    balls,
    modulus_bound,
    norm_bound,
    spectral_norm_bound,
    trajectory,
)
from .realization import Array

# Steps from exact midpoints: a block costs up to √2 per step (diagonal) or the row sum of |Ā| (matrix), 2^8 or so.
_DIAGONAL_BLOCK = 16
_MATRIX_BLOCK = 4


@dataclass(frozen=True, eq=False)
class System:
    """One state with its inputs and outputs: a channel of `diagonal`, `dplr`, `dense`, or a whole `mimo`.

    Attributes:
        A: eigenvalues (M,), or a matrix (N, N).
        B: (M, inputs).  C: (outputs, M).
        P, Q: (R, M), the low-rank part of `dplr`, else R = 0.
    """

    A: Array
    B: Array
    C: Array
    P: Array
    Q: Array
    conjugate_pairs: bool

    @classmethod
    def of(cls, p: Parameters, channel: int) -> System:
        if p.structure == "mimo":
            return cls(p.A, p.B, p.C, p.P[:, 0], p.Q[:, 0], p.conjugate_pairs)
        h = channel
        return cls(p.A[h], p.B[h, :, None], p.C[h, None], p.P[:, h], p.Q[:, h], p.conjugate_pairs)

    @property
    def weight(self) -> int:
        return 2 if self.conjugate_pairs else 1

    @property
    def per_mode(self) -> bool:
        """Ā is diagonal."""
        return self.A.ndim == 1 and not len(self.P)

    def product(self) -> Callable[[State], State]:
        """x ↦ Ā x in balls at the working precision."""
        if self.A.ndim == 2:
            n = len(self.A)
            matrix = acb_mat(n, n, balls(self.A.ravel()))
            return lambda x: (matrix * acb_mat(n, 1, x)).entries()
        A = balls(self.A)
        if self.per_mode:
            return lambda x: [a * v for a, v in zip(A, x, strict=True)]
        low_rank = [(balls(p), acb_mat(1, len(q), balls(q.conj()))) for p, q in zip(self.P, self.Q, strict=True)]

        def low_rank_product(x: State) -> State:
            column = acb_mat(len(x), 1, x)
            result = [a * v for a, v in zip(A, x, strict=True)]
            for P, Q_conj in low_rank:
                inner = (Q_conj * column)[0, 0]
                # Both halves of the conjugate-closed state: Q* x + conj(Q* x).
                factor = 2 * inner.real if self.conjugate_pairs else inner
                result = [v - p * factor for v, p in zip(result, P, strict=True)]
            return result

        return low_rank_product

    def step(self, u: Array, *, liquid: bool) -> Step:
        """Step k of Eq. 11 (one state), or of Eq. 12 (states x^1 … x^P), for u (inputs, L)."""
        product, drive = self.product(), self._drive(u)
        A = balls(self.A) if self.per_mode else []

        def liquid_step(k: int, states: list[State]) -> list[State]:
            d, x = drive(k), states[0]
            if A:
                return [[(a + e) * v + e for a, e, v in zip(A, d, x, strict=True)]]
            return [[v + (1 + w) * e for v, e, w in zip(product(x), d, x, strict=True)]]

        def truncated_step(k: int, states: list[State]) -> list[State]:
            d = drive(k)
            result = [[v + e for v, e in zip(product(states[0]), d, strict=True)]]
            for lower, x in pairwise(states):
                result.append([v + e * w for v, e, w in zip(product(x), d, lower, strict=True)])
            return result

        return liquid_step if liquid else truncated_step

    def _drive(self, u: Array) -> Callable[[int], State]:
        """k ↦ B̄ u_k."""
        columns = [[acb(v) for v in column] for column in u.T.tolist()]
        if self.B.shape[1] == 1:
            B = balls(self.B[:, 0])
            return lambda k: [b * columns[k][0] for b in B]
        matrix = acb_mat(len(self.B), self.B.shape[1], balls(self.B.ravel()))
        return lambda k: (matrix * acb_mat(len(columns[k]), 1, columns[k])).entries()

    def discs(self, u: Array, *, liquid: bool) -> Discs:
        """Bounds for `step` with the same arguments."""
        n_inputs, length = u.shape
        with np.errstate(over="ignore", invalid="ignore"):
            drive, drive_terms = u.T @ self.B.T, np.abs(u.T) @ np.abs(self.B.T)  # (L, M)
            coupling = modulus_bound(drive, drive_terms, n_inputs)
            if self.per_mode:
                if liquid:
                    growth = modulus_bound(self.A + drive, np.abs(self.A) + drive_terms, n_inputs + 1)
                else:
                    growth = np.broadcast_to(modulus_bound(self.A, np.abs(self.A), 1), drive.shape)
                readout = modulus_bound(self.C.T, np.abs(self.C.T), 1)
                return Discs(growth, coupling, readout, True, _DIAGONAL_BLOCK, 2**0.5)
            matrix, norm = self._float_matrix
            coupling = coupling.max(axis=1, initial=0.0, keepdims=True)
            growth = norm + liquid * coupling + np.zeros((length, 1))
            growth *= 1 + 2.0**-48
            readout = norm_bound(self.C)[None]
            wrapping = 2**0.5 * max(1.0, float(np.abs(matrix).sum(axis=1).max(initial=0.0)))
        return Discs(growth, coupling, readout, False, _MATRIX_BLOCK, wrapping)

    @cached_property
    def _float_matrix(self) -> tuple[Array, float]:
        """Ā on the full state, rounded, and an upper bound of the exact ‖Ā‖₂.

        A state with one of each conjugate pair stored is 1/√2 of the full one in norm, before and after Ā.
        """
        if self.A.ndim == 2:
            return self.A, spectral_norm_bound(self.A)

        def both(v: Array) -> Array:
            return np.concatenate([v, v.conj()], axis=-1) if self.conjugate_pairs else v

        P, Q = both(self.P), both(self.Q)
        matrix = np.diag(both(self.A)) - P.T @ Q.conj()
        # An entry is a sum of R + 1 terms; |P_r||Q_r|ᵀ has the Frobenius norm ‖P_r‖‖Q_r‖.
        terms = norm_bound(both(self.A)) + (norm_bound(P) * norm_bound(Q)).sum()
        rounding = (len(P) + 9) * 2.0**-50 * terms + 2.0**-1060
        return matrix, float(spectral_norm_bound(matrix) + rounding) * (1 + 2.0**-48)

    def _free(self, length: int) -> Discs:
        """Bounds for x_k = Ā x_{k-1}."""
        return self.discs(np.zeros((self.B.shape[1], length)), liquid=False)

    def kernel_bits(self, length: int) -> float:
        """Bits that `kernels` loses, by estimate."""
        return 0.0 if self.per_mode else self._free(length).lost_bits()

    def input_power(self, power: int) -> State:
        """B̄^{∘power} of the first input."""
        B = balls(self.B[:, 0])
        result = B
        for _ in range(power - 1):
            result = [v * b for v, b in zip(result, B, strict=True)]
        return result

    def readout(self, x: State) -> arb:
        """weight · Re(C x) of the first output."""
        row = acb_mat(1, len(x), balls(self.C[0]))
        return (row * acb_mat(len(x), 1, x))[0, 0].real * self.weight

    def kernels(self, vectors: list[State], length: int) -> list[list[arb]]:
        """weight · Re(C Āⁱ v) for i < length and each v; one input, one output."""
        if length == 0:
            return [[] for _ in vectors]
        if self.per_mode:
            return self._diagonal_kernels(vectors, length)
        product, discs = self.product(), self._free(length)

        def impulse_response(v: State) -> list[arb]:
            def step(k: int, states: list[State]) -> list[State]:
                return [product(states[0]) if k else v]

            return trajectory(step, [v], self.C, self.weight, discs)[0]

        return [impulse_response(v) for v in vectors]

    def _diagonal_kernels(self, vectors: list[State], length: int) -> list[list[arb]]:
        """One product of (C∘v∘ā^{js})_j and (ā^r)_r, r < s, i = js + r, for all vectors and i."""
        short = isqrt(length - 1) + 1
        n_leaps = -(-length // short)
        C, small = balls(self.C[0]), [powers(a, short + 1) for a in balls(self.A)]
        leaps = [powers(table[short], n_leaps) for table in small]
        rows = [
            [c * e * leap[j] for c, e, leap in zip(C, v, leaps, strict=True)] for v in vectors for j in range(n_leaps)
        ]
        values = [z.real * self.weight for z in (acb_mat(rows) * acb_mat([t[:short] for t in small])).entries()]
        stride = n_leaps * short
        return [values[i * stride : i * stride + length] for i in range(len(vectors))]


def powers(a: acb, count: int) -> list[acb]:
    """a⁰ … a^{count-1}, each a product of two of half its exponent: log₂ many roundings, not `count`."""
    table = [acb(1), a]
    for i in range(2, count):
        table.append(table[i // 2] * table[i - i // 2])
    return table[:count]
