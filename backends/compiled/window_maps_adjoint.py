"""Vector-Jacobian product of a chain over the newest inputs of diagonal systems: the adjoint of `window_maps`.

Blocks run in the order of time.  The maps of a block's beginnings and of the ends of the block before are found again
and kept for one mode; then the beginnings run back in time and the ends forth, each giving its inputs their gradients.
"""

from __future__ import annotations

import numpy as np

from .caching import compiled, inlined
from .scan import COMPONENTS, clear
from .scan_adjoint import add_sums, scale, times_conjugate
from .simd import fma, load, splat, store, width
from .tiles import read_rows, write_rows
from .window_maps import begin, combine, read_map, times_input, window_ends

# Steps whose contributions to the parameters' gradients are added up before they are added to float64.
STEPS = 64


@inlined
def beginnings(pack, o, inputs, size, order, maps, sums):  # type: ignore[no-untyped-def]
    """q and s of a block's first i inputs, from 2 i·order·W on."""
    w = width(inputs)
    ar, ai, _, _ = read_map(pack, o)
    stride = 2 * order * w
    begin(maps, 0, order)
    for k in range(0, stride, w):
        store(sums, k, splat(inputs.dtype.type(0)))
    for i in range(size):
        now = load(inputs, i * w)
        times_input(ar, ai, now, maps, i * stride, maps, (i + 1) * stride, order, 0)
        times_input(ar, ai, now, sums, i * stride, sums, (i + 1) * stride, order, 1)


@inlined
def adjoint_times_input(ar, ai, now, adjoint, at, below, to, order, lowest, du, dar, dai):  # type: ignore[no-untyped-def]
    """One step of the adjoint of `times_input`: `adjoint` is replaced by the cotangent of what was multiplied.

    Args:
        adjoint: cotangent of the product.
        below: what was multiplied.
        du, dar, dai: gradients of u and ā so far.

    Returns:
        The gradients with this step's added.
    """
    w = width(adjoint)
    lr, li = load(adjoint, at), load(adjoint, at + w)
    br, bi = splat(adjoint.dtype.type(lowest)), splat(adjoint.dtype.type(0))
    nothing = splat(adjoint.dtype.type(0))
    for k in range(0, 2 * order * w, 2 * w):
        du = fma(li, bi, fma(lr, br, du))
        br, bi = load(below, to + k), load(below, to + k + w)
        dar, dai = fma(li, bi, fma(lr, br, dar)), fma(-lr, bi, fma(li, br, dai))
        hr, hi = nothing, nothing
        if k + 2 * w < 2 * order * w:
            hr, hi = load(adjoint, at + k + 2 * w), load(adjoint, at + k + 3 * w)
        store(adjoint, at + k, fma(ai, li, fma(ar, lr, now * hr)))
        store(adjoint, at + k + w, fma(-ai, lr, fma(ar, li, now * hi)))
        lr, li = hr, hi
    return du, dar, dai


@inlined
def back_through_beginnings(  # type: ignore[no-untyped-def]
    pack, o, inputs, g, size, order, joined, ends, maps, sums, adjoint, grad_u, partial, totals
):
    """The outputs of one mode in one block, and the block's beginnings, backwards.

    Args:
        ends: s of the ends of the block before, position i replaced by its cotangent for 1 … size.
        maps, sums: from `beginnings`.
        adjoint: room for two polynomials.
        grad_u: gradients of the block's inputs are added.
        totals: gradients of ā and c b̄ are added from `o` on.
    """
    w = width(inputs)
    ar, ai, cr, ci = read_map(pack, o)
    stride = 2 * order * w
    nothing = splat(inputs.dtype.type(0))
    for k in range(0, 2 * stride, w):
        store(adjoint, k, nothing)
    dar, dai, dcr, dci = nothing, nothing, nothing, nothing
    for back in range(size):
        i = size - 1 - back
        now, out = load(inputs, i * w), load(g, i * w)
        gr, gi = cr * out, -(ci * out)
        after, last = (i + 1) * stride, 2 * stride - 2 * w
        vr, vi = load(sums, after + stride - 2 * w), load(sums, after + stride - w)
        store(adjoint, last, load(adjoint, last) + gr)
        store(adjoint, last + w, load(adjoint, last + w) + gi)
        du = load(grad_u, i * w)
        if joined:
            vr, vi = combine(ends, after, maps, after, order, vr, vi)
            for k in range(0, stride, 2 * w):
                other = stride - 2 * w - k
                er, ei = load(ends, after + k), load(ends, after + k + w)
                qr, qi = load(maps, after + other), load(maps, after + other + w)
                store(adjoint, other, fma(gi, ei, fma(gr, er, load(adjoint, other))))
                store(adjoint, other + w, fma(-gr, ei, fma(gi, er, load(adjoint, other + w))))
                er, ei = times_conjugate(gr, gi, qr, qi)
                store(ends, after + k, er)
                store(ends, after + k + w, ei)
            du, dar, dai = adjoint_times_input(ar, ai, now, adjoint, 0, maps, i * stride, order, 0, du, dar, dai)
        dcr, dci = fma(out, vr, dcr), fma(-out, vi, dci)
        du, dar, dai = adjoint_times_input(ar, ai, now, adjoint, stride, sums, i * stride, order, 1, du, dar, dai)
        store(grad_u, i * w, du)
        if i % STEPS == 0:
            store(partial, 0, dar)
            store(partial, w, dai)
            store(partial, 2 * w, dcr)
            store(partial, 3 * w, dci)
            add_sums(totals, o, partial, 4 * w)
            dar, dai, dcr, dci = nothing, nothing, nothing, nothing


@inlined
def forth_through_ends(  # type: ignore[no-untyped-def]
    pack, o, inputs, window, size, order, ends, maps, adjoint, grad_u, partial, totals
):
    """The ends of the block before, in the order of time, which is the reverse of that of their recurrence.

    Args:
        ends: cotangents of s at positions 1 … size.
        maps: q, from `window_ends` with step = 1.
        others: as in `back_through_beginnings`, for the block before.
    """
    w = width(inputs)
    ar, ai, _, _ = read_map(pack, o)
    stride = 2 * order * w
    nothing = splat(inputs.dtype.type(0))
    for k in range(0, 2 * stride, w):
        store(adjoint, k, nothing)
    dar, dai = nothing, nothing
    for i in range(1, window):
        now, du = load(inputs, i * w), load(grad_u, i * w)
        after = (i + 1) * stride
        if i <= size:
            for k in range(0, stride, w):
                store(adjoint, stride + k, load(adjoint, stride + k) + load(ends, i * stride + k))
        du, dar, dai = adjoint_times_input(ar, ai, now, adjoint, 0, maps, after, order, 0, du, dar, dai)
        for k in range(0, stride, w):
            s = load(adjoint, stride + k)
            du = fma(s, load(maps, after + k), du)
            store(adjoint, k, fma(now, s, load(adjoint, k)))
        store(grad_u, i * w, du)
        if (i + 1) % STEPS == 0 or i == window - 1:
            store(partial, 0, dar)
            store(partial, w, dai)
            add_sums(totals, o, partial, 2 * w)
            dar, dai = nothing, nothing


@compiled
def window_adjoint_tiles(  # type: ignore[no-untyped-def]
    packs, offsets, rows, group, u, grad_y, grad_u, totals, order, window, length, weight, first, end
):
    """Tiles `first` … `end` - 1 of the adjoint of a windowed chain.

    Args:
        totals: (tiles, depth · COMPONENTS · W) float64: gradients of ā and c b̄ are added, in the first four places.
        others: as in `window_tiles`.
    """
    w = width(packs)
    depth = packs.shape[1] // (COMPONENTS * w)
    per_tile = w // group
    blocks = (length + window - 1) // window
    before = np.empty(window * w, packs.dtype)
    current = np.empty(window * w, packs.dtype)
    outputs = np.empty(window * w, packs.dtype)
    grad_before = np.empty(window * w, packs.dtype)
    grad_current = np.empty(window * w, packs.dtype)
    room = 2 * order * (window + 1) * w
    ends, end_maps = np.zeros(room, packs.dtype), np.empty(room, packs.dtype)
    sums, maps = np.empty(room, packs.dtype), np.empty(room, packs.dtype)
    adjoint = np.empty(4 * order * w, packs.dtype)
    partial = np.empty(4 * w, packs.dtype)
    block = np.empty(w * w, packs.dtype)
    nothing = splat(packs.dtype.type(0))
    for tile in range(first, end):
        pack, places, tile_totals = packs[tile % packs.shape[0]], offsets[tile], totals[tile]
        n_rows = min(per_tile, rows - tile * per_tile)
        for b in range(blocks):
            before, current = current, before
            grad_before, grad_current = grad_current, grad_before
            size = min(window, length - b * window)
            read_rows(u, places, 0, b * window, size, current, 0)
            read_rows(grad_y, places, 0, b * window, size, outputs, 0)
            scale(outputs, size, weight)
            clear(grad_current, size)
            for v in range(depth):
                o = v * COMPONENTS * w
                if b > 0:
                    # The cotangents of the last block may lie where no input is left.
                    for k in range(2 * order):
                        store(ends, (2 * order * window + k) * w, nothing)
                    window_ends(pack, o, before, window, order, ends, end_maps, 1)
                beginnings(pack, o, current, size, order, maps, sums)
                back_through_beginnings(
                    pack,
                    o,
                    current,
                    outputs,
                    size,
                    order,
                    b > 0,
                    ends,
                    maps,
                    sums,
                    adjoint,
                    grad_current,
                    partial,
                    tile_totals,
                )
                if b > 0:
                    forth_through_ends(
                        pack, o, before, window, size, order, ends, end_maps, adjoint, grad_before, partial, tile_totals
                    )
            if b > 0:
                write_rows(grad_before, window, group, n_rows, grad_u, places, 0, (b - 1) * window, block)
        size = length - (blocks - 1) * window
        write_rows(grad_current, size, group, n_rows, grad_u, places, 0, (blocks - 1) * window, block)
