"""`Block`: a state-space layer with what stands around it in the paper's networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..errors import ParameterError, UnstableRecurrence, unknown_name
from ..tensors import has_numbers
from .layer import SSMLayer
from .normalisation import BatchNorm, normalisation
from .padding import handed_on, mask, require_padding
from .parameters import require_finite_parameters

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh, "none": nn.Identity}


class Block(nn.Module):
    """x + dropout(W dropout(activation(layer(norm(x))))), with W linear or a gated linear unit.

    With prenorm=False the norm comes last: norm(x + …).

    Args:
        layer: an `SSMLayer`, or another layer with its methods, of `n_channels` features.
        norm: `layer` or `batch`.
        prenorm: the norm comes before the layer.
        activation: one of `ACTIVATIONS`.
        dropout: share of features that are dropped, of single ones.
        glu: W is a linear map to twice as many features and a gated linear unit; else to as many.

    Raises:
        ParameterError: an unknown name, or a dropout outside [0, 1).
    """

    def __init__(
        self,
        layer: Any,
        *,
        norm: str = "layer",
        prenorm: bool = True,
        activation: str = "gelu",
        dropout: float = 0.0,
        glu: bool = True,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise unknown_name("activation", activation, tuple(ACTIVATIONS))
        if not 0 <= dropout < 1:
            raise ParameterError(f"dropout is {dropout}; it is a share of features, at least 0 and below 1.")
        if not isinstance(getattr(layer, "n_channels", None), int):
            raise ParameterError(
                f"layer is a {type(layer).__name__} without n_channels; give an SSMLayer, or a module with its methods."
            )
        features = layer.n_channels
        self.layer: Any = layer
        self.norm = normalisation(norm, features)
        self.prenorm = prenorm
        self.activation = ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)
        linear = nn.Linear(features, 2 * features if glu else features)
        self.output = nn.Sequential(linear, nn.GLU(dim=-1)) if glu else linear

    def forward(
        self,
        x: torch.Tensor,
        lengths: torch.Tensor | None = None,
        state: Any = None,
        rate: float | torch.Tensor = 1.0,
        dt: torch.Tensor | None = None,
        *,
        padding: str = "right",
        return_state: bool = False,
        _real: torch.Tensor | None = None,
    ) -> Any:
        """Features (batch, length, n_channels) to as many; arguments as in `SSMLayer.forward`."""
        require_padding(padding)
        real = _real
        if lengths is not None and real is None:
            real = mask(lengths, x.shape[:2], padding, x.device)
            # The norm and the sum with x look at what lies outside: NaN times a cotangent of 0 is NaN.
            x = x.masked_fill(~real[..., None], 0.0)
        options = {"lengths": lengths, "padding": padding, "return_state": return_state}
        options |= handed_on(real, self.layer, SSMLayer)
        found = self._called(
            self.layer, x, self.norm(x, real) if self.prenorm else x, state=state, rate=rate, dt=dt, **options
        )
        y, final = found if return_state else (found, None)
        y = self._joined(x, y)
        if not self.prenorm:
            y = self.norm(y, real)
        return (y, final) if return_state else y

    def prefill(
        self,
        chunk: torch.Tensor,
        state: Any = None,
        rate: float | torch.Tensor = 1.0,
        dt: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Any]:
        """As `SSMLayer.prefill`."""
        y, final = self(chunk, state=state, rate=rate, dt=dt, return_state=True)
        return y, final

    def step(
        self,
        x_k: torch.Tensor,
        state: Any = None,
        rate: float | torch.Tensor = 1.0,
        dt: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Any]:
        """As `SSMLayer.step`.

        Raises:
            ParameterError: a batch norm in training, whose statistics are those of whole sequences.
        """
        if self.training and isinstance(self.norm, BatchNorm):
            raise ParameterError(
                "in training, a batch norm normalises with the statistics of whole sequences, which a step does not "
                "have; call .eval() first, or use norm='layer'."
            )
        y, final = self._called(self.layer.step, x_k, self.norm(x_k) if self.prenorm else x_k, state, rate, dt)
        y = self._joined(x_k, y)
        return y if self.prenorm else self.norm(y), final

    def initial_state(self, batch: int) -> Any:
        """As `SSMLayer.initial_state`."""
        return self.layer.initial_state(batch)

    def _called(
        self, run: Callable[..., Any], x: torch.Tensor, normed: torch.Tensor, *given: Any, **options: Any
    ) -> Any:
        """run(normed, …); that the norm has made finite x not finite is told as what it is."""
        if torch.compiler.is_compiling():
            return run(normed, *given, **options)
        try:
            return run(normed, *given, **options)
        except ParameterError as error:
            if has_numbers(x) and bool(torch.isfinite(x).all()) and not bool(torch.isfinite(normed).all()):
                require_finite_parameters(self, error)
                raise out_of_range("the norm before a layer", x) from error
            raise

    def _joined(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        joined: torch.Tensor = x + self.dropout(self.output(self.dropout(self.activation(y))))
        return joined


def out_of_range(where: str, given: torch.Tensor) -> UnstableRecurrence:
    """The error for numbers of a model that are not finite, though its input and its parameters are."""
    largest = float(given.detach().abs().max()) if given.numel() else 0.0
    return UnstableRecurrence(
        f"{where} holds NaN or infinite values, though what was given is finite (largest: {largest:.3g}): numbers left "
        "the range of their dtype. Scale inputs down; where training led here, load the last finite state_dict, then "
        "lower the learning rate (ssm_lr of parameter_groups) or clip gradients (torch.nn.utils.clip_grad_norm_).",
        step=0,
        channel=0,
        input_bound=None,
    )
