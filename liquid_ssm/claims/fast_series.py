"""Kernels by fast polynomial arithmetic over a finite field, with every multiplication counted.

A kernel Σ_n w_n λ_nⁱ, i < L, is the power series of the rational function Σ_n w_n/(1 − λ_n z). Adding the fractions up
in a tree and dividing the series by Newton's iteration takes Õ(N + L) multiplications. The field of integers modulo
998244353 has roots of unity for transforms of any power of two up to 2²³, and no rounding: results can be compared
exactly with direct sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.int64]

PRIME = 998244353
_GENERATOR = 3


class FastSeries:
    """Polynomial arithmetic modulo `PRIME`; coefficients ascend along the last axis.

    Attributes:
        multiplications: how many have been done.
    """

    def __init__(self) -> None:
        self.multiplications = 0

    def times(self, a: Any, b: Any) -> Array:
        """Elementwise product, counted."""
        product = np.asarray(a) * np.asarray(b) % PRIME
        self.multiplications += product.size
        return np.asarray(product, np.int64)

    def transform(self, a: Array, *, inverse: bool = False) -> Array:
        """Values at the n-th roots of unity (n a power of two), or back without the factor 1/n."""
        n = a.shape[-1]
        # The radix-2 transform in Stockham's order: no bit reversal.
        root = pow(_GENERATOR, (PRIME - 1) // n, PRIME)
        if inverse:
            root = pow(root, -1, PRIME)
        groups = a.reshape(*a.shape[:-1], n, 1)
        while groups.shape[-2] > 1:
            half = groups.shape[-2] // 2
            first, second = groups[..., :half, :], groups[..., half:, :]
            twiddle = _powers(pow(root, groups.shape[-1], PRIME), half)[:, None]
            mixed = self.times((first - second) % PRIME, twiddle)
            groups = np.concatenate([(first + second) % PRIME, mixed], axis=-1)
        return np.asarray(groups[..., 0, :])

    def product(self, a: Array, b: Array) -> Array:
        """Product of polynomials, along leading axes."""
        length = a.shape[-1] + b.shape[-1] - 1
        n = 1 << (length - 1).bit_length()
        values = self.times(self.transform(_padded(a, n)), self.transform(_padded(b, n)))
        scaled = self.times(self.transform(values, inverse=True), pow(n, -1, PRIME))
        return scaled[..., :length]

    def reciprocal(self, a: Array, length: int) -> Array:
        """1/a modulo z^length for a(0) = 1, by Newton's iteration r ← r (2 − a r)."""
        r = np.ones(1, np.int64)
        while len(r) < length:
            n = min(2 * len(r), length)
            error = -self.product(a[:n], r)[:n] % PRIME
            error = _padded(error, n)
            error[0] = (error[0] + 2) % PRIME
            r = self.product(r, error)[:n]
        return r

    def fraction(self, weights: Array, poles: Array) -> tuple[Array, Array]:
        """(p, q) with Σ_n w_n/(1 − λ_n z) = p/q, q(0) = 1; N a power of two."""
        p = weights[:, None].copy()
        q = np.stack([np.ones_like(poles), -poles % PRIME], axis=-1)
        while len(p) > 1:
            even, odd = slice(0, None, 2), slice(1, None, 2)
            p = (self.product(p[even], q[odd]) + self.product(p[odd], q[even])) % PRIME
            q = self.product(q[even], q[odd])
        return p[0], q[0]

    def kernel(self, weights: Array, poles: Array, length: int) -> Array:
        """Σ_n w_n λ_nⁱ for i < length."""
        p, q = self.fraction(weights, poles)
        return _padded(self.product(p[:length], self.reciprocal(q[:length], length)), length)[:length]

    def low_rank_kernel(self, parameters: Sequence[Array], length: int) -> Array:
        """C Āⁱ B̄ for i < length and Ā = diag(λ) − P Qᵀ, by Woodbury on the four rational functions.

        C (I − zĀ)⁻¹ B̄ = k₀₀ − z k₀₁ k₁₀/(1 + z k₁₁), where all four share their denominator q.

        Args:
            parameters: λ, P, Q, B̄, C, each (N,).
            length: L.
        """
        poles, P, Q, B, C = parameters
        pairs = [(C, B), (C, P), (Q, B), (Q, P)]
        (n00, q), (n01, _), (n10, _), (n11, _) = (self.fraction(self.times(a, b), poles) for a, b in pairs)
        denominator = q.copy()
        denominator[1:] = (denominator[1:] + n11) % PRIME
        first = self.product(n00, denominator)
        second = self.product(n01, n10)
        numerator = first.copy()
        numerator[1 : 1 + len(second)] = (numerator[1 : 1 + len(second)] - second) % PRIME
        whole = self.product(q, denominator)
        return _padded(self.product(numerator[:length], self.reciprocal(whole[:length], length)), length)[:length]


def _powers(base: int, count: int) -> Array:
    """base⁰ … base^(count−1): a table that does not depend on the data, so it is not counted."""
    table = np.ones(1, np.int64)
    while len(table) < count:
        table = np.concatenate([table, table * pow(base, len(table), PRIME) % PRIME])
    return table[:count]


def _padded(a: Array, length: int) -> Array:
    if a.shape[-1] >= length:
        return a
    return np.concatenate([a, np.zeros((*a.shape[:-1], length - a.shape[-1]), np.int64)], axis=-1)


def direct_kernel(weights: Array, poles: Array, length: int) -> Array:
    """Σ_n w_n λ_nⁱ for i < length, term by term: the definition."""
    result, term = [], weights.copy()
    for _ in range(length):
        result.append(int(term.sum() % PRIME))
        term = term * poles % PRIME
    return np.array(result, np.int64)


def direct_low_rank_kernel(parameters: Sequence[Array], length: int) -> Array:
    """C Āⁱ B̄ for i < length and Ā = diag(λ) − P Qᵀ, by the recurrence."""
    poles, P, Q, B, C = parameters
    result, x = [], B.copy()
    for _ in range(length):
        result.append(int((C * x % PRIME).sum() % PRIME))
        x = (poles * x - P * int((Q * x % PRIME).sum() % PRIME)) % PRIME
    return np.array(result, np.int64)
