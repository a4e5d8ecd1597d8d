"""Tensor arguments of the primitives, checked and brought to one precision before they are computed with."""

from __future__ import annotations

from typing import Any

import torch

from liquid_ssm.errors import DTypeError, ParameterError, ShapeError

_REAL = (torch.float32, torch.float64)
_FLOATING = (*_REAL, torch.complex64, torch.complex128)

# torch's dtype.to_complex(), which its compiler cannot trace.
_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def complex_of(dtype: torch.dtype) -> torch.dtype:
    """The complex dtype with parts of a real one."""
    return _COMPLEX[dtype]


def signal(u: torch.Tensor, system: Any = None) -> torch.Tensor:
    """u, checked to be real floating (batch, H, L), with the channels of the system and where its parameters are."""
    if u.dtype not in _REAL:
        raise DTypeError(f"u has dtype {u.dtype}; allowed: torch.float32, torch.float64. Convert it with .to(...).")
    if u.ndim != 3:
        raise ShapeError(f"u has shape {tuple(u.shape)}; it must be (batch, H, L). Add the missing axes.")
    if system is None:
        return u
    if u.shape[1] != system.n_channels:
        raise ShapeError(
            f"u has shape {tuple(u.shape)}, so {u.shape[1]} channel(s); the system has {system.n_channels}. u must be "
            "(batch, H, L)."
        )
    same_device("the system's parameters", system.C, u)
    return u


def same_device(name: str, value: torch.Tensor, u: torch.Tensor) -> None:
    """Raise unless the value is where u is."""
    if value.device != u.device:
        raise ParameterError(
            f"u is on {u.device} but {name} on {value.device}; move one of them with .to(...): nothing is copied "
            "between devices unasked."
        )


def shaped(
    name: str, value: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype, beside: torch.Tensor
) -> torch.Tensor:
    """`value` in the dtype, checked to have the shape, to be on one device with u and to lose no imaginary part."""
    if tuple(value.shape) != shape:
        raise ShapeError(f"{name} has shape {tuple(value.shape)}; it must be {shape}.")
    if value.dtype not in _FLOATING:
        allowed = ", ".join(map(str, _FLOATING))
        raise DTypeError(f"{name} has dtype {value.dtype}; allowed: {allowed}. Convert it with .to({dtype}).")
    if value.is_complex() and not dtype.is_complex:
        raise DTypeError(f"{name} has dtype {value.dtype} but every parameter is real; give it as {dtype}.")
    same_device(name, value, beside)
    return value.to(dtype)


def optional(
    name: str, value: torch.Tensor | None, shape: tuple[int, ...], dtype: torch.dtype, beside: torch.Tensor
) -> torch.Tensor | None:
    """As `shaped`, None for None."""
    return None if value is None else shaped(name, value, shape, dtype, beside)
