"""Derivatives of operators: for `backward()`, for `torch.func`, and an error for forward mode.

`torch.library.register_autograd` does the first.  Operators that are registered with it stop `torch.func.grad` and give
tangents of zero, without a word, to `torch.func.jvp`; so what it registers is written out here, level by level as
`torch.func` needs it.  The private names of torch that this takes are all in this file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from .. import _kept

_C: Any = torch._C
Gradients = Callable[..., tuple[Any, ...]]
Setup = Callable[[Any, tuple[Any, ...], Any], None]


def register_derivative(library: Any, operator: Any, setup: Setup, gradients: Gradients) -> None:
    """What `torch.library.register_autograd(operator, gradients, setup_context=setup)` does, and more.

    Args:
        library: the torch.library.Library that defines the operator.
        operator: an overload that returns tensors or one list of them.
        setup: setup(ctx, inputs, output) keeps what `gradients` needs; `ctx.kept` are states that the operator has left
            for `gradients`, as a tensor, or None.
        gradients: gradients(ctx, *cotangents) -> a gradient or None for each argument.
    """
    is_list = operator._schema.returns[0].type.kind() == "ListType"

    def forward(ctx: Any, *given: Any) -> Any:
        *arguments, keyset = given
        # An autograd.Function turns gradients off inside, but what is inside may be another level of torch.func.
        with (
            torch.enable_grad(),
            forward_ad._set_fwd_grad_enabled(True),
            _C._AutoDispatchBelowAutograd(),
            _kept.recording(is_plain()) as kept,
        ):
            results = operator.redispatch(keyset & _C._after_autograd_keyset, *arguments)
        ctx.kept = torch.from_numpy(kept[0]) if len(kept) == 1 else None
        setup(ctx, tuple(arguments), results)
        return tuple(results) if is_list else results

    def backward(ctx: Any, *cotangents: Any) -> tuple[Any, ...]:
        return (*gradients(ctx, *cotangents), None)

    name = f"{operator._schema.name.replace('::', '_')}_derivative"
    function: Any = type(
        name, (_SingleLevelFunction,), {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    )

    def kernel(keyset: Any, *arguments: Any) -> Any:
        _refuse_tangents(operator._schema.name, arguments)
        if not (torch.is_grad_enabled() and _C._any_requires_grad(*arguments)):
            with _C._AutoDispatchBelowAutograd():
                return operator.redispatch(keyset & _C._after_autograd_keyset, *arguments)
        allowed = _C._functorch.get_single_level_autograd_function_allowed()
        _C._functorch.set_single_level_autograd_function_allowed(True)
        try:
            results = function.apply(*arguments, keyset)
        finally:
            _C._functorch.set_single_level_autograd_function_allowed(allowed)
        return list(results) if is_list else results

    library.impl(operator._schema.name.partition("::")[2], not_traced(kernel), "Autograd", with_keyset=True)


def is_plain() -> bool:
    """Whether no transform of `torch.func` is at work, which may call an operator with other rows on the way back."""
    return _C._functorch.peek_interpreter_stack() is None


def _refuse_tangents(name: str, arguments: tuple[Any, ...]) -> None:
    if forward_ad._current_level < 0:
        return
    parts: Any = forward_ad.unpack_dual
    for argument in arguments:
        if isinstance(argument, torch.Tensor) and parts(argument).tangent is not None:
            raise NotImplementedError(
                f"{name} has no derivative in forward mode (jvp, jacfwd, hessian). Use backend='torch', or reverse "
                "mode (vjp, jacrev, backward)."
            )


def not_traced(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, into which torch.compile does not look: it knows the operator by its fake."""
    hidden: list[Callable[..., Any]] = []

    @wraps(function)
    def call(*arguments: Any) -> Any:
        # Loading the compiler takes seconds, and without it nothing looks.
        if "torch._dynamo" not in sys.modules:
            return function(*arguments)
        if not hidden:
            disable: Any = torch.compiler.disable
            hidden.append(disable(function))
        return hidden[0](*arguments)

    return call
