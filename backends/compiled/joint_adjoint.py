"""Vector-Jacobian product of `joint_scan`: one adjoint recurrence for all orders, in blocks as in `scan_adjoint`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from liquid_ssm.backend import Gradients
from liquid_ssm.systems import DiagonalSystem

from .adjacent import drive, hand_back, multiply, power_sums, pull_back, read_with_earlier
from .caching import compiled, inlined
from .diagonal import Tiles
from .joint import of_input, packed_orders, powers_of
from .scan import clear, linear_step
from .scan_adjoint import STEPS, add_sums, scale, times_conjugate
from .simd import fma, load, splat, store, width
from .tiles import read_signal, write_rows, write_signal

Array = npt.NDArray[Any]

# Numbers per mode in front of the powers of B̄: real and imaginary parts of Ā and C.
FIXED = 4


@inlined
def _states(pack, o, products, order, steps, state, s, kept, keep):  # type: ignore[no-untyped-def]
    """One mode of one tile over one block: the new state, and with `keep` the state before every step."""
    w = width(state)
    ar, ai = load(pack, o), load(pack, o + w)
    xr, xi = load(state, s), load(state, s + w)
    for t in range(steps):
        if keep:
            store(kept, 2 * t * w, xr)
            store(kept, (2 * t + 1) * w, xi)
        wr, wi = drive(pack, o + FIXED * w, products, t, order)
        xr, xi = linear_step(ar, ai, wr, wi, xr, xi)
    if keep:
        store(kept, 2 * steps * w, xr)
        store(kept, (2 * steps + 1) * w, xi)
    else:
        store(state, s, xr)
        store(state, s + w, xi)


@inlined
def _adjoint_mode(pack, o, g, steps, kept, adjoint, s, cotangents, partial):  # type: ignore[no-untyped-def]
    """One mode backwards over one block: ν after every step to `cotangents`, gradients of Ā and C to `partial`."""
    w = width(adjoint)
    ar, ai, cr, ci = load(pack, o), load(pack, o + w), load(pack, o + 2 * w), load(pack, o + 3 * w)
    lr, li = load(adjoint, s), load(adjoint, s + w)
    nothing = splat(partial.dtype.type(0))
    dar, dai, dcr, dci = nothing, nothing, nothing, nothing
    xr, xi = load(kept, 2 * steps * w), load(kept, (2 * steps + 1) * w)
    for back in range(steps):
        t = steps - 1 - back
        out = load(g, t * w)
        lr, li = fma(cr, out, lr), fma(-ci, out, li)
        store(cotangents, 2 * t * w, lr)
        store(cotangents, (2 * t + 1) * w, li)
        dcr, dci = fma(out, xr, dcr), fma(-out, xi, dci)
        xr, xi = load(kept, 2 * t * w), load(kept, (2 * t + 1) * w)
        vr, vi = times_conjugate(lr, li, xr, xi)
        dar, dai = dar + vr, dai + vi
        lr, li = times_conjugate(lr, li, ar, ai)
    store(adjoint, s, lr)
    store(adjoint, s + w, li)
    store(partial, 0, dar)
    store(partial, w, dai)
    store(partial, 2 * w, dcr)
    store(partial, 3 * w, dci)


@compiled
def joint_adjoint_tiles(  # type: ignore[no-untyped-def]
    packs, offsets, rows, group, u, before, grad_y, grad_u, grad_before, states, adjoints, sums, order, length, apart,
    weight, first, end,
):  # fmt: skip
    """Tiles `first` … `end` - 1 of the adjoint of `joint_tiles` with states that are not scaled.

    Args:
        packs: as in `joint_tiles`; u, grad_y, grad_u, states, adjoints: as in `scan_adjoint_tiles`.
        before: (tiles, W) where the row of each lane begins in `grad_before`, the gradient of `order` - 1 inputs before
            the first, which are zeros.
        sums: (tiles, depth · (4 + 2 · order) · W) float64, zero before: gradients of the packed parameters.
    """
    n_packs = packs.shape[0]
    w = width(states)
    depth, per_tile, earlier = states.shape[1] // (2 * w), w // group, order - 1
    components = FIXED + 2 * order
    blocks = (length + STEPS - 1) // STEPS
    starts = np.empty((max(blocks, 1), states.shape[1]), states.dtype)
    inputs = np.empty((earlier + STEPS) * w, states.dtype)
    gradient = np.empty((earlier + STEPS) * w, states.dtype)
    products = np.empty(STEPS * order * w, states.dtype)
    of_products = np.empty(STEPS * order * w, states.dtype)
    outputs = np.empty(STEPS * w, states.dtype)
    kept = np.empty(2 * (STEPS + 1) * w, states.dtype)
    cotangents = np.empty(2 * STEPS * w, states.dtype)
    partial = np.empty(components * w, states.dtype)
    block = np.empty(w * w, states.dtype)
    for tile in range(first, end):
        pack, state, adjoint = packs[tile % n_packs], states[tile], adjoints[tile]
        places, tile_sums = offsets[tile], sums[tile]
        n_rows = min(per_tile, rows - tile * per_tile)
        for b in range(blocks):
            starts[b, :] = state
            if b + 1 < blocks:
                read_with_earlier(u, places, b * STEPS, STEPS, apart, earlier, inputs)
                multiply(inputs, products, STEPS, order)
                for v in range(depth):
                    _states(pack, v * components * w, products, order, STEPS, state, v * 2 * w, kept, False)
        clear(gradient, earlier + STEPS)
        for back in range(blocks):
            b = blocks - 1 - back
            start = b * STEPS
            steps = min(STEPS, length - start)
            read_with_earlier(u, places, start, steps, apart, earlier, inputs)
            multiply(inputs, products, steps, order)
            read_signal(grad_y, places, start, steps, apart, outputs, 0)
            scale(outputs, steps, weight)
            clear(of_products, steps * order)
            for v in range(depth):
                o, s = v * components * w, v * 2 * w
                powers = o + FIXED * w
                _states(pack, o, products, order, steps, starts[b], s, kept, True)
                _adjoint_mode(pack, o, outputs, steps, kept, adjoint, s, cotangents, partial)
                of_powers = partial[FIXED * w :]
                power_sums(pack, powers, products, steps, order, cotangents, 0, 2 * w, of_products, of_powers)
                add_sums(tile_sums, o, partial, components * w)
            pull_back(inputs, products, of_products, steps, order, gradient)
            write_signal(gradient[earlier * w :], steps, group, n_rows, grad_u, places, start, apart, block)
            if b > 0:
                hand_back(gradient, earlier, STEPS)
        write_rows(gradient, earlier, group, n_rows, grad_before, before[tile], 0, 0, block)


def joint_vjp(
    system: DiagonalSystem,
    u: Array,
    grad_y: Array | None,
    *,
    order: int,
    threads: int,
    state_dtype: npt.DTypeLike | None = None,
) -> Gradients:
    """Adjoint of `joint_scan`.

    Returns:
        Gradients: that of the state is a pair: of the initial state (batch, H, M), the same for every order, and of the
        `order` - 1 inputs before the first (batch, H, order - 1).

    Accuracy: a cotangent of c_p passes at most 2 · order products and additions to inputs; sums over time run over a
    block in the dtype of the computation and over blocks and rows in float64, where B̄^p is differentiated.
    """
    tiles = Tiles(system, u, state_dtype)
    layout, earlier = tiles.layout, order - 1
    packs = packed_orders(tiles, system.C, powers_of(system.B_bar, order))
    states, adjoints = tiles.planes(None), tiles.planes(None)
    grad_u, grad_before = tiles.memory.empty(u.dtype), np.empty((*u.shape[:2], earlier), u.dtype)
    components = FIXED + 2 * order
    sums = np.zeros((layout.tiles, layout.depth * components * layout.lanes))
    tiles.each(
        joint_adjoint_tiles,
        threads,
        packs,
        layout.row_of_lane * earlier,
        tiles.memory.cotangent(grad_y, u.dtype),
        tiles.memory.flat(grad_u),
        grad_before.reshape(-1),
        states,
        adjoints,
        sums,
        order,
        *tiles.steps,
        system.weight,
    )
    parts = layout.unpacked(sums.reshape(layout.tiles, layout.depth, components, layout.lanes))
    A_bar, C, *of_powers = parts[0::2] + 1j * parts[1::2]
    gradients = {
        "A_bar": _like(system.A_bar, A_bar),
        "B_bar": of_input(system.B_bar, np.stack(of_powers)),
        "C": _like(system.C, C),
    }
    return Gradients(gradients, grad_u, (tiles.rows(adjoints).reshape(u.shape[0], *system.C.shape), grad_before))


def _like(parameter: Array, gradient: Array) -> Array:
    part = gradient if np.iscomplexobj(parameter) else gradient.real
    return np.ascontiguousarray(part, dtype=parameter.dtype)
