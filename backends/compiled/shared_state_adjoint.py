"""Vector-Jacobian product of the recurrences of a shared state (`mimo`).

As in `scan_adjoint`: states at the beginning of every block first; then, from the last block to the first, the states
inside again, with the same rounding, and the adjoint recurrence over them.
"""

from __future__ import annotations

import numpy as np

from .caching import compiled, inlined
from .scan_adjoint import times_conjugate
from .shared_state_forward import run_order
from .shared_state_products import (
    COLUMNS,
    ROWS,
    STRIDE,
    add_outer,
    read_columns,
    to_channels,
    to_modes,
    turn,
    write_columns,
)
from .simd import load, splat, store, width


@inlined
def adjoint_order(  # type: ignore[no-untyped-def]
    transition, drive, asked, rows, steps, adjoints, s, per_row, p, order, liquid, kept, above, grad_drive, partial
):
    """Order p (from 0) of one vector of modes, backwards over one block.

    Adds its part of the cotangent of the drive to `grad_drive`, and leaves the gradient of Ā in `partial`.

    Args:
        asked: what the outputs ask of every state, the same for all orders.
        kept: the states before every step, of each order.
        above: the cotangents of order p + 1 of all columns; replaced by those of order p.
    """
    w = width(adjoints)
    i = COLUMNS * w
    ar, ai = load(transition, 0), load(transition, w)
    before, below = p * 2 * i, (p - 1) * 2 * i
    nothing = splat(adjoints.dtype.type(0))
    dar, dai = nothing, nothing
    for b in range(rows):
        at = s + b * per_row
        lr, li = load(adjoints, at), load(adjoints, at + w)
        for back in range(steps):
            c = ((b + 1) * steps - 1 - back) * w
            lr, li = lr + load(asked, c), li + load(asked, i + c)
            xr, xi = load(kept, before + c), load(kept, before + i + c)
            vr, vi = times_conjugate(lr, li, xr, xi)
            dar, dai = dar + vr, dai + vi
            tr, ti = ar, ai
            if p > 0:
                vr, vi = times_conjugate(lr, li, load(kept, below + c), load(kept, below + i + c))
            elif liquid:
                vr, vi = lr + vr, li + vi
                tr, ti = ar + load(drive, c), ai + load(drive, i + c)
            else:
                vr, vi = lr, li
            if p + 1 < order:
                vr, vi = load(grad_drive, c) + vr, load(grad_drive, i + c) + vi
            store(grad_drive, c, vr)
            store(grad_drive, i + c, vi)
            fr, fi = times_conjugate(lr, li, tr, ti)
            if p + 1 < order:
                gr, gi = load(above, c), load(above, i + c)
                zr, zi = times_conjugate(gr, gi, load(drive, c), load(drive, i + c))
                fr, fi = fr + zr, fi + zi
            if p > 0:
                store(above, c, lr)
                store(above, i + c, li)
            lr, li = fr, fi
        store(adjoints, at, lr)
        store(adjoints, at + w, li)
    store(partial, 0, dar)
    store(partial, w, dai)


@compiled
def shared_adjoint_blocks(  # type: ignore[no-untyped-def]
    A, B, C, read, drives, u, grad_y, grad_u, states, adjoints, sums_A, sums_B, sums_C, batch, n_channels, length,
    n_modes, order, liquid, together, per_sum, first, end,
):  # fmt: skip
    """What belongs to the sums `first` … `end` - 1: `per_sum` sets of `together` rows of the batch each.

    Args:
        A, B, u, states, liquid, together: as in `shared_blocks`; states are overwritten.
        read: weight · conj(C), as B: (depth, H, 2, W).
        drives: conj(B̄), (2, M, H padded).
        grad_y: cotangent of y; grad_u: written.
        adjoints: cotangent of the final states; replaced by that of the initial ones.
        sums_A: (sums, depth, 2, W), sums_B and sums_C: (sums, depth, H padded, 2, W), float64, zero before; C's without
            the weight, and with the gradient of conj(C).
    """
    w = width(states)
    depth = A.size // (2 * w)
    padded = ROWS * ((n_channels + ROWS - 1) // ROWS)
    per_row = order * depth * 2 * w
    size = 2 * COLUMNS * w
    blocks = (length + COLUMNS - 1) // COLUMNS
    starts = np.empty((max(blocks, 1), together * per_row), states.dtype)
    inputs = np.zeros(padded * STRIDE, states.dtype)
    outputs = np.zeros(padded * STRIDE, states.dtype)
    drive, total, asked = np.zeros(size, states.dtype), np.zeros(size, states.dtype), np.zeros(size, states.dtype)
    grad_drive, above = np.zeros(size, states.dtype), np.zeros(size, states.dtype)
    kept = np.zeros(order * size, states.dtype)
    turned = np.zeros(depth * size, states.dtype)
    partial = np.zeros(2 * w, states.dtype)
    for one in range(first * per_sum, min(end * per_sum, (batch + together - 1) // together)):
        begin = one * together
        of_A, of_B = sums_A[one // per_sum], one // per_sum
        rows = min(together, batch - begin)
        own = states[begin * per_row : (begin + rows) * per_row]
        carry = adjoints[begin * per_row : (begin + rows) * per_row]
        for k in range(blocks):
            starts[k, : own.size] = own
            if k + 1 < blocks:
                read_columns(u, begin, rows, n_channels, k * COLUMNS, COLUMNS, length, inputs)
                for v in range(depth):
                    to_modes(inputs, COLUMNS, n_channels, B, v * n_channels * 2 * w, drive)
                    a = A[v * 2 * w : (v + 1) * 2 * w]
                    for p in range(order):
                        s = (p * depth + v) * 2 * w
                        run_order(a, drive, rows, COLUMNS, own, s, per_row, p, order, liquid, kept, False, total)
        for back in range(blocks):
            k = blocks - 1 - back
            start = k * COLUMNS
            steps = min(COLUMNS, length - start)
            count = rows * steps
            read_columns(u, begin, rows, n_channels, start, steps, length, inputs)
            read_columns(grad_y, begin, rows, n_channels, start, steps, length, outputs)
            for v in range(depth):
                a, m = A[v * 2 * w : (v + 1) * 2 * w], v * n_channels * 2 * w
                to_modes(inputs, count, n_channels, B, m, drive)
                to_modes(outputs, count, n_channels, read, m, asked)
                for p in range(order):
                    s = (p * depth + v) * 2 * w
                    run_order(a, drive, rows, steps, starts[k], s, per_row, p, order, liquid, kept, True, total)
                for down in range(order):
                    p = order - 1 - down
                    s = (p * depth + v) * 2 * w
                    adjoint_order(
                        a, drive, asked, rows, steps, carry, s, per_row, p, order, liquid, kept, above, grad_drive,
                        partial,
                    )  # fmt: skip
                    for i in range(2 * w):
                        of_A[v * 2 * w + i] += partial[i]
                add_outer(inputs, count, padded, grad_drive, sums_B[of_B], v * padded * 2 * w)
                add_outer(outputs, count, padded, total, sums_C[of_B], v * padded * 2 * w)
                turn(grad_drive, count, v, depth, turned)
            to_channels(turned, count, n_modes, depth, drives, padded, 1, outputs)
            write_columns(outputs, grad_u, begin, rows, n_channels, start, steps, length)
