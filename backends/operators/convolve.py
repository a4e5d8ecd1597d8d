"""`liquid_ssm::convolve`: y_k = Σ_{i<=k} K_i u_{k-i}, differentiable any number of times."""

from __future__ import annotations

from typing import Any

import torch

from liquid_ssm.errors import ShapeError

from . import checks
from .batching import Place
from .library import Call, derivative, differentiable, masked, operator, present, remember
from .memory import tensor_of

Tensor = torch.Tensor

_SIGNAL = Place(0, 1)
_ARGUMENTS = (Place(None, 0), _SIGNAL)


def _check(kernel: Tensor, u: Tensor) -> None:
    checks.signal(u)
    checks.on_one_device({"kernel": kernel, "u": u})
    checks.of_dtype("kernel", kernel, u.dtype)
    if kernel.ndim != 2 or kernel.shape[0] != u.shape[1]:
        raise ShapeError(f"kernel has shape {tuple(kernel.shape)}; it must be (H, n) with H = {u.shape[1]} of u.")


def _real(kernel: Tensor, u: Tensor, backend: str) -> Tensor:
    _check(kernel, u)
    call = Call(backend, u)
    return tensor_of(call.convolve(call.take(kernel), call.take(u)))


def _fake(kernel: Tensor, u: Tensor, backend: str) -> Tensor:
    _check(kernel, u)
    return u.new_empty(u.shape)


def _real_backward(grad: Tensor, kernel: Tensor, u: Tensor, backend: str) -> list[Tensor]:
    _check(kernel, u)
    call = Call(backend, u)
    found = call.convolve_vjp(call.take(kernel), call.take(u), call.take(grad))
    return [tensor_of(gradient) for gradient in found]


def _fake_backward(grad: Tensor, kernel: Tensor, u: Tensor, backend: str) -> list[Tensor]:
    _check(kernel, u)
    return [kernel.new_empty(kernel.shape), u.new_empty(u.shape)]


convolve = operator(
    "convolve(Tensor kernel, Tensor u, str backend) -> Tensor", _real, _fake, _ARGUMENTS, lambda _: (_SIGNAL,)
)
convolve_backward = operator(
    "convolve_backward(Tensor grad, Tensor kernel, Tensor u, str backend) -> Tensor[]",
    _real_backward,
    _fake_backward,
    (_SIGNAL, *_ARGUMENTS),
    present(*_ARGUMENTS),
)


def _second_derivatives(ctx: Any, of_kernel: Tensor | None, of_u: Tensor | None) -> tuple[Tensor | None, ...]:
    """Of (g, K, u) -> (∂K, ∂u) with ∂K linear in g and u, and ∂u in g and K: convolutions and the same map again.

    <a, ∂K(g, u)> = <g, a * u> and <b, ∂u(g, K)> = <g, K * b>.
    """
    grad, kernel, u = ctx.saved_tensors
    (backend,) = ctx.options
    a = torch.zeros_like(kernel) if of_kernel is None else of_kernel
    b = torch.zeros_like(u) if of_u is None else of_u
    parts: list[Tensor | None] = [None, None, None]
    wanted = ctx.needs_input_grad
    if wanted[0]:
        terms = []
        if of_kernel is not None:
            terms.append(convolve(a, u, backend))
        if of_u is not None:
            terms.append(convolve(kernel, b, backend))
        parts[0] = sum(terms[1:], terms[0]) if terms else None
    if wanted[1] or wanted[2]:
        parts[1:] = convolve_backward(grad, a, b, backend)
    return (*masked(ctx, parts), None)


differentiable("convolve", convolve, convolve_backward, len(_ARGUMENTS))
derivative(convolve_backward, remember("convolve", 3), _second_derivatives)
