"""Primitives with hand-written vector-Jacobian products as operations that torch's autograd differentiates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch

from liquid_ssm.backend import Rejection
from liquid_ssm.errors import BackendRejected

Tensors = tuple[torch.Tensor | None, ...]
Forward = Callable[[Tensors], tuple[torch.Tensor, ...]]
# From the arguments and the cotangents of the results, None for zero, to the cotangents of the arguments.
Adjoint = Callable[[Tensors, Tensors], Tensors]


def differentiable(what: str, forward: Forward, adjoint: Adjoint, tensors: Sequence[torch.Tensor | None]) -> Any:
    """`forward(tensors)`, recorded by autograd where one of the tensors asks for a gradient.

    Without a gradient to record, forward is called as it is, so that `torch.export` and other transformations see
    plain operations.

    Args:
        what: name of the operation, for messages.
        forward: gives a tuple of tensors; neither views of the arguments nor the arguments themselves.
        adjoint: its vector-Jacobian product.
        tensors: the arguments, None for those left out.
    """
    arguments = tuple(tensors)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in arguments):
        return _Recorded.apply(what, forward, adjoint, *arguments)  # type: ignore[no-untyped-call]
    return forward(arguments)


class _Recorded(torch.autograd.Function):
    """The operation itself."""

    @staticmethod
    def forward(what: str, forward: Forward, adjoint: Adjoint, *tensors: torch.Tensor | None) -> Any:
        return forward(tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.what, _, ctx.adjoint, *tensors = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> Any:
        tensors = ctx.saved_tensors
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            found = _Adjoint.apply(ctx.what, ctx.adjoint, len(tensors), *tensors, *grads)  # type: ignore[no-untyped-call]
        else:
            found = ctx.adjoint(tensors, grads)
        return (None, None, None, *found)


class _Adjoint(torch.autograd.Function):
    """Its first derivative, which has no derivative of its own and says so."""

    @staticmethod
    def forward(what: str, adjoint: Adjoint, n: int, *tensors: torch.Tensor | None) -> Any:
        return adjoint(tensors[:n], tensors[n:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.what = inputs[0]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> NoReturn:
        name, _, operation = ctx.what.partition(": ")
        reason = Rejection(
            name,
            "gradient",
            f"at most the first derivative of {operation}",
            "a second derivative (create_graph=True, a Hessian)",
            "use forward mode: torch.func.jvp of jvp, or jacfwd of jacfwd",
        )
        raise BackendRejected(f"{operation} cannot be differentiated twice:", [reason])
