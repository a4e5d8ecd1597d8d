"""Vector-Jacobian product of the scans on diagonal systems.

For each tile the states at the beginning of every block are found first; then, from the last block to the first, the
states inside are found again, with the same rounding, and the adjoint recurrence runs back over them.  So the memory
beyond inputs and outputs is that of one tile per thread, and nothing is recovered by running a recurrence backwards.
"""

from __future__ import annotations

import numpy as np

from .caching import compiled, inlined
from .scan import COMPONENTS, clear, linear_step, liquid_step
from .simd import fma, load, splat, store, width
from .tiles import read_signal, write_signal

# Steps between stored states: two numbers per mode for every 128 steps, and 128 states of one mode in the cache.
STEPS = 128


@inlined
def _states(pack, o, u, steps, state, s, kept, keep, liquid):  # type: ignore[no-untyped-def]
    """One mode of one tile over one block: the new state, and with `keep` the state before every step."""
    w = width(state)
    ar, ai, br, bi = load(pack, o), load(pack, o + w), load(pack, o + 2 * w), load(pack, o + 3 * w)
    xr, xi = load(state, s), load(state, s + w)
    for t in range(steps):
        if keep:
            store(kept, 2 * t * w, xr)
            store(kept, (2 * t + 1) * w, xi)
        now = load(u, t * w)
        if liquid:
            xr, xi = liquid_step(ar, ai, br, bi, now, xr, xi)
        else:
            xr, xi = linear_step(ar, ai, br * now, bi * now, xr, xi)
    if keep:
        store(kept, 2 * steps * w, xr)
        store(kept, (2 * steps + 1) * w, xi)
    else:
        store(state, s, xr)
        store(state, s + w, xi)


@inlined
def _pass_through(pack, u, steps, state):  # type: ignore[no-untyped-def]
    """The linear recurrence of all modes of one tile over one block, their new states alone.

    Two modes in turn: one by itself waits for its last product longer than its arithmetic takes.
    """
    w = width(state)
    depth = state.shape[0] // (2 * w)
    for v in range(0, depth - 1, 2):
        o, s = v * COMPONENTS * w, v * 2 * w
        ar, ai, br, bi = load(pack, o), load(pack, o + w), load(pack, o + 2 * w), load(pack, o + 3 * w)
        o += COMPONENTS * w
        Ar, Ai, Br, Bi = load(pack, o), load(pack, o + w), load(pack, o + 2 * w), load(pack, o + 3 * w)
        xr, xi, Xr, Xi = load(state, s), load(state, s + w), load(state, s + 2 * w), load(state, s + 3 * w)
        for t in range(steps):
            now = load(u, t * w)
            xr, xi = linear_step(ar, ai, br * now, bi * now, xr, xi)
            Xr, Xi = linear_step(Ar, Ai, Br * now, Bi * now, Xr, Xi)
        store(state, s, xr)
        store(state, s + w, xi)
        store(state, s + 2 * w, Xr)
        store(state, s + 3 * w, Xi)
    if depth % 2:
        v = depth - 1
        _states(pack, v * COMPONENTS * w, u, steps, state, v * 2 * w, u, False, False)


@inlined
def times_conjugate(ar, ai, br, bi):  # type: ignore[no-untyped-def]
    """a · conj(b)."""
    return fma(ar, br, ai * bi), fma(ai, br, -(ar * bi))


@inlined
def add_sums(sums, index, partial, count):  # type: ignore[no-untyped-def]
    """A block's sums, in the precision of the computation, into those over all time, in float64."""
    for i in range(count):
        sums[index + i] += partial[i]


@inlined
def _adjoint_mode(pack, o, u, g, steps, kept, adjoint, s, grad_u, partial, liquid):  # type: ignore[no-untyped-def]
    """One mode of one tile, backwards over one block.

    Adds to `grad_u`; leaves the gradients of Ā, B̄ and C, six vectors, in `partial`.
    """
    w = width(adjoint)
    ar, ai, br, bi = load(pack, o), load(pack, o + w), load(pack, o + 2 * w), load(pack, o + 3 * w)
    cr, ci = load(pack, o + 4 * w), load(pack, o + 5 * w)
    lr, li = load(adjoint, s), load(adjoint, s + w)
    nothing = splat(partial.dtype.type(0))
    dar, dai, dbr, dbi, dcr, dci = nothing, nothing, nothing, nothing, nothing, nothing
    # The other halves of the products that add up to the gradient of Ā: so each passes no more additions than steps.
    ear, eai = nothing, nothing
    xr, xi = load(kept, 2 * steps * w), load(kept, (2 * steps + 1) * w)
    for back in range(steps):
        t = steps - 1 - back
        now, out = load(u, t * w), load(g, t * w)
        # cotangent of x_k: what came from the future and what the output asks for
        lr, li = fma(cr, out, lr), fma(-ci, out, li)
        dcr, dci = fma(out, xr, dcr), fma(-out, xi, dci)
        xr, xi = load(kept, 2 * t * w), load(kept, (2 * t + 1) * w)
        if liquid:
            vr, vi = times_conjugate(lr, li, xr, xi)
            dar, dai = dar + vr, dai + vi
            vr, vi = lr + vr, li + vi
            tr, ti = fma(br, now, ar), fma(bi, now, ai)
        else:
            dar, dai = fma(lr, xr, dar), fma(li, xr, dai)
            ear, eai = fma(li, xi, ear), fma(-lr, xi, eai)
            vr, vi = lr, li
            tr, ti = ar, ai
        dbr, dbi = fma(now, vr, dbr), fma(now, vi, dbi)
        store(grad_u, t * w, fma(bi, vi, fma(br, vr, load(grad_u, t * w))))
        lr, li = times_conjugate(lr, li, tr, ti)
    store(adjoint, s, lr)
    store(adjoint, s + w, li)
    store(partial, 0, dar + ear)
    store(partial, w, dai + eai)
    store(partial, 2 * w, dbr)
    store(partial, 3 * w, dbi)
    store(partial, 4 * w, dcr)
    store(partial, 5 * w, dci)


@inlined
def scale(buffer, steps, weight):  # type: ignore[no-untyped-def]
    """Multiply by the weight of the output, 1 or 2."""
    w = width(buffer)
    factor = splat(buffer.dtype.type(weight))
    for t in range(steps):
        store(buffer, t * w, factor * load(buffer, t * w))


@compiled
def scan_adjoint_tiles(  # type: ignore[no-untyped-def]
    packs, offsets, rows, group, u, grad_y, grad_u, states, adjoints, sums, length, apart, weight, liquid, first, end
):
    """Tiles `first` … `end` - 1 of the adjoint of a scan.

    Args:
        packs, offsets, rows, group, u, length, apart, weight, liquid: as in `scan_tiles`.
        grad_y: cotangent of the output, like `u`; `grad_u`: written.
        states: (tiles, depth · 2 · W), the initial ones; overwritten.
        adjoints: cotangent of the final state; replaced by that of the initial one.
        sums: (tiles, depth · COMPONENTS · W) float64, zero before: gradients of the parameters of each tile.
    """
    n_packs = packs.shape[0]
    w = width(states)
    depth = states.shape[1] // (2 * w)
    per_tile = w // group
    blocks = (length + STEPS - 1) // STEPS
    starts = np.empty((max(blocks, 1), states.shape[1]), states.dtype)
    inputs = np.empty(STEPS * w, states.dtype)
    outputs = np.empty(STEPS * w, states.dtype)
    gradient = np.empty(STEPS * w, states.dtype)
    kept = np.empty(2 * (STEPS + 1) * w, states.dtype)
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
                if liquid:
                    for v in range(depth):
                        _states(pack, v * COMPONENTS * w, inputs, STEPS, state, v * 2 * w, kept, False, True)
                else:
                    _pass_through(pack, inputs, STEPS, state)
        for back in range(blocks):
            b = blocks - 1 - back
            start = b * STEPS
            steps = min(STEPS, length - start)
            read_signal(u, places, start, steps, apart, inputs, 0)
            read_signal(grad_y, places, start, steps, apart, outputs, 0)
            scale(outputs, steps, weight)
            clear(gradient, steps)
            for v in range(depth):
                o, s = v * COMPONENTS * w, v * 2 * w
                _states(pack, o, inputs, steps, starts[b], s, kept, True, liquid)
                _adjoint_mode(pack, o, inputs, outputs, steps, kept, adjoint, s, gradient, partial, liquid)
                add_sums(tile_sums, o, partial, COMPONENTS * w)
            write_signal(gradient, steps, group, n_rows, grad_u, places, start, apart, block)
