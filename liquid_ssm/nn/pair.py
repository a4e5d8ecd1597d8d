"""`PairModel`: two sequences, encoded by one model, and what they have to do with each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..errors import ShapeError


class PairModel(nn.Module):
    """Two sequences (batch, 2, length, …) to outputs: an MLP 4d → d → n_outputs on [a, b, a − b, a ∘ b].

    Args:
        encoder: gives features (batch, n_channels) of sequences; its `head` is taken away.
        n_channels: d.
        n_outputs: features of the output.
    """

    def __init__(self, encoder: Any, n_channels: int, n_outputs: int) -> None:
        super().__init__()
        encoder.head = nn.Identity()
        self.encoder: Any = encoder
        self.head = nn.Sequential(
            nn.Linear(4 * n_channels, n_channels), nn.GELU(), nn.Linear(n_channels, n_outputs)
        )  # fmt: skip

    def forward(
        self, u: torch.Tensor, lengths: torch.Tensor | None = None, rate: float | torch.Tensor = 1.0
    ) -> torch.Tensor:
        """Outputs (batch, n_outputs).

        Args:
            u: (batch, 2, length, n_inputs), or whole numbers (batch, 2, length); padded on the right.
            lengths: true lengths, (batch, 2); None: all of it.
            rate: as in the encoder.

        Raises:
            ShapeError: these are no pairs.
        """
        if u.ndim < 3 or u.shape[1] != 2:
            raise ShapeError(f"u has shape {tuple(u.shape)}; a model of pairs takes (batch, 2, length, …).")
        lengths = None if lengths is None else torch.as_tensor(lengths)
        if lengths is not None and tuple(lengths.shape) != (len(u), 2):
            raise ShapeError(f"lengths have shape {tuple(lengths.shape)}; {len(u)} pairs have ({len(u)}, 2).")
        both = self.encoder(u.flatten(0, 1), lengths=None if lengths is None else lengths.flatten(), rate=rate)
        return self.compared(both)

    def compared(self, features: torch.Tensor) -> torch.Tensor:
        """Outputs of features (2 · batch, n_channels), those of a pair one after the other.

        Raises:
            ShapeError: there are features of every step.
        """
        if features.ndim != 2:
            raise ShapeError(
                f"the encoder gives features of shape {tuple(features.shape)}; a model of pairs compares one vector of "
                "each sequence: give it an encoder with pooling 'mean' or 'last'."
            )
        a, b = features.view(-1, 2, features.shape[-1]).unbind(1)
        y: torch.Tensor = self.head(torch.cat([a, b, a - b, a * b], -1))
        return y
