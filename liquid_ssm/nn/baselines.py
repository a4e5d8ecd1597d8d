"""The models that state-space models are compared with: an LSTM and a Transformer, with what `SequenceModel` takes."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from ..errors import ParameterError, require_whole, unknown_name
from ..tensors import has_numbers
from .block import ACTIVATIONS
from .model import POOLINGS
from .model_inputs import require_finite_output, require_numbers, require_shape
from .padding import mask
from .parameters import require_rate

DEFAULT_HEADS = 4


class LSTMState(NamedTuple):
    """What an `LSTM` carries from one step to the next.

    Attributes:
        h, c: of all layers, (n_layers, batch, n_channels).
        total: the sum of features so far, (batch, n_channels).
        steps: how many steps it is a sum of.
    """

    h: torch.Tensor
    c: torch.Tensor
    total: torch.Tensor
    steps: int


class _Baseline(nn.Module):
    """Encoder, features by a subclass, pooling and head: sequences (batch, length, n_inputs) to (batch, n_outputs)."""

    def __init__(self, n_inputs: int, n_outputs: int, n_channels: int, tokens: bool, pooling: str) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise unknown_name("pooling", pooling, POOLINGS)
        self.tokens, self.pooling, self.n_inputs = tokens, pooling, n_inputs
        self.encoder = nn.Embedding(n_inputs, n_channels) if tokens else nn.Linear(n_inputs, n_channels)
        self.head: nn.Module = nn.Linear(n_channels, n_outputs)

    def features(self, x: torch.Tensor, real: torch.Tensor | None, rate: float) -> torch.Tensor:
        """Features (batch, length, n_channels) to as many; what is not real has no influence on what is."""
        raise NotImplementedError

    def forward(
        self, u: torch.Tensor, lengths: torch.Tensor | None = None, rate: float | torch.Tensor = 1.0
    ) -> torch.Tensor:
        """Outputs of whole sequences.

        Args:
            u: (batch, length, n_inputs), or whole numbers (batch, length) with `tokens`; padded on the right.
            lengths: true length of each row; None: all of it.
            rate: 2 for a signal that is sampled half as often as in training.

        Returns:
            (batch, n_outputs), with pooling `none` (batch, length, n_outputs).

        Raises:
            ShapeError, DTypeError, ParameterError: what was given does not fit or is not finite, or a row has no steps.
            UnstableRecurrence: parameters or outputs are not finite.
        """
        require_shape(self, u)
        require_rate(rate)
        real = None
        if lengths is not None:
            real = mask(lengths, u.shape[:2], "right", u.device)
            u = u.masked_fill(~real if self.tokens else ~real[..., None], 0)
        require_numbers(self, u)
        if u.shape[1] == 0 or (real is not None and has_numbers(real) and not bool(real.any(1).all())):
            raise ParameterError("a row has no steps, and so no features; leave it out.")
        x = self.encoder(u.long() if self.tokens else u)
        y: torch.Tensor = self.head(self._pooled(self.features(x, real, float(rate)), real))
        require_finite_output(self, u, y)
        return y

    def _pooled(self, x: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor:
        if self.pooling == "none":
            return x
        if real is None:
            return x[:, -1] if self.pooling == "last" else x.mean(1)
        count = real.sum(1)
        if self.pooling == "last":
            return x.gather(1, (count - 1)[:, None, None].expand(-1, 1, x.shape[2]))[:, 0]
        return x.masked_fill(~real[..., None], 0.0).sum(1) / count[:, None]


class LSTM(_Baseline):
    """torch's LSTM, causal; padding on the right comes after all that is looked at.

    Args:
        n_inputs, n_outputs, n_layers, n_channels, tokens, pooling: as in `SequenceModel`.
        dropout: share of features that are dropped, between layers and after the last.

    The step size has no meaning for an LSTM, so `rate` changes nothing.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        *,
        n_layers: int = 4,
        n_channels: int = 128,
        tokens: bool = False,
        pooling: str = "mean",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(n_inputs, n_outputs, n_channels, tokens, pooling)
        # torch drops between layers only, and warns where there is but one.
        between = dropout if n_layers > 1 else 0.0
        self.lstm = nn.LSTM(n_channels, n_channels, n_layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(dropout)

    def features(self, x: torch.Tensor, real: torch.Tensor | None, rate: float) -> torch.Tensor:
        """As the base class says: what is not real comes after all that is."""
        y: torch.Tensor = self.dropout(self.lstm(x)[0])
        return y

    def step(
        self, u_k: torch.Tensor, state: LSTMState | None = None, rate: float | torch.Tensor = 1.0
    ) -> tuple[torch.Tensor, LSTMState]:
        """One time step: u_k (batch, n_inputs), or (batch,) tokens, gives (batch, n_outputs) and the state after it.

        Raises:
            others: as `forward`.
        """
        require_shape(self, u_k, step=True)
        require_rate(rate)
        require_numbers(self, u_k)
        x = self.encoder(u_k.long() if self.tokens else u_k)
        x, (h, c) = self.lstm(x[:, None], None if state is None else (state.h, state.c))
        x = self.dropout(x[:, 0])
        total, steps = (x, 1) if state is None else (state.total + x, state.steps + 1)
        y = self.head(total / steps if self.pooling == "mean" else x)
        require_finite_output(self, u_k, y)
        return y, LSTMState(h, c, total, steps)


class Transformer(_Baseline):
    """torch's Transformer encoder, in which every step sees every true step, with sinusoidal positions.

    Args:
        n_inputs, n_outputs, n_layers, n_channels, tokens, pooling: as in `SequenceModel`.
        heads: of the attention; n_channels is a multiple of it, and even.
        prenorm: layer norms before attention and feed-forward network, and one at the end; else after them.
        activation: of the feed-forward network of width 2 · n_channels.
        dropout: as in torch.

    Positions are those of time: with rate 2, step k stands where step 2k stood in training.

    Raises:
        ParameterError: a width that the heads do not divide, or an unknown name.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        *,
        n_layers: int = 4,
        n_channels: int = 128,
        tokens: bool = False,
        pooling: str = "mean",
        prenorm: bool = True,
        activation: str = "gelu",
        dropout: float = 0.0,
        heads: int = DEFAULT_HEADS,
    ) -> None:
        require_whole("heads", heads)
        if n_channels % width_unit(heads):
            raise ParameterError(
                f"n_channels is {n_channels}; a Transformer of {heads} heads with sinusoidal positions needs a "
                f"multiple of {width_unit(heads)}."
            )
        if activation not in ACTIVATIONS:
            raise unknown_name("activation", activation, tuple(ACTIVATIONS))
        super().__init__(n_inputs, n_outputs, n_channels, tokens, pooling)
        layer = nn.TransformerEncoderLayer(
            n_channels,
            heads,
            2 * n_channels,
            dropout,
            ACTIVATIONS[activation](),
            batch_first=True,
            norm_first=prenorm,
        )
        norm = nn.LayerNorm(n_channels) if prenorm else None
        self.layers = nn.TransformerEncoder(layer, n_layers, norm, enable_nested_tensor=False)

    def features(self, x: torch.Tensor, real: torch.Tensor | None, rate: float) -> torch.Tensor:
        """As the base class says: attention leaves out what is not real."""
        x = x + positions(x.shape[1], x.shape[2], rate).to(x)
        y: torch.Tensor = self.layers(x, src_key_padding_mask=None if real is None else ~real)
        return y


def width_unit(heads: int) -> int:
    """What the width of a `Transformer` is a multiple of."""
    return math.lcm(2, heads)


def positions(length: int, width: int, rate: float = 1.0) -> torch.Tensor:
    """sin and cos of rate · k · 10000^(−2i/width), (length, width), width even (arXiv 1706.03762, section 3.5)."""
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10_000) / width))
    angles = rate * torch.arange(length, dtype=torch.float64)[:, None] * rates
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)
