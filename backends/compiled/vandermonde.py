"""Convolution kernel of a diagonal system: a Vandermonde product by baby steps and giant steps, compiled.

As `_vandermonde.py`, with tables that are one channel's, and the product in the precision of the result.
"""

from __future__ import annotations

from math import isqrt, log2
from typing import Any

import numpy as np
import numpy.typing as npt

from .caching import compiled, inlined
from .simd import fma, lanes, load, splat, store, width
from .threads import share

Array = npt.NDArray[Any]

# Giant rows and vectors of baby columns that the product has in flight: 16 sums, 8 loads for 16 operations.
ROWS = 4
VECTORS = 4
# Multiply-adds of one piece of work: a tenth of a millisecond, long against taking the next one.
PIECE_OPERATIONS = 1 << 22
# log2 of the growth over a table of baby steps up to which float32 holds both tables: what giant steps lose to
# underflow is multiplied by it.
GROWTH = 4


def diagonal_kernel(
    A_bar: Array,
    B_bar: Array,
    C: Array,
    length: int,
    power: int,
    weight: int,
    dtype: npt.DTypeLike,
    threads: int,
) -> Array:
    """K_i = weight · Re Σ_n C_n B̄_n^power Ā_nⁱ for i < length.

    With i = kQ + j and Q ≈ √length / 2, K_(kQ+j) = [Re, -Im](weight C B̄^power Ā^(kQ)) · [Re; Im](Āʲ).

    Args:
        A_bar, B_bar, C: (H, M), complex or real.
        length: number of kernel entries.
        power: power of B̄, at least 1.
        weight: 2 where one of each conjugate pair is stored, else 1.
        dtype: float32 or float64, that of the result.
        threads: no bit of the result depends on them.

    Returns:
        (H, length) of `dtype`.

    Accuracy:
        Behind entry i of mode n stand i + power - 1 complex products in float64 at most; then one rounding of
        each table to `dtype`, and one real inner product over 2M terms in `dtype`, of fused multiply-adds in the
        order of the modes, real before imaginary part:
        |error_i| <= γ_(2M+2) weight Σ_n |C_n B̄_n^power| |Ā_n|ⁱ, and (i + power - 1) √5 2⁻⁵³ of that sum.
        A kernel of one entry, and one of a system whose powers grow fast (`GROWTH`), are computed in float64 and
        rounded once.

    References:
        Eq. 5, Eq. 14.  Bound: docs/bounds-kernels.md, diagonal kernels by products.
    """
    a, b, c = (np.ascontiguousarray(v, np.complex128) for v in (A_bar, B_bar, C))
    coefficients = weight * c * b
    for _ in range(power - 1):
        coefficients = coefficients * b
    n_channels, n_modes = a.shape
    if length <= 1:
        return np.asarray(coefficients.real.sum(axis=1)[:, None][:, :length], dtype)
    baby = _baby_steps(length, dtype)
    with np.errstate(over="ignore"):
        growth = (min(baby, length) - 1) * log2(max(1.0, float(np.abs(a).max(initial=0.0))))
    inner = np.dtype(dtype) if growth <= GROWTH else np.dtype(np.float64)
    out = np.empty((n_channels, length), inner)
    baby = _baby_steps(length, inner)
    parts = a.real.copy(), a.imag.copy(), coefficients.real.copy(), coefficients.imag.copy()

    def work(first: int, end: int) -> None:
        kernel_rows(*parts, baby, out, first, end)

    share(work, n_channels, threads, max(1, PIECE_OPERATIONS // max(1, 2 * n_modes * length)))
    with np.errstate(over="ignore"):
        return np.asarray(out.astype(dtype, copy=False))


def _baby_steps(length: int, dtype: npt.DTypeLike) -> int:
    """Q, a whole number of column blocks."""
    columns = VECTORS * lanes(dtype)
    # Near √length / 2: short rows of output are written faster than long ones.
    return columns * max(1, (isqrt(length) + columns) // (2 * columns))


@inlined
def product(xr, xi, yr, yi):  # type: ignore[no-untyped-def]
    """x·y, each part one product and one fused multiply-add: within 2 u |xy|."""
    return fma(xr, yr, -(xi * yi)), fma(xr, yi, xi * yr)


@inlined
def scalar_product(xr, xi, yr, yi):  # type: ignore[no-untyped-def]
    """x·y of numbers: within √5 u |xy|."""
    return xr * yr - xi * yi, xr * yi + xi * yr


@inlined
def power_table(ar, ai, count, real, imaginary):  # type: ignore[no-untyped-def]
    """aʲ for j < `count`, by doubling; `count` is at most one vector or a multiple of it.

    Power j >= 1 has exactly j - 1 products behind it; no square beyond the last power is formed.
    """
    w = width(real)
    real[0], imaginary[0] = 1.0, 0.0
    br, bi = ar, ai
    known = 1
    while known < count:
        missing = min(known, count - known)
        if known < w:
            for t in range(missing):
                real[known + t], imaginary[known + t] = scalar_product(br, bi, real[t], imaginary[t])
        else:
            sr, si = splat(br), splat(bi)
            for t in range(0, missing, w):
                pr, pi = product(sr, si, load(real, t), load(imaginary, t))
                store(real, known + t, pr)
                store(imaginary, known + t, pi)
        known += missing
        if known < count:
            br, bi = scalar_product(br, bi, br, bi)


@inlined
def baby_table(ar, ai, n_modes, baby, real, imaginary, table, bases, stride):  # type: ignore[no-untyped-def]
    """[Re; Im](Āʲ), (baby / columns, 2M, columns) flat, and Ā^Q into `bases`."""
    w = width(real)
    columns = VECTORS * width(table)
    for n in range(n_modes):
        power_table(ar[n], ai[n], baby, real, imaginary)
        last = baby - 1
        bases[n], bases[stride + n] = scalar_product(real[last], imaginary[last], ar[n], ai[n])
        for j in range(0, baby, w):
            at = (j // columns * 2 * n_modes + 2 * n) * columns + j % columns
            store(table, at, load(real, j))
            store(table, at + columns, load(imaginary, j))


@inlined
def giant_table(running, bases, stride, n_giant, table):  # type: ignore[no-untyped-def]
    """[Re, -Im](coefficient · (Ā^Q)ᵏ), (n_giant, 2, stride) flat; row k has one product more than row k - 1."""
    w = width(running)
    for k in range(n_giant):
        for n in range(0, stride, w):
            gr, gi = load(running, n), load(running, stride + n)
            at = 2 * stride * k + n
            store(table, at, gr)
            store(table, at + stride, -gi)
            gr, gi = product(gr, gi, load(bases, n), load(bases, stride + n))
            store(running, n, gr)
            store(running, stride + n, gi)


@inlined
def multiply(giant, g, stride, n_modes, baby, b, out):  # type: ignore[no-untyped-def]
    """Rows g … g + 3 of the giant table times one block of columns, (ROWS, columns) into `out`."""
    w = width(out)
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = splat(out.dtype.type(0))
    c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = splat(out.dtype.type(0))
    for n in range(n_modes):
        for part in range(2):
            o = b + (2 * n + part) * VECTORS * w
            v0, v1, v2, v3 = load(baby, o), load(baby, o + w), load(baby, o + 2 * w), load(baby, o + 3 * w)
            # Unsigned, so that no index is checked for counting from the end.
            r = np.uintp(g + part * stride + n)
            s = splat(giant[r])
            a0, a1, a2, a3 = fma(s, v0, a0), fma(s, v1, a1), fma(s, v2, a2), fma(s, v3, a3)
            s = splat(giant[r + np.uintp(2 * stride)])
            b0, b1, b2, b3 = fma(s, v0, b0), fma(s, v1, b1), fma(s, v2, b2), fma(s, v3, b3)
            s = splat(giant[r + np.uintp(4 * stride)])
            c0, c1, c2, c3 = fma(s, v0, c0), fma(s, v1, c1), fma(s, v2, c2), fma(s, v3, c3)
            s = splat(giant[r + np.uintp(6 * stride)])
            d0, d1, d2, d3 = fma(s, v0, d0), fma(s, v1, d1), fma(s, v2, d2), fma(s, v3, d3)
    store(out, 0, a0)
    store(out, w, a1)
    store(out, 2 * w, a2)
    store(out, 3 * w, a3)
    store(out, 4 * w, b0)
    store(out, 5 * w, b1)
    store(out, 6 * w, b2)
    store(out, 7 * w, b3)
    store(out, 8 * w, c0)
    store(out, 9 * w, c1)
    store(out, 10 * w, c2)
    store(out, 11 * w, c3)
    store(out, 12 * w, d0)
    store(out, 13 * w, d1)
    store(out, 14 * w, d2)
    store(out, 15 * w, d3)


@compiled
def kernel_rows(ar, ai, cr, ci, baby, out, first, end):  # type: ignore[no-untyped-def]
    """Channels `first` … `end` - 1 of `diagonal_kernel`; Ā and the coefficients in float64, (H, M).

    Args:
        baby: Q, a multiple of VECTORS vectors of `out`'s dtype.
    """
    n_modes = ar.shape[1]
    length = out.shape[1]
    columns = VECTORS * width(out)
    w = width(ar)
    stride = (n_modes + w - 1) // w * w
    n_giant = (length + baby - 1) // baby
    blocks = (n_giant + ROWS - 1) // ROWS
    real, imaginary = np.empty(baby), np.empty(baby)
    running, bases = np.zeros(2 * stride), np.zeros(2 * stride)
    baby_steps = np.empty(baby * 2 * n_modes, out.dtype)
    # Rows beyond the last stay zero: the product always takes four.
    giant_steps = np.zeros(blocks * ROWS * 2 * stride, out.dtype)
    block = np.empty(ROWS * columns, out.dtype)
    for h in range(first, end):
        for n in range(n_modes):
            running[n], running[stride + n] = cr[h, n], ci[h, n]
        baby_table(ar[h], ai[h], n_modes, baby, real, imaginary, baby_steps, bases, stride)
        giant_table(running, bases, stride, n_giant, giant_steps)
        row = out[h]
        for j in range(0, baby, columns):
            for k in range(blocks):
                multiply(giant_steps, k * ROWS * 2 * stride, stride, n_modes, baby_steps, j * 2 * n_modes, block)
                for r in range(ROWS):
                    start = (k * ROWS + r) * baby + j
                    if start + columns <= length:
                        for v in range(0, columns, width(out)):
                            store(row, start + v, load(block, r * columns + v))
                    else:
                        for t in range(max(0, length - start)):
                            row[start + t] = block[r * columns + t]
