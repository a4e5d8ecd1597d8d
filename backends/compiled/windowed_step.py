"""One time step of the correlations of a window: what windowed `pb` and `kb`, the latter over adjacent tuples, add."""

from __future__ import annotations

import numpy as np

from .caching import compiled, inlined


@inlined
def _total(values, count):  # type: ignore[no-untyped-def]
    """Σ of the first `count` values, which are overwritten; halves are added up, so in vectors."""
    while count > 1:
        half = count // 2
        for i in range(half):
            values[i] += values[count - half + i]
        count -= half
    return values[0]


@inlined
def _adjacent(factors, line, products, terms, value, rows, row, order, window, heads):  # type: ignore[no-untyped-def]
    """value + Σ_p β_p Σ_i u_{k-i} … u_{k-i-p+1}, with `heads` value + Σ_p Σ_i K_p[i] u_{k-i} … u_{k-i-p+1}."""
    for i in range(window):
        products[i] = line[i]
    for p in range(2, order + 1):
        count, at = window - p + 1, (p - 2) * rows + row
        for i in range(count):
            products[i] *= line[i + p - 1]
        if heads:
            for i in range(count):
                terms[i] = factors[at * (window - 1) + i] * products[i]
            value += _total(terms, count)
        else:
            for i in range(count):
                terms[i] = products[i]
            value += factors[at] * _total(terms, count)
    return value


@inlined
def _elementary(factors, line, sums, value, rows, row, order, window):  # type: ignore[no-untyped-def]
    """value + Σ_p β_p e_p of the inputs of the window."""
    sums[:] = 0
    sums[0] = 1
    for i in range(window):
        now = line[window - 1 - i]
        for lower in range(order):
            p = order - lower
            sums[p] += now * sums[p - 1]
    for p in range(2, order + 1):
        value += factors[(p - 2) * rows + row] * sums[p]
    return value


@compiled
def windowed_rows(  # type: ignore[no-untyped-def]
    factors, u, earlier, y, n_channels, order, window, elementary, heads, first, end
):
    """y ← y + the terms of order 2 … `order`, for the rows `first` … `end` - 1.

    Args:
        factors: ((order - 1) · H) the β_p of `pb`; with `heads` ((order - 1) · H · (window - 1)) the first
            window - p + 1 entries of the kernels K_p of `kb`.
        u, y: inputs and outputs of the rows; y is written.
        earlier: (rows · (window - 1)) inputs before, newest last.
        elementary: all index tuples of the window, else adjacent ones.

    Accuracy: a term passes p - 1 products of inputs, fewer additions than the window has terms of its order, one
        product with its factor and one addition for every order; `elementary`: p - 1 products and one addition per
        input, then the same.
    """
    held = window - 1
    line, products, terms = np.empty(window, y.dtype), np.empty(window, y.dtype), np.empty(window, y.dtype)
    sums = np.empty(order + 1, y.dtype)
    for row in range(first, end):
        line[0] = u[row]
        for i in range(held):
            line[1 + i] = earlier[(row + 1) * held - 1 - i]
        channel = row % n_channels
        if elementary:
            y[row] = _elementary(factors, line, sums, y[row], n_channels, channel, order, window)
        elif heads:
            y[row] = _adjacent(factors, line, products, terms, y[row], n_channels, channel, order, window, True)
        else:
            y[row] = _adjacent(factors, line, products, terms, y[row], n_channels, channel, order, window, False)
