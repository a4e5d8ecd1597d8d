"""A signal in pieces of time, each computed once more on the way back: one record for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .parameters import ContinuousParameters
from .recompute import Tensors, differentiated, recomputed, recomputes

RunFrom = Callable[[int], Callable[..., Tensors]]


def in_turn(
    run: RunFrom, steps: int, parameters: ContinuousParameters, u: torch.Tensor, dt: torch.Tensor, *state: torch.Tensor
) -> Tensors:
    """y (batch, H, L) and the state after it, of pieces of so many steps.

    Where gradients of first order are wanted, all pieces are one operation: what it keeps is one block of memory. A
    record for each of them would lie in the blocks that the piece before has freed, and the next piece, for which
    these are then too small, would take new ones.

    Args:
        run: as `sampling.in_pieces` takes it.
    """
    if not recomputes(parameters) or u.shape[-1] <= steps:
        return _one_by_one(run, steps, parameters, u, dt, *state)
    held = [(name, value) for name, value in parameters._parameters.items() if value is not None]
    found: Tensors = _InTurn.apply(  # type: ignore[no-untyped-call]
        run, steps, parameters, [name for name, _ in held], len(state), u, dt, *state, *(value for _, value in held)
    )
    return found


def _one_by_one(
    run: RunFrom, steps: int, parameters: Any, u: torch.Tensor, dt: torch.Tensor, *state: torch.Tensor
) -> Tensors:
    y = []
    for start in range(0, u.shape[-1], steps):
        part, *after = recomputed(run(start), parameters, *_piece(u, dt, start, steps), *state)
        state = tuple(after)
        y.append(part)
    return (torch.cat(y).movedim(0, -1) if y else torch.zeros_like(u), *state)


def _piece(u: torch.Tensor, dt: torch.Tensor, start: int, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Some steps of u and dt, time first."""
    return u[..., start : start + steps].movedim(-1, 0), dt[:, start : start + steps].mT


class _InTurn(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, run: RunFrom, steps: int, module: Any, names: list[str], n_states: int, *tensors: torch.Tensor
    ) -> Tensors:
        u, dt, *state = tensors[: 2 + n_states]
        starts = range(0, u.shape[-1], steps)
        before = [part.new_empty((len(starts), *part.shape)) for part in state]
        y = u.new_empty((u.shape[-1], *u.shape[:-1]))
        for i, start in enumerate(starts):
            for kept, part in zip(before, state, strict=True):
                kept[i] = part
            y[start : start + steps], *state = run(start)(module, *_piece(u, dt, start, steps), *state)
        ctx.run, ctx.steps, ctx.module, ctx.names, ctx.n_states = run, steps, module, names, n_states
        ctx.save_for_backward(*tensors, *before)
        ctx.set_materialize_grads(False)
        return (y.movedim(0, -1), *state)

    @staticmethod
    def backward(ctx: Any, of_y: torch.Tensor | None, *of_state: torch.Tensor | None) -> tuple[Any, ...]:
        tensors, before = ctx.saved_tensors[: -ctx.n_states], ctx.saved_tensors[-ctx.n_states :]
        needed = ctx.needs_input_grad[5:]
        if torch.is_grad_enabled():  # gradients of gradients, which states between pieces pass on, too

            def whole(module: Any, *given: torch.Tensor) -> Tensors:
                return _one_by_one(ctx.run, ctx.steps, module, *given)

            found = differentiated(whole, ctx.module, ctx.names, tensors, needed, (of_y, *of_state))
            return (None,) * 5 + tuple(found)
        u, dt, *rest = tensors
        values = rest[ctx.n_states :]
        grad_u = torch.zeros_like(u, memory_format=torch.contiguous_format) if needed[0] else None
        grad_dt = torch.zeros_like(dt, memory_format=torch.contiguous_format) if needed[1] else None
        totals: list[torch.Tensor | None] = [None] * len(values)
        of_state = tuple(of_state)
        starts = range(0, u.shape[-1], ctx.steps)
        for i in reversed(range(len(starts))):
            at = slice(starts[i], starts[i] + ctx.steps)
            given = (*_piece(u, dt, starts[i], ctx.steps), *(kept[i] for kept in before), *values)
            # States between pieces come from what any gradient is wanted of.
            wanted = (
                *needed[:2],
                *(True if i else own for own in needed[2 : 2 + ctx.n_states]),
                *needed[2 + ctx.n_states :],
            )
            of_piece = None if of_y is None else of_y[..., at].movedim(-1, 0)
            found = differentiated(ctx.run(starts[i]), ctx.module, ctx.names, given, wanted, (of_piece, *of_state))
            for grad, part, first in ((grad_u, found[0], True), (grad_dt, found[1], False)):
                if grad is not None and part is not None:
                    grad[..., at] = part.movedim(0, -1) if first else part.mT
            of_state = tuple(found[2 : 2 + ctx.n_states])
            parts = zip(totals, found[2 + ctx.n_states :], strict=True)
            totals = [one if other is None else other if one is None else one + other for one, other in parts]
        own = (part if want else None for part, want in zip(of_state, needed[2 : 2 + ctx.n_states], strict=True))
        return (*(None,) * 5, grad_u, grad_dt, *own, *totals)
