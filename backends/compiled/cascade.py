"""Cascades of linear recurrences on diagonal systems, Eq. 12 (`truncated`) and Eq. 13, 14 (`chain`), forwards.

One mode at a time, the orders one after the other over a block of time; each hands the states before every step on to
the next one.  The first three orders of `truncated` run together in registers.
"""

from __future__ import annotations

import numpy as np

from .caching import compiled, inlined
from .scan import COMPONENTS, STEPS, clear, difference, linear_step
from .simd import fma, load, store, width
from .tiles import read_signal, write_signal


@inlined
def fed_step(ar, ai, lr, li, xr, xi, qr, qi):  # type: ignore[no-untyped-def]
    """ā x + l q; 8 operations."""
    return (
        fma(ar, xr, fma(-ai, xi, fma(lr, qr, -(li * qi)))),
        fma(ar, xi, fma(ai, xr, fma(lr, qi, li * qr))),
    )


@inlined
def first_order(pack, o, u, steps, state, s, before, real, imaginary, read):  # type: ignore[no-untyped-def]
    """x ← ā x + b̄ u over a block; the states before each step go to `before`; with `read` into the output."""
    w = width(state)
    ar, ai, br, bi = load(pack, o), load(pack, o + w), load(pack, o + 2 * w), load(pack, o + 3 * w)
    cr, ci = load(pack, o + 4 * w), load(pack, o + 5 * w)
    xr, xi = load(state, s), load(state, s + w)
    for t in range(steps):
        now = load(u, t * w)
        store(before, 2 * t * w, xr)
        store(before, (2 * t + 1) * w, xi)
        xr, xi = linear_step(ar, ai, br * now, bi * now, xr, xi)
        if read:
            store(real, t * w, fma(cr, xr, load(real, t * w)))
            store(imaginary, t * w, fma(ci, xi, load(imaginary, t * w)))
    store(state, s, xr)
    store(state, s + w, xi)


@inlined
def next_order(pack, o, u, steps, state, s, below, before, real, imaginary, chain, read):  # type: ignore[no-untyped-def]
    """x ← ā x + l q with q from the order below (`below`), l = u for a chain, else b̄ u."""
    w = width(state)
    ar, ai, br, bi = load(pack, o), load(pack, o + w), load(pack, o + 2 * w), load(pack, o + 3 * w)
    cr, ci = load(pack, o + 4 * w), load(pack, o + 5 * w)
    xr, xi = load(state, s), load(state, s + w)
    for t in range(steps):
        now = load(u, t * w)
        qr, qi = load(below, 2 * t * w), load(below, (2 * t + 1) * w)
        store(before, 2 * t * w, xr)
        store(before, (2 * t + 1) * w, xi)
        if chain:
            xr, xi = linear_step(ar, ai, now * qr, now * qi, xr, xi)
        else:
            xr, xi = fed_step(ar, ai, br * now, bi * now, xr, xi, qr, qi)
        if read:
            store(real, t * w, fma(cr, xr, load(real, t * w)))
            store(imaginary, t * w, fma(ci, xi, load(imaginary, t * w)))
    store(state, s, xr)
    store(state, s + w, xi)


@inlined
def two_orders(pack, o, u, steps, state, s, before, real, imaginary):  # type: ignore[no-untyped-def]
    """Orders 1 and 2 of `truncated`, read out together."""
    w = width(state)
    ar, ai, br, bi = load(pack, o), load(pack, o + w), load(pack, o + 2 * w), load(pack, o + 3 * w)
    cr, ci = load(pack, o + 4 * w), load(pack, o + 5 * w)
    xr, xi, yr, yi = load(state, s), load(state, s + w), load(state, s + 2 * w), load(state, s + 3 * w)
    for t in range(steps):
        now = load(u, t * w)
        store(before, 2 * t * w, yr)
        store(before, (2 * t + 1) * w, yi)
        wr, wi = br * now, bi * now
        yr, yi = fed_step(ar, ai, wr, wi, yr, yi, xr, xi)
        xr, xi = linear_step(ar, ai, wr, wi, xr, xi)
        store(real, t * w, fma(cr, xr + yr, load(real, t * w)))
        store(imaginary, t * w, fma(ci, xi + yi, load(imaginary, t * w)))
    store(state, s, xr)
    store(state, s + w, xi)
    store(state, s + 2 * w, yr)
    store(state, s + 3 * w, yi)


@inlined
def three_orders(pack, o, u, steps, state, s, before, hand_on, real, imaginary):  # type: ignore[no-untyped-def]
    """Orders 1 to 3 of `truncated`, read out together."""
    w = width(state)
    ar, ai, br, bi = load(pack, o), load(pack, o + w), load(pack, o + 2 * w), load(pack, o + 3 * w)
    cr, ci = load(pack, o + 4 * w), load(pack, o + 5 * w)
    xr, xi, yr, yi = load(state, s), load(state, s + w), load(state, s + 2 * w), load(state, s + 3 * w)
    zr, zi = load(state, s + 4 * w), load(state, s + 5 * w)
    for t in range(steps):
        now = load(u, t * w)
        if hand_on:
            store(before, 2 * t * w, zr)
            store(before, (2 * t + 1) * w, zi)
        wr, wi = br * now, bi * now
        zr, zi = fed_step(ar, ai, wr, wi, zr, zi, yr, yi)
        yr, yi = fed_step(ar, ai, wr, wi, yr, yi, xr, xi)
        xr, xi = linear_step(ar, ai, wr, wi, xr, xi)
        store(real, t * w, fma(cr, xr + yr + zr, load(real, t * w)))
        store(imaginary, t * w, fma(ci, xi + yi + zi, load(imaginary, t * w)))
    store(state, s, xr)
    store(state, s + w, xi)
    store(state, s + 2 * w, yr)
    store(state, s + 3 * w, yi)
    store(state, s + 4 * w, zr)
    store(state, s + 5 * w, zi)


@compiled
def cascade_tiles(  # type: ignore[no-untyped-def]
    packs, offsets, rows, group, u, y, states, order, chain, length, apart, weight, first, end
):
    """Tiles `first` … `end` - 1 of a cascade.

    Args:
        states: (tiles, depth · order · 2 · W), the orders of a mode beside each other; replaced by the final ones.
        chain: kind `chain`, else `truncated`.
        others: as in `scan_tiles`.
    """
    n_packs = packs.shape[0]
    w = width(states)
    depth = states.shape[1] // (2 * w * order)
    per_tile = w // group
    inputs = np.empty(STEPS * w, states.dtype)
    real = np.empty(STEPS * w, states.dtype)
    imaginary = np.empty(STEPS * w, states.dtype)
    below = np.empty(2 * STEPS * w, states.dtype)
    before = np.empty(2 * STEPS * w, states.dtype)
    block = np.empty(w * w, states.dtype)
    for tile in range(first, end):
        pack, state, places = packs[tile % n_packs], states[tile], offsets[tile]
        n_rows = min(per_tile, rows - tile * per_tile)
        for start in range(0, length, STEPS):
            steps = min(STEPS, length - start)
            read_signal(u, places, start, steps, apart, inputs, 0)
            clear(real, steps)
            clear(imaginary, steps)
            for v in range(depth):
                o, s = v * COMPONENTS * w, v * order * 2 * w
                if chain or order == 1:
                    first_order(pack, o, inputs, steps, state, s, below, real, imaginary, order == 1)
                    done = 1
                elif order == 2:
                    two_orders(pack, o, inputs, steps, state, s, below, real, imaginary)
                    done = 2
                else:
                    three_orders(pack, o, inputs, steps, state, s, below, order > 3, real, imaginary)
                    done = 3
                for p in range(done, order):
                    read = (not chain) or p == order - 1
                    next_order(
                        pack, o, inputs, steps, state, s + p * 2 * w, below, before, real, imaginary, chain, read
                    )
                    below, before = before, below
            difference(real, imaginary, steps, weight)
            write_signal(real, steps, group, n_rows, y, places, start, apart, block)
