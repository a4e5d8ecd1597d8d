"""The exact recurrence of Eq. 11 and the linear one of Eq. 2 on diagonal systems, forwards.

Serial in time, states and parameters of two modes of a tile in registers; the outputs of all modes add up in a buffer
of `STEPS` time steps.
"""

from __future__ import annotations

import numpy as np

from .caching import compiled, inlined
from .simd import fma, load, splat, store, width
from .tiles import read_signal, write_signal

# Time steps of a block: its inputs and outputs stay in the first-level cache, its set-up costs little.
STEPS = 64
# Numbers per mode of a packed system: real and imaginary parts of Ā, B̄ and C.
COMPONENTS = 6


@inlined
def liquid_step(ar, ai, br, bi, u, xr, xi):  # type: ignore[no-untyped-def]
    """(ā + b̄ u) x + b̄ u; 8 operations."""
    wr, wi = br * u, bi * u
    tr, ti = fma(br, u, ar), fma(bi, u, ai)
    return fma(tr, xr, fma(-ti, xi, wr)), fma(tr, xi, fma(ti, xr, wi))


@inlined
def linear_step(ar, ai, wr, wi, xr, xi):  # type: ignore[no-untyped-def]
    """ā x + w; 4 operations."""
    return fma(ar, xr, fma(-ai, xi, wr)), fma(ar, xi, fma(ai, xr, wi))


@inlined
def scaled_step(tr, ti, u, zr, zi):  # type: ignore[no-untyped-def]
    """a z + u with a real u, for z = x / b̄; 4 operations, and none for b̄ u."""
    return fma(tr, zr, fma(-ti, zi, u)), fma(tr, zi, ti * zr)


@inlined
def scan_step(ar, ai, br, bi, u, xr, xi, liquid, scaled):  # type: ignore[no-untyped-def]
    """One step of one mode in any of the four ways; the branches are taken out of the loops over time."""
    if scaled:
        if liquid:
            return scaled_step(fma(br, u, ar), fma(bi, u, ai), u, xr, xi)
        return scaled_step(ar, ai, u, xr, xi)
    if liquid:
        return liquid_step(ar, ai, br, bi, u, xr, xi)
    return linear_step(ar, ai, br * u, bi * u, xr, xi)


@inlined
def scan_block(pack, depth, u, steps, state, real, imaginary, liquid, scaled):  # type: ignore[no-untyped-def]
    """All modes of one tile over one block of time.

    Adds Σ Re C Re x and Σ Im C Im x to `real` and `imaginary`, whose difference is the output: so a term passes as
    many additions as if each complex product were formed whole.
    """
    w = width(state)
    v = 0
    while v + 2 <= depth:
        o = v * COMPONENTS * w
        ar, ai, br, bi = load(pack, o), load(pack, o + w), load(pack, o + 2 * w), load(pack, o + 3 * w)
        cr, ci = load(pack, o + 4 * w), load(pack, o + 5 * w)
        o += COMPONENTS * w
        Ar, Ai, Br, Bi = load(pack, o), load(pack, o + w), load(pack, o + 2 * w), load(pack, o + 3 * w)
        Cr, Ci = load(pack, o + 4 * w), load(pack, o + 5 * w)
        s = v * 2 * w
        xr, xi, Xr, Xi = load(state, s), load(state, s + w), load(state, s + 2 * w), load(state, s + 3 * w)
        for t in range(steps):
            now = load(u, t * w)
            xr, xi = scan_step(ar, ai, br, bi, now, xr, xi, liquid, scaled)
            Xr, Xi = scan_step(Ar, Ai, Br, Bi, now, Xr, Xi, liquid, scaled)
            store(real, t * w, fma(Cr, Xr, fma(cr, xr, load(real, t * w))))
            store(imaginary, t * w, fma(Ci, Xi, fma(ci, xi, load(imaginary, t * w))))
        store(state, s, xr)
        store(state, s + w, xi)
        store(state, s + 2 * w, Xr)
        store(state, s + 3 * w, Xi)
        v += 2
    if v < depth:
        o = v * COMPONENTS * w
        ar, ai, br, bi = load(pack, o), load(pack, o + w), load(pack, o + 2 * w), load(pack, o + 3 * w)
        cr, ci = load(pack, o + 4 * w), load(pack, o + 5 * w)
        s = v * 2 * w
        xr, xi = load(state, s), load(state, s + w)
        for t in range(steps):
            now = load(u, t * w)
            xr, xi = scan_step(ar, ai, br, bi, now, xr, xi, liquid, scaled)
            store(real, t * w, fma(cr, xr, load(real, t * w)))
            store(imaginary, t * w, fma(ci, xi, load(imaginary, t * w)))
        store(state, s, xr)
        store(state, s + w, xi)


@inlined
def clear(buffer, steps):  # type: ignore[no-untyped-def]
    """Zeros for `steps` time steps."""
    w = width(buffer)
    nothing = splat(buffer.dtype.type(0))
    for t in range(steps):
        store(buffer, t * w, nothing)


@inlined
def difference(real, imaginary, steps, weight):  # type: ignore[no-untyped-def]
    """real ← weight · (real - imaginary); the weight is 1 or 2, so exact but for the subtraction."""
    w = width(real)
    factor = splat(real.dtype.type(weight))
    for t in range(steps):
        store(real, t * w, factor * (load(real, t * w) - load(imaginary, t * w)))


@compiled
def scan_tiles(  # type: ignore[no-untyped-def]
    packs, offsets, rows, group, u, y, states, length, apart, weight, liquid, scaled, first, end
):
    """Tiles `first` … `end` - 1 of a scan.

    Args:
        packs: (packs, depth · COMPONENTS · W) parameters.
        offsets: (tiles, W) where the row of each lane begins in `u` and `y`.
        rows: number of rows; lanes beyond them are computed and dropped.
        u, y: one-dimensional; `y` is written.
        apart: numbers from one time step of a row to the next in `u` and `y`.
        states: (tiles, depth · 2 · W), in the dtype of the computation; replaced by the final ones.
        weight: 1 or 2.
        scaled: states are x / B̄, and the packs hold C ∘ B̄ for C.
    """
    n_packs = packs.shape[0]
    w = width(states)
    depth = states.shape[1] // (2 * w)
    per_tile = w // group
    inputs = np.empty(STEPS * w, states.dtype)
    real = np.empty(STEPS * w, states.dtype)
    imaginary = np.empty(STEPS * w, states.dtype)
    block = np.empty(w * w, states.dtype)
    for tile in range(first, end):
        pack, state, places = packs[tile % n_packs], states[tile], offsets[tile]
        n_rows = min(per_tile, rows - tile * per_tile)
        for start in range(0, length, STEPS):
            steps = min(STEPS, length - start)
            read_signal(u, places, start, steps, apart, inputs, 0)
            clear(real, steps)
            clear(imaginary, steps)
            scan_block(pack, depth, inputs, steps, state, real, imaginary, liquid, scaled)
            difference(real, imaginary, steps, weight)
            write_signal(real, steps, group, n_rows, y, places, start, apart, block)
