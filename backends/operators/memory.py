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


def empty_signal(u: torch.Tensor, channels_last: bool) -> torch.Tensor:
    """Room for a signal like u (batch, H, L), row after row or with its channels last in memory."""
    if not channels_last:
        return u.new_empty(u.shape)
    batch, n_channels, length = u.shape
    return u.new_empty((batch, length, n_channels)).transpose(1, 2)


def signal_of(value: Any, channels_last: bool) -> torch.Tensor:
    """A signal (batch, H, L) that a backend gave, as a tensor in one of the two orders of `empty_signal`."""
    if not channels_last:
        return tensor_of(value)
    return tensor_of(value.swapaxes(1, 2)).transpose(1, 2)


def tensor_of(value: Any) -> torch.Tensor:
    """A result of a backend as a contiguous tensor, an array's memory shared."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    tensor: torch.Tensor = value.resolve_conj().resolve_neg().contiguous()
    return tensor
