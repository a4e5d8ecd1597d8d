"""Vector-Jacobian product of the elementary symmetric polynomials of all inputs so far.

The polynomials are kept once per block of time and found again inside it; then the orders run back, the highest first,
each handing its cotangents on to the one below.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .caching import compiled, inlined
from .elementary_step import elementary_order, rows_in_lanes, sums_in, sums_out
from .simd import fma, lanes, load, splat, store, width
from .threads import share
from .tiles import read_rows, write_rows

Array = npt.NDArray[Any]

# Time steps between two kept polynomials.
BLOCK = 128


@inlined
def adjoint_order(inputs, steps, carry, p, above, cotangents, lower, lower_at, grad_u):  # type: ignore[no-untyped-def]
    """One order backwards over a block: g_p(k-1) = g_p(k) + u_k g_{p+1}(k) + the term's own cotangent.

    Args:
        carry: cotangents of e_1 … e_P after the block; that of e_p is replaced by the one before it.
        above: g_{p+1} at every step, replaced by g_p.
        cotangents: of the term, one vector per step.
        lower: e_{p-1} before every step, from `lower_at` on; not read for p = 1.
        grad_u: g_p e_{p-1} is added.
    """
    w = width(inputs)
    g = load(carry, (p - 1) * w) + load(cotangents, (steps - 1) * w)
    for back in range(steps):
        t = steps - 1 - back
        higher, sum_u = load(above, t * w), load(grad_u, t * w)
        store(above, t * w, g)
        store(grad_u, t * w, sum_u + g if p == 1 else fma(g, load(lower, lower_at + t * w), sum_u))
        own = load(cotangents, max(t - 1, 0) * w)
        if t == 0:
            own = splat(inputs.dtype.type(0))
        # In this order only one addition waits for the step before.
        g = g + fma(load(inputs, t * w), higher, own)
    store(carry, (p - 1) * w, g)


@compiled
def adjoint_tiles(  # type: ignore[no-untyped-def]
    u, places, rows, grad_terms, plane, sums, carries, grad_u, order, length, first, end
):
    """Tiles `first` … `end` - 1.

    Args:
        u, grad_u: one-dimensional; `grad_u` is written.
        places: (tiles, W) where the row of each lane begins.
        grad_terms: one-dimensional, order p from (p - 2)·plane on.
        sums: (tiles, order · W) e_1 … e_P before u_0; spent.
        carries: (tiles, order · W) cotangents of the final sums; replaced by those of the first.
    """
    w = width(sums)
    blocks = (length + BLOCK - 1) // BLOCK
    stride = (BLOCK + 1) * w
    kept = np.empty((max(blocks, 1), order * w), sums.dtype)
    inputs = np.empty(BLOCK * w, sums.dtype)
    own = np.empty(BLOCK * w, sums.dtype)
    above = np.empty(BLOCK * w, sums.dtype)
    gradient = np.empty(BLOCK * w, sums.dtype)
    e = np.empty(order * stride, sums.dtype)
    room = np.empty(w * w, sums.dtype)
    nothing = splat(sums.dtype.type(0))
    for tile in range(first, end):
        state, carry = sums[tile], carries[tile]
        n_rows = min(w, rows - tile * w)
        for b in range(blocks):
            kept[b, :] = state
            if b + 1 < blocks:
                read_rows(u, places[tile], 0, b * BLOCK, BLOCK, inputs, 0)
                for p in range(1, order):
                    elementary_order(inputs, BLOCK, state, p, e, 0, e, 0)
        for back in range(blocks):
            b = blocks - 1 - back
            start = b * BLOCK
            steps = min(BLOCK, length - start)
            read_rows(u, places[tile], 0, start, steps, inputs, 0)
            for p in range(1, order):
                elementary_order(inputs, steps, kept[b], p, e, max(p - 2, 0) * stride, e, (p - 1) * stride)
            for t in range(steps):
                store(above, t * w, nothing)
                store(gradient, t * w, nothing)
            for lower in range(order):
                p = order - lower
                if p > 1:
                    read_rows(grad_terms, places[tile], 0, (p - 2) * plane + start, steps, own, 0)
                else:
                    for t in range(steps):
                        store(own, t * w, nothing)
                adjoint_order(inputs, steps, carry, p, above, own, e, max(p - 2, 0) * stride, gradient)
            write_rows(gradient, steps, 1, n_rows, grad_u, places[tile], 0, start, room)


def elementary_vjp(
    u: Array, grad_terms: Array | None, grad_sums: Array | None, sums: Array | None, *, order: int, threads: int
) -> tuple[Array, Array]:
    """Gradients of u and of `sums` from the cotangents of e_2 … e_P at every step and of the final sums.

    Args:
        u: (batch, H, L).
        grad_terms: (order - 1, batch, H, L), None for zeros.
        grad_sums, sums: (order, batch, H), None for zeros.
        threads: at most so many; no result depends on it.

    Returns:
        (batch, H, L) and (order, batch, H).

    Accuracy:
        e as `correlate`; a cotangent passes one fused multiply-add and one addition per step, and the gradient of u
        adds up its orders from the highest, fused.  docs/bounds-gradients.md.
    """
    batch, n_channels, length = u.shape
    rows = batch * n_channels
    source = np.ascontiguousarray(u).reshape(-1)
    if grad_terms is None:
        grad_terms = np.zeros((order - 1, *u.shape), u.dtype)
    cotangents = np.ascontiguousarray(grad_terms, dtype=u.dtype).reshape(-1)
    grad_u = np.empty(u.shape, u.dtype)
    state, carry = sums_in(sums, order, rows, u.dtype), sums_in(grad_sums, order, rows, u.dtype)
    places = rows_in_lanes(rows, length, lanes(u.dtype))

    def work(first: int, end: int) -> None:
        adjoint_tiles(
            source, places, rows, cotangents, rows * length, state, carry, grad_u.reshape(-1), order, length, first, end
        )

    share(work, len(state), threads)
    return grad_u, sums_out(carry, order, u.shape[:-1])
