"""Recurrences of a state that all channels share (`mimo`), forwards.

Blocks of columns: the drive by a product, the recurrence serially in time with modes as lanes, the output by a product.
So nothing is kept but the state and the block, and a block of short signals holds several rows of the batch.
"""

from __future__ import annotations

import numpy as np

from .caching import compiled, inlined
from .lowrank_sweep import product
from .scan import linear_step
from .shared_state_products import COLUMNS, ROWS, STRIDE, read_columns, to_channels, to_modes, turn, write_columns
from .simd import load, store, width


@inlined
def run_order(  # type: ignore[no-untyped-def]
    transition, drive, rows, steps, states, s, per_row, p, order, liquid, kept, keep, total
):
    """Order p (from 0) of one vector of modes over one block.

    Args:
        transition: Ā, two vectors.
        drive: B̄ u of all columns.
        states: of the first row at s, then every `per_row`; replaced.
        kept: the states of order p - 1 before every step; replaced by those of order p.  With `keep` each order has a
            place of its own.
        total: Σ_p x^(p) of all columns, to which this order is added.
    """
    w = width(states)
    i = COLUMNS * w
    ar, ai = load(transition, 0), load(transition, w)
    before = p * 2 * i if keep else 0
    below = before - 2 * i if keep else 0
    for b in range(rows):
        at = s + b * per_row
        xr, xi = load(states, at), load(states, at + w)
        for t in range(b * steps, (b + 1) * steps):
            c = t * w
            wr, wi = load(drive, c), load(drive, i + c)
            if p > 0:
                wr, wi = product(wr, wi, load(kept, below + c), load(kept, below + i + c))
            if keep or p + 1 < order:
                store(kept, before + c, xr)
                store(kept, before + i + c, xi)
            if liquid:
                xr, xi = linear_step(ar + wr, ai + wi, wr, wi, xr, xi)
            else:
                xr, xi = linear_step(ar, ai, wr, wi, xr, xi)
            if p > 0:
                store(total, c, load(total, c) + xr)
                store(total, i + c, load(total, i + c) + xi)
            else:
                store(total, c, xr)
                store(total, i + c, xi)
        store(states, at, xr)
        store(states, at + w, xi)


@compiled
def shared_blocks(  # type: ignore[no-untyped-def]
    A, B, C, u, y, states, batch, n_channels, length, n_modes, order, liquid, weight, together, first, end
):
    """Sets `first` … `end` - 1 of `together` rows of the batch.

    Args:
        A: (depth, 2, W), B: (depth, H, 2, W), C: (2, M, H padded); flat, in the dtype of the computation.
        u, y: (batch, H, L), flat; y is written.
        states: (batch, order, depth, 2, W), flat; replaced by the final ones.
        liquid: with order 1, whether the drive is added to the transition.
    """
    w = width(states)
    depth = A.size // (2 * w)
    padded = ROWS * ((n_channels + ROWS - 1) // ROWS)
    per_row = order * depth * 2 * w
    inputs = np.zeros(padded * STRIDE, states.dtype)
    outputs = np.zeros(padded * STRIDE, states.dtype)
    drive, total = np.zeros(2 * COLUMNS * w, states.dtype), np.zeros(2 * COLUMNS * w, states.dtype)
    kept = np.zeros(2 * COLUMNS * w, states.dtype)
    turned = np.zeros(2 * COLUMNS * depth * w, states.dtype)
    for one in range(first, end):
        begin = one * together
        rows = min(together, batch - begin)
        for start in range(0, length, COLUMNS):
            steps = min(COLUMNS, length - start)
            count = rows * steps
            read_columns(u, begin, rows, n_channels, start, steps, length, inputs)
            for v in range(depth):
                to_modes(inputs, count, n_channels, B, v * n_channels * 2 * w, drive)
                for p in range(order):
                    s = begin * per_row + (p * depth + v) * 2 * w
                    a = A[v * 2 * w : (v + 1) * 2 * w]
                    run_order(a, drive, rows, steps, states, s, per_row, p, order, liquid, kept, False, total)
                turn(total, count, v, depth, turned)
            to_channels(turned, count, n_modes, depth, C, padded, weight, outputs)
            write_columns(outputs, y, begin, rows, n_channels, start, steps, length)
