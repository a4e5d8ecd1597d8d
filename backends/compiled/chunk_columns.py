"""What gradients by chunks are made of: products of matrices with columns of numbers, and diagonal transitions.

A column is one chunk of one row; those of the rows of a group lie side by side, chunk after chunk.  Each number of a
table that is loaded serves four columns.
"""

from __future__ import annotations

import numpy as np

from .caching import inlined
from .chunked import pair, store_chunks
from .scan import linear_step
from .simd import load, splat, store, width
from .tiles import turn_block, turn_block_back

# Columns that are computed together, and rows of a group.
TOGETHER = 4
# Columns of a block of time, the rows of a chunk side by side: their numbers stay in the second-level cache.
COLUMNS = 64


@inlined
def gathered(table, at, apart, numbers, o0, o1, o2, o3, between, count, sums):  # type: ignore[no-untyped-def]
    """Two rows of vectors of a table times the numbers of four columns, added to the sums: 8 multiply-adds a term.

    Args:
        at, apart: where the first pair of vectors is, and from one to the next.
        o0 … o3, between: where the first number of each column is, and from one to the next.
    """
    w = width(table)
    step = np.uintp(between)
    for _ in range(count):
        sums = pair(load(table, at), load(table, at + w), numbers[o0], numbers[o1], numbers[o2], numbers[o3], sums)
        at += apart
        o0, o1, o2, o3 = o0 + step, o1 + step, o2 + step, o3 + step
    return sums


@inlined
def starts(first, apart, count):  # type: ignore[no-untyped-def]
    """Where four columns begin; the last of fewer is computed again and dropped."""
    o0, step = np.uintp(first), np.uintp(apart)
    o1 = o0 + step if count > 1 else o0
    o2 = o1 + step if count > 2 else o1
    return o0, o1, o2, o2 + step if count > 3 else o2


@inlined
def nothing_yet(like):  # type: ignore[no-untyped-def]
    """Eight sums that are zero."""
    zero = splat(like.dtype.type(0))
    return zero, zero, zero, zero, zero, zero, zero, zero


@inlined
def mapped(table, size, numbers, first, chunk, columns, images):  # type: ignore[no-untyped-def]
    """What a table makes of the numbers of each column, (columns, size).

    Args:
        table: panels of 2W rows, (size/2W, chunk, 2W).
        numbers: (columns, chunk) from `first` on.
    """
    w = width(table)
    for k in range(0, columns, TOGETHER):
        count = min(TOGETHER, columns - k)
        o0, o1, o2, o3 = starts(first + k * chunk, chunk, count)
        for n in range(0, size, 2 * w):
            sums = gathered(table, n * chunk, 2 * w, numbers, o0, o1, o2, o3, 1, chunk, nothing_yet(table))
            store_chunks(sums, images, k * size + n, size, count)


@inlined
def turned_on(transition, size, images, rows, source, target):  # type: ignore[no-untyped-def]
    """images_{target+r} += D images_{source+r} for the rows of a group; real parts first, then imaginary ones."""
    w = width(transition)
    half = size // 2
    for n in range(0, half, w):
        dr, di = load(transition, n), load(transition, half + n)
        for r in range(rows):
            x, t = (source + r) * size + n, (target + r) * size + n
            xr, xi = load(images, x), load(images, x + half)
            xr, xi = linear_step(dr, di, load(images, t), load(images, t + half), xr, xi)
            store(images, t, xr)
            store(images, t + half, xi)


@inlined
def advance(inputs, transition, size, u, first, chunk, rows, columns, states):  # type: ignore[no-untyped-def]
    """The states after each chunk of a block, behind those of the `rows` rows before it."""
    mapped(inputs, size, u, first, chunk, columns, states[rows * size :])
    for k in range(0, columns, rows):
        turned_on(transition, size, states, rows, k, k + rows)


@inlined
def read_block(u, places, rows, n_channels, begin, steps, apart, chunk, target, room):  # type: ignore[no-untyped-def]
    """Column (c, r) of channel l, target[l · room + (c · rows + r) · chunk + q], is chunk c from step `begin` of row r.

    Args:
        places: (rows, W) where each channel of each row begins in `u`.
        apart: numbers from one time step of a row to the next; channels last, the channels of a tile are adjacent.
    """
    for r in range(rows):
        for c in range(steps // chunk):
            at, to = begin + c * chunk, (c * rows + r) * chunk
            if apart > 1:
                turn_block(u, places[r, 0] + at * apart, apart, target, to, room, chunk, n_channels)
                continue
            for lane in range(n_channels):
                for q in range(chunk):
                    target[lane * room + to + q] = u[places[r, lane] + at + q]


@inlined
def write_block(source, room, rows, n_channels, begin, steps, apart, chunk, places, y):  # type: ignore[no-untyped-def]
    """The inverse of `read_block`."""
    for r in range(rows):
        for c in range(steps // chunk):
            to, at = begin + c * chunk, (c * rows + r) * chunk
            if apart > 1:
                turn_block_back(source, at, room, y, places[r, 0] + to * apart, apart, chunk, n_channels)
                continue
            for lane in range(n_channels):
                for q in range(chunk):
                    y[places[r, lane] + to + q] = source[lane * room + at + q]
