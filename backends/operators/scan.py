"""`liquid_ssm::scan`: Eq. 11, or Eq. 2 without `liquid`, of a diagonal system, or with P̄ and Q̄ of a dplr one."""

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
from .memory import empty_signal, signal_of, tensor_of

Tensor = torch.Tensor

_SIGNAL = Place(0, 1)
_STATE = Place(0, 1)
_PARAMETER, _FACTOR = Place(None, 0), Place(None, 1)
_ARGUMENTS = (_SIGNAL, _PARAMETER, _PARAMETER, _PARAMETER, _FACTOR, _FACTOR, _STATE)
_RESULTS = (_SIGNAL, _STATE)
_TENSORS = f"Tensor u, {PARAMETERS}, Tensor? state"
_OPTIONS = "bool liquid, bool conjugate_pairs, str backend"


def _real(*arguments: Any) -> tuple[Tensor, Tensor]:
    u, *parameters, state, liquid, pairs, backend = arguments
    call = Call(backend, u)
    checks.recurrence(call.backend, u, parameters, state, ())
    y, final = call.scan(call.system(parameters, pairs), call.take(u), call.take(state), liquid=liquid)
    return signal_of(y, call.channels_last("scan", u, parameters)), tensor_of(final)


def _fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    u, *parameters, state, _, _, backend = arguments
    call = Call(backend, u)
    kind = checks.recurrence(call.backend, u, parameters, state, ())
    y = empty_signal(u, call.channels_last("scan", u, parameters))
    return y, u.new_empty((u.shape[0], *parameters[0].shape), dtype=kind)


def _real_backward(*arguments: Any) -> list[Tensor]:
    grad_y, grad_final, u, *parameters, state, liquid, pairs, backend = arguments
    call = Call(backend, u)
    checks.recurrence(call.backend, u, parameters, state, ())
    system = call.system(parameters, pairs)
    given = (call.take(u), call.take(state), call.take(grad_y), call.take(grad_final))
    found = call.scan_vjp(system, *given, liquid=liquid)
    of_state = [] if state is None else [tensor_of(found.state)]
    grad_u = signal_of(found.u, call.channels_last("scan", u, parameters))
    return [grad_u, *by_argument(found.parameters), *of_state]


def _fake_backward(*arguments: Any) -> list[Tensor]:
    _, _, *tensors, _, _, backend = arguments
    u, *parameters, state = tensors
    call = Call(backend, u)
    checks.recurrence(call.backend, u, parameters, state, ())
    return empty_gradients(tensors, call.channels_last("scan", u, parameters))


scan = operator(
    f"scan({_TENSORS}, {_OPTIONS}) -> (Tensor y, Tensor final)", _real, _fake, _ARGUMENTS, lambda _: _RESULTS
)
scan_backward = operator(
    f"scan_backward(Tensor? grad_y, Tensor? grad_final, {_TENSORS}, {_OPTIONS}) -> Tensor[]",
    _real_backward,
    _fake_backward,
    (*_RESULTS, *_ARGUMENTS),
    present(*_ARGUMENTS),
)
differentiable("scan", scan, scan_backward, len(_ARGUMENTS))
differentiable_once("scan", scan_backward)
