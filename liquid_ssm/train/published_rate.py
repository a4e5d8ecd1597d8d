"""Another sampling rate as the published code has it: the liquid term keeps the step sizes of training."""

from __future__ import annotations

from copy import copy, deepcopy
from typing import Any

import torch
from torch import nn

from ..errors import ParameterError
from ..nn import SSMLayer
from ..problem import ModeSpec


class PublishedRate(nn.Module):
    """A layer of mode `pb` whose linear term alone knows of the rate.

    The published code gives the rate to the kernel of the linear term, and computes the factors of the liquid term
    (Eq. 15) from the step sizes as they were trained.

    Args:
        layer: its parameters are shared, not copied.
    """

    def __init__(self, layer: SSMLayer) -> None:
        super().__init__()
        self.layer = layer
        linear = copy(layer)
        linear.spec = ModeSpec("s4")
        # In a tuple, so that its parameters, which are the layer's, are not counted twice.
        self._linear = (linear,)

    def forward(
        self, u: torch.Tensor, *, rate: float = 1.0, state: Any = None, dt: Any = None, **options: Any
    ) -> torch.Tensor:
        """Outputs of whole sequences from rest; as in `SSMLayer.forward`."""
        (linear,) = self._linear
        if state is not None or dt is not None or options.pop("return_state", False):
            raise ParameterError("the published form of a rate has no states and no intervals per step.")
        # D u is in each of the three, so once in what is left.
        found: torch.Tensor = linear(u, rate=rate, **options) + (self.layer(u, **options) - linear(u, **options))
        return found


def require_pb(model: nn.Module) -> None:
    """Raise a `ParameterError` if the published form does not exist for the model: layers of another mode, or none."""
    modes = {layer.spec.mode for layer in model.modules() if isinstance(layer, SSMLayer)}
    if modes != {"pb"}:
        what = f"layers of mode {', '.join(sorted(modes))}" if modes else "no state-space layers"
        raise ParameterError(
            f"the published form of a rate is one of mode pb, and this model has {what}; leave --as-published out."
        )


def with_published_rate(model: nn.Module) -> nn.Module:
    """A copy of the model, each of whose state-space layers is a `PublishedRate`.

    Raises:
        ParameterError: as `require_pb`.
    """
    require_pb(model)
    found = deepcopy(model)
    for parent in list(found.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, SSMLayer):
                setattr(parent, name, PublishedRate(child))
    return found
