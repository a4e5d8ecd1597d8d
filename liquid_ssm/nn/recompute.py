"""Functions that are computed once more on the way back instead of keeping what they were computed with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils.checkpoint import checkpoint

Tensors = tuple[torch.Tensor, ...]
Run = Callable[..., Tensors]


def recomputes(module: nn.Module) -> bool:
    """Whether `recomputed` keeps nothing between: eagerly, with gradients, to the module's own parameters."""
    return _recorded(module) and not torch.compiler.is_compiling()


def _recorded(module: nn.Module) -> bool:
    # Parameters that parametrizations compute are none of its own: their gradients need the graph.
    return torch.is_grad_enabled() and not (torch._C._are_functorch_transforms_active() or is_parametrized(module))


def recomputed(run: Run, module: nn.Module, *given: torch.Tensor) -> Tensors:
    """run(module, *given), with gradients of every order to the tensors given and to the parameters of the module.

    As `torch.utils.checkpoint.checkpoint`, which records every operation forwards, too, only without what it computes
    with.  Those records lie between the blocks of memory that are freed, so that these cannot be used again: a scan of
    2048 steps took 4 GB more with it than now.  While torch compiles it is used, all the same; while torch transforms
    a function (`torch.func`) nothing is computed twice.

    Args:
        run: looks at nothing else that has a gradient; called without autocast, on the way back too.
        module: with no parameters but its own; those of its submodules are not seen.
    """
    if not _recorded(module):
        return run(module, *given)
    if torch.compiler.is_compiling():
        found: Tensors = checkpoint(run, module, *given, use_reentrant=False)
        return found
    names = [name for name, parameter in module._parameters.items() if parameter is not None]
    parameters = [module._parameters[name] for name in names]
    result: Tensors = _Recomputed.apply(run, module, names, *given, *parameters)  # type: ignore[no-untyped-call]
    return result


def with_parameters(module: nn.Module, names: Sequence[str], values: Sequence[torch.Tensor]) -> nn.Module:
    """The same module with other tensors in the place of parameters; the module itself is not changed."""
    twin = copy.copy(module)
    others: dict[str, Any] = dict(zip(names, values, strict=True))
    twin._parameters = module._parameters | others
    return twin


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Run, module: nn.Module, names: list[str], *tensors: torch.Tensor) -> Tensors:
        ctx.run, ctx.module, ctx.names = run, module, names
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        return run(module, *tensors[: len(tensors) - len(names)])

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        found = differentiated(ctx.run, ctx.module, ctx.names, ctx.saved_tensors, ctx.needs_input_grad[3:], cotangents)
        return (None, None, None, *found)


def differentiated(
    run: Run,
    module: nn.Module,
    names: Sequence[str],
    tensors: Sequence[torch.Tensor],
    needed: Sequence[bool],
    cotangents: Sequence[torch.Tensor | None],
) -> list[torch.Tensor | None]:
    """Gradients of run(module, *given), computed now; recorded themselves where gradients are.

    Args:
        names: parameters of the module, whose values are the last of the tensors.
        tensors: what was given, and those.
        needed: of which of them gradients are wanted.
        cotangents: of the results, None for zeros.
    """
    again = torch.is_grad_enabled()  # gradients of gradients are wanted
    with torch.enable_grad(), torch.autocast(tensors[0].device.type, enabled=False):
        # Apart from what they were computed from: a state comes from the parameters, too, by the pieces before.
        given = [
            tensor.view_as(tensor) if again else tensor.detach().requires_grad_(wanted)
            for tensor, wanted in zip(tensors, needed, strict=True)
        ]
        split = len(given) - len(names)
        results = run(with_parameters(module, names, given[split:]), *given[:split])
        pairs = [
            (result, cotangent)
            for result, cotangent in zip(results, cotangents, strict=True)
            if cotangent is not None and result.requires_grad
        ]
        found = iter(
            torch.autograd.grad(
                [result for result, _ in pairs],
                [tensor for tensor, wanted in zip(given, needed, strict=True) if wanted],
                [cotangent for _, cotangent in pairs],
                create_graph=again,
                allow_unused=True,
            )
            if pairs
            else ()
        )
    return [next(found, None) if wanted else None for wanted in needed]
