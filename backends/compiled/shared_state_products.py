"""Products with the full matrices of a `mimo` system, B̄ (M, H) and C (H, M), for a block of columns.

A column is one step of one row of the batch.  Lanes are modes where a product gives modes, and columns where it gives
channels; sums run in the order of the terms, whatever the shape.  Buffers of modes hold one vector of modes for all
columns, real parts and then imaginary ones; buffers of channels hold all columns of one channel, and then the next.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from .caching import inlined
from .simd import fma, load, splat, store, transpose_block, width

# Columns of a block: a multiple of two vectors of any dtype, and enough of a row of memory to be worth going there.
COLUMNS = 128
# From one channel to the next in a buffer of channels: one line more, or few sets of the cache would hold a column.
STRIDE = COLUMNS + 16
# Rows of a product that are computed together, from the same loads.
ROWS = 4


@intrinsic
def element(typing: Any, array: Any, index: Any) -> Any:
    """array[index] for an index that is not negative, which Numba would look at before every load."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load(builder.gep(data, [args[1]]))

    return array.dtype(array, types.intp), generate


@intrinsic
def add_to(typing: Any, sums: Any, index: Any, vector: Any) -> Any:
    """sums[index], … += vector, added in the dtype of the sums."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(context.get_value_type(sums.dtype), vector.lanes)
        data = make_array(signature.args[0])(context, builder, args[0]).data
        at = builder.bitcast(builder.gep(data, [args[1]]), kind.as_pointer())
        value = args[2] if vector.dtype == sums.dtype else builder.fpext(args[2], kind)
        align = sums.dtype.bitwidth // 8
        builder.store(builder.fadd(builder.load(at, align=align), value), at, align=align)
        return context.get_dummy_value()

    return types.void(sums, types.intp, vector), generate


@inlined
def four_rows(numbers, n, row, step, vectors, x, other, stride, terms):  # type: ignore[no-untyped-def]
    """Σ_k numbers[n + r·row + k·step] · v_k for four rows r and two vectors v_k, at x + k·stride and `other` behind."""
    nothing = splat(vectors.dtype.type(0))
    a, b, c, d, e, f, g, h = nothing, nothing, nothing, nothing, nothing, nothing, nothing, nothing
    for _ in range(terms):
        p, q = load(vectors, x), load(vectors, x + other)
        s = splat(element(numbers, n))
        a, b = fma(s, p, a), fma(s, q, b)
        s = splat(element(numbers, n + row))
        c, d = fma(s, p, c), fma(s, q, d)
        s = splat(element(numbers, n + 2 * row))
        e, f = fma(s, p, e), fma(s, q, f)
        s = splat(element(numbers, n + 3 * row))
        g, h = fma(s, p, g), fma(s, q, h)
        n += step
        x += stride
    return a, b, c, d, e, f, g, h


@inlined
def read_columns(signal, first, rows, n_channels, start, steps, length, columns):  # type: ignore[no-untyped-def]
    """columns[h·STRIDE + b·steps + t] = signal[first + b, h, start + t], in the dtype of `columns`."""
    for b in range(rows):
        for h in range(n_channels):
            source, target = ((first + b) * n_channels + h) * length + start, h * STRIDE + b * steps
            for t in range(steps):
                columns[target + t] = signal[source + t]


@inlined
def write_columns(columns, signal, first, rows, n_channels, start, steps, length):  # type: ignore[no-untyped-def]
    """The inverse of `read_columns`, rounded to the dtype of `signal`."""
    for b in range(rows):
        for h in range(n_channels):
            target, source = ((first + b) * n_channels + h) * length + start, h * STRIDE + b * steps
            for t in range(steps):
                signal[target + t] = columns[source + t]


@inlined
def to_modes(columns, count, n_channels, matrix, m, modes):  # type: ignore[no-untyped-def]
    """modes ← Σ_h matrix_h · columns_h for one vector of modes: 2·W numbers for each h, the first at matrix[m]."""
    w = width(modes)
    i = COLUMNS * w
    for t in range(0, count, ROWS):
        a, b, c, d, e, f, g, h = four_rows(columns, t, 1, STRIDE, matrix, m, w, 2 * w, n_channels)
        store(modes, t * w, a)
        store(modes, i + t * w, b)
        store(modes, (t + 1) * w, c)
        store(modes, i + (t + 1) * w, d)
        store(modes, (t + 2) * w, e)
        store(modes, i + (t + 2) * w, f)
        store(modes, (t + 3) * w, g)
        store(modes, i + (t + 3) * w, h)


@inlined
def turn(modes, count, v, depth, turned):  # type: ignore[no-untyped-def]
    """Vector v of `depth` vectors of modes, now with columns as lanes.

    turned[((2·t + part)·depth·W + mode)·W] is where a mode has its columns from t·W on.
    """
    w = width(modes)
    for t in range(-(-count // w)):
        transpose_block(modes, t * w * w, turned, (2 * t * depth + v) * w * w)
        transpose_block(modes, (COLUMNS + t * w) * w, turned, ((2 * t + 1) * depth + v) * w * w)


@inlined
def _put(columns, at, real, imaginary, weight):  # type: ignore[no-untyped-def]
    store(columns, at, splat(columns.dtype.type(weight)) * (real - imaginary))


@inlined
def to_channels(turned, count, n_modes, depth, matrix, padded, weight, columns):  # type: ignore[no-untyped-def]
    """columns_h ← weight · (Σ_n Re M_hn Re x_n − Σ_n Im M_hn Im x_n), x as `turn` leaves it.

    Two sums and one difference, so a term passes as many additions as if each complex product were formed whole.

    Args:
        matrix: (2, n_modes, padded): real and imaginary parts.
        padded: channels, rounded up to a multiple of `ROWS`.
        weight: 1 or 2, which is exact.
    """
    w = width(turned)
    part = depth * w * w
    for h in range(0, padded, ROWS):
        for t in range(0, -(-count // w), 2):
            x = 2 * t * part
            a, b, c, d, e, f, g, k = four_rows(matrix, h, 1, padded, turned, x, 2 * part, w, n_modes)
            n = n_modes * padded + h
            A, B, C, D, E, F, G, K = four_rows(matrix, n, 1, padded, turned, x + part, 2 * part, w, n_modes)
            at = h * STRIDE + t * w
            _put(columns, at, a, A, weight)
            _put(columns, at + w, b, B, weight)
            _put(columns, at + STRIDE, c, C, weight)
            _put(columns, at + STRIDE + w, d, D, weight)
            _put(columns, at + 2 * STRIDE, e, E, weight)
            _put(columns, at + 2 * STRIDE + w, f, F, weight)
            _put(columns, at + 3 * STRIDE, g, G, weight)
            _put(columns, at + 3 * STRIDE + w, k, K, weight)


@inlined
def add_outer(columns, count, padded, modes, sums, v):  # type: ignore[no-untyped-def]
    """sums_h += Σ_t columns_h[t] · modes[t] for one vector of modes: over a block in its dtype, then in float64.

    Args:
        sums: float64, 2·W numbers for each of the `padded` channels, from v on.
    """
    w = width(modes)
    for h in range(0, padded, ROWS):
        a, b, c, d, e, f, g, k = four_rows(columns, h * STRIDE, STRIDE, 1, modes, 0, COLUMNS * w, w, count)
        at = v + 2 * h * w
        add_to(sums, at, a)
        add_to(sums, at + w, b)
        add_to(sums, at + 2 * w, c)
        add_to(sums, at + 3 * w, d)
        add_to(sums, at + 4 * w, e)
        add_to(sums, at + 5 * w, f)
        add_to(sums, at + 6 * w, g)
        add_to(sums, at + 7 * w, k)
