"""The linear recurrence of Eq. 2 on diagonal systems by chunks of time: matrix products inside, states between.

With Q steps per chunk and i = kQ + q, the outputs of a chunk are Σ_{j<=q} K_{q-j} u_j + Σ_n Re G_{q,n} x_n from the
state x before it, and the state after it is D x + Σ_j V_j u_j.  Per step that takes about Q/2 + 4M operations instead
of 8M, and none of them waits for the step before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from liquid_ssm.systems import DiagonalSystem

from .._memory_order import MemoryOrder
from .caching import compiled, inlined
from .scan import linear_step
from .simd import fma, from_lane, lanes, load, splat, store, total, width
from .threads import share
from .tiles import turn_block, turn_block_back
from .vandermonde import product

Array = npt.NDArray[Any]

# Chunks of one row that are computed together: each number of a table that is loaded serves all of them.
TOGETHER = 4
# Chunks of a block of time of signals with their channels last, which are brought into rows first.
BLOCK = 64
# Cost of one entry of the tables, in operations of a lane, as measured.
TABLE_OPERATIONS = 100


@dataclass(frozen=True)
class ChunkTables:
    """What a chunk of `chunk` steps needs of a system, in one real dtype; padded to P modes, a multiple of a vector.

    Args:
        kernel: (H, 2 · chunk), K_i in the second half, zeros before.
        inputs: (H, P/W, chunk, 2, W), V_j = Ā^(chunk-1-j) B̄, real and imaginary parts of W modes.
        outputs: (H, 2, P, chunk), Re and -Im of G_q = weight · C Ā^(q+1).
        modes: (H, 8, P), real and imaginary parts of D = Ā^chunk, Ā, B̄ and weight · C.
        n_modes: stored modes.
        is_complex: whether the state is complex.
    """

    kernel: Array
    inputs: Array
    outputs: Array
    modes: Array
    n_modes: int
    is_complex: bool

    @property
    def chunk(self) -> int:
        return int(self.outputs.shape[-1])

    @property
    def finite(self) -> bool:
        """False where a power of Ā within a chunk leaves the dtype's range; only then do not use these tables."""
        return all(bool(np.isfinite(t).all()) for t in (self.kernel, self.inputs, self.outputs, self.modes))


def best_chunk(n_modes: int, dtype: npt.DTypeLike) -> int:
    """The fastest number of steps per chunk, as measured for 8 to 128 modes: two vectors of outputs."""
    return 2 * lanes(dtype)


def pays(n_modes: int, rows: int, length: int, dtype: npt.DTypeLike, n_channels: int | None = None) -> bool:
    """Whether `chunked_scan`, its tables included, is faster than the scan step by step; by shape only.

    Args:
        rows: batch · H.
        n_channels: H, whose tables are to be made; as many as rows if None, 0 if the tables are at hand.
    """
    w, chunk = lanes(dtype), best_chunk(n_modes, dtype)
    padded = -(-n_modes // w) * w
    whole, rest = divmod(length, chunk)
    chunks = -(-whole // TOGETHER) * TOGETHER
    operations = chunks * chunk * ((chunk + w) // 2 + 2 * padded + 2 * n_modes) + rest * (8 * padded + 8 * w)
    tables = TABLE_OPERATIONS * chunk * padded * (rows if n_channels is None else n_channels)
    # The scan step by step takes 8 operations per mode, but comes less close to the limit than these products.
    return rows > 0 and whole > 0 and rows * operations + tables < 10 * n_modes * length * rows


def chunk_tables(system: DiagonalSystem, chunk: int, dtype: npt.DTypeLike, threads: int) -> ChunkTables:
    """The tables of a system for chunks of `chunk` steps, a multiple of two vectors of `dtype`.

    Accuracy:
        Powers by products in float64, power i with i - 1 behind it, K_i summed over the modes in float64 as well; each
        number is rounded once to `dtype`.
    """
    dtype = np.dtype(dtype)
    w = lanes(dtype)
    n_channels, n_modes = system.A_bar.shape
    padded = max(1, -(-n_modes // w)) * w
    parts = np.zeros((n_channels, 6, padded))
    for k, v in enumerate((system.A_bar, system.B_bar, system.weight * system.C.astype(np.complex128))):
        parts[:, 2 * k, :n_modes], parts[:, 2 * k + 1, :n_modes] = v.real, v.imag
    kernel = np.zeros((n_channels, 2 * chunk), dtype)
    inputs = np.empty((n_channels, padded // w, chunk, 2, w), dtype)
    outputs = np.empty((n_channels, 2, padded, chunk), dtype)
    modes = np.empty((n_channels, 8, padded), dtype)
    with np.errstate(over="ignore"):
        modes[:, 2:] = parts
    flat = [t.reshape(n_channels, t[0].size) for t in (parts, kernel, inputs, outputs, modes)]

    def work(first: int, end: int) -> None:
        fill_tables(*flat, chunk, first, end)

    share(work, n_channels, threads, 16)
    is_complex = any(np.iscomplexobj(v) for v in (system.A_bar, system.B_bar, system.C))
    return ChunkTables(kernel, inputs, outputs, modes, n_modes, is_complex)


def chunked_scan(tables: ChunkTables, u: Array, state: Array | None, threads: int) -> tuple[Array, Array]:
    """x_k = Ā∘x_{k-1} + B̄ u_k, y_k = weight · Re(C x_k): y and the final state.

    Chunks are counted from the first step; steps that do not fill one are computed one by one.

    Args:
        tables: of the system, in u's dtype.
        u: (batch, H, L) float32 or float64, read where it is in either `MemoryOrder`, in which y is then.
        state: (batch, H, M) or None for rest.
        threads: no bit of the result depends on them.

    Returns:
        y (batch, H, L) in u's dtype, and the state (batch, H, M), real if every parameter is.

    Accuracy:
        A scan bracketed by chunks: inside a chunk one multiplication by a rounded power, sums in any order, all
        multiply-adds fused; the state passes from chunk to chunk in the order of time.  y_k depends on no input after
        u_k.

    References:
        Eq. 2.
    """
    batch, n_channels, length = u.shape
    padded, memory = tables.modes.shape[-1], MemoryOrder.of(u)
    y = memory.empty(u.dtype)
    states = np.zeros((batch * n_channels, 2, padded), u.dtype)
    if state is not None:
        parts = state.reshape(batch * n_channels, tables.n_modes)
        states[:, 0, : tables.n_modes], states[:, 1, : tables.n_modes] = parts.real, parts.imag
    flat = [t.reshape(n_channels, t[0].size) for t in (tables.kernel, tables.inputs, tables.outputs, tables.modes)]
    signals = memory.flat(u), memory.flat(y), states.reshape(batch * n_channels, 2 * padded)
    at_once = max(1, (1 << 20) // max(1, length * padded))

    def rows(first: int, end: int) -> None:
        chunk_rows(*flat, tables.n_modes, *signals, length, first, end)

    def tiles(first: int, end: int) -> None:
        chunk_tiles(*flat, tables.n_modes, *signals, length, first, end)

    if memory.channels_last:
        share(tiles, batch * -(-n_channels // lanes(u.dtype)), threads, -(-at_once // lanes(u.dtype)))
    else:
        share(rows, batch * n_channels, threads, at_once)
    kind = np.result_type(u.dtype, np.complex64) if tables.is_complex else u.dtype
    final = np.empty((batch * n_channels, tables.n_modes), kind)
    final.real = states[:, 0, : tables.n_modes]
    if tables.is_complex:
        final.imag = states[:, 1, : tables.n_modes]
    return y, final.reshape(batch, n_channels, tables.n_modes)


@compiled
def fill_tables(parts, kernel, inputs, outputs, modes, chunk, first, end):  # type: ignore[no-untyped-def]
    """Channels `first` … `end` - 1 of `chunk_tables`; `parts` are Ā, B̄ and weight · C in float64."""
    w, lane = width(parts), width(kernel)
    padded = parts.shape[1] // 6
    real, imaginary = np.empty(w), np.empty(w)
    sums = np.empty(chunk * w)
    for h in range(first, end):
        row = parts[h]
        for i in range(chunk):
            store(sums, i * w, splat(0.0))
        for n in range(0, padded, w):
            ar, ai = load(row, n), load(row, padded + n)
            br, bi = load(row, 2 * padded + n), load(row, 3 * padded + n)
            cr, ci = load(row, 4 * padded + n), load(row, 5 * padded + n)
            br_c, bi_c = product(cr, ci, br, bi)
            pr, pi = splat(1.0), splat(0.0)
            for i in range(chunk):
                vr, vi = product(pr, pi, br, bi)
                at = ((n // lane * chunk + chunk - 1 - i) * 2) * lane + n % lane
                store(inputs[h], at, vr)
                store(inputs[h], at + lane, vi)
                store(sums, i * w, fma(-pi, bi_c, fma(pr, br_c, load(sums, i * w))))
                pr, pi = product(pr, pi, ar, ai)
                gr, gi = product(pr, pi, cr, ci)
                store(real, 0, gr)
                store(imaginary, 0, -gi)
                for m in range(w):
                    outputs[h, (n + m) * chunk + i] = real[m]
                    outputs[h, (padded + n + m) * chunk + i] = imaginary[m]
            store(modes[h], n, pr)
            store(modes[h], padded + n, pi)
        for i in range(chunk):
            kernel[h, chunk + i] = total(load(sums, i * w))


@inlined
def pair(v0, v1, s0, s1, s2, s3, sums):  # type: ignore[no-untyped-def]
    """Two vectors times the numbers of four chunks, added to the sums."""
    a0, a1, b0, b1, c0, c1, d0, d1 = sums
    s0, s1, s2, s3 = splat(s0), splat(s1), splat(s2), splat(s3)
    a0, a1, b0, b1 = fma(s0, v0, a0), fma(s0, v1, a1), fma(s1, v0, b0), fma(s1, v1, b1)
    return a0, a1, b0, b1, fma(s2, v0, c0), fma(s2, v1, c1), fma(s3, v0, d0), fma(s3, v1, d1)


@inlined
def diagonal_pair(first, v0, v1, s0, s1, s2, s3, sums):  # type: ignore[no-untyped-def]
    """The same, of the first vector only in the lanes from `first`."""
    A0, a1, B0, b1, C0, c1, D0, d1 = pair(v0, v1, s0, s1, s2, s3, sums)
    a0, b0 = from_lane(first, A0, sums[0]), from_lane(first, B0, sums[2])
    return a0, a1, b0, b1, from_lane(first, C0, sums[4]), c1, from_lane(first, D0, sums[6]), d1


@inlined
def diagonal_second(first, v1, s0, s1, s2, s3, sums):  # type: ignore[no-untyped-def]
    """The same of the second vector alone, in the lanes from `first`."""
    a0, a1, b0, b1, c0, c1, d0, d1 = sums
    a1, b1 = from_lane(first, fma(splat(s0), v1, a1), a1), from_lane(first, fma(splat(s1), v1, b1), b1)
    c1, d1 = from_lane(first, fma(splat(s2), v1, c1), c1), from_lane(first, fma(splat(s3), v1, d1), d1)
    return a0, a1, b0, b1, c0, c1, d0, d1


@inlined
def store_chunks(sums, target, at, stride, count):  # type: ignore[no-untyped-def]
    """The sums of `count` chunks to `at`, `at` + `stride`, …"""
    w = width(target)
    store(target, at, sums[0])
    store(target, at + w, sums[1])
    if count > 1:
        store(target, at + stride, sums[2])
        store(target, at + stride + w, sums[3])
    if count > 2:
        store(target, at + 2 * stride, sums[4])
        store(target, at + 2 * stride + w, sums[5])
    if count > 3:
        store(target, at + 3 * stride, sums[6])
        store(target, at + 3 * stride + w, sums[7])


@inlined
def advance(inputs, modes, chunk, count, u, o0, o1, o2, o3, state, starts, block):  # type: ignore[no-untyped-def]
    """The state through `count` chunks whose inputs begin at o0, o1, …; `starts` gets the state before each."""
    w = width(u)
    nothing = splat(u.dtype.type(0))
    padded = state.shape[0] // 2
    for n in range(0, padded, w):
        sums = (nothing, nothing, nothing, nothing, nothing, nothing, nothing, nothing)
        at = 2 * n * chunk
        for j in range(chunk):
            v0, v1 = load(inputs, at + 2 * w * j), load(inputs, at + 2 * w * j + w)
            q = np.uintp(j)
            sums = pair(v0, v1, u[o0 + q], u[o1 + q], u[o2 + q], u[o3 + q], sums)
        store_chunks(sums, block, 0, 2 * w, TOGETHER)
        dr, di = load(modes, n), load(modes, padded + n)
        xr, xi = load(state, n), load(state, padded + n)
        for k in range(count):
            store(starts, 2 * k * padded + n, xr)
            store(starts, 2 * k * padded + padded + n, xi)
            xr, xi = linear_step(dr, di, load(block, 2 * k * w), load(block, 2 * k * w + w), xr, xi)
        store(state, n, xr)
        store(state, padded + n, xi)


@inlined
def answer(kernel, outputs, chunk, count, u, o0, o1, o2, o3, starts, padded, n_modes, y):  # type: ignore[no-untyped-def]
    """The outputs of these chunks, from their own inputs and from the states before them."""
    w = width(u)
    nothing = splat(u.dtype.type(0))
    for v in range(0, chunk, 2 * w):
        sums = (nothing, nothing, nothing, nothing, nothing, nothing, nothing, nothing)
        at = chunk + v
        for j in range(v):
            q = np.uintp(j)
            v0, v1 = load(kernel, at - j), load(kernel, at + w - j)
            sums = pair(v0, v1, u[o0 + q], u[o1 + q], u[o2 + q], u[o3 + q], sums)
        # An input does not reach the outputs before it, not even as a product with zero, which NaN would survive.
        for j in range(v, v + w):
            q = np.uintp(j)
            v0, v1 = load(kernel, at - j), load(kernel, at + w - j)
            sums = diagonal_pair(j - v, v0, v1, u[o0 + q], u[o1 + q], u[o2 + q], u[o3 + q], sums)
        for j in range(v + w, v + 2 * w):
            q = np.uintp(j)
            v1 = load(kernel, at + w - j)
            sums = diagonal_second(j - v - w, v1, u[o0 + q], u[o1 + q], u[o2 + q], u[o3 + q], sums)
        for part in range(2):
            for n in range(part * padded, part * padded + n_modes):
                v0, v1 = load(outputs, n * chunk + v), load(outputs, n * chunk + v + w)
                s0, s1 = starts[np.uintp(n)], starts[np.uintp(2 * padded + n)]
                s2, s3 = starts[np.uintp(4 * padded + n)], starts[np.uintp(6 * padded + n)]
                sums = pair(v0, v1, s0, s1, s2, s3, sums)
        store_chunks(sums, y, np.intp(o0) + v, chunk, count)


@inlined
def step_by_step(modes, u, y, start, end, state):  # type: ignore[no-untyped-def]
    """Steps `start` … `end` - 1 of one row, in the order of time."""
    w = width(u)
    padded = state.shape[0] // 2
    for t in range(start, end):
        now = splat(u[t])
        real = imaginary = splat(u.dtype.type(0))
        for n in range(0, padded, w):
            ar, ai = load(modes, 2 * padded + n), load(modes, 3 * padded + n)
            br, bi = load(modes, 4 * padded + n), load(modes, 5 * padded + n)
            xr, xi = linear_step(ar, ai, br * now, bi * now, load(state, n), load(state, padded + n))
            store(state, n, xr)
            store(state, padded + n, xi)
            real = fma(load(modes, 6 * padded + n), xr, real)
            imaginary = fma(load(modes, 7 * padded + n), xi, imaginary)
        y[t] = total(real - imaginary)


@compiled
def chunk_rows(kernel, inputs, outputs, modes, n_modes, u, y, states, length, first, end):  # type: ignore[no-untyped-def]
    """Rows `first` … `end` - 1, channel after channel of each sequence; tables as in `ChunkTables`, flat per channel.

    Args:
        u, y: one-dimensional; `y` is written.
        states: (rows, 2P); replaced by the final ones.
    """
    n_channels, padded = kernel.shape[0], states.shape[1] // 2
    starts, block = np.empty(TOGETHER * 2 * padded, u.dtype), np.empty(TOGETHER * 2 * width(u), u.dtype)
    for row in range(first, end):
        h, at = row % n_channels, row * length
        row_of_chunks(
            kernel[h], inputs[h], outputs[h], modes[h], n_modes, u, at, y, states[row], length, starts, block
        )  # fmt: skip


@inlined
def row_of_chunks(kernel, inputs, outputs, modes, n_modes, u, at, y, state, length, starts, block):  # type: ignore[no-untyped-def]
    """`length` steps of one row from `at` on in `u` and `y`: whole chunks, and then the steps that are left."""
    chunk, padded = kernel.shape[0] // 2, state.shape[0] // 2
    whole = length // chunk
    for c in range(0, whole, TOGETHER):
        count = min(TOGETHER, whole - c)
        o0 = np.uintp(at + c * chunk)
        # Where fewer chunks are left, the last one is computed again and dropped.
        o1, o2 = o0 + np.uintp(min(1, count - 1) * chunk), o0 + np.uintp(min(2, count - 1) * chunk)
        o3 = o0 + np.uintp((count - 1) * chunk)
        advance(inputs, modes, chunk, count, u, o0, o1, o2, o3, state, starts, block)
        answer(kernel, outputs, chunk, count, u, o0, o1, o2, o3, starts, padded, n_modes, y)
    step_by_step(modes, u, y, at + whole * chunk, at + length, state)


@compiled
def chunk_tiles(kernel, inputs, outputs, modes, n_modes, u, y, states, length, first, end):  # type: ignore[no-untyped-def]
    """`chunk_rows` for signals with their channels last: tiles of W channels of one sequence, brought into rows."""
    w = width(u)
    n_channels, chunk, padded = kernel.shape[0], kernel.shape[1] // 2, states.shape[1] // 2
    starts, block = np.empty(TOGETHER * 2 * padded, u.dtype), np.empty(TOGETHER * 2 * w, u.dtype)
    span, tiles = BLOCK * chunk, (n_channels + w - 1) // w
    rows, answers = np.empty(w * span, u.dtype), np.empty(w * span, u.dtype)
    for tile in range(first, end):
        sequence, channel = tile // tiles, tile % tiles * w
        n = min(w, n_channels - channel)
        for begin in range(0, length, span):
            steps, at = min(span, length - begin), (sequence * length + begin) * n_channels + channel
            turn_block(u, at, n_channels, rows, 0, span, steps, n)
            for lane in range(n):
                h, state = channel + lane, states[sequence * n_channels + channel + lane]
                row_of_chunks(
                    kernel[h], inputs[h], outputs[h], modes[h], n_modes, rows, lane * span, answers, state, steps,
                    starts, block,
                )  # fmt: skip
            turn_block_back(answers, 0, span, y, at, n_channels, steps, n)
