"""Vector-Jacobian product of cascades on diagonal systems; blocks as in `scan_adjoint`.

Inside a block the states of all orders of one mode are found again; then the orders run back, the highest first, each
handing its cotangents on to the one below.
"""

from __future__ import annotations

import numpy as np

from .caching import compiled, inlined
from .cascade import first_order, next_order
from .scan import COMPONENTS, clear
from .scan_adjoint import STEPS, add_sums, scale, times_conjugate
from .simd import fma, load, splat, store, width
from .tiles import read_signal, write_signal


@inlined
def _mode_states(pack, o, u, steps, state, s, kept, order, chain):  # type: ignore[no-untyped-def]
    """The states of all orders of one mode over a block; those before every step into kept[p]; `state` is replaced."""
    w = width(state)
    first_order(pack, o, u, steps, state, s, kept[0], kept[0], kept[0], False)
    for p in range(1, order):
        next_order(pack, o, u, steps, state, s + p * 2 * w, kept[p - 1], kept[p], kept[p], kept[p], chain, False)
    for p in range(order):
        store(kept[p], 2 * steps * w, load(state, s + p * 2 * w))
        store(kept[p], (2 * steps + 1) * w, load(state, s + p * 2 * w + w))


@inlined
def _adjoint_order(  # type: ignore[no-untyped-def]
    pack, o, u, g, steps, own, below, lowest, above, highest, adjoint, s, kept_adjoint, grad_u, partial, chain
):
    """One order of one mode, backwards over one block.

    Args:
        own, below: states before every step of this order and of the one below, if it is not the `lowest`.
        above: cotangents of the order above at every step, if it is not the `highest`.
        kept_adjoint: receives those of this order.
    """
    w = width(adjoint)
    ar, ai, br, bi = load(pack, o), load(pack, o + w), load(pack, o + 2 * w), load(pack, o + 3 * w)
    cr, ci = load(pack, o + 4 * w), load(pack, o + 5 * w)
    lr, li = load(adjoint, s), load(adjoint, s + w)
    nothing = splat(partial.dtype.type(0))
    dar, dai, dbr, dbi, dcr, dci = nothing, nothing, nothing, nothing, nothing, nothing
    read = highest or not chain
    xr, xi = load(own, 2 * steps * w), load(own, (2 * steps + 1) * w)
    for back in range(steps):
        t = steps - 1 - back
        now, out = load(u, t * w), load(g, t * w)
        if read:
            lr, li = fma(cr, out, lr), fma(-ci, out, li)
            dcr, dci = fma(out, xr, dcr), fma(-out, xi, dci)
        store(kept_adjoint, 2 * t * w, lr)
        store(kept_adjoint, (2 * t + 1) * w, li)
        xr, xi = load(own, 2 * t * w), load(own, (2 * t + 1) * w)
        vr, vi = times_conjugate(lr, li, xr, xi)
        dar, dai = dar + vr, dai + vi
        if lowest:
            dbr, dbi = fma(now, lr, dbr), fma(now, li, dbi)
            store(grad_u, t * w, fma(bi, li, fma(br, lr, load(grad_u, t * w))))
        else:
            qr, qi = load(below, 2 * t * w), load(below, (2 * t + 1) * w)
            if chain:
                store(grad_u, t * w, fma(qi, li, fma(qr, lr, load(grad_u, t * w))))
            else:
                vr, vi = times_conjugate(lr, li, qr, qi)
                dbr, dbi = fma(now, vr, dbr), fma(now, vi, dbi)
                store(grad_u, t * w, fma(bi, vi, fma(br, vr, load(grad_u, t * w))))
        lr, li = times_conjugate(lr, li, ar, ai)
        if not highest:
            hr, hi = load(above, 2 * t * w), load(above, (2 * t + 1) * w)
            if chain:
                lr, li = fma(now, hr, lr), fma(now, hi, li)
            else:
                vr, vi = times_conjugate(hr, hi, br * now, bi * now)
                lr, li = lr + vr, li + vi
    store(adjoint, s, lr)
    store(adjoint, s + w, li)
    store(partial, 0, dar)
    store(partial, w, dai)
    store(partial, 2 * w, dbr)
    store(partial, 3 * w, dbi)
    store(partial, 4 * w, dcr)
    store(partial, 5 * w, dci)


@compiled
def cascade_adjoint_tiles(  # type: ignore[no-untyped-def]
    packs, offsets, rows, group, u, grad_y, grad_u, states, adjoints, sums, order, chain, length, apart, weight,
    first, end,
):  # fmt: skip
    """Tiles `first` … `end` - 1 of the adjoint of a cascade; arguments as in `cascade_tiles`, `scan_adjoint_tiles`."""
    n_packs = packs.shape[0]
    w = width(states)
    depth = states.shape[1] // (2 * w * order)
    per_tile = w // group
    blocks = (length + STEPS - 1) // STEPS
    starts = np.empty((max(blocks, 1), states.shape[1]), states.dtype)
    inputs = np.empty(STEPS * w, states.dtype)
    outputs = np.empty(STEPS * w, states.dtype)
    gradient = np.empty(STEPS * w, states.dtype)
    kept = np.empty((order, 2 * (STEPS + 1) * w), states.dtype)
    above = np.empty(2 * STEPS * w, states.dtype)
    below = np.empty(2 * STEPS * w, states.dtype)
    partial = np.empty(COMPONENTS * w, states.dtype)
    block = np.empty(w * w, states.dtype)
    for tile in range(first, end):
        pack, state, adjoint = packs[tile % n_packs], states[tile], adjoints[tile]
        places, tile_sums = offsets[tile], sums[tile]
        n_rows = min(per_tile, rows - tile * per_tile)
        for b in range(blocks):
            starts[b, :] = state
            if b + 1 < blocks:
                read_signal(u, places, b * STEPS, STEPS, apart, inputs, 0)
                for v in range(depth):
                    _mode_states(pack, v * COMPONENTS * w, inputs, STEPS, state, v * order * 2 * w, kept, order, chain)
        for back in range(blocks):
            b = blocks - 1 - back
            start = b * STEPS
            steps = min(STEPS, length - start)
            read_signal(u, places, start, steps, apart, inputs, 0)
            read_signal(grad_y, places, start, steps, apart, outputs, 0)
            scale(outputs, steps, weight)
            clear(gradient, steps)
            for v in range(depth):
                o, s = v * COMPONENTS * w, v * order * 2 * w
                _mode_states(pack, o, inputs, steps, starts[b], s, kept, order, chain)
                for lower in range(order):
                    p = order - 1 - lower
                    _adjoint_order(
                        pack,
                        o,
                        inputs,
                        outputs,
                        steps,
                        kept[p],
                        kept[max(p - 1, 0)],
                        p == 0,
                        above,
                        p == order - 1,
                        adjoint,
                        s + p * 2 * w,
                        below,
                        gradient,
                        partial,
                        chain,
                    )
                    above, below = below, above
                    add_sums(tile_sums, o, partial, COMPONENTS * w)
            write_signal(gradient, steps, group, n_rows, grad_u, places, start, apart, block)
