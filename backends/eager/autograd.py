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

    Raises:
        BackendRejected: torch batches the call (`torch.func.vmap`) in a way that it cannot do here.
    """
    arguments = tuple(tensors)
    recorded = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in arguments)
    if torch.compiler.is_compiling():
        return _Recorded.apply(what, forward, adjoint, *arguments) if recorded else forward(arguments)  # type: ignore[no-untyped-call]
    try:
        return _Refusing.apply(what, forward, adjoint, *arguments) if recorded else forward(arguments)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        if not any(t is not None and _is_batched(t) for t in arguments):
            raise
        raise _without_batching_rule(what) from error


def _without_batching_rule(what: str) -> BackendRejected:
    name, _, operation = what.partition(": ")
    reason = Rejection(
        name,
        "batching",
        "a call by itself",
        "torch.func.vmap, or torch.func.hessian, which batches",
        "give the batch as that of u, loop over the calls, or use a backend of operators (docs/torch.md)",
    )
    return BackendRejected(f"{operation} has no batching rule:", [reason])


def _is_batched(tensor: torch.Tensor) -> bool:
    """Whether it stands for a batch under `torch.func.vmap`, at any depth of transformations."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_batchedtensor(tensor):
            return True
        tensor = functorch.get_unwrapped(tensor)
    return False


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


class _Refusing(_Recorded):
    """The same with errors for what it has no rules for; a compiler takes no operation that has such methods."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, what: str, *others: Any) -> NoReturn:
        raise _without_batching_rule(what)

    @staticmethod
    def jvp(ctx: Any, *tangents: torch.Tensor | None) -> NoReturn:
        _refuse_twice(ctx.what, "a derivative of a gradient in forward mode (torch.func.jvp of grad)")


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
        _refuse_twice(ctx.what, "a second derivative (create_graph=True, a Hessian)")


def _refuse_twice(what: str, given: str) -> NoReturn:
    name, _, operation = what.partition(": ")
    reason = Rejection(
        name,
        "gradient",
        f"at most the first derivative of {operation}",
        given,
        "use forward mode: torch.func.jvp of jvp, or jacfwd of jacfwd",
    )
    raise BackendRejected(f"{operation} cannot be differentiated twice:", [reason])
