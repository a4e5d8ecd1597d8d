"""Normalisation of features that does not look at padding."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..errors import ParameterError, unknown_name
from ..tensors import HALVES, has_numbers

NORMS = ("layer", "batch")


class BatchNorm(nn.Module):
    """`torch.nn.BatchNorm1d` over rows and steps of (batch, length, features), with statistics of true steps only."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(n_features)

    def forward(self, x: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """x (..., features), normalised.

        Args:
            real: in training, which steps of x (batch, length, features) count, (batch, length); others come out as 0.

        Raises:
            ParameterError: in training, one step in all.  Where a compiler traces it and that is a matter of `real`,
                this step comes out as NaN instead.
        """
        if real is None or not self.norm.training:
            steps = x.reshape(-1, x.shape[-1])
            self._require_steps(steps.shape[0], x)
            normed: torch.Tensor = self.norm(steps)
            return normed.view_as(x)
        if not has_numbers(real):
            return self._masked(x, real)
        steps = x[real]
        self._require_steps(steps.shape[0], x)
        found = self.norm(steps)
        return torch.zeros_like(x, dtype=found.dtype).masked_scatter(real[..., None], found)

    def _masked(self, x: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """What `forward` gives in training, within rounding, by shapes that do not depend on how many steps are true.

        A single true step comes out as NaN and leaves the running statistics as they are: nothing can be raised here.
        """
        norm, outside = self.norm, ~real[..., None]
        if not isinstance(norm, nn.BatchNorm1d):
            raise ParameterError(
                f"a {type(norm).__name__} in training has no form for lengths that a compiler could trace; do not "
                "compile it, or leave lengths out."
            )
        v = (x.float() if x.dtype in HALVES else x).masked_fill(outside, 0.0)
        count = real.sum().to(v.dtype)
        mean = v.sum((0, 1)) / count.clamp_min(1)
        centred = (v - mean).masked_fill(outside, 0.0)
        squares = centred.square().sum((0, 1))
        variance = (squares / count.clamp_min(1)).masked_fill(count == 1, math.nan)
        running = norm.running_mean, norm.running_var, norm.num_batches_tracked
        if norm.track_running_stats and running[0] is not None and running[1] is not None and running[2] is not None:
            running[2].add_(1)
            share = 1 / running[2].to(v.dtype) if norm.momentum is None else norm.momentum
            with torch.no_grad():
                for held, new in ((running[0], mean), (running[1], squares / (count - 1))):
                    held.copy_(torch.where(count > 1, (1 - share) * held + share * new, held))
        y = centred * (variance + norm.eps).rsqrt() * norm.weight + norm.bias
        return y.masked_fill(outside, 0.0).to(x.dtype)

    def _require_steps(self, steps: int, x: torch.Tensor) -> None:
        if self.norm.training and isinstance(self.norm, nn.BatchNorm1d) and steps == 1:
            raise ParameterError(
                f"a batch norm in training was given one true step in all, in features of shape {tuple(x.shape)}; a "
                "variance needs two at least. Give more rows or longer ones, call .eval(), or use norm='layer'."
            )


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm` over the features of each step, which no other step enters."""

    def forward(self, x: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """x (..., features), normalised; `real` as in `BatchNorm`."""
        return super().forward(x)


def normalisation(name: str, n_features: int) -> nn.Module:
    """The `layer` or `batch` norm."""
    if name not in NORMS:
        raise unknown_name("norm", name, NORMS)
    return LayerNorm(n_features) if name == "layer" else BatchNorm(n_features)
