"""Whether arrays hold NaN or infinite values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .arrays import is_channels_last

# Of a complex dtype, by its character, that of its parts.
_PART = {kind: np.dtype(kind).type(0).real.dtype for kind in "FDG"}


def all_finite(*arrays: npt.NDArray[Any]) -> bool:
    """True if every number of every array is finite, both parts of complex ones."""
    with np.errstate(over="ignore", invalid="ignore"):
        return all(map(finite, arrays))


def finite(array: npt.NDArray[Any]) -> bool:
    """As `all_finite`, of one array; to be called where an overflow raises no warning."""
    if not array.flags.c_contiguous and array.ndim == 3 and is_channels_last(array):
        array = array.swapaxes(1, 2)
    if array.flags.c_contiguous:
        array = array.reshape(-1)
        if array.dtype.kind == "c":
            # NumPy has vector instructions for real numbers only: four times as fast.
            array = array.view(_PART[array.dtype.char])
        # A sum of squares is finite only if every term is; if it overflows, nothing is known yet.
        if math.isfinite(np.dot(array, array)):
            return True
    return bool(np.isfinite(array).all())
