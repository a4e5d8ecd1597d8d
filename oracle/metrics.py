"""Errors of a computed array against a reference: total functions, defined for every float.

A NaN or a wrong infinity counts as an infinite error; equal infinities count as no error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def absolute_error(computed: Array, reference: Array, tail: Array | float = 0.0) -> Array:
    """|computed − (reference + tail)|, elementwise in extended precision.

    Args:
        computed: what a backend returned.
        reference: the leading part of the reference, same shape.
        tail: its trailing part where the reference is a double-double, else 0.

    Returns:
        Array: longdouble; inf wherever the difference is not a number, 0 for equal infinities.
    """
    x, y = np.asarray(computed, np.longdouble), np.asarray(reference, np.longdouble)
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs((x - y) - np.asarray(tail, np.longdouble))
    same_infinity = np.isinf(x) & (x == y)
    return np.asarray(np.where(same_infinity, 0, np.where(np.isnan(difference), np.inf, difference)))


@dataclass(frozen=True)
class ErrorSummary:
    """Errors of one array, over everything.

    Attributes:
        componentwise: max |computed − reference|.
        norm2: ‖computed − reference‖₂.
        relative: norm2 / ‖reference‖₂; 0 where both are 0, inf where only the reference is 0.
        worst_step: index on the last axis of the largest error (the first of equals), -1 if empty.
    """

    componentwise: float
    norm2: float
    relative: float
    worst_step: int


def summarize(error: Array, reference: Array) -> ErrorSummary:
    """The summary of an array of absolute errors (…, L) against the reference it belongs to."""
    if error.size == 0:
        return ErrorSummary(0.0, 0.0, 0.0, -1)
    norm = norm2(error)
    size = norm2(reference)
    relative = norm / size if size > 0 else (0.0 if norm == 0 else np.inf)
    worst = int(np.unravel_index(int(np.argmax(error)), error.shape)[-1])
    return ErrorSummary(float(error.max()), norm, float(relative), worst)


def norm2(values: Array) -> float:
    """‖values‖₂ over everything, without overflow or underflow on the way; inf if any entry is not finite."""
    magnitudes = np.abs(np.asarray(values, np.longdouble))
    largest = magnitudes.max(initial=0)
    if not np.isfinite(largest):
        return float("inf")
    if largest == 0:
        return 0.0
    return float(largest * np.sqrt(np.sum((magnitudes / largest) ** 2)))


def within(error: Array, bound: Array) -> bool:
    """Whether every error is at most its bound; a NaN on either side is not."""
    return bool(np.all(error <= bound))


def units_of_bound(error: Array, bound: Array) -> float:
    """max error/bound; 0/0 counts as 0, anything over a zero or undefined bound as inf."""
    error, bound = np.broadcast_arrays(np.asarray(error, np.longdouble), np.asarray(bound, np.longdouble))
    if error.size == 0:
        return 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error == 0, 0, error / bound)
    return float(np.max(np.where(np.isnan(ratio) | (bound < 0), np.inf, ratio)))
