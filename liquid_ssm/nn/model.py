"""`SequenceModel`: encoder, blocks, pooling and head, for whole sequences and step by step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from ..errors import ParameterError, ShapeError, require_whole, unknown_name
from ..tensors import has_numbers
from .block import Block
from .layer import SSMLayer
from .model_inputs import raise_not_finite, require_finite_output, require_numbers, require_shape
from .normalisation import normalisation
from .padding import handed_on, mask, require_padding

POOLINGS = ("last", "mean", "none")


class ModelState(NamedTuple):
    """What a `SequenceModel` carries from one call to the next.

    Attributes:
        layers: the state of each block.
        total: with pooling `mean`, the sum of features so far, (batch, n_channels); else None.
        steps: with pooling `mean`, how many steps it is a sum of, (batch,); else None.
    """

    layers: tuple[Any, ...]
    total: torch.Tensor | None = None
    steps: torch.Tensor | None = None


class SequenceModel(nn.Module):
    """Sequences (batch, length, n_inputs) to outputs, through residual blocks of state-space layers.

    Args:
        n_inputs: features of the input; with `tokens`, the size of the vocabulary.
        n_outputs: features of the output.
        n_layers: number of blocks.
        n_channels: features between blocks, H.
        layer: makes the layer of a block from its number of features; None for `SSMLayer(H, **options)`.
        tokens: inputs are whole numbers (batch, length), embedded; else they are mapped linearly.
        pooling: `last` and `mean` give one output per row, of the last true step or of the mean of all of them; `none`
            gives one per step.
        norm, prenorm, activation, dropout, glu: of `Block`; with prenorm a norm stands before the head, too.
        options: of `SSMLayer`.

    Raises:
        ParameterError: an unknown name, or options of a layer that is given.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        *,
        n_layers: int = 4,
        n_channels: int = 128,
        layer: Callable[[int], nn.Module] | None = None,
        tokens: bool = False,
        pooling: str = "last",
        norm: str = "layer",
        prenorm: bool = True,
        activation: str = "gelu",
        dropout: float = 0.0,
        glu: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise unknown_name("pooling", pooling, POOLINGS)
        sizes = {"n_inputs": n_inputs, "n_outputs": n_outputs, "n_layers": n_layers, "n_channels": n_channels}
        for name, size in sizes.items():
            require_whole(name, size)
        if layer is not None and options:
            raise ParameterError(f"{', '.join(options)}: options of SSMLayer do not go with a layer that is given.")
        if isinstance(layer, nn.Module):
            raise ParameterError(
                f"layer is a {type(layer).__name__}; give what makes one for a block, such as "
                "lambda features: SSMLayer(features)."
            )
        make = layer or (lambda features: SSMLayer(features, **options))
        self.tokens, self.pooling, self.n_inputs = tokens, pooling, n_inputs
        self.encoder = nn.Embedding(n_inputs, n_channels) if tokens else nn.Linear(n_inputs, n_channels)
        blocks = [
            Block(make(n_channels), norm=norm, prenorm=prenorm, activation=activation, dropout=dropout, glu=glu)
            for _ in range(n_layers)
        ]
        made = blocks[0].layer.n_channels
        if made != n_channels:
            raise ParameterError(
                f"n_channels is {n_channels}, but the layer that was made has {made}; make it of as many features as "
                "it is told."
            )
        self.blocks: Any = nn.ModuleList(blocks)
        self.norm = normalisation(norm, n_channels) if prenorm else None
        self.head = nn.Linear(n_channels, n_outputs)

    def forward(
        self,
        u: torch.Tensor,
        lengths: torch.Tensor | None = None,
        state: ModelState | None = None,
        rate: float | torch.Tensor = 1.0,
        dt: torch.Tensor | None = None,
        *,
        padding: str = "right",
        return_state: bool = False,
    ) -> Any:
        """Outputs of whole sequences.

        Args:
            u: (batch, length, n_inputs), or whole numbers (batch, length) with `tokens`.
            others: as in `SSMLayer.forward`.

        Returns:
            (batch, n_outputs), with pooling `none` (batch, length, n_outputs); and the state if it is asked for.

        Raises:
            ShapeError, ParameterError, DTypeError: what was given does not fit; a row without steps has no last one and
                no mean.
            UnstableRecurrence: the state of a layer left the range of the dtype, as does any other number of the model
                whose outputs would not be finite, or a parameter is no longer finite.
        """
        require_shape(self, u)
        require_padding(padding)
        real = None
        if lengths is not None:
            real = mask(lengths, u.shape[:2], padding, u.device)
            # Norms and sums look at what lies outside: NaN times a cotangent of 0 is NaN.
            u = u.masked_fill(~real if self.tokens else ~real[..., None], 0)
        require_numbers(self, u)
        self._check_state(state, u)
        x = self._encoded(u)
        finals = []
        for i, block in enumerate(self.blocks):
            before = None if state is None else state.layers[i]
            options = handed_on(real, block, Block)
            run = partial(block, padding=padding, return_state=return_state, **options)
            x = self._called(i, run, u, x, lengths, before, rate, dt)
            if return_state:
                x, final = x
                finals.append(final)
        if self.norm is not None:
            x = self.norm(x, real)
        x, total, count = self._pooled(x, real, padding, state)
        y = self.head(x)
        require_finite_output(self, u, y)
        return (y, ModelState(tuple(finals), total, count)) if return_state else y

    def prefill(
        self,
        chunk: torch.Tensor,
        state: ModelState | None = None,
        rate: float | torch.Tensor = 1.0,
        dt: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ModelState]:
        """The next piece of a sequence: the outputs, pooled over all pieces so far, and the state after it."""
        y, final = self(chunk, state=state, rate=rate, dt=dt, return_state=True)
        return y, final

    def step(
        self,
        u_k: torch.Tensor,
        state: ModelState | None = None,
        rate: float | torch.Tensor = 1.0,
        dt: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ModelState]:
        """One time step: u_k (batch, n_inputs), or (batch,) tokens, gives (batch, n_outputs) and the state after it.

        With pooling `last` or `mean` the output is that of the sequence so far.
        """
        require_shape(self, u_k, step=True)
        require_numbers(self, u_k)
        self._check_state(state, u_k)
        x = self._encoded(u_k)
        finals = []
        for i, block in enumerate(self.blocks):
            x, final = self._called(i, block.step, u_k, x, None if state is None else state.layers[i], rate, dt)
            finals.append(final)
        if self.norm is not None:
            x = self.norm(x)
        total = count = None
        if self.pooling == "mean":
            x, total, count = self._pooled(x[:, None], None, "right", state)
        y = self.head(x)
        require_finite_output(self, u_k, y)
        return y, ModelState(tuple(finals), total, count)

    def initial_state(self, batch: int) -> ModelState:
        """Rest: the state before the first input."""
        require_whole("batch", batch, 0)
        layers = tuple(block.initial_state(batch) for block in self.blocks)
        if self.pooling != "mean":
            return ModelState(layers)
        zeros = self.head.weight.new_zeros((batch, self.head.in_features))
        return ModelState(layers, zeros, zeros[:, 0].clone())

    def _pooled(
        self, x: torch.Tensor, real: torch.Tensor | None, padding: str, state: ModelState | None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """What the head sees, and with pooling `mean` the sum and the number of steps so far."""
        if self.pooling == "none":
            return x, None, None
        if self.pooling == "last":
            if x.shape[1] == 0:
                raise ShapeError("u has no steps, and so no last one; use pooling='none' for empty pieces.")
            if real is not None:
                require_steps(real.sum(1))
            if real is None or padding == "left":
                return x[:, -1], None, None
            last = (real.sum(1) - 1).clamp_min(0)
            return x.gather(1, last[:, None, None].expand(-1, 1, x.shape[2]))[:, 0], None, None
        seen = x if real is None else x.masked_fill(~real[..., None], 0.0)
        total = seen.sum(1)
        count = total.new_full((x.shape[0],), x.shape[1]) if real is None else real.sum(1).to(total)
        if state is not None and state.total is not None and state.steps is not None:
            total, count = total + state.total, count + state.steps
        require_steps(count)
        return total / count[:, None].clamp_min(1), total, count

    def _encoded(self, u: torch.Tensor) -> torch.Tensor:
        # An embedding takes no narrower whole numbers.
        x: torch.Tensor = self.encoder(u.long() if self.tokens else u)
        return x

    def _called(self, i: int, run: Callable[..., Any], u: torch.Tensor, x: torch.Tensor, *given: Any) -> Any:
        """run(x, …) of block i; where a layer refuses x because it is not finite, it is told what made it so."""
        if torch.compiler.is_compiling():
            return run(x, *given)
        try:
            return run(x, *given)
        except ParameterError as error:
            if has_numbers(x) and not bool(torch.isfinite(x).all()):
                raise_not_finite(self, u, f"the input of block {i}", error)
            raise

    def _check_state(self, state: ModelState | None, u: torch.Tensor) -> None:
        if state is not None and (not isinstance(state, ModelState) or len(state.layers) != len(self.blocks)):
            given = f"{len(state.layers)} layers" if isinstance(state, ModelState) else type(state).__name__
            raise ParameterError(
                f"state is that of {given}; give a ModelState of {len(self.blocks)} layers, as an earlier call or "
                "initial_state returned it."
            )
        if state is None or self.pooling != "mean":
            return
        if state.total is None or state.steps is None:
            raise ParameterError(
                "state has no sum of features (total, steps), which pooling 'mean' goes on from; give the ModelState "
                "that an earlier call or initial_state of this model returned."
            )
        rows = u.shape[0]
        wanted = {"total": (rows, self.blocks[0].layer.n_channels), "steps": (rows,)}
        for name, part in (("total", state.total), ("steps", state.steps)):
            if tuple(part.shape) != wanted[name]:
                raise ShapeError(
                    f"{name} of the state has shape {tuple(part.shape)}; with this u it has {wanted[name]}."
                )


def require_steps(steps: torch.Tensor) -> None:
    if has_numbers(steps) and bool((steps == 0).any()):
        row = int((steps == 0).nonzero()[0, 0])
        raise ParameterError(
            f"row {row} has no steps, and so neither a last one nor a mean; leave it out, or use pooling='none'."
        )
