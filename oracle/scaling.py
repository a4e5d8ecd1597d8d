"""Powers of two taken out of arrays, so that squares in norms neither overflow nor underflow."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def normalised(values: Array) -> tuple[Array, Array]:
    """values / 2^e with the largest modulus of every row (last axis) in [1/2, 2), and e; e = 0 for rows of zeros.

    Exact, unless entries are smaller than the row's largest one by more than the range of the dtype.
    """
    sizes = np.abs(values).max(axis=-1, initial=0.0)
    exponent = np.where(np.isfinite(sizes), np.frexp(np.where(np.isfinite(sizes), sizes, 0.0))[1], 0)
    return scaled(values, -exponent[..., None]), exponent


def scaled(values: Array, exponent: Array | int) -> Array:
    """values · 2^exponent, real or complex, rounded only where the result is subnormal."""
    if np.iscomplexobj(values):
        result = np.empty(np.broadcast_shapes(np.shape(values), np.shape(exponent)), values.dtype)
        result.real, result.imag = np.ldexp(values.real, exponent), np.ldexp(values.imag, exponent)
        return result
    return np.asarray(np.ldexp(values, exponent))
