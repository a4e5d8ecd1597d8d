"""Sums as explicit balanced trees, so that their rounding does not depend on NumPy's own order."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def pairwise_sum(terms: Array, axis: int = -1) -> Array:
    """Σ of the terms along one axis by a balanced tree.

    The second half of the terms is added to the first until one term is left; with an odd number
    the middle term waits for the next round.

    Args:
        terms: real or complex array.
        axis: the axis to sum over, of any length; no terms give 0.

    Returns:
        Array without that axis, of the dtype of `terms`; never a view of it.

    Accuracy:
        A term passes through at most d = ceil(log2 n) additions, so the error is at most
        ((1 + u)^d - 1) Σ|terms|.

    References:
        Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 4.2.
    """
    level: Array = np.moveaxis(terms, axis, 0)
    if len(level) == 0:
        return np.zeros(level.shape[1:], level.dtype)
    while len(level) > 1:
        half = (len(level) + 1) // 2
        pairs = len(level) - half
        summed = level[:pairs] + level[half:]
        level = summed if pairs == half else np.concatenate([summed, level[pairs:half]])
    return np.array(level[0])


def sum_leading(terms: Array, ndim: int) -> Array:
    """Σ over all but the last `ndim` axes by one balanced tree."""
    split = terms.ndim - ndim
    return pairwise_sum(terms.reshape(prod(terms.shape[:split]), *terms.shape[split:]), axis=0)


def moving_sum(terms: Array, window: int) -> Array:
    """Σ of the newest `window` terms at every time, zeros before the start.

    Sums of 1, 2, 4, … terms are doubled, and the ones that make up `window` are joined from the
    newest to the oldest: nothing is ever subtracted, so nothing drifts.

    Args:
        terms: (..., L), time on the last axis.
        window: number of terms >= 1.

    Returns:
        (..., L), entry k is terms[k] + terms[k-1] + … + terms[k-window+1].

    Accuracy:
        A term passes through at most ceil(log2 window) additions: a sum of 2^j terms is j deep, and
        the parts of `window` are joined in ascending size.
    """
    part = terms
    total = np.zeros_like(terms)
    covered = 0
    for bit in range(window.bit_length()):
        size = 1 << bit
        if window & size:
            total = total + delayed(part, covered)
            covered += size
        # The doubling after the highest bit would be thrown away.
        if window >= 2 * size:
            part = part + delayed(part, size)
    return total


def delayed(terms: Array, steps: int) -> Array:
    """terms[..., k - steps], zeros before the start."""
    later = np.zeros_like(terms)
    later[..., steps:] = terms[..., : max(terms.shape[-1] - steps, 0)]
    return later


class TreeSum:
    """Balanced sum of arrays that arrive one after the other; about log2(n) of them are kept.

    Accuracy:
        As `pairwise_sum`: partial sums of equal size are joined when they meet and the rest in
        ascending size, which makes the tree ceil(log2 n) deep.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[int, Array]] = []

    def add(self, term: Array) -> None:
        size = 1
        while self._parts and self._parts[-1][0] == size:
            term = self._parts.pop()[1] + term
            size *= 2
        self._parts.append((size, term))

    def total(self) -> Array | None:
        """The sum of everything added, None if nothing was."""
        total: Array | None = None
        for _, part in reversed(self._parts):
            total = part if total is None else part + total
        return total
