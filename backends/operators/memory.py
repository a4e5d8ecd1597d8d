"""Tensors on the CPU as NumPy arrays and back: the same memory wherever NumPy has that layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, Any]


def array_of(tensor: torch.Tensor | None) -> Array | None:
    """A view of the tensor; only a conjugated or negated view, which NumPy does not have, is written out first."""
    if tensor is None:
        return None
    array: Array = tensor.detach().resolve_conj().resolve_neg().numpy()
    return array


def tensor_of(value: Any) -> torch.Tensor:
    """A result of a backend as a contiguous tensor, an array's memory shared."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    tensor: torch.Tensor = value.resolve_conj().resolve_neg().contiguous()
    return tensor
