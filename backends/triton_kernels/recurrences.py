"""Scans and cascades of diagonal and dplr systems, and their adjoints: tensors in, launches, tensors out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from liquid_ssm.backend import Gradients

from .configurations import Configuration, adjoint_configurations, forward_configurations
from .memory import advice_for_adjoint, advice_for_output, explained
from .recurrence import outputs, run
from .recurrence_adjoint import run_adjoint
from .rows import Rows, in_dtype_of

Tensor = torch.Tensor

# Steps between states that the adjoint keeps: 8 · M bytes per row and so many steps in float32.
INTERVAL = 64


def recurrence(
    system: Any,
    u: Tensor,
    states: Tensor | None,
    *,
    kind: str,
    order: int = 1,
    configuration: Configuration | None = None,
    empty: Any = torch.empty,
) -> tuple[Tensor, Tensor]:
    """y (batch, H, L) and the final states (batch, order, H, M).

    Args:
        system: in u's precision and on its device.
        u: (batch, H, L), real.
        states: (batch, order, H, M), or None for rest.
        kind: `linear`, `liquid`, `truncated` or `chain`.
        order: 1 for `linear` and `liquid`.
        configuration: None for the usual one of this shape.
        empty: what makes arrays that are written to; tests give one that fills them with NaN.

    Accuracy: `recurrence.run`.
    """
    rows = Rows(system, u, kind, order)
    if configuration is None:
        configuration = forward_configurations(rows.count, rows.n_modes, order=order, coupled=rows.rank > 0)[0]
    batch, n_channels, length = u.shape
    blocks = configuration.mode_blocks(rows.n_modes)
    per_row = n_channels * u.element_size() * (blocks * length + 4 * order * rows.n_modes)
    with explained("a recurrence", u.device, lambda free: advice_for_output(batch, per_row, free)):
        planes = rows.states_in(states)
        parts = outputs(rows, configuration, empty)
        run(rows, planes, configuration, y=parts)
        # One block of modes has the whole sum; more are added in a fixed order.
        y = parts[0] if len(parts) == 1 else parts.sum(0)
    return y, rows.states_out(planes)


def recurrence_vjp(
    system: Any,
    u: Tensor,
    states: Tensor | None,
    grad_y: Tensor | None,
    grad_states: Tensor | None,
    *,
    kind: str,
    order: int = 1,
    interval: int = INTERVAL,
    configuration: Configuration | None = None,
    empty: Any = torch.empty,
) -> Gradients:
    """Adjoint of `recurrence`; the gradient of the states is (batch, order, H, M).

    Args:
        interval: steps between the states that are kept; more take less memory and no more time.

    Memory: gradients, and 8 · order · M bytes (float32) per row for every `interval` steps and for every 8 of one
    interval.

    Accuracy: `recurrence_adjoint.run_adjoint`; gradients are added up over the batch in u's precision.
    """
    rows = Rows(system, u, kind, order)
    coupled = rows.rank > 0
    forward = forward_configurations(rows.count, rows.n_modes, order=order, coupled=coupled)[0]
    if configuration is None:
        configuration = adjoint_configurations(rows.count, rows.n_modes, order=order, coupled=coupled)[0]
    # Blocks must not reach over the end of an interval.
    longest = (interval & -interval).bit_length() - 1
    forward, configuration = (replace(c, log_steps=min(c.log_steps, longest)) for c in (forward, configuration))
    steps = 1 << configuration.log_steps
    state = 2 * order * rows.count * rows.n_modes * u.element_size()
    blocks = configuration.mode_blocks(rows.n_modes)
    others = (blocks + 2) * u.numel() * u.element_size() + (6 + 4 * rows.rank) * state
    advice = partial(advice_for_adjoint, state, rows.length, interval, steps, batch=len(u), others=others)
    with explained("the adjoint of a recurrence", u.device, advice):
        carry = rows.states_in(grad_states)
        dtype, device = rows.u.dtype, rows.u.device
        # Without rows there is nothing to launch; without steps cotangents pass through.
        make = torch.zeros if 0 in (rows.count, rows.length, rows.n_modes) else empty

        def room(*shape: int) -> Tensor:
            made: Tensor = make(shape, dtype=dtype, device=device)
            return made

        sums = room(len(rows.planes), rows.count, rows.n_modes)
        parts = room(blocks, *rows.shape)
        if make is not torch.zeros:
            chunks = -(-rows.length // interval)
            kept = room(chunks, *carry.shape)
            run(rows, rows.states_in(states), forward, kept=kept, interval=interval)
            strip = room(min(interval, rows.length) // steps + 1, *carry.shape)
            of_y = rows.u.new_zeros(rows.shape) if grad_y is None else grad_y.detach().to(dtype).contiguous()
            run_adjoint(rows, of_y, kept, strip, carry, sums, parts, configuration, interval)
        grad_u = parts.sum(0) if len(parts) != 1 else parts[0]
        grad_states = rows.states_out(carry)
        if states is not None:
            grad_states = in_dtype_of(states, grad_states)
        return Gradients(rows.gradients(sums), grad_u, grad_states)
