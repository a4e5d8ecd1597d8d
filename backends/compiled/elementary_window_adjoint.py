"""Vector-Jacobian product of the elementary symmetric polynomials of the newest inputs.

As forwards, a window is the end of one block of its length and the beginning of the next.  Both are polynomials that
grow by one input per step, the end in reversed time, so the adjoint of the polynomials of all inputs serves both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .caching import compiled, inlined
from .elementary_adjoint import adjoint_order
from .elementary_step import elementary_order, rows_in_lanes, turn
from .simd import fma, lanes, load, splat, store, width
from .threads import share
from .tiles import read_rows, write_rows

Array = npt.NDArray[Any]


@inlined
def polynomials(inputs, steps, order, state, e, stride):  # type: ignore[no-untyped-def]
    """e_1 … e_P before the first input, where they are 0, and after each; order p from (p - 1)·stride on."""
    state[:] = state.dtype.type(0)
    for p in range(1, order + 1):
        elementary_order(inputs, steps, state, p, e, max(p - 2, 0) * stride, e, (p - 1) * stride)


@inlined
def split_cotangents(g, head, tail, span, size, order, joined, g_head, g_tail):  # type: ignore[no-untyped-def]
    """Cotangents of both factors from those of the product at every step of a block.

    Args:
        g: order p from (p - 1)·span·W on, as `g_head` and `g_tail`.
        head, tail: from `polynomials`, (span + 1) vectors per order.
        g_tail: the polynomial of the newest t + 1 inputs of the block before at t.
    """
    w = width(g)
    stride, plane = (span + 1) * w, span * w
    for i in range(size):
        before = span - 1 - i
        for r in range(1, order + 1):
            own = load(g, (r - 1) * plane + i * w)
            of_head, of_tail = own, own
            if joined:
                for p in range(r + 1, order + 1):
                    cotangent = load(g, (p - 1) * plane + i * w)
                    of_head = fma(cotangent, load(tail, (p - r - 1) * stride + before * w), of_head)
                    of_tail = fma(cotangent, load(head, (p - r - 1) * stride + (i + 1) * w), of_tail)
                if before > 0:
                    store(g_tail, (r - 1) * plane + (before - 1) * w, of_tail)
            store(g_head, (r - 1) * plane + i * w, of_head)


@inlined
def pull_back(inputs, steps, order, e, stride, g, plane, carry, above, grad_u):  # type: ignore[no-untyped-def]
    """Gradients of the inputs of one polynomial are added to `grad_u`."""
    carry[:] = carry.dtype.type(0)
    above[:] = above.dtype.type(0)
    for lower in range(order):
        p = order - lower
        adjoint_order(inputs, steps, carry, p, above, g[(p - 1) * plane :], e, max(p - 2, 0) * stride, grad_u)


@compiled
def window_adjoint_tiles(  # type: ignore[no-untyped-def]
    v, offsets, rows, silent, grad_terms, plane, grad_v, order, window, length, first, end
):
    """Tiles `first` … `end` - 1.

    Args:
        v, grad_v: one-dimensional inputs of all rows, with those before u_0, and their gradients, written.
        offsets: (2, tiles, W) where the row of each lane begins in `v` and in a term.
        silent: inputs without a term.
        grad_terms: one-dimensional, order p from (p - 2)·plane on.
        window: at least 2 and less than `length`.
        length: inputs of a row.
    """
    w = width(v)
    stride, room = (window + 1) * w, window * w
    before, current, turned = np.empty(room, v.dtype), np.empty(room, v.dtype), np.empty(room, v.dtype)
    grad_before, grad_current, grad_turned = np.empty(room, v.dtype), np.empty(room, v.dtype), np.empty(room, v.dtype)
    head, tail = np.empty(order * stride, v.dtype), np.empty(order * stride, v.dtype)
    # That of e_1, which is no term, stays zero.
    g = np.zeros(order * room, v.dtype)
    g_head, g_tail = np.empty(order * room, v.dtype), np.empty(order * room, v.dtype)
    state, above = np.empty(order * w, v.dtype), np.empty(room, v.dtype)
    block = np.empty(w * w, v.dtype)
    nothing = splat(v.dtype.type(0))
    for tile in range(first, end):
        sources, targets = offsets[0, tile], offsets[1, tile]
        n_rows = min(w, rows - tile * w)
        for begin in range(0, length, window):
            before, current = current, before
            grad_before, grad_current = grad_current, grad_before
            size = min(window, length - begin)
            read_rows(v, sources, 0, begin, size, current, 0)
            skipped = min(max(silent - begin, 0), size)
            for p in range(2, order + 1):
                at = (p - 1) * room
                for t in range(skipped):
                    store(g, at + t * w, nothing)
                from_step = (p - 2) * plane + begin + skipped - silent
                read_rows(grad_terms, targets, 0, from_step, size - skipped, g, at + skipped * w)
            polynomials(current, size, order, state, head, stride)
            if begin > 0:
                turn(before, window, turned)
                polynomials(turned, window - 1, order, state, tail, stride)
                g_tail[:] = g_tail.dtype.type(0)
            split_cotangents(g, head, tail, window, size, order, begin > 0, g_head, g_tail)
            grad_current[:] = grad_current.dtype.type(0)
            pull_back(current, size, order, head, stride, g_head, room, state, above, grad_current)
            if begin > 0:
                turn(grad_before, window, grad_turned)
                pull_back(turned, window - 1, order, tail, stride, g_tail, room, state, above, grad_turned)
                turn(grad_turned, window, grad_before)
                write_rows(grad_before, window, 1, n_rows, grad_v, sources, 0, begin - window, block)
        last = (length - 1) // window * window
        write_rows(grad_current, length - last, 1, n_rows, grad_v, sources, 0, last, block)


def elementary_window_vjp(v: Array, grad_terms: Array, *, order: int, window: int, threads: int) -> Array:
    """Gradient of v from the cotangents of the terms at the newest steps.

    Args:
        v: (batch, H, n + L), more than `window` inputs.
        grad_terms: (order - 1, batch, H, L).
        window: inputs in a window, >= order >= 2.
        threads: at most so many; no result depends on it.

    Memory: per thread 5·order + 7 vectors per input of a window.

    Accuracy:
        Behind a term at most one fused multiply-add per input for its polynomial, `order` where both factors meet, and
        a fused multiply-add and an addition per step backwards: 3 L̃ + 2·order + 1.  docs/bounds-gradients.md.
    """
    rows, length, shown = v.shape[0] * v.shape[1], v.shape[2], grad_terms.shape[-1]
    source = np.ascontiguousarray(v).reshape(-1)
    cotangents = np.ascontiguousarray(grad_terms, dtype=v.dtype).reshape(-1)
    w = lanes(v.dtype)
    offsets = np.stack([rows_in_lanes(rows, length, w), rows_in_lanes(rows, shown, w)])
    grad_v = np.empty(v.shape, v.dtype)

    def work(first: int, end: int) -> None:
        window_adjoint_tiles(
            source,
            offsets,
            rows,
            length - shown,
            cotangents,
            rows * shown,
            grad_v.reshape(-1),
            order,
            window,
            length,
            first,
            end,
        )

    share(work, -(-rows // w), threads)
    return grad_v
