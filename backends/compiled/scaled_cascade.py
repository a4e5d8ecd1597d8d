"""`truncated` of order 2 and 3 with scaled states, z_p = x_p / B̄^p (Eq. 12).

z_1 = ā z_1 + u and z_p = ā z_p + u z_{p-1}: the links are real, so that an order costs 6 operations per mode and step
instead of 8 and no B̄ u is formed; y = weight · Re Σ_p (C B̄^p) z_p.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from liquid_ssm.finite import all_finite
from liquid_ssm.systems import DiagonalSystem

from .caching import compiled, inlined
from .diagonal import Tiles
from .scan import STEPS, clear, difference, linear_step, scaled_step
from .simd import fma, load, store, width
from .tiles import read_signal, write_signal

Array = npt.NDArray[Any]

# All states and read-outs of a mode fit into registers.
ORDERS = (2, 3)


@inlined
def _two_orders(pack, o, u, steps, state, s, real, imaginary):  # type: ignore[no-untyped-def]
    w = width(state)
    ar, ai, br, bi = load(pack, o), load(pack, o + w), load(pack, o + 2 * w), load(pack, o + 3 * w)
    cr, ci = load(pack, o + 4 * w), load(pack, o + 5 * w)
    xr, xi, yr, yi = load(state, s), load(state, s + w), load(state, s + 2 * w), load(state, s + 3 * w)
    for t in range(steps):
        now = load(u, t * w)
        yr, yi = linear_step(ar, ai, now * xr, now * xi, yr, yi)
        xr, xi = scaled_step(ar, ai, now, xr, xi)
        store(real, t * w, load(real, t * w) + fma(cr, yr, br * xr))
        store(imaginary, t * w, load(imaginary, t * w) + fma(ci, yi, bi * xi))
    store(state, s, xr)
    store(state, s + w, xi)
    store(state, s + 2 * w, yr)
    store(state, s + 3 * w, yi)


@inlined
def _three_orders(pack, o, u, steps, state, s, real, imaginary):  # type: ignore[no-untyped-def]
    w = width(state)
    ar, ai, br, bi = load(pack, o), load(pack, o + w), load(pack, o + 2 * w), load(pack, o + 3 * w)
    cr, ci, dr, di = load(pack, o + 4 * w), load(pack, o + 5 * w), load(pack, o + 6 * w), load(pack, o + 7 * w)
    xr, xi, yr, yi = load(state, s), load(state, s + w), load(state, s + 2 * w), load(state, s + 3 * w)
    zr, zi = load(state, s + 4 * w), load(state, s + 5 * w)
    for t in range(steps):
        now = load(u, t * w)
        zr, zi = linear_step(ar, ai, now * yr, now * yi, zr, zi)
        yr, yi = linear_step(ar, ai, now * xr, now * xi, yr, yi)
        xr, xi = scaled_step(ar, ai, now, xr, xi)
        store(real, t * w, load(real, t * w) + fma(dr, zr, fma(cr, yr, br * xr)))
        store(imaginary, t * w, load(imaginary, t * w) + fma(di, zi, fma(ci, yi, bi * xi)))
    store(state, s, xr)
    store(state, s + w, xi)
    store(state, s + 2 * w, yr)
    store(state, s + 3 * w, yi)
    store(state, s + 4 * w, zr)
    store(state, s + 5 * w, zi)


@compiled
def scaled_cascade_tiles(  # type: ignore[no-untyped-def]
    packs, offsets, rows, group, u, y, states, order, length, apart, weight, first, end
):
    """Tiles `first` … `end` - 1.

    Args:
        packs: (packs, depth · (2 + 2 · order) · W): Ā, then C B̄^p for p = 1 … order.
        states: (tiles, depth · order · 2 · W) of the z_p; replaced by the final ones.
        others: as in `cascade_tiles`.
    """
    n_packs = packs.shape[0]
    w = width(states)
    depth = states.shape[1] // (2 * w * order)
    per_tile = w // group
    components = 2 + 2 * order
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
            for v in range(depth):
                o, s = v * components * w, v * order * 2 * w
                if order == 2:
                    _two_orders(pack, o, inputs, steps, state, s, real, imaginary)
                else:
                    _three_orders(pack, o, inputs, steps, state, s, real, imaginary)
            difference(real, imaginary, steps, weight)
            write_signal(real, steps, group, n_rows, y, places, start, apart, block)


def scaled_cascade(
    system: DiagonalSystem, u: Array, states: Array | None, *, order: int, threads: int
) -> tuple[Array, Array] | None:
    """y (batch, H, L) and the final states (batch, order, H, M) of a system for which `diagonal.can_scale`.

    None if a scaled state left the range of float32, which x_p need not have done.

    Accuracy: powers of B̄, read-outs and the conversions of states in float64, each rounded once to float32.  A term
    of the read-out passes the sum of the orders, then that of the modes.
    """
    tiles = Tiles(system, u)
    layout, y = tiles.layout, tiles.memory.empty(u.dtype)
    powers = np.cumprod(np.repeat(system.B_bar.astype(np.complex128)[None], order, axis=0), axis=0)
    planes = [part for p in (system.A_bar, *(system.C * powers)) for part in (p.real, p.imag)]
    packs = layout.packed(planes, tiles.dtype).reshape(layout.packs, layout.depth * len(planes) * layout.lanes)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = tiles.orders_in(None if states is None else (states / powers).astype(np.complex64), order)
        given = packs, tiles.memory.flat(y), scaled, order, *tiles.steps, system.weight
        tiles.each(scaled_cascade_tiles, threads, *given)
        # An infinite or undefined number in a state stays there, so the final states tell of all steps.
        if not all_finite(scaled):
            return None
        final = tiles.orders_out(scaled, order, np.complex64) * powers
    return y, np.ascontiguousarray(final if system.is_complex else final.real, tiles.kind)
