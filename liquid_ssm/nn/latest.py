"""Steps without gradients: the discrete system is kept as long as no parameter has changed in any bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
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
        self._kept: tuple[tuple[Any, ...], list[bytearray], PreparedStep, torch.Tensor | None] | None = None

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
        D = layer.D
        if D is not None:
            out = torch.addcmul(out, D if D.dtype == out.dtype else D.to(out.dtype), u_k)
        return out, each_part(final, torch.from_numpy)

    def _prepared(self, layer: SSMLayer, rate: float) -> tuple[PreparedStep, torch.Tensor | None]:
        D = layer.D
        parameters = (*layer.continuous._parameters.values(), D)
        found = [_numbers(parameter) for parameter in parameters if parameter is not None]
        how = layer.spec, layer.backend, layer.tolerance, layer.recheck
        options = (rate, layer.max_gain, layer.discretization, *how)
        kept = self._kept
        if kept is not None and kept[0] == options and kept[1] == found:
            return kept[2], kept[3]
        if D is not None:
            layer._require_finite_feedthrough(D)
        system = layer.system(rate)
        limit = None if layer.max_gain is None else layer_limit(layer, system)
        step = PreparedStep(
            system.to_numpy(),
            layer.spec,
            backend=layer.backend,
            tolerance=layer.tolerance,
            recheck=layer.recheck,
        )
        self._kept = (options, [bytearray(numbers) for numbers in found], step, limit)
        return step, limit

    def __getstate__(self) -> dict[str, Any]:
        return {"_kept": None}


def _numbers(parameter: torch.Tensor) -> Any:
    """The numbers as a contiguous array, which a bytearray is compared with byte by byte, without a copy."""
    numbers = parameter.detach()
    if numbers.dtype not in (torch.float32, torch.float64):
        numbers = numbers.float()  # the formats that NumPy lacks are parts of float32
    return np.ascontiguousarray(numbers.numpy())
