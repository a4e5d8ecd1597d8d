"""`liquid_ssm::kernel`: K_i = weight · Re(C Āⁱ B̄^{∘power}), (H, length)."""

from __future__ import annotations

from typing import Any

import torch

from . import checks
from .batching import Place
from .library import PARAMETERS, Call, by_argument, differentiable, differentiable_once, operator, present
from .memory import tensor_of

Tensor = torch.Tensor

_KERNEL = Place(None, 0)
_ARGUMENTS = (Place(None, 0), Place(None, 0), Place(None, 0), Place(None, 1), Place(None, 1))
_OPTIONS = "SymInt length, SymInt power, bool conjugate_pairs, str backend"


def _checked(arguments: tuple[Any, ...]) -> torch.dtype:
    *parameters, length, power, _, _ = arguments
    checks.at_least("length", length, 0)
    checks.at_least("power", power, 1)
    return checks.parameters(parameters)


def _real(*arguments: Any) -> Tensor:
    *parameters, length, power, pairs, backend = arguments
    _checked(arguments)
    call = Call(backend, parameters[0])
    return tensor_of(call.kernel(call.system(parameters, pairs), length, power))


def _fake(*arguments: Any) -> Tensor:
    A_bar, *_, length, _, _, _ = arguments
    return A_bar.new_empty((A_bar.shape[0], length), dtype=_checked(arguments))  # type: ignore[no-any-return]


def _real_backward(grad: Tensor, *arguments: Any) -> list[Tensor]:
    *parameters, length, power, pairs, backend = arguments
    _checked(arguments)
    call = Call(backend, grad)
    return by_argument(call.kernel_vjp(call.system(parameters, pairs), length, power, call.take(grad)))


def _fake_backward(grad: Tensor, *arguments: Any) -> list[Tensor]:
    _checked(arguments)
    return [tensor.new_empty(tensor.shape) for tensor in arguments[: len(_ARGUMENTS)] if tensor is not None]


kernel = operator(f"kernel({PARAMETERS}, {_OPTIONS}) -> Tensor", _real, _fake, _ARGUMENTS, lambda _: (_KERNEL,))
kernel_backward = operator(
    f"kernel_backward(Tensor grad, {PARAMETERS}, {_OPTIONS}) -> Tensor[]",
    _real_backward,
    _fake_backward,
    (_KERNEL, *_ARGUMENTS),
    present(*_ARGUMENTS),
)
differentiable("kernel", kernel, kernel_backward, len(_ARGUMENTS))
differentiable_once("kernel", kernel_backward)
