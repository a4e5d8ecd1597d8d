"""`liquid_ssm::joint_scan`: `kb` over adjacent index tuples (Eq. 14) from rest, all orders as one recurrence."""

from __future__ import annotations

from typing import Any

import torch

from . import checks
from .batching import Place
from .library import (
    PARAMETERS,
    Call,
    by_argument,
    differentiable,
    differentiable_once,
    empty_gradients,
    operator,
    present,
)
from .memory import empty_signal, signal_of

Tensor = torch.Tensor

_SIGNAL = Place(0, 1)
_PARAMETER, _FACTOR = Place(None, 0), Place(None, 1)
_ARGUMENTS = (_SIGNAL, _PARAMETER, _PARAMETER, _PARAMETER, _FACTOR, _FACTOR)
_TENSORS = f"Tensor u, {PARAMETERS}"
_OPTIONS = "SymInt order, bool conjugate_pairs, str backend"


def _checked(call: Call, arguments: tuple[Any, ...]) -> None:
    u, *parameters, order, _, _ = arguments
    checks.at_least("order", order, 1)
    checks.recurrence(call.backend, u, parameters, None, ())
    checks.fuses(call.backend, "joint_scan", "diagonal" if parameters[-1] is None else "dplr")


def _real(*arguments: Any) -> Tensor:
    u, *parameters, order, pairs, backend = arguments
    call = Call(backend, u)
    _checked(call, arguments)
    y = call.joint_scan(call.system(parameters, pairs), call.take(u), order=order)
    return signal_of(y, call.channels_last("joint_scan", u, parameters))


def _fake(*arguments: Any) -> Tensor:
    u, *parameters, _, _, backend = arguments
    call = Call(backend, u)
    _checked(call, arguments)
    return empty_signal(u, call.channels_last("joint_scan", u, parameters))


def _real_backward(grad_y: Tensor | None, *arguments: Any) -> list[Tensor]:
    u, *parameters, order, pairs, backend = arguments
    call = Call(backend, u)
    _checked(call, arguments)
    found = call.joint_scan_vjp(call.system(parameters, pairs), call.take(u), call.take(grad_y), order=order)
    return [signal_of(found.u, call.channels_last("joint_scan", u, parameters)), *by_argument(found.parameters)]


def _fake_backward(grad_y: Tensor | None, *arguments: Any) -> list[Tensor]:
    u, *parameters, _, _, backend = arguments
    call = Call(backend, u)
    _checked(call, arguments)
    return empty_gradients((u, *parameters), call.channels_last("joint_scan", u, parameters))


joint_scan = operator(f"joint_scan({_TENSORS}, {_OPTIONS}) -> Tensor", _real, _fake, _ARGUMENTS, lambda _: (_SIGNAL,))
joint_scan_backward = operator(
    f"joint_scan_backward(Tensor? grad_y, {_TENSORS}, {_OPTIONS}) -> Tensor[]",
    _real_backward,
    _fake_backward,
    (_SIGNAL, *_ARGUMENTS),
    present(*_ARGUMENTS),
)
differentiable("joint_scan", joint_scan, joint_scan_backward, len(_ARGUMENTS))
differentiable_once("joint_scan", joint_scan_backward)
