"""`liquid_ssm::correlate`: the correlation terms of Eq. 14 and 15 that no system enters."""

from __future__ import annotations

from typing import Any

import torch

from . import checks
from .batching import Place
from .library import Call, differentiable, differentiable_once, operator, present
from .memory import tensor_of

Tensor = torch.Tensor

_SIGNAL, _TERMS, _SUMS = Place(0, 1), Place(1, 2), Place(1, 2)
_ARGUMENTS = (_SIGNAL, _SUMS, _SIGNAL)
_RESULTS = (_TERMS, _SUMS)
_TENSORS = "Tensor u, Tensor? sums, Tensor? previous"
_OPTIONS = "SymInt order, str kind, SymInt? window, str backend"


def _sums_shape(u: Tensor, order: int, kind: str, window: int | None) -> tuple[Any, ...]:
    """No sums are sums of no order."""
    return (checks.n_sums(order, kind) if checks.has_sums(kind, window) else 0, *u.shape[:-1])


def _real(*arguments: Any) -> tuple[Tensor, Tensor]:
    u, sums, previous, order, kind, window, backend = arguments
    checks.correlations(*arguments[:-1])
    call = Call(backend, u)
    options = {"order": order, "kind": kind, "window": window}
    terms, final = call.correlate(call.take(u), **options, sums=call.take(sums), previous=call.take(previous))
    if final is None:
        return tensor_of(terms), u.new_empty(_sums_shape(u, order, kind, window))
    return tensor_of(terms), tensor_of(final)


def _fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    u, _, _, order, kind, window, _ = arguments
    checks.correlations(*arguments[:-1])
    return u.new_empty((order - 1, *u.shape)), u.new_empty(_sums_shape(u, order, kind, window))


def _real_backward(grad_terms: Tensor | None, grad_sums: Tensor | None, *arguments: Any) -> list[Tensor]:
    u, sums, previous, order, kind, window, backend = arguments
    checks.correlations(*arguments[:-1])
    call = Call(backend, u)
    found = call.correlate_vjp(
        call.take(u),
        call.take(grad_terms),
        call.take(grad_sums) if checks.has_sums(kind, window) else None,
        order=order,
        kind=kind,
        window=window,
        sums=call.take(sums),
        previous=call.take(previous),
    )
    return [tensor_of(gradient) for gradient in found if gradient is not None]


def _fake_backward(grad_terms: Tensor | None, grad_sums: Tensor | None, *arguments: Any) -> list[Tensor]:
    checks.correlations(*arguments[:-1])
    return [tensor.new_empty(tensor.shape) for tensor in arguments[: len(_ARGUMENTS)] if tensor is not None]


correlate = operator(
    f"correlate({_TENSORS}, {_OPTIONS}) -> (Tensor terms, Tensor sums)", _real, _fake, _ARGUMENTS, lambda _: _RESULTS
)
correlate_backward = operator(
    f"correlate_backward(Tensor? grad_terms, Tensor? grad_sums, {_TENSORS}, {_OPTIONS}) -> Tensor[]",
    _real_backward,
    _fake_backward,
    (*_RESULTS, *_ARGUMENTS),
    present(*_ARGUMENTS),
)
differentiable("correlate", correlate, correlate_backward, len(_ARGUMENTS))
differentiable_once("correlate", correlate_backward)
