"""Steps without gradients: the discrete system is kept as long as no parameter has changed in any bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ..finite import finite
from ..modes import State
from ..prepared_step import PreparedStep
from ..tensors import each_part, has_numbers
from .parameters import require_rate
from .stability import clamped, layer_limit

if TYPE_CHECKING:
    from .layer import SSMLayer


class Latest:
    """What the last step computed with.

    Parameters are compared with copies, not by their version counters, which `tensor.data` and optimisers of other
    languages pass by.  Only on a CPU: elsewhere a comparison waits for the device.
    """

    def __init__(self) -> None:
        self._kept: _Kept | None = None

    def step(self, layer: SSMLayer, u_k: torch.Tensor, state: Any, rate: Any) -> tuple[torch.Tensor, Any] | None:
        """y_k and the state after it, or None where there are no numbers to compare or the dtype has no NumPy form.

        None, too, where a parameter is computed from others (`torch.nn.utils.parametrize`).
        """
        if (
            not u_k.is_cpu
            or u_k.dtype not in (torch.float32, torch.float64)
            or isinstance(rate, torch.Tensor)
            or not has_numbers(u_k)
        ):
            return None
        for part in state if isinstance(state, State) else (state,):
            if part is not None and not (isinstance(part, torch.Tensor) and part.is_cpu):
                return None  # `forward` says what is wrong with it
        require_rate(rate)
        # Not as attributes: of a module, each takes a microsecond.
        continuous: Any = layer._modules["continuous"]
        if "D" not in layer._parameters or "parametrizations" in continuous._modules:
            return None  # made of other parameters, which are not looked at here
        D = layer._parameters["D"]
        parameters = [*continuous._parameters.values(), D]
        step, limit = self._prepared(layer, float(rate), parameters)
        driven = u_k if limit is None else clamped(u_k, limit.to(u_k.dtype))
        y, final = step(_shared(driven), each_part(state, _shared))
        out = torch.from_numpy(y)
        if D is not None:
            out.addcmul_(D if D.dtype == out.dtype else D.to(out.dtype), u_k)
            if not finite(y):
                return None  # as above
        return out, each_part(final, torch.from_numpy)

    def _prepared(
        self, layer: SSMLayer, rate: float, parameters: list[torch.Tensor | None]
    ) -> tuple[PreparedStep, torch.Tensor | None]:
        how = layer.spec, layer.backend, layer.tolerance, layer.recheck
        options = (rate, layer.max_gain, layer.discretization, *how)
        kept = self._kept
        if kept is not None and kept.options == options:
            for held, parameter in zip(kept.numbers, parameters, strict=True):
                if not held.are_of(parameter):
                    break
            else:
                return kept.step, kept.limit
        numbers = [_Numbers(parameter) for parameter in parameters]
        system = layer.system(rate)
        limit = None if layer.max_gain is None else layer_limit(layer, system)
        step = PreparedStep(
            system.to_numpy(),
            layer.spec,
            backend=layer.backend,
            tolerance=layer.tolerance,
            recheck=layer.recheck,
        )
        self._kept = _Kept(options, numbers, step, limit)
        return step, limit

    def __getstate__(self) -> dict[str, Any]:
        return {"_kept": None}


class _Kept(NamedTuple):
    options: tuple[Any, ...]
    numbers: list[_Numbers]
    step: PreparedStep
    limit: torch.Tensor | None


class _Numbers:
    """A copy of a parameter's numbers, or of the lack of a parameter."""

    __slots__ = ("_copy", "_dtype", "_place", "_shape", "_stride", "_view")

    def __init__(self, parameter: torch.Tensor | None) -> None:
        self._copy = self._view = None
        if parameter is None:
            return
        numbers = _array_of(parameter)
        self._copy = bytearray(numbers)
        # Where the numbers are, and in which form: as long as these are the same, the view is of what they are now.
        self._place, self._shape, self._stride = parameter.data_ptr(), parameter.shape, parameter.stride()
        self._dtype = parameter.dtype
        if numbers.ctypes.data == self._place:
            self._view = numbers

    def are_of(self, parameter: torch.Tensor | None) -> bool:
        """Whether the parameter has the same numbers, in every bit."""
        if self._copy is None or parameter is None:
            return self._copy is None and parameter is None
        # A bytearray is compared with a contiguous array byte by byte, without a copy.
        if (
            self._view is not None
            and parameter.data_ptr() == self._place
            and parameter.stride() == self._stride
            and parameter.shape == self._shape
            and parameter.dtype is self._dtype
        ):
            return bool(self._copy == self._view)
        return bool(self._copy == _array_of(parameter))


def _shared(tensor: torch.Tensor) -> Any:
    """An array in the memory of a tensor on a CPU, or of what resolves its conjugation or negation."""
    return tensor.numpy(force=tensor.requires_grad or tensor.is_conj() or tensor.is_neg())


def _array_of(parameter: torch.Tensor) -> Any:
    """The numbers as a contiguous array: a view, or a copy where they do not lie so."""
    numbers = parameter.detach()
    if numbers.dtype not in (torch.float32, torch.float64):
        numbers = numbers.float()  # the formats that NumPy lacks are parts of float32
    return np.ascontiguousarray(numbers.numpy())
