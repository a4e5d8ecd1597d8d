"""Normalisation of features that does not look at padding."""

from __future__ import annotations

import torch
from torch import nn

from ..errors import unknown_name

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
        """
        if real is None or not self.training:
            normed: torch.Tensor = self.norm(x.reshape(-1, x.shape[-1]))
            return normed.view_as(x)
        found = self.norm(x[real])
        return torch.zeros_like(x, dtype=found.dtype).masked_scatter(real[..., None], found)


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
