"""Eq. 12 by brute force: a sum over words in the letters Ā and diag(B̄ u_j).

Unrolling Eq. 11 gives, for every input i₁ and every word of length k - i₁ in these letters, the word applied
to B̄ u_{i₁}. The order of a term is one plus the number of letters of the second kind. Nothing is assumed to
commute, so this is the reference for the recurrences with dense and low-rank Ā.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from .exact import exact_array, full_system, parts
from .realization import Array, Realization


def _diagonal_matrix(v: Array) -> Array:
    return np.asarray(v[:, None] * np.eye(len(v), dtype=int).astype(object))


def outputs_by_words(realization: Realization, u: Any, order: int | None = None) -> Array:
    """y_k = w·Re C Σ_{i₁≤k} Σ_words X_k X_{k-1} … X_{i₁+1} B̄ u_{i₁}, X_j ∈ {Ā, diag(B̄ u_j)}.

    Args:
        realization: discrete parameters, any structure; for `mimo` B̄ u_j is the sum over the channels.
        u: real, (batch, H, L).
        order: only words with at most order - 1 letters of the second kind (mode `truncated`); None for all
            words (mode `liquid`).

    Returns:
        Object array of `Fraction`, (batch, H, L).

    Raises:
        ValueError: order < 1, or as in `exact.exact_array` and `exact.full_system`.

    Accuracy: exact. Cost: 2^{L+1} words per row and N² products per letter; for L up to about 8.

    References: Eq. 12 of arXiv 2209.12951.
    """
    if order is not None and order < 1:
        raise ValueError(f"order is {order}; the lowest order is 1, or None for all orders.")
    u = exact_array(u, "u")
    y = np.empty(u.shape, dtype=object)
    batch, n_channels, length = u.shape
    if realization.structure == "mimo":
        A = _diagonal_matrix(exact_array(realization.A, "A"))
        B, C = exact_array(realization.B, "B"), exact_array(realization.C, "C")
        for b in range(batch):
            y[b] = realization.weight * _expand(A, [B @ u[b, :, k] for k in range(length)], C, order)
        return y
    A, B, C = full_system(realization)
    for b, h in np.ndindex(batch, n_channels):
        y[b, h] = _expand(A[h], [B[h] * u[b, h, k] for k in range(length)], C[h, None], order)[0]
    return y


def _expand(A: Array, drives: list[Array], C: Array, order: int | None) -> Array:
    """Re(C x_k) for all k, (rows of C, L), from the drives B̄ u_k, each (N,)."""
    length = len(drives)
    y = np.empty((len(C), length), dtype=object)
    for k in range(length):
        x = 0 * drives[k]
        for first in range(k + 1):
            for word in product((False, True), repeat=k - first):
                if order is not None and sum(word) > order - 1:
                    continue
                term = drives[first]
                for j, second_kind in enumerate(word, start=first + 1):
                    term = (_diagonal_matrix(drives[j]) if second_kind else A) @ term
                x = x + term
        y[:, k] = parts(C @ x)[0]
    return y
