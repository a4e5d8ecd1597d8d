"""A chain of recurrences in which only the newest `window` inputs count.

For every time step the chain is run from rest over its own window, all steps of a block at once:
O(window) work per step, no state, and nothing is subtracted.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch

from liquid_ssm.complex_numbers import Number
from liquid_ssm.summation import TreeSum

from .recurrence import CHUNK_ELEMENTS, CHUNK_STEPS, Recurrence, final_state, run_vjp


def run_windowed(recurrence: Recurrence, u: torch.Tensor, window: int, chunk_steps: int | None = None) -> torch.Tensor:
    """y (batch, H, L): y_k is read from a state at rest before u_{k-window+1}, zeros before u_0.

    Args:
        chunk_steps: steps whose windows are worked on at once; None for what `CHUNK_ELEMENTS` allows.
    """
    y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    for start, stop, inputs in _blocks(recurrence, u, window, 1, chunk_steps):
        state = final_state(recurrence, inputs, recurrence.at_rest(inputs))
        y[..., start:stop] = recurrence.read(state[None])[0].movedim(0, -1)
    return y


def run_windowed_vjp(
    recurrence: Recurrence,
    u: torch.Tensor,
    window: int,
    grad_y: torch.Tensor | None,
    chunk_steps: int | None = None,
) -> tuple[dict[str, Number | None], torch.Tensor]:
    """Gradients of the parameters, None for zero, and of u."""
    sums = {name: TreeSum() for name in recurrence.model.parameters}
    length = u.shape[-1]
    reach = min(window, length)
    # Entry k + s is input s of the window that ends at k.
    grad_padded = torch.zeros((*u.shape[:-1], max(length + reach - 1, 0)), dtype=u.dtype, device=u.device)
    if grad_y is not None:
        for start, stop, inputs in _blocks(recurrence, u, window, reach, chunk_steps):
            rest = recurrence.at_rest(inputs)
            state = final_state(recurrence, inputs, rest)[None]
            block_grad = grad_y[..., start:stop].movedim(-1, 0)[None]
            sums["C"].add(recurrence.read_gradient(state, block_grad))
            grad_state = recurrence.read_adjoint(block_grad)[0]
            gradients, grad_inputs, _ = run_vjp(recurrence, inputs, rest, None, grad_state)
            for name, gradient in gradients.items():
                if gradient is not None:  # that of C, which no output of this run reads
                    sums[name].add(gradient)
            for s in range(reach):
                grad_padded[..., start + s : stop + s] += grad_inputs[..., s].movedim(0, -1)
    return {name: total.total() for name, total in sums.items()}, grad_padded[..., max(reach - 1, 0) :]


def _blocks(
    recurrence: Recurrence, u: torch.Tensor, window: int, kept_states: int, chunk_steps: int | None
) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Blocks of output steps: first, end, and their windows (steps, batch, H, window)."""
    length = u.shape[-1]
    if length == 0:
        return
    # Inputs before u_0 are zero and leave a chain at rest.
    reach = min(window, length)
    windows = torch.nn.functional.pad(u, (reach - 1, 0)).unfold(-1, reach, 1).movedim(-2, 0)
    size = max(1, prod(recurrence.state_shape(tuple(u.shape[:-1])))) * recurrence.spread * kept_states
    # Where an export leaves the batch open, the graph is one for every batch.
    most = CHUNK_STEPS if isinstance(size, torch.SymInt) else max(1, CHUNK_ELEMENTS // size)
    steps = chunk_steps or most
    for start in range(0, length, steps):
        stop = min(start + steps, length)
        yield start, stop, windows[start:stop]
