"""Arguments of the primitives, checked and brought to one precision before they are computed with."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from liquid_ssm.errors import DTypeError, ParameterError, ShapeError

Array = npt.NDArray[Any]

_REAL = (np.dtype("float32"), np.dtype("float64"))


def signal(u: Array, n_channels: int | None = None) -> Array:
    """u, checked to be real floating (batch, H, L) with as many channels as the system."""
    if u.dtype not in _REAL:
        raise DTypeError(f"u has dtype {u.dtype}; allowed: float32, float64. Convert it with .astype(...).")
    if u.ndim != 3:
        raise ShapeError(f"u has shape {u.shape}; it must be (batch, H, L). Add the missing axes.")
    if n_channels is not None and u.shape[1] != n_channels:
        raise ShapeError(
            f"u has shape {u.shape}, so {u.shape[1]} channel(s); the system has {n_channels}. u must be (batch, H, L)."
        )
    return u


def shaped(name: str, value: Array, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """A copy of `value` in the dtype, checked to have the shape and to lose no imaginary part."""
    dtype = np.dtype(dtype)
    if value.shape != shape:
        raise ShapeError(f"{name} has shape {value.shape}; it must be {shape}.")
    if value.dtype.kind == "c" and dtype.kind != "c":
        raise DTypeError(f"{name} has dtype {value.dtype} but every parameter is real; give it as {dtype}.")
    return np.array(value, dtype=dtype, order="C")


def fitting(name: str, value: Array, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """As `shaped`, but `value` itself where it is right as it is: for what is only read."""
    if value.shape == shape and value.dtype == dtype and value.flags.c_contiguous:
        return value
    return shaped(name, value, shape, dtype)


def optional(name: str, value: Array | None, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array | None:
    """As `shaped`, None for None."""
    return None if value is None else shaped(name, value, shape, dtype)


def at_least(name: str, value: int, lowest: int) -> int:
    """The value, checked against its lower limit."""
    if value < lowest:
        raise ParameterError(f"{name} is {value}; it must be at least {lowest}.")
    return value
