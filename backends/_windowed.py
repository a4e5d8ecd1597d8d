"""A chain of recurrences in which only the newest `window` inputs count.

For every time step the chain is run from rest over its own window, all steps of a block at once:
O(window) work per step, no state, and nothing is subtracted.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from liquid_ssm.summation import TreeSum

from ._recurrence import CHUNK_ELEMENTS, Recurrence, final_state, like, run_vjp

Array = npt.NDArray[Any]


def run_windowed(recurrence: Recurrence, u: Array, window: int) -> Array:
    """y (batch, H, L): y_k is read from a state at rest before u_{k-window+1}, zeros before u_0.

    Temporary memory: a few times `CHUNK_ELEMENTS` numbers, or one step's states if they are more.
    """
    y = np.empty(u.shape, u.dtype)
    for start, stop, inputs in _blocks(recurrence, u, window, kept_states=1):
        state = final_state(recurrence, inputs, _at_rest(recurrence, inputs))
        y[..., start:stop] = np.moveaxis(recurrence.read(state[np.newaxis])[0], 0, -1)
    return y


def run_windowed_vjp(
    recurrence: Recurrence, u: Array, window: int, grad_y: Array | None
) -> tuple[dict[str, Array], Array]:
    """Gradients of the parameters and of u."""
    sums = {name: TreeSum() for name in recurrence.parameters}
    length = u.shape[-1]
    reach = min(window, length)
    # Entry k + s is input s of the window that ends at k.
    grad_padded = np.zeros((*u.shape[:-1], max(length + reach - 1, 0)), u.dtype)
    if grad_y is not None:
        for start, stop, inputs in _blocks(recurrence, u, window, kept_states=reach):
            rest = _at_rest(recurrence, inputs)
            state = final_state(recurrence, inputs, rest)[np.newaxis]
            block_grad = np.moveaxis(grad_y[..., start:stop], -1, 0)[np.newaxis]
            sums["C"].add(recurrence.read_gradient(state, block_grad))
            grad_state = np.ascontiguousarray(recurrence.read_adjoint(block_grad)[0], dtype=recurrence.dtype)
            gradients, grad_inputs, _ = run_vjp(recurrence, inputs, rest, None, grad_state)
            for name in sums.keys() - {"C"}:
                sums[name].add(gradients[name])
            for s in range(reach):
                grad_padded[..., start + s : stop + s] += np.moveaxis(grad_inputs[..., s], 0, -1)
    gradients = {name: like(value, sums[name].total()) for name, value in recurrence.parameters.items()}
    return gradients, grad_padded[..., max(reach - 1, 0) :]


def _blocks(recurrence: Recurrence, u: Array, window: int, kept_states: int) -> Iterator[tuple[int, int, Array]]:
    """Blocks of output steps: first, end, and their windows (steps, batch, H, window)."""
    length = u.shape[-1]
    if length == 0:
        return
    # Inputs before u_0 are zero and leave a chain at rest.
    reach = min(window, length)
    padded = np.concatenate([np.zeros((*u.shape[:-1], reach - 1), u.dtype), u], axis=-1)
    windows = np.moveaxis(np.lib.stride_tricks.sliding_window_view(padded, reach, axis=-1), -2, 0)
    size = max(1, prod(recurrence.state_shape(u.shape[:-1]))) * recurrence.spread * kept_states
    steps = max(1, CHUNK_ELEMENTS // size)
    for start in range(0, length, steps):
        stop = min(start + steps, length)
        yield start, stop, windows[start:stop]


def _at_rest(recurrence: Recurrence, inputs: Array) -> Array:
    return np.zeros(recurrence.state_shape(inputs.shape[:-1]), recurrence.dtype)
