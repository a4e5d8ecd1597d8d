"""The recurrence whose every step is discretised with an interval of its own, row after row."""

from __future__ import annotations

import numpy as np

from .caching import compiled
from .lowrank_lanes import aligned
from .sampled_step import advance

# Steps between two states that are kept for the way back.
STEPS = 64


@compiled
def sampled_rows(  # type: ignore[no-untyped-def]
    packs, step_sizes, modes, rank, order, kind, u, dt, y, states, starts, safe, first, end
):
    """Rows `first` … `end` - 1.

    Args:
        packs: (H, (FACTORS + 2 rank) · modes) float64, planes of real and imaginary parts; modes fill whole vectors.
        step_sizes: (H,).
        kind: of `sampled_step`.
        u, y: (batch · H, L); y is written, half of it for each half of a conjugate pair.
        dt: (batch, L), factors of the step sizes.
        states: (batch · H, order · 2 · modes), replaced by those after the last step.
        starts: (batch · H, blocks, order · 2 · modes), those before every block of `STEPS`; or (0, 0, 0).
        safe: (batch · H,) bool, True before: whether no step has divided by what is too small (`resolve`).
    """
    channels = packs.shape[0]
    room = aligned(packs, packs.shape[1] + (4 + 2 * order) * modes)
    pack, D, b = room[: packs.shape[1]], room[packs.shape[1] :], room[packs.shape[1] + 2 * modes :]
    x = room[packs.shape[1] + 4 * modes :]
    K, sums, k = np.empty((rank, rank)), np.empty(rank), np.empty(rank)
    for row in range(first, end):
        channel = row % channels
        pack[:] = packs[channel]
        half, intervals = step_sizes[channel] / 2, dt[row // channels]
        x[:] = states[row]
        for t in range(u.shape[1]):
            if starts.shape[0] > 0 and t % STEPS == 0:
                starts[row, t // STEPS] = x
            value, is_safe = advance(
                pack, modes, rank, order, kind, np.float64(u[row, t]), half * intervals[t], x, 0, x, 0, D, K, sums, k, b
            )
            y[row, t] = 2.0 * value
            safe[row] = safe[row] and is_safe
        states[row] = x
