"""Whether an array holds NaN or infinite values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def all_finite(array: npt.NDArray[Any]) -> bool:
    """True if every number is finite, both parts of complex ones."""
    if array.dtype.kind == "c" and array.flags.c_contiguous:
        # NumPy has vector instructions for real numbers only: four times as fast.
        array = array.reshape(-1).view(array.real.dtype)
    return bool(np.isfinite(array).all())
