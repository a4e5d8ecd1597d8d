"""Steps without gradients: the discrete system is kept as long as no parameter has changed in any bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..prepared_step import PreparedStep
from ..tensors import each_part, has_numbers
from .stability import clamped, layer_limit

if TYPE_CHECKING:
    from .layer import SSMLayer


class Latest:
    """What the last step computed with.

    Parameters are compared with copies, not by their version counters, which `tensor.data` and optimisers of other
    languages pass by.  Only on a CPU: elsewhere a comparison waits for the device.
    """

    def __init__(self) -> None:
        self._kept: tuple[tuple[Any, ...], list[bytes], PreparedStep, torch.Tensor | None] | None = None

    def step(self, layer: SSMLayer, u_k: torch.Tensor, state: Any, rate: Any) -> tuple[torch.Tensor, Any] | None:
        """y_k and the state after it, or None where there are no numbers to compare or the dtype has no NumPy form."""
        if (
            u_k.device.type != "cpu"
            or u_k.dtype not in (torch.float32, torch.float64)
            or isinstance(rate, torch.Tensor)
            or not has_numbers(u_k)
        ):
            return None
        step, limit = self._prepared(layer, float(rate))
        driven = u_k.detach() if limit is None else clamped(u_k.detach(), limit.to(u_k.dtype))
        y, final = step(driven.numpy(), each_part(state, lambda part: part.detach().resolve_conj().numpy()))
        out = torch.from_numpy(y)
        if layer.D is not None:
            out = torch.addcmul(out, layer.D.to(out.dtype), u_k)
        return out, each_part(final, torch.from_numpy)

    def _prepared(self, layer: SSMLayer, rate: float) -> tuple[PreparedStep, torch.Tensor | None]:
        parameters = (*layer.continuous._parameters.values(), layer.D)
        found = [_bits(parameter) for parameter in parameters if parameter is not None]
        how = layer.spec, layer.backend, layer.tolerance, layer.recheck
        options = (rate, layer.max_gain, layer.discretization, *how)
        kept = self._kept
        if kept is not None and kept[0] == options and kept[1] == found:
            return kept[2], kept[3]
        if layer.D is not None:
            layer._require_finite_feedthrough(layer.D)
        system = layer.system(rate)
        limit = None if layer.max_gain is None else layer_limit(layer, system)
        step = PreparedStep(
            system.to_numpy(),
            layer.spec,
            backend=layer.backend,
            tolerance=layer.tolerance,
            recheck=layer.recheck,
        )
        self._kept = (options, found, step, limit)
        return step, limit

    def __getstate__(self) -> dict[str, Any]:
        return {"_kept": None}


def _bits(parameter: torch.Tensor) -> bytes:
    """The numbers as bytes: two strings are compared in a third of the time that two tensors take."""
    numbers = parameter.detach()
    # The formats that NumPy lacks are parts of float32.
    return (numbers if numbers.dtype in (torch.float32, torch.float64) else numbers.float()).numpy().tobytes()
