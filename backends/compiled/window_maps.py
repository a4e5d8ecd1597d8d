"""A chain of recurrences over the newest inputs of diagonal systems, forwards, by van Herk's scheme.

An input u makes the map s → s (ā + u t) + u of polynomials in t; the coefficient of t^(P-1) in the product of a
window's maps is its chain's last state, up to b̄.  Time is cut into blocks of the window's length; a window is the end
of one block and the beginning of the next, and its map the product of two that grow by one input per step.  A map is a
pair (q, s) and stands for s' → s' q + s.  Nothing is ever removed.
"""

from __future__ import annotations

import numpy as np

from .caching import compiled, inlined
from .scan import COMPONENTS, clear, difference, linear_step
from .simd import fma, load, splat, store, width
from .tiles import read_rows, write_rows


@inlined
def read_map(pack, o):  # type: ignore[no-untyped-def]
    """ā and c b̄ of one mode."""
    w = width(pack)
    br, bi, cr, ci = load(pack, o + 2 * w), load(pack, o + 3 * w), load(pack, o + 4 * w), load(pack, o + 5 * w)
    return load(pack, o), load(pack, o + w), fma(cr, br, -(ci * bi)), fma(cr, bi, ci * br)


@inlined
def begin(q, at, order):  # type: ignore[no-untyped-def]
    """The polynomial 1."""
    w = width(q)
    for i in range(2 * order):
        store(q, at + i * w, splat(q.dtype.type(1 if i == 0 else 0)))


@inlined
def times_input(ar, ai, now, source, at, target, to, order, lowest):  # type: ignore[no-untyped-def]
    """q ← q (ā + u t) + `lowest`·u, highest coefficient first; source and target may be the same.

    Rounding: one real product, then two fused multiply-adds for each part.
    """
    w = width(source)
    k = 2 * (order - 1) * w
    r, i = load(source, at + k), load(source, at + k + w)
    for back in range(order):
        k = 2 * (order - 1 - back) * w
        if back < order - 1:
            lr, li = load(source, at + k - 2 * w), load(source, at + k - w)
        else:
            lr, li = splat(source.dtype.type(lowest)), splat(source.dtype.type(0))
        xr, xi = linear_step(ar, ai, now * lr, now * li, r, i)
        store(target, to + k, xr)
        store(target, to + k + w, xi)
        r, i = lr, li


@inlined
def window_ends(pack, o, inputs, window, order, ends, maps, step):  # type: ignore[no-untyped-def]
    """s and q of the maps from every position but the first to the end of a block.

    Args:
        ends: s at position i from 2 i·order·W on; that of no input, at `window`, is zero.
        maps: the same for q, or with step = 0 the last one only.
    """
    w = width(inputs)
    ar, ai, _, _ = read_map(pack, o)
    stride = 2 * order * w
    begin(maps, step * window * stride, order)
    for back in range(window - 1):
        i = window - 1 - back
        now = load(inputs, i * w)
        old, new = (i + 1) * stride, i * stride
        at = step * old
        for k in range(0, stride, w):
            store(ends, new + k, fma(now, load(maps, at + k), load(ends, old + k)))
        times_input(ar, ai, now, maps, at, maps, step * new, order, 0)


@inlined
def combine(ends, at, maps, to, order, value_r, value_i):  # type: ignore[no-untyped-def]
    """value + the coefficient of t^(order - 1) in s·q."""
    w = width(ends)
    for k in range(order):
        e, m = at + 2 * k * w, to + 2 * (order - 1 - k) * w
        er, ei, qr, qi = load(ends, e), load(ends, e + w), load(maps, m), load(maps, m + w)
        value_r = fma(er, qr, fma(-ei, qi, value_r))
        value_i = fma(er, qi, fma(ei, qr, value_i))
    return value_r, value_i


@inlined
def window_mode(pack, o, inputs, size, order, joined, ends, maps, sums, real, imaginary):  # type: ignore[no-untyped-def]
    """One mode over one block: the outputs of windows that end in it.

    Args:
        joined: windows begin in the block before, whose ends are in `ends`.
        maps, sums: room for q and s of the block's beginning.
        real, imaginary: as in `scan_block`.
    """
    w = width(inputs)
    ar, ai, cr, ci = read_map(pack, o)
    stride = 2 * order * w
    last = stride - 2 * w
    begin(maps, 0, order)
    for k in range(0, stride, w):
        store(sums, k, splat(inputs.dtype.type(0)))
    for i in range(size):
        now = load(inputs, i * w)
        times_input(ar, ai, now, sums, 0, sums, 0, order, 1)
        vr, vi = load(sums, last), load(sums, last + w)
        if joined:
            times_input(ar, ai, now, maps, 0, maps, 0, order, 0)
            vr, vi = combine(ends, (i + 1) * stride, maps, 0, order, vr, vi)
        store(real, i * w, fma(cr, vr, load(real, i * w)))
        store(imaginary, i * w, fma(ci, vi, load(imaginary, i * w)))


@compiled
def window_tiles(  # type: ignore[no-untyped-def]
    packs, offsets, rows, group, u, y, order, window, length, weight, at_once, first, end
):
    """Pieces `first` … `end` - 1 of a windowed chain; a piece is `at_once` blocks of one tile.

    Args:
        window: at most `length`.
        others: as in `scan_tiles`.
    """
    w = width(packs)
    depth = packs.shape[1] // (COMPONENTS * w)
    per_row = w // group
    blocks = (length + window - 1) // window
    per_tile = (blocks + at_once - 1) // at_once
    before = np.empty(window * w, packs.dtype)
    current = np.empty(window * w, packs.dtype)
    real = np.empty(window * w, packs.dtype)
    imaginary = np.empty(window * w, packs.dtype)
    ends = np.zeros(2 * order * (window + 1) * w, packs.dtype)
    maps = np.empty(2 * order * w, packs.dtype)
    sums = np.empty(2 * order * w, packs.dtype)
    room = np.empty(w * w, packs.dtype)
    for piece in range(first, end):
        tile = piece // per_tile
        pack, places = packs[tile % packs.shape[0]], offsets[tile]
        n_rows = min(per_row, rows - tile * per_row)
        start = (piece % per_tile) * at_once
        if start > 0:
            read_rows(u, places, 0, (start - 1) * window, window, current, 0)
        for b in range(start, min(start + at_once, blocks)):
            before, current = current, before
            size = min(window, length - b * window)
            read_rows(u, places, 0, b * window, size, current, 0)
            clear(real, size)
            clear(imaginary, size)
            for v in range(depth):
                o = v * COMPONENTS * w
                if b > 0:
                    window_ends(pack, o, before, window, order, ends, maps, 0)
                window_mode(pack, o, current, size, order, b > 0, ends, maps, sums, real, imaginary)
            difference(real, imaginary, size, weight)
            write_rows(real, size, group, n_rows, y, places, 0, b * window, room)
