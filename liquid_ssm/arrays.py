"""NumPy arrays and torch tensors: which of the two a value is, and what both call differently.

torch is never imported here: who holds a tensor has imported it.
"""

from __future__ import annotations

import sys
from typing import Any, Literal

import numpy as np

ArrayKind = Literal["numpy", "torch"]


def is_tensor(value: Any) -> bool:
    """Whether the value is a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def kind_of(value: Any) -> ArrayKind:
    """`torch` for tensors, `numpy` for everything else that may become an array."""
    return "torch" if is_tensor(value) else "numpy"


def namespace(value: Any) -> Any:
    """The module whose functions take the value: `torch` or `numpy`; both know concatenate, stack and zeros_like."""
    return sys.modules["torch"] if is_tensor(value) else np


def is_channels_last(u: Any) -> bool:
    """Whether a signal (batch, H, L) lies in memory as a contiguous array (batch, L, H), and not row after row."""
    if is_tensor(u):
        return not u.is_contiguous() and bool(u.swapaxes(1, 2).is_contiguous())
    return not u.flags.c_contiguous and bool(u.swapaxes(1, 2).flags.c_contiguous)


def dtype_name(dtype: Any) -> str:
    """`float32`, `complex128`, … of a NumPy or torch dtype."""
    if isinstance(dtype, np.dtype):
        return dtype.name
    text = str(dtype)
    return text.removeprefix("torch.") if text.startswith("torch.") else np.dtype(dtype).name
