"""`liquid_ssm::add_correlations`: y + Σ_{p=2..P} responses_p · term_p in one pass (Eq. 15)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from . import checks
from .batching import Place
from .library import Call, derivative, differentiable_once, empty_gradients, masked, operator, present, remember
from .memory import empty_signal, signal_of, tensor_of

Tensor = torch.Tensor

_SIGNAL, _RESPONSES, _SUMS = Place(0, 1), Place(None, 1), Place(1, 2)
_INPUTS = (_SIGNAL, _RESPONSES, _SUMS, _SIGNAL)
_RESULTS = (_SIGNAL, _SUMS)
_TENSORS = "Tensor u, Tensor responses, Tensor? sums, Tensor? previous"
_OPTIONS = "SymInt order, str kind, str backend"
_KINDS = ("running", "elementary")


def _check(arguments: tuple[Any, ...]) -> None:
    u, responses, sums, previous, order, kind, _ = arguments
    checks.correlations(u, sums, previous, order, kind, None, _KINDS)
    checks.on_one_device({"u": u, "responses": responses})
    checks.of_dtype("responses", responses, u.dtype)
    checks.shaped("responses", responses, (order - 1, u.shape[1]), "(order - 1, H)")


def _check_output(y: Tensor, u: Tensor) -> None:
    checks.on_one_device({"y": y, "u": u})
    checks.of_dtype("y", y, u.dtype)
    checks.shaped("y", y, u.shape, "(batch, H, L) of u")


def _real(y: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    u, responses, sums, previous, order, kind, backend = arguments
    _check(arguments)
    _check_output(y, u)
    call = Call(backend, u)
    given = {"order": order, "kind": kind, "sums": call.take(sums), "previous": call.take(previous)}
    if call.on_numpy:
        total, final = call.added_correlations(call.take(y), call.take(u), call.take(responses), **given)
        return signal_of(total, call.channels_last("add_correlations", u)), tensor_of(final)
    total = y.detach().clone(memory_format=torch.contiguous_format)
    final = call.add_correlations(call.take(total), call.take(u), call.take(responses), **given)
    return total, tensor_of(final)


def _fake(y: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    u, _, _, _, order, kind, backend = arguments
    _check(arguments)
    _check_output(y, u)
    total = empty_signal(u, Call(backend, u).channels_last("add_correlations", u))
    return total, u.new_empty((checks.n_sums(order, kind), *u.shape[:-1]))


def _real_backward(grad_y: Tensor | None, grad_sums: Tensor | None, *arguments: Any) -> list[Tensor]:
    u, responses, sums, previous, order, kind, backend = arguments
    _check(arguments)
    call = Call(backend, u)
    options = {"order": order, "kind": kind, "sums": call.take(sums), "previous": call.take(previous)}
    given = call.take(u), call.take(responses), call.take(grad_y), call.take(grad_sums)
    fused = "add_correlations_vjp" in call.backend.capabilities.fused
    found = (call.add_correlations_vjp if fused else partial(_composed, call))(*given, **options)
    grad_u, *others = found
    keeps = call.channels_last("add_correlations", u)
    return [signal_of(grad_u, keeps), *(tensor_of(gradient) for gradient in others if gradient is not None)]


def _composed(
    call: Call, u: Tensor, responses: Tensor, grad_y: Tensor | None, grad_sums: Tensor | None, **options: Any
) -> tuple[Tensor | None, ...]:
    """The gradients by `correlate` and `correlate_vjp`, for backends on tensors without the fused form."""
    if grad_y is None:
        grad_terms, grad_responses = None, torch.zeros_like(responses)
    else:
        # The terms, which the forward pass did not keep, become their own cotangents.
        grad_terms, _ = call.correlate(u, **options)
        grad_responses = torch.zeros_like(responses)
        for p, factor in enumerate(responses):
            grad_responses[p] = (grad_terms[p] * grad_y).sum(dim=(0, 2))
            grad_terms[p] = factor[:, None] * grad_y
    grad_u, *others = call.correlate_vjp(u, grad_terms, grad_sums, **options)
    return grad_u, grad_responses, *others


def _fake_backward(grad_y: Tensor | None, grad_sums: Tensor | None, *arguments: Any) -> list[Tensor]:
    _check(arguments)
    u, backend = arguments[0], arguments[-1]
    return empty_gradients(arguments[: len(_INPUTS)], Call(backend, u).channels_last("add_correlations", u))


add_correlations = operator(
    f"add_correlations(Tensor y, {_TENSORS}, {_OPTIONS}) -> (Tensor total, Tensor final_sums)",
    _real,
    _fake,
    (_SIGNAL, *_INPUTS),
    lambda _: _RESULTS,
)
add_correlations_backward = operator(
    f"add_correlations_backward(Tensor? grad_y, Tensor? grad_sums, {_TENSORS}, {_OPTIONS}) -> Tensor[]",
    _real_backward,
    _fake_backward,
    (*_RESULTS, *_INPUTS),
    present(*_INPUTS),
)


def _gradients(ctx: Any, grad_y: Tensor | None, grad_sums: Tensor | None) -> tuple[Tensor | None, ...]:
    _, *tensors = ctx.saved_tensors
    absent = (None,) * len(ctx.options)
    if (grad_y is None and grad_sums is None) or not any(ctx.needs_input_grad[1:]):
        return (grad_y, *(None for _ in tensors), *absent)
    found = iter(add_correlations_backward(grad_y, grad_sums, *tensors, *ctx.options))
    given = [grad_y, *(None if tensor is None else next(found) for tensor in tensors)]
    return (*masked(ctx, given), *absent)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    # y enters as a summand only; there is no need to keep it.
    remember("add_correlations", 1 + len(_INPUTS))(ctx, (None, *inputs[1:]), output)


derivative(add_correlations, _remember, _gradients)
differentiable_once("add_correlations", add_correlations_backward)
