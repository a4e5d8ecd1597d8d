"""Vector-Jacobian product of products of adjacent inputs and of their sums: blocks of time, the last one first."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .caching import compiled, inlined
from .elementary_step import STEPS, move, rows_in_lanes, sums_in, sums_out, turn
from .moving_sum import moving_sum
from .simd import fma, lanes, load, splat, store, width
from .threads import share
from .tiles import read_rows, write_rows

Array = npt.NDArray[Any]


@inlined
def clear(buffer, at, steps):  # type: ignore[no-untyped-def]
    """Zeros in `steps` vectors."""
    nothing = splat(buffer.dtype.type(0))
    for t in range(steps):
        store(buffer, at + t * width(buffer), nothing)


@compiled
def product_adjoint_tiles(  # type: ignore[no-untyped-def]
    v, offsets, rows, silent, grad_terms, plane, grad_v, sums, order, window, summed, since, length, first, end
):
    """Tiles `first` … `end` - 1.

    Args:
        v, grad_v: one-dimensional inputs of all rows, with those before u_0, and their gradients, written.
        offsets: (2, tiles, W) where the row of each lane begins in `v` and in a term.
        silent: inputs without a term.
        grad_terms: one-dimensional, order p from (p - 2)·plane on.
        sums: (tiles, (order - 1) · W) cotangents of the final sums; replaced by those of the first.
        window, summed: as in `product_tiles`.
        since: with sums and no window, the first input whose products are in them.
        length: inputs of a row.
    """
    w = width(sums)
    earlier = order - 1
    inputs = np.empty((earlier + STEPS) * w, v.dtype)
    gradient = np.empty((earlier + STEPS) * w, v.dtype)
    products = np.empty((earlier, STEPS * w), v.dtype)
    cotangent = np.empty(STEPS * w, v.dtype)
    turned = np.empty(STEPS * w, v.dtype)
    carry = np.empty(STEPS * w, v.dtype)
    block = np.empty(w * w, v.dtype)
    positions = np.zeros(order, np.int64)
    ends = np.zeros((earlier, (window + 1) * w), v.dtype)
    blocks = (length + STEPS - 1) // STEPS
    for tile in range(first, end):
        state, sources, targets = sums[tile], offsets[0, tile], offsets[1, tile]
        n_rows = min(w, rows - tile * w)
        positions[:] = 0
        ends[:] = ends.dtype.type(0)
        clear(gradient, 0, earlier + STEPS)
        for back in range(blocks):
            start = (blocks - 1 - back) * STEPS
            steps = min(STEPS, length - start)
            known = min(start, earlier)
            clear(inputs, 0, earlier - known)
            read_rows(v, sources, 0, start - known, known + steps, inputs, (earlier - known) * w)
            move(inputs, earlier * w, products[0], 0, steps)
            for p in range(2, order):
                for t in range(steps):
                    older = load(inputs, (earlier + t - p + 1) * w)
                    store(products[p - 1], t * w, load(products[p - 2], t * w) * older)
            clear(carry, 0, steps)
            skipped = min(max(silent - start, 0), steps)
            for lower in range(earlier):
                p = order - lower
                clear(cotangent, 0, skipped)
                from_step = (p - 2) * plane + start + skipped - silent
                read_rows(grad_terms, targets, 0, from_step, steps - skipped, cotangent, skipped * w)
                if summed:
                    turn(cotangent, steps, turned)
                    total = load(state, (p - 2) * w)
                    if window > 0:
                        positions[p - 2], total = moving_sum(
                            turned, steps, window - p + 1, positions[p - 2], total, ends[p - 2], 0
                        )
                    else:
                        for t in range(min(steps, max(start + steps - since, 0))):
                            total = total + load(turned, t * w)
                            store(turned, t * w, total)
                    store(state, (p - 2) * w, total)
                    turn(turned, steps, cotangent)
                for t in range(steps):
                    own = load(carry, t * w) + load(cotangent, t * w)
                    at = (earlier + t - p + 1) * w
                    store(gradient, at, fma(own, load(products[p - 2], t * w), load(gradient, at)))
                    store(carry, t * w, own * load(inputs, at))
            for t in range(steps):
                at = (earlier + t) * w
                store(gradient, at, load(gradient, at) + load(carry, t * w))
            write_rows(gradient[earlier * w :], steps, 1, n_rows, grad_v, sources, 0, start, block)
            # What this block gave to inputs before it is handed on, the last first, since both may overlap.
            for i in range(earlier):
                at = (earlier - 1 - i) * w
                store(gradient, at + STEPS * w, load(gradient, at))
            clear(gradient, 0, STEPS)


def product_vjp(
    v: Array,
    silent: int,
    grad_terms: Array | None,
    grad_sums: Array | None,
    *,
    order: int,
    summed: bool,
    window: int | None,
    threads: int,
) -> tuple[Array, Array]:
    """Gradients of v and of the first sums from the cotangents of the terms and of the final sums.

    Args:
        v: (batch, H, n + L).
        silent: n, inputs without a term.
        grad_terms: (order - 1, batch, H, L), None for zeros.
        grad_sums: (order - 1, batch, H), None for zeros.
        summed: terms are sums of products, all so far or, with `window`, the newest window - p + 1.
        threads: at most so many; no result depends on it.

    Returns:
        (batch, H, n + L) and (order - 1, batch, H).

    Accuracy:
        A cotangent passes at most one addition per step where terms are sums; then up to two roundings per order, and
        fused additions of at most `order` products to the gradient.  docs/bounds-gradients.md.
    """
    rows, length = v.shape[0] * v.shape[1], v.shape[2]
    source, shown = np.ascontiguousarray(v).reshape(-1), length - silent
    if grad_terms is None:
        grad_terms = np.zeros((order - 1, *v.shape[:-1], shown), v.dtype)
    cotangents = np.ascontiguousarray(grad_terms, dtype=v.dtype).reshape(-1)
    w = lanes(v.dtype)
    offsets = np.stack([rows_in_lanes(rows, length, w), rows_in_lanes(rows, shown, w)])
    state = sums_in(grad_sums, order - 1, rows, v.dtype)
    grad_v = np.zeros(v.shape, v.dtype)
    # A window that no input leaves needs no ends of blocks; the products of all inputs are in it.
    span = window if summed and window is not None and window < length else 0
    since = silent if window is None else 0

    def work(first: int, end: int) -> None:
        product_adjoint_tiles(
            source,
            offsets,
            rows,
            silent,
            cotangents,
            rows * shown,
            grad_v.reshape(-1),
            state,
            order,
            span,
            summed,
            since,
            length,
            first,
            end,
        )

    if order > 1:
        share(work, len(state), threads)
    return grad_v, sums_out(state, order - 1, v.shape[:-1])
