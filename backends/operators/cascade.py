"""`liquid_ssm::cascade`: orders 1 … P of Eq. 12 (`truncated`) or the index sum of Eq. 14 (`chain`)."""

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
_STATE = Place(0, 2)
_PARAMETER, _FACTOR = Place(None, 0), Place(None, 1)
_ARGUMENTS = (_SIGNAL, _PARAMETER, _PARAMETER, _PARAMETER, _FACTOR, _FACTOR, _STATE)
_RESULTS = (_SIGNAL, _STATE)
_TENSORS = f"Tensor u, {PARAMETERS}, Tensor? state"
_OPTIONS = "SymInt order, str kind, SymInt? window, bool conjugate_pairs, str backend"


def _checked(call: Call, arguments: tuple[Any, ...]) -> torch.dtype:
    u, *parameters, state, order, kind, window, _, _ = arguments
    checks.cascade(order, kind, window, state)
    return checks.recurrence(call.backend, u, parameters, state, (order,))


def _channels_last(call: Call, arguments: tuple[Any, ...]) -> bool:
    u, *parameters, _, _, _, window, _, _ = arguments
    return window is None and call.channels_last("cascade", u, parameters)


def _final_shape(u: Tensor, A_bar: Tensor, order: int, window: int | None) -> tuple[Any, ...]:
    """With a window there are no states, and so none of any order."""
    return (u.shape[0], order if window is None else 0, *A_bar.shape)


def _real(*arguments: Any) -> tuple[Tensor, Tensor]:
    u, *parameters, state, order, kind, window, pairs, backend = arguments
    call = Call(backend, u)
    dtype = _checked(call, arguments)
    options = {"order": order, "kind": kind, "window": window}
    y, final = call.cascade(call.system(parameters, pairs), call.take(u), call.take(state), **options)
    if window is not None:
        return tensor_of(y), u.new_empty(_final_shape(u, parameters[0], order, window), dtype=dtype)
    return signal_of(y, _channels_last(call, arguments)), tensor_of(final)


def _fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    u, A_bar, *_, order, _, window, _, backend = arguments
    call = Call(backend, u)
    dtype = _checked(call, arguments)
    y = empty_signal(u, _channels_last(call, arguments))
    return y, u.new_empty(_final_shape(u, A_bar, order, window), dtype=dtype)


def _real_backward(grad_y: Tensor | None, grad_final: Tensor | None, *arguments: Any) -> list[Tensor]:
    u, *parameters, state, order, kind, window, pairs, backend = arguments
    call = Call(backend, u)
    _checked(call, arguments)
    system = call.system(parameters, pairs)
    # With a window the final state has no entries and so no cotangent.
    given = (call.take(u), call.take(state), call.take(grad_y), None if window is not None else call.take(grad_final))
    found = call.cascade_vjp(system, *given, order=order, kind=kind, window=window)
    of_state = [] if state is None else [tensor_of(found.state)]
    return [signal_of(found.u, _channels_last(call, arguments)), *by_argument(found.parameters), *of_state]


def _fake_backward(grad_y: Tensor | None, grad_final: Tensor | None, *arguments: Any) -> list[Tensor]:
    call = Call(arguments[-1], arguments[0])
    _checked(call, arguments)
    return empty_gradients(arguments[: len(_ARGUMENTS)], _channels_last(call, arguments))


cascade = operator(
    f"cascade({_TENSORS}, {_OPTIONS}) -> (Tensor y, Tensor final)", _real, _fake, _ARGUMENTS, lambda _: _RESULTS
)
cascade_backward = operator(
    f"cascade_backward(Tensor? grad_y, Tensor? grad_final, {_TENSORS}, {_OPTIONS}) -> Tensor[]",
    _real_backward,
    _fake_backward,
    (*_RESULTS, *_ARGUMENTS),
    present(*_ARGUMENTS),
)
differentiable("cascade", cascade, cascade_backward, len(_ARGUMENTS))
differentiable_once("cascade", cascade_backward)
