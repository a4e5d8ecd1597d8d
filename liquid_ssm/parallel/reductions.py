"""Sums over the ranks: of gradients, and of what pooling and batch norms need of all steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from ..errors import ParameterError
from .exchange import Members


def sum_gradients(parameters: nn.Module | Iterable[torch.Tensor], group: Any = None) -> None:
    """Replace the gradient of every parameter by the sum of those of all ranks, each of which has its own steps'.

    That is the gradient of one process for the sum of the losses.  `DistributedDataParallel` divides by the number of
    ranks besides.  One exchange per dtype and device.

    Args:
        parameters: a module or tensors, the same on all ranks in the same order; a gradient of None counts as 0.

    Raises:
        ExchangeFailed: not all ranks took part.
    """
    given = parameters.parameters() if isinstance(parameters, nn.Module) else parameters
    kinds: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = {}
    for parameter in given:
        if parameter.requires_grad:
            kinds.setdefault((parameter.dtype, parameter.device), []).append(parameter)
    for members in kinds.values():
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in members])
        summed = Members.of(group, flat).total("gradients", flat)
        parts = torch.split(summed, [p.numel() for p in members])
        for parameter, part in zip(members, parts, strict=True):
            parameter.grad = part.view_as(parameter).clone()


def total(tensor: torch.Tensor, members: Members) -> torch.Tensor:
    """The sum over ranks, on every rank; the cotangents of all ranks are added up as well."""
    found: torch.Tensor = _Total.apply(tensor, members)  # type: ignore[no-untyped-call]
    return found


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, members: Members) -> torch.Tensor:
        ctx.members = members
        return members.total("sum", tensor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.members.total("cotangent of a sum", grad), None


def batch_norm(norm: nn.BatchNorm1d, x: torch.Tensor, members: Members) -> torch.Tensor:
    """x (..., features) normalised with the mean and variance of all ranks' rows and steps, as in training.

    Accuracy: two passes, as on one process: the variance is a sum of squares of differences from the mean.

    Raises:
        ParameterError: fewer than two rows and steps in all.
    """
    flat = x.reshape(-1, x.shape[-1])
    count = float(members.total("count", flat.new_tensor([len(flat)], dtype=torch.float64)))
    if count < 2:
        raise ParameterError(f"a batch norm in training needs two rows or steps, and the ranks have {count:.0f}.")
    mean = total(flat.sum(0), members) / count
    centred = flat - mean
    variance = total(centred.square().sum(0), members) / count
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(1)
            share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum  # type: ignore[arg-type]
            norm.running_mean.lerp_(mean, share)
            norm.running_var.lerp_(variance * (count / (count - 1)), share)
    found = centred * torch.rsqrt(variance + norm.eps)
    if norm.affine:
        found = found * norm.weight + norm.bias
    return found.view_as(x)
