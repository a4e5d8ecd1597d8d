"""A regulariser that keeps |ā + b̄ u| of all layers of a model below a bound, from the inputs that they get."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from math import inf
from numbers import Real
from typing import Any

import torch
from torch import nn

from ..errors import ParameterError
from ..tensors import HALVES
from .layer import SSMLayer
from .padding import mask
from .stability import FULL, contracts_always, drive_of, radius_of


@dataclass(frozen=True, eq=False)
class LayerInput:
    """What one call of an `SSMLayer` was given.

    Attributes:
        name: of the layer in the model.
        layer: itself.
        u: (batch, length, H), float32 or float64, 0 outside of true lengths, with its gradient.
        rate, dt: as in `SSMLayer.forward`.
        from_rest: whether no state was given.
    """

    name: str
    layer: SSMLayer
    u: torch.Tensor
    rate: float | torch.Tensor = 1.0
    dt: torch.Tensor | None = None
    from_rest: bool = True

    def systems(self) -> list[Any]:
        """The discrete system, with gradients; with dt those of the shortest and of the longest interval."""
        return [self.layer.system(rate) for rate in self.rates()]

    def rates(self) -> list[Any]:
        """Factors of the step size: rate, with dt the shortest and the longest interval."""
        if self.dt is None or self.dt.numel() == 0:
            return [self.rate]
        return [end * self.rate for end in (self.dt.amin(), self.dt.amax())]


@contextmanager
def recorded_inputs(model: nn.Module) -> Iterator[list[LayerInput]]:
    """Within the block, every call of an `SSMLayer` in the model adds its input to the list, in the order of calls.

    By forward hooks, which a model that `torch.compile` has already compiled does not call.
    """
    inputs: list[LayerInput] = []
    handles = []

    def watch(name: str, layer: SSMLayer) -> Any:
        parameters = signature(type(layer).forward)

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = parameters.bind(layer, *args, **kwargs)
            given.apply_defaults()
            inputs.append(_layer_input(name, layer, **given.arguments))

        return layer.register_forward_pre_hook(hook, with_kwargs=True)

    try:
        for name, module in model.named_modules():
            if isinstance(module, SSMLayer):
                handles.append(watch(name or type(module).__name__, module))
        yield inputs
    finally:
        for handle in handles:
            handle.remove()


def gain_penalty(inputs: Sequence[LayerInput], bound: float = 1.0) -> torch.Tensor:
    """A regulariser: mean over layers of the mean over modes of relu(g − bound)², g the mode's largest gain.

    For inputs up to ±m, m the largest |u| of the channel: diagonal, g = max |ā ± b̄ m|; `mimo`, |ā| + Σ_h |b̄_h| m_h;
    `dplr` and `dense`, one per channel, ‖Ā‖₂ + max |b̄| m, with 1 for ‖Ā‖₂ where Ā is known to contract; mode `s4`,
    which has no b̄ u, |ā|.  Gradients reach ā and b̄ of every mode above the bound and, through m, what comes before
    the layer.

    Args:
        inputs: of `recorded_inputs`.  Those of a layer with `max_gain` count as they were before the clamp.
        bound: positive; for `dplr` layers above 1.

    Returns:
        A number, 0 where no gain is above the bound.  Of a call with dt the larger one at its shortest and its longest
        interval counts; of a layer with two directions both have the same ā and b̄.

    Raises:
        ParameterError: nothing was recorded, or a bound that no input satisfies.
    """
    if not inputs:
        raise ParameterError(
            "no call of an SSMLayer was recorded; run the model, uncompiled, within recorded_inputs(model)."
        )
    if isinstance(bound, bool) or not isinstance(bound, Real) or not 0 < bound < inf:
        raise ParameterError(f"bound is {bound!r}; it is a positive bound of |ā + b̄ u|, such as 1.1.")
    return torch.stack([_penalty(given, bound) for given in inputs]).mean()


def _penalty(given: LayerInput, bound: float) -> torch.Tensor:
    if given.layer.integrates:
        raise ParameterError(
            f"{given.name} is discretised by {given.layer.discretization}, which has no ā + b̄ u to bound; leave it out "
            "of the inputs (max_gain clamps bilinear-exact), or discretise with euler, bilinear or zoh."
        )
    contracts = contracts_always(given.layer)
    largest = given.u.abs().amax((0, 1)) if given.u.numel() else given.u.new_zeros(given.layer.n_channels)
    terms = []
    for system in given.systems():
        if system.structure in FULL and contracts and bound <= 1:
            raise ParameterError(
                f"bound is {bound}, but the linear part of {given.name} ({given.layer.structure}) may have norm 1, "
                "which leaves no input; give a bound above 1, such as 1.1."
            )
        unmoved = given.layer.spec.mode == "s4"
        found = _largest_gains(system, torch.zeros_like(largest) if unmoved else largest, contracts)
        terms.append(torch.relu(found - bound).square().mean())
    return torch.stack(terms).amax()


def _largest_gains(system: Any, largest: torch.Tensor, contracts: bool) -> torch.Tensor:
    """The largest gain of each mode for inputs up to ±largest (H,), or a bound of it where modes or channels mix."""
    size = largest.to(system.B_bar.real)
    if system.structure == "diagonal":
        drive = system.B_bar * size[:, None]
        return torch.maximum((system.A_bar + drive).abs(), (system.A_bar - drive).abs())
    added = system.B_bar.abs() @ size if system.structure == "mimo" else drive_of(system) * size[:, None]
    return radius_of(system, contracts) + added


def _layer_input(
    name: str,
    layer: SSMLayer,
    u: torch.Tensor,
    lengths: torch.Tensor | None,
    state: Any,
    rate: float | torch.Tensor,
    dt: torch.Tensor | None,
    padding: str,
    **_: Any,
) -> LayerInput:
    if u.dtype in HALVES:
        u = u.float()
    if lengths is not None and u.ndim == 3:
        real = mask(lengths, u.shape[:2], padding, u.device)
        u = u.masked_fill(~real[..., None], 0.0)
        dt = None if dt is None else dt.masked_fill(~real, 1.0)
    return LayerInput(name, layer, u, rate, dt, state is None)
