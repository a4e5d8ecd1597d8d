"""What correlations and their adjoints share: one order of e_p over a block of time, and rows as lanes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .caching import inlined
from .simd import fma, lanes, load, store, width

Array = npt.NDArray[Any]

# Time steps of a block: what one order hands on to the next stays in the first-level cache.
STEPS = 64


@inlined
def elementary_order(inputs, steps, state, p, below, below_at, own, own_at):  # type: ignore[no-untyped-def]
    """e_p ← e_p + u e_{p-1} over a block.

    Args:
        inputs: u, one vector per step.
        state: e_1 … e_P at the block's beginning; e_p is replaced.
        below: e_{p-1} before the block and after every step, from `below_at` on; not read for p = 1.
        own: receives the same for e_p from `own_at` on; may be where `below` is.
    """
    w = width(inputs)
    value = load(state, (p - 1) * w)
    lower = load(below, below_at)
    store(own, own_at, value)
    for t in range(steps):
        now = load(inputs, t * w)
        following = load(below, below_at + (t + 1) * w)
        value = value + now if p == 1 else fma(now, lower, value)
        store(own, own_at + (t + 1) * w, value)
        lower = following
    store(state, (p - 1) * w, value)


@inlined
def move(source, at, target, to, steps):  # type: ignore[no-untyped-def]
    """Copy `steps` vectors, the first one first."""
    w = width(source)
    for t in range(steps):
        store(target, to + t * w, load(source, at + t * w))


@inlined
def turn(source, steps, target):  # type: ignore[no-untyped-def]
    """The vectors in reversed order."""
    w = width(source)
    for t in range(steps):
        store(target, t * w, load(source, (steps - 1 - t) * w))


def rows_in_lanes(rows: int, length: int, n_lanes: int) -> Array:
    """`in_lanes` of rows that lie one after the other."""
    return in_lanes(np.arange(rows) * length, n_lanes)


def in_lanes(starts: Array, n_lanes: int) -> Array:
    """(tiles, lanes) from (rows,): where the row of each lane begins; lanes without one repeat the last row."""
    rows = len(starts)
    tiles = -(-rows // n_lanes)
    taken: Array = starts[np.arange(tiles * n_lanes).clip(max=max(rows - 1, 0))]
    return taken.reshape(tiles, n_lanes)


def sums_in(sums: Array | None, n_sums: int, rows: int, dtype: npt.DTypeLike) -> Array:
    """(n, batch, H), or None for zeros, as (tiles, n · lanes)."""
    w = lanes(dtype)
    tiles = -(-rows // w)
    padded = np.zeros((n_sums, tiles * w), dtype)
    if sums is not None:
        padded[:, :rows] = sums.reshape(n_sums, rows)
    return np.ascontiguousarray(padded.reshape(n_sums, tiles, w).swapaxes(0, 1)).reshape(tiles, n_sums * w)


def sums_out(state: Array, n_sums: int, shape: tuple[int, ...]) -> Array:
    """The inverse of `sums_in`, `shape` being (batch, H)."""
    rows = int(np.prod(shape))
    tiles = len(state)
    split = state.reshape(tiles, n_sums, state.shape[1] // max(n_sums, 1)).swapaxes(0, 1)
    return np.array(split.reshape(n_sums, -1 if n_sums * tiles else 0)[:, :rows]).reshape(n_sums, *shape)
