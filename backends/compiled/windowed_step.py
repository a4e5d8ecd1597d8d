"""One time step of the correlations of a window: what windowed `pb` and `kb` add to an output.  Lanes are rows."""

from __future__ import annotations

import numpy as np

from .caching import compiled, inlined
from .simd import fma, load, splat, store, width


@inlined
def _factor(factors, at, count, room):  # type: ignore[no-untyped-def]
    """The `count` factors from `at` as a vector; in lanes beyond them the first ones of `room`, whatever they are."""
    if count == width(room):
        return load(factors, at)
    for lane in range(count):
        room[lane] = factors[at + lane]
    return load(room, 0)


@inlined
def _adjacent(factors, at, n_channels, count, room, line, products, value, order, window, heads):  # type: ignore[no-untyped-def]
    """value + Σ_p β_p Σ_i u_{k-i} … u_{k-i-p+1}, with `heads` value + Σ_p Σ_i K_p[i] u_{k-i} … u_{k-i-p+1}."""
    w = width(line)
    for i in range(window):
        store(products, i * w, load(line, i * w))
    for p in range(2, order + 1):
        total = splat(line.dtype.type(0))
        for i in range(window - p + 1):
            product = load(products, i * w) * load(line, (i + p - 1) * w)
            store(products, i * w, product)
            if heads:
                place = ((p - 2) * (window - 1) + i) * n_channels + at
                total = fma(_factor(factors, place, count, room), product, total)
            else:
                total = total + product
        beta = splat(line.dtype.type(1))
        if not heads:
            beta = _factor(factors, (p - 2) * n_channels + at, count, room)
        value = fma(beta, total, value)
    return value


@inlined
def _elementary(factors, at, n_channels, count, room, line, sums, value, order, window, heads):  # type: ignore[no-untyped-def]
    """value + Σ_p β_p e_p of the window, with `heads` value + Σ_p Σ_c K_p[c-p+1] u_{k-c} e_{p-1}(u_k … u_{k-c+1}).

    There c is the lag of the oldest of p inputs.
    """
    w = width(line)
    nothing = splat(line.dtype.type(0))
    for p in range(2 * order):
        store(sums, p * w, nothing)
    for c in range(window):
        now = load(line, c * w)
        if heads:
            for p in range(2, min(order, c + 1) + 1):
                place = ((p - 2) * (window - 1) + c - p + 1) * n_channels + at
                product = now * load(sums, (p - 2) * w)
                total = load(sums, (order + p - 1) * w)
                store(sums, (order + p - 1) * w, fma(_factor(factors, place, count, room), product, total))
        for lower in range(order - 1):
            p = order - 1 - lower
            store(sums, p * w, fma(now, load(sums, (p - 1) * w), load(sums, p * w)))
        store(sums, 0, load(sums, 0) + now)
    for p in range(2, order + 1):
        if heads:
            value = value + load(sums, (order + p - 1) * w)
        else:
            beta = _factor(factors, (p - 2) * n_channels + at, count, room)
            value = fma(beta, load(sums, (p - 1) * w), value)
    return value


@compiled
def windowed_rows(  # type: ignore[no-untyped-def]
    factors, u, earlier, y, n_channels, order, window, elementary, heads, first, end
):
    """y ← y + the terms of order 2 … `order`, for the rows `first` … `end` - 1.

    Args:
        factors: ((order - 1) · H) the β_p of `pb`; with `heads` ((order - 1) · (window - 1) · H) the first
            window - p + 1 entries of the kernels K_p of `kb`.
        u, y: inputs and outputs of the rows; y is written.
        earlier: (rows · (window - 1)) inputs before, newest last.
        elementary: all index tuples of the window, else adjacent ones; with `heads` of diagonal systems, whose
            transitions commute, so that K_p multiplies all tuples with the same oldest input.

    Returns:
        whether all outputs are finite.

    Accuracy: a term passes p - 1 products of inputs, fewer additions than the window has terms of its order, one
        product with its factor and one addition for every order; `elementary`: p - 1 products and one addition per
        input, then the same; with `heads` twice as many additions.
    """
    held = window - 1
    w = width(y)
    line, products = np.zeros(window * w, y.dtype), np.empty(window * w, y.dtype)
    sums, room, out = np.empty(2 * order * w, y.dtype), np.zeros(w, y.dtype), np.zeros(w, y.dtype)
    nothing = y.dtype.type(0)
    trace = nothing
    row = first
    while row < end:
        # Of one sequence, so that lanes are channels beside each other; those beyond `count` are computed and dropped.
        at = row % n_channels
        count = min(w, n_channels - at, end - row)
        for lane in range(count):
            line[lane], out[lane] = u[row + lane], y[row + lane]
            for i in range(held):
                line[(1 + i) * w + lane] = earlier[(row + lane + 1) * held - 1 - i]
        value = load(out, 0)
        if elementary and heads:
            value = _elementary(factors, at, n_channels, count, room, line, sums, value, order, window, True)
        elif elementary:
            value = _elementary(factors, at, n_channels, count, room, line, sums, value, order, window, False)
        elif heads:
            value = _adjacent(factors, at, n_channels, count, room, line, products, value, order, window, True)
        else:
            value = _adjacent(factors, at, n_channels, count, room, line, products, value, order, window, False)
        store(out, 0, value)
        for lane in range(count):
            y[row + lane] = out[lane]
            trace += out[lane] * nothing
        row += count
    return trace == 0
