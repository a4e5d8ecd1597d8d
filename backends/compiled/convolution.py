"""Causal convolution as the direct sum, and its gradients: one kernel for all three.

Lanes are rows, or pieces of them where there are few.  Time runs in blocks of outputs and blocks of taps; within them
y_i += Σ_m taps_m window_{i+m}, eight outputs by four taps in registers, so that 15 loads feed 32 multiply-adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .caching import compiled, inlined
from .elementary_step import turn
from .scan import clear
from .simd import fma, lanes, load, splat, store, width
from .threads import share
from .tiles import read_rows, write_rows

Array = npt.NDArray[Any]

# Outputs and taps of a block: what they read stays in the second-level cache, reading costs 3 % of 512 · 512 products.
BLOCK = 512
# Outputs that are computed at once.
GROUP = 8
# Numbers of the sums over time of single rows that are kept at a time.
KEPT_SUMS = 1 << 21


@inlined
def one_tap(tap, a, b, c, d, e, f, g, h, p, q, r, s, t, u, v, w):  # type: ignore[no-untyped-def]
    """Eight outputs p … w with the products of one tap and a … h added."""
    return (
        fma(tap, a, p),
        fma(tap, b, q),
        fma(tap, c, r),
        fma(tap, d, s),
        fma(tap, e, t),
        fma(tap, f, u),
        fma(tap, g, v),
        fma(tap, h, w),
    )


@inlined
def add_products(y, n_outputs, taps, n_taps, window, low, high):  # type: ignore[no-untyped-def]
    """y_i += Σ_m taps_m window_{i+m}, m in ascending order, one fused multiply-add each.

    Args:
        y: a whole number of groups; what lies beyond `n_outputs` is not defined.
        window: at least n_outputs + n_taps + GROUP - 1 vectors.
        low, high: first entry of the window that is not zero, and the first after them that is.
    """
    w = width(y)
    for i in range(0, n_outputs, GROUP):
        o = i * w
        y0, y1, y2, y3 = load(y, o), load(y, o + w), load(y, o + 2 * w), load(y, o + 3 * w)
        y4, y5, y6, y7 = load(y, o + 4 * w), load(y, o + 5 * w), load(y, o + 6 * w), load(y, o + 7 * w)
        m = max(0, low - i - GROUP + 1)
        end = min(n_taps, high - i)
        while m + 4 <= end:
            s = (i + m) * w
            a, b, c, d = load(window, s), load(window, s + w), load(window, s + 2 * w), load(window, s + 3 * w)
            s += 4 * w
            e, f, g, h = load(window, s), load(window, s + w), load(window, s + 2 * w), load(window, s + 3 * w)
            s += 4 * w
            j, k, n = load(window, s), load(window, s + w), load(window, s + 2 * w)
            at = m * w
            tap = load(taps, at)
            y0, y1, y2, y3, y4, y5, y6, y7 = one_tap(tap, a, b, c, d, e, f, g, h, y0, y1, y2, y3, y4, y5, y6, y7)
            tap = load(taps, at + w)
            y0, y1, y2, y3, y4, y5, y6, y7 = one_tap(tap, b, c, d, e, f, g, h, j, y0, y1, y2, y3, y4, y5, y6, y7)
            tap = load(taps, at + 2 * w)
            y0, y1, y2, y3, y4, y5, y6, y7 = one_tap(tap, c, d, e, f, g, h, j, k, y0, y1, y2, y3, y4, y5, y6, y7)
            tap = load(taps, at + 3 * w)
            y0, y1, y2, y3, y4, y5, y6, y7 = one_tap(tap, d, e, f, g, h, j, k, n, y0, y1, y2, y3, y4, y5, y6, y7)
            m += 4
        while m < end:
            s = (i + m) * w
            a, b, c, d = load(window, s), load(window, s + w), load(window, s + 2 * w), load(window, s + 3 * w)
            s += 4 * w
            e, f, g, h = load(window, s), load(window, s + w), load(window, s + 2 * w), load(window, s + 3 * w)
            tap = load(taps, m * w)
            y0, y1, y2, y3, y4, y5, y6, y7 = one_tap(tap, a, b, c, d, e, f, g, h, y0, y1, y2, y3, y4, y5, y6, y7)
            m += 1
        store(y, o, y0)
        store(y, o + w, y1)
        store(y, o + 2 * w, y2)
        store(y, o + 3 * w, y3)
        store(y, o + 4 * w, y4)
        store(y, o + 5 * w, y5)
        store(y, o + 6 * w, y6)
        store(y, o + 7 * w, y7)


@inlined
def read_window(u, places, start, size, before, after, window):  # type: ignore[no-untyped-def]
    """The inputs at start … start + size - 1, zeros where there are none: outside of -before … after - 1.

    Returns:
        first entry that is not zero, and the first after them that is.
    """
    w = width(window)
    nothing = splat(window.dtype.type(0))
    low = min(max(-before - start, 0), size)
    high = max(min(after - start, size), low)
    for t in range(low):
        store(window, t * w, nothing)
    for t in range(high, size + GROUP):
        store(window, t * w, nothing)
    read_rows(u, places, 0, before + start + low, high - low, window, low * w)
    return low, high


@compiled
def convolve_tiles(  # type: ignore[no-untyped-def]
    kernel, kernel_places, n, u, places, before, after, y, targets, rows, length, forward, first, end
):
    """Pieces `first` … `end` - 1 of y_k = Σ_j K_j u_{k-j}, or Σ_j K_j u_{k+j} if not `forward`.

    Args:
        kernel, u, y: one-dimensional; `y` is written.  A piece is one block of outputs of one tile.
        kernel_places, places, targets: (tiles, W) where the row of each lane begins in them; in `u` `before` inputs
            earlier than step 0.
        n: taps.
        before, after: inputs exist at steps -before … after - 1.
        length: steps of a row's output.
    """
    w = width(y)
    most = min(BLOCK, n)
    room = min(BLOCK, length) + GROUP
    taps = np.empty(most * w, y.dtype)
    turned = np.empty(most * w, y.dtype)
    window = np.empty((room + most + GROUP) * w, y.dtype)
    output = np.empty(room * w, y.dtype)
    block = np.empty(w * w, y.dtype)
    per_tile = (length + BLOCK - 1) // BLOCK
    for piece in range(first, end):
        tile = piece // per_tile
        n_rows = min(w, rows - tile * w)
        start = (piece % per_tile) * BLOCK
        steps = min(BLOCK, length - start)
        clear(output, room)
        for tap in range(0, n, BLOCK):
            n_taps = min(BLOCK, n - tap)
            earliest = start - tap - n_taps + 1 if forward else start + tap
            size = steps + n_taps - 1
            if earliest + size <= -before or earliest >= after:
                break
            low, high = read_window(u, places[tile], earliest, size, before, after, window)
            if forward:
                read_rows(kernel, kernel_places[tile], 0, tap, n_taps, turned, 0)
                turn(turned, n_taps, taps)
            else:
                read_rows(kernel, kernel_places[tile], 0, tap, n_taps, taps, 0)
            add_products(output, steps, taps, n_taps, window, low, high)
        write_rows(output, steps, 1, n_rows, y, targets[tile], 0, start, block)


@compiled
def kernel_gradient_tiles(  # type: ignore[no-untyped-def]
    g, g_places, u, places, before, after, gradient, n, rows, length, first, end
):
    """Pieces of Σ_k g_k u_{k-j} for every row, j = 0 … n - 1; a piece is one block of j of one tile.

    Args:
        g: one-dimensional cotangents of y.
        gradient: (rows, n) float64, written.
        others: as in `convolve_tiles`.
    """
    w = width(g)
    most = min(BLOCK, length)
    room = min(BLOCK, n) + GROUP
    taps = np.empty(most * w, g.dtype)
    window = np.empty((room + most + GROUP) * w, g.dtype)
    output = np.empty(room * w, g.dtype)
    sums = np.empty(room * w, gradient.dtype)
    per_tile = (n + BLOCK - 1) // BLOCK
    for piece in range(first, end):
        tile = piece // per_tile
        lag = (piece % per_tile) * BLOCK
        lags = min(BLOCK, n - lag)
        sums[:] = 0
        for start in range(0, length, BLOCK):
            steps = min(BLOCK, length - start)
            # Outputs are lags from the largest on, so that the input that meets g_k moves on with k.
            earliest, size = start - lag - lags + 1, steps + lags - 1
            if earliest + size <= -before:
                continue
            low, high = read_window(u, places[tile], earliest, size, before, after, window)
            read_rows(g, g_places[tile], 0, start, steps, taps, 0)
            clear(output, room)
            add_products(output, lags, taps, steps, window, low, high)
            for i in range(lags * w):
                sums[i] += output[i]
        for lane in range(min(w, rows - tile * w)):
            for i in range(lags):
                gradient[tile * w + lane, lag + i] = sums[(lags - 1 - i) * w + lane]


@dataclass(frozen=True)
class Rows:
    """How the rows of (batch, H, L) are cut into pieces for the lanes of a vector.

    Args:
        shape: (batch, H, L).
        pieces: per row; more than one where rows are fewer than lanes.
        reach: inputs before (or after) a piece that it needs.
        n_lanes: lanes of a vector.
    """

    shape: tuple[int, int, int]
    pieces: int
    reach: int
    n_lanes: int

    @property
    def count(self) -> int:
        return self.shape[0] * self.shape[1] * self.pieces

    @property
    def tiles(self) -> int:
        return -(-self.count // self.n_lanes)

    @property
    def length(self) -> int:
        """Steps of a piece; the last one is filled up with zeros."""
        return -(-self.shape[2] // self.pieces)

    @property
    def margin(self) -> int:
        """Zeros in front of (or behind) a row: pieces other than the first find inputs there."""
        return self.reach if self.pieces > 1 else 0

    def _of_lane(self) -> Array:
        pieces = np.arange(self.tiles * self.n_lanes).clip(max=max(self.count - 1, 0))
        return np.reshape(pieces, (self.tiles, self.n_lanes))

    def channels(self) -> Array:
        """(tiles, lanes)."""
        return np.asarray(self._of_lane() // self.pieces % self.shape[1])

    def filled(self, u: Array, front: int, behind: int) -> Array:
        """One-dimensional, rows with so many zeros around them; u itself if nothing is added."""
        u = np.ascontiguousarray(u)
        if self.pieces > 1:
            total = front + self.pieces * self.length + behind
            filled = np.zeros((*self.shape[:2], total), u.dtype)
            filled[..., front : front + self.shape[2]] = u
            u = filled
        return u.reshape(-1)

    def places(self, margin: int) -> Array:
        """(tiles, lanes) where each piece begins in an array made by `filled` with so many zeros."""
        stride = self.shape[2] if self.pieces == 1 else self.pieces * self.length + margin
        pieces = self._of_lane()
        return np.asarray(pieces // self.pieces * stride + pieces % self.pieces * self.length)


def cut(shape: tuple[int, int, int], reach: int, n_lanes: int) -> Rows:
    """Rows in as many pieces as need the fewest products; it depends on the shape alone."""
    length = shape[2]

    def cost(pieces: int) -> int:
        rows = Rows(shape, pieces, reach - 1, n_lanes)
        if pieces == 1:
            # Of a whole row nothing before its beginning is computed.
            return rows.tiles * (reach * length - reach * (reach - 1) // 2)
        return rows.tiles * reach * rows.length

    options = [1 << i for i in range(n_lanes.bit_length()) if 1 << i <= max(length, 1)]
    return Rows(shape, min(options, key=cost), reach - 1, n_lanes)


def _convolved(kernel: Array, u: Array, reach: int, forward: bool, threads: int) -> Array:
    """Σ_j K_j u_{k-j}, or Σ_j K_j u_{k+j}, over j < reach."""
    if reach == 0 or u.size == 0:
        return np.zeros(u.shape, u.dtype)
    rows = cut(u.shape, reach, lanes(u.dtype))
    front, behind = (rows.margin, 0) if forward else (0, rows.margin)
    after = rows.length + behind
    source = rows.filled(u, front, behind)
    y = np.empty((*u.shape[:2], rows.pieces * rows.length), u.dtype)
    taps = np.ascontiguousarray(kernel[:, :reach]).reshape(-1)
    kernel_places, places, targets = rows.channels() * reach, rows.places(rows.margin), rows.places(0)

    def work(first: int, end: int) -> None:
        convolve_tiles(
            taps,
            kernel_places,
            reach,
            source,
            places,
            front,
            after,
            y.reshape(-1),
            targets,
            rows.count,
            rows.length,
            forward,
            first,
            end,
        )

    share(work, rows.tiles * -(-rows.length // BLOCK), threads)
    return np.ascontiguousarray(y[..., : u.shape[2]])


def causal_convolution(kernel: Array, u: Array, threads: int) -> Array:
    """y_k = Σ_{j ≤ k} K_j u_{k-j}.

    Args:
        kernel: (H, n), any n; beyond it the kernel is zero.
        u: (batch, H, L), in the kernel's dtype.
        threads: at most so many; no result depends on it.

    Returns:
        (batch, H, L).

    Accuracy:
        One fused multiply-add per term: a product passes at most min(n, L) roundings.  docs/bounds-kernels.md.
    """
    return _convolved(kernel, u, min(kernel.shape[-1], u.shape[-1]), True, threads)


def causal_convolution_vjp(kernel: Array, u: Array, grad: Array, threads: int) -> tuple[Array, Array]:
    """Gradients of kernel (H, n) and u (batch, H, L): Σ_{k ≥ i} g_k K_{k-i} and Σ_batch Σ_{k ≥ j} g_k u_{k-j}.

    Accuracy:
        u: as `causal_convolution`.  Kernel: at most `BLOCK` fused multiply-adds, then sums in float64 over blocks,
        pieces and batch, rounded once.
    """
    batch, n_channels, length = u.shape
    reach = min(kernel.shape[-1], length)
    grad_u = _convolved(kernel, grad, reach, False, threads)
    grad_kernel = np.zeros(kernel.shape, kernel.dtype)
    if reach and u.size:
        total = np.zeros((n_channels, reach))
        at_once = max(1, KEPT_SUMS // (n_channels * reach))
        for start in range(0, batch, at_once):
            some = slice(start, start + at_once)
            total += _kernel_gradient(u[some], grad[some], reach, threads)
        grad_kernel[:, :reach] = total
    return grad_kernel, grad_u


def _kernel_gradient(u: Array, grad: Array, reach: int, threads: int) -> Array:
    """(H, reach) float64."""
    rows = cut(u.shape, reach, lanes(u.dtype))
    source, cotangents = rows.filled(u, rows.margin, 0), rows.filled(grad, 0, 0)
    places, targets = rows.places(rows.margin), rows.places(0)
    sums = np.empty((rows.count, reach))

    def work(first: int, end: int) -> None:
        kernel_gradient_tiles(
            cotangents,
            targets,
            source,
            places,
            rows.margin,
            rows.length,
            sums,
            reach,
            rows.count,
            rows.length,
            first,
            end,
        )

    share(work, rows.tiles * -(-reach // BLOCK), threads)
    return np.asarray(sums.reshape(u.shape[0], u.shape[1], rows.pieces, reach).sum(axis=(0, 2)))
