"""`torch.vmap` of an operator as one call: the mapped axis becomes part of the batch or of the channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch


class Place(NamedTuple):
    """Where a tensor has its batch (None: it has none, a parameter) and its channels."""

    batch: int | None
    channel: int


Places = Sequence[Place]
Results = Callable[[Sequence[Any]], Places]


def batching_rule(operator: Callable[..., Any], arguments: Places, results: Results) -> Callable[..., Any]:
    """A rule for `torch.library.register_vmap`.

    Rows of one batch share the parameters and channels do not, so the mapped axis V goes into the batch (V·batch)
    unless a parameter, or a result that belongs to one, is mapped: then into the channels (V·H).

    Args:
        operator: its tensors first, then its options.
        arguments: a place for each of these tensors.
        results: places of the results, by the tensors that were given.
    """

    def rule(info: Any, in_dims: tuple[int | None, ...], *given: Any) -> tuple[Any, Any]:
        size, tensors = info.batch_size, given[: len(arguments)]
        dims = in_dims[: len(arguments)]
        places = results(tensors)
        mapped = [place for place, dim in zip(arguments, dims, strict=True) if dim is not None]
        by_channel = any(place.batch is None for place in (*mapped, *places))
        folded = [
            _fold(tensor, dim, _axis(place, by_channel), size)
            for tensor, dim, place in zip(tensors, dims, arguments, strict=True)
        ]
        found = operator(*folded, *given[len(arguments) :])
        if isinstance(found, torch.Tensor):
            axis = _axis(places[0], by_channel)
            return _unfold(found, axis, size), axis
        axes = [_axis(place, by_channel) for place in places]
        parts = [_unfold(tensor, axis, size) for tensor, axis in zip(found, axes, strict=True)]
        kind = list if isinstance(found, list) else tuple
        return kind(parts), kind(axes)

    return rule


def _axis(place: Place, by_channel: bool) -> int | None:
    return place.channel if by_channel else place.batch


def _fold(tensor: torch.Tensor | None, dim: int | None, axis: int | None, size: int) -> torch.Tensor | None:
    """(…, n, …) with the mapped axis anywhere, or without one, as (…, V·n, …); unchanged without an axis for it."""
    if tensor is None or axis is None:
        return tensor
    if dim is None:
        tensor = tensor.unsqueeze(axis).expand(*tensor.shape[:axis], size, *tensor.shape[axis:])
    else:
        tensor = tensor.movedim(dim, axis)
    return tensor.flatten(axis, axis + 1)


def _unfold(tensor: torch.Tensor, axis: int | None, size: int) -> torch.Tensor:
    """(…, V·n, …) as (…, V, n, …)."""
    assert axis is not None  # a result without a batch forces the channels
    return tensor.reshape(*tensor.shape[:axis], size, tensor.shape[axis] // size, *tensor.shape[axis + 1 :])
