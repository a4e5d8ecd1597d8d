"""Products of inputs and sums of them, Eq. 14 and 15, forwards: lanes are rows, time runs in blocks.

Windows are sums and polynomial products over the newest inputs by van Herk's scheme: time is cut into blocks of the
window's length, a window is the end of one block and the beginning of the next, and both grow by one input per step,
so nothing is ever removed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from liquid_ssm.backend import CorrelationKind
from liquid_ssm.errors import ParameterError

from .._arguments import optional
from .caching import compiled, inlined
from .elementary_adjoint import elementary_vjp
from .elementary_step import STEPS, elementary_order, move, rows_in_lanes, sums_in, sums_out
from .elementary_window_adjoint import elementary_window_vjp
from .moving_sum import moving_sum
from .product_adjoint import product_vjp
from .simd import fma, lanes, load, splat, store, width
from .threads import share
from .tiles import read_rows, write_rows

Array = npt.NDArray[Any]


@compiled
def product_tiles(  # type: ignore[no-untyped-def]
    v, offsets, rows, known, silent, terms, plane, sums, order, window, summed, length, first, end
):
    """Tiles `first` … `end` - 1 of adjacent products or their sums.

    Args:
        v: one-dimensional, inputs of all rows with those before u_0.
        offsets: (2, tiles, W) where the row of each lane begins in `v` and in a term.
        known: the first inputs of a row, which only enter later products.
        silent: how many inputs after them have no output.
        terms: one-dimensional, order p from (p - 2)·plane on; written.
        sums: (tiles, order · W) sums so far, from order 2 on; replaced by the final ones.
        window: inputs in a window, 0 for none.
        summed: sums of the products, else the products.
        length: inputs of a row after the known ones.
    """
    w = width(sums)
    earlier = order - 1
    inputs = np.zeros((earlier + STEPS) * w, sums.dtype)
    product = np.empty(STEPS * w, sums.dtype)
    result = np.empty(STEPS * w, sums.dtype)
    block = np.empty(w * w, sums.dtype)
    positions = np.zeros(order, np.int64)
    ends = np.zeros((earlier, (window + 1) * w), sums.dtype)
    nothing = splat(sums.dtype.type(0))
    for tile in range(first, end):
        state, sources, targets = sums[tile], offsets[0, tile], offsets[1, tile]
        n_rows = min(w, rows - tile * w)
        for i in range(earlier):
            store(inputs, i * w, nothing)
        read_rows(v, sources, 0, 0, known, inputs, (earlier - known) * w)
        positions[:] = 0
        ends[:] = nothing_of(ends)
        for start in range(0, length, STEPS):
            steps = min(STEPS, length - start)
            read_rows(v, sources, 0, known + start, steps, inputs, earlier * w)
            move(inputs, earlier * w, product, 0, steps)
            skipped = min(max(silent - start, 0), steps)
            for p in range(2, order + 1):
                for t in range(steps):
                    older = load(inputs, (earlier + t - p + 1) * w)
                    store(product, t * w, load(product, t * w) * older)
                written = product
                if summed:
                    move(product, 0, result, 0, steps)
                    total = load(state, (p - 2) * w)
                    if window > 0:
                        positions[p - 2], total = moving_sum(
                            result, steps, window - p + 1, positions[p - 2], total, ends[p - 2], 0
                        )
                    else:
                        for t in range(steps):
                            total = total + load(result, t * w)
                            store(result, t * w, total)
                    store(state, (p - 2) * w, total)
                    written = result
                at = (p - 2) * plane + start + skipped - silent
                write_rows(written[skipped * w :], steps - skipped, 1, n_rows, terms, targets, 0, at, block)
            move(inputs, steps * w, inputs, 0, earlier)


@inlined
def nothing_of(array):  # type: ignore[no-untyped-def]
    """Zero in the array's dtype."""
    return array.dtype.type(0)


@compiled
def elementary_tiles(v, offsets, rows, terms, plane, sums, order, length, first, end):  # type: ignore[no-untyped-def]
    """Tiles of the elementary symmetric polynomials of all inputs; arguments as in `product_tiles`.

    Args:
        sums: (tiles, order · W), from order 1 on.
    """
    w = width(sums)
    inputs = np.empty(STEPS * w, sums.dtype)
    before = np.empty((STEPS + 1) * w, sums.dtype)
    block = np.empty(w * w, sums.dtype)
    for tile in range(first, end):
        state, sources, targets = sums[tile], offsets[0, tile], offsets[1, tile]
        n_rows = min(w, rows - tile * w)
        for start in range(0, length, STEPS):
            steps = min(STEPS, length - start)
            read_rows(v, sources, 0, start, steps, inputs, 0)
            for p in range(1, order + 1):
                elementary_order(inputs, steps, state, p, before, 0, before, 0)
                if p > 1:
                    at = (p - 2) * plane + start
                    write_rows(before[w:], steps, 1, n_rows, terms, targets, 0, at, block)


@inlined
def multiply_ends(head, stride, ends, span, position, t, p):  # type: ignore[no-untyped-def]
    """Coefficient p of the product of a block's beginning and of the end of the block before.

    Args:
        head: coefficients of the beginning up to step t, order q from (q - 1)·stride on, entry 0 one step earlier.
        ends: order q from (q - 1)·(span + 1) on.
    """
    w = width(head)
    at = (position + 1) * w
    value = load(head, (p - 1) * stride + (t + 1) * w) + load(ends, (p - 1) * (span + 1) * w + at)
    for q in range(1, p):
        newer = load(head, (p - q - 1) * stride + (t + 1) * w)
        value = fma(load(ends, (q - 1) * (span + 1) * w + at), newer, value)
    return value


@inlined
def elementary_ends(raw, ends, span, order):  # type: ignore[no-untyped-def]
    """Polynomials of the inputs `raw` from every position to the end of their block."""
    w = width(raw)
    nothing = splat(raw.dtype.type(0))
    for p in range(1, order + 1):
        base = (p - 1) * (span + 1) * w
        total = nothing
        for back in range(span):
            i = span - 1 - back
            now = load(raw, i * w)
            total = total + now if p == 1 else fma(now, load(ends, base + (i - span) * w), total)
            store(ends, base + i * w, total)


@compiled
def elementary_window_tiles(  # type: ignore[no-untyped-def]
    v, offsets, rows, silent, terms, plane, empty, order, window, length, first, end
):
    """Tiles of the elementary symmetric polynomials of the newest `window` inputs.

    Args:
        empty: an array of no length, in the dtype of the computation.
        others: as in `product_tiles`.
    """
    w = width(empty)
    dtype = empty.dtype
    inputs = np.empty(STEPS * w, dtype)
    stride = (STEPS + 1) * w
    head = np.empty(order * stride, dtype)
    state = np.empty(order * w, dtype)
    result = np.empty(STEPS * w, dtype)
    block = np.empty(w * w, dtype)
    # Without a second block no end of a block is ever needed.
    kept = window if length > window else 0
    raw = np.empty(kept * w, dtype)
    ends = np.zeros(order * (kept + 1) * w, dtype)
    for tile in range(first, end):
        sources, targets = offsets[0, tile], offsets[1, tile]
        n_rows = min(w, rows - tile * w)
        for begin in range(0, length, window):
            size = min(window, length - begin)
            state[:] = nothing_of(state)
            for position in range(0, size, STEPS):
                start = begin + position
                steps = min(STEPS, size - position)
                read_rows(v, sources, 0, start, steps, inputs, 0)
                for p in range(1, order + 1):
                    below = max(p - 2, 0) * stride
                    elementary_order(inputs, steps, state, p, head, below, head, (p - 1) * stride)
                skipped = min(max(silent - start, 0), steps)
                for p in range(2, order + 1):
                    at = (p - 2) * plane + start + skipped - silent
                    if begin > 0:
                        for t in range(steps):
                            store(result, t * w, multiply_ends(head, stride, ends, window, position + t, t, p))
                    else:
                        move(head, (p - 1) * stride + w, result, 0, steps)
                    write_rows(result[skipped * w :], steps - skipped, 1, n_rows, terms, targets, 0, at, block)
                if kept > 0:
                    move(inputs, 0, raw, position * w, steps)
            if begin + window < length:
                elementary_ends(raw, ends, window, order)


def correlate(
    u: Array,
    *,
    order: int,
    kind: CorrelationKind,
    window: int | None,
    sums: Array | None,
    previous: Array | None,
    threads: int,
) -> tuple[Array, Array | None]:
    """Terms (order - 1, batch, H, L) of orders 2 … `order` and the sums after the last input.

    Args:
        u: (batch, H, L).
        order, kind, window, sums, previous: as in `Backend.correlate`, checked.
        threads: at most so many; no result depends on it.

    Returns:
        The terms, and the final sums; None for `products` and with a window.

    Accuracy:
        Products: p - 1 roundings, newest input first.  Running sums: one addition per step in the order of time, on
        rounded products.  `elementary`: one fused multiply-add e_p ← u e_{p-1} + e_p per step.
        Sums in a window of L̃: at most L̃ - p + 1 additions behind a product.  `elementary` in a window: a monomial
        passes at most one fused multiply-add per input of its window and p in the product of both parts: L̃ + p.
        docs/bounds.md, Correlations.

    References:
        Eq. 14, Eq. 15; van Herk, Pattern Recognition Letters 13 (1992), 517-521.
    """
    batch, n_channels, length = u.shape
    rows = batch * n_channels
    terms = np.empty((order - 1, *u.shape), u.dtype)
    v = _with_previous(u, previous, _reach(order, kind, window))
    total, silent = v.shape[-1], v.shape[-1] - length
    n_sums = order if kind == "elementary" else order - 1
    stateful = kind != "products" and window is None
    source, plane, out = v.reshape(-1), rows * length, terms.reshape(-1)
    w = lanes(u.dtype)
    offsets = np.stack([rows_in_lanes(rows, total, w), rows_in_lanes(rows, length, w)])
    state = sums_in(sums if stateful else None, n_sums, rows, u.dtype)
    # Inputs that do not exist are in no window.
    span = max(order, min(window, total)) if window is not None else 0

    def work(first: int, end: int) -> None:
        if kind != "elementary":
            known = 0 if kind == "running" and window is not None else silent
            # A window that no input leaves needs no ends of blocks.
            sliding = span if kind == "running" and span < total else 0
            args = (silent - known, out, plane, state, order, sliding, kind == "running", total - known)
            product_tiles(source, offsets, rows, known, *args, first, end)
        elif window is None:
            elementary_tiles(source, offsets, rows, out, plane, state, order, length, first, end)
        else:
            empty = np.empty(0, u.dtype)
            elementary_window_tiles(source, offsets, rows, silent, out, plane, empty, order, span, total, first, end)

    if order > 1 or kind == "elementary":
        share(work, len(state), threads)
    return terms, sums_out(state, n_sums, u.shape[:-1]) if stateful else None


def correlate_vjp(
    u: Array,
    grad_terms: Array | None,
    grad_sums: Array | None,
    *,
    order: int,
    kind: CorrelationKind,
    window: int | None,
    sums: Array | None,
    previous: Array | None,
    threads: int,
) -> tuple[Array, Array | None, Array | None]:
    """Gradients of u, of `sums` and of `previous`; None for the last two where they were not given.

    Args:
        grad_terms: (order - 1, batch, H, L), None for zeros.
        grad_sums: of the shape of the final sums, None for zeros.
        others: as in `correlate`.

    Accuracy:
        As `elementary_vjp`, `elementary_window_vjp` and `product_vjp`.
    """
    stateful = kind != "products" and window is None
    if grad_sums is not None and not stateful:
        raise ParameterError(f"grad_sums was given, but kind {kind!r} with window {window} has no sums; pass None.")
    n_sums = order if kind == "elementary" else order - 1
    grad_sums = _cotangent("grad_sums", grad_sums, (n_sums, *u.shape[:-1]), u.dtype)
    grad_terms = _cotangent("grad_terms", grad_terms, (order - 1, *u.shape), u.dtype)
    if kind == "elementary" and window is None:
        grad_u, grad_start = elementary_vjp(u, grad_terms, grad_sums, sums, order=order, threads=threads)
        return grad_u, None if sums is None else grad_start, None
    v = _with_previous(u, previous, _reach(order, kind, window))
    n = v.shape[-1] - u.shape[-1]
    grad_v = np.zeros(v.shape, u.dtype)
    of_sums: Array | None = None
    if kind != "elementary":
        grad_v, of_sums = product_vjp(
            v, n, grad_terms, grad_sums, order=order, summed=kind == "running", window=window, threads=threads
        )
    elif grad_terms is not None and order > 1:
        assert window is not None
        if window < v.shape[-1]:
            grad_v = elementary_window_vjp(v, grad_terms, order=order, window=window, threads=threads)
        else:
            # A window that no input leaves is none.
            at_all = np.concatenate([np.zeros((order - 1, *u.shape[:-1], n), u.dtype), grad_terms], axis=-1)
            grad_v, _ = elementary_vjp(v, at_all, None, None, order=order, threads=threads)
    grad_previous = None
    if previous is not None:
        grad_previous = np.zeros(previous.shape, u.dtype)
        grad_previous[..., previous.shape[-1] - n :] = grad_v[..., :n]
    return np.ascontiguousarray(grad_v[..., n:]), None if sums is None else of_sums, grad_previous


def _reach(order: int, kind: CorrelationKind, window: int | None) -> int:
    """Inputs before u_0 that enter a term."""
    return (order if window is None or kind == "products" else window) - 1


def _cotangent(name: str, value: Array | None, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array | None:
    """Checked, and copied only if it has another dtype."""
    if value is not None and value.shape == shape and value.dtype == dtype:
        return value
    return optional(name, value, shape, dtype)


def _with_previous(u: Array, previous: Array | None, reach: int) -> Array:
    """u with the newest `reach` of the inputs before it, as far as they are known."""
    if previous is None:
        return np.ascontiguousarray(u)
    used = min(reach, previous.shape[-1])
    newest = previous[..., previous.shape[-1] - used :].astype(u.dtype)
    return np.concatenate([newest, u], axis=-1)
