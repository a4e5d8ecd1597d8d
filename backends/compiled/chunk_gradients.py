"""Gradients of Eq. 2 on diagonal systems by chunks of Q steps: arrays in, tiles of work to the threads, arrays out.

Step by step, a mode's cotangents wait for those of the step after, and one number of a table serves one row.  By chunks
everything but the step from chunk to chunk is a product of matrices: less than half of the time for 32 modes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from liquid_ssm.backend import Gradients
from liquid_ssm.systems import DiagonalSystem

from .._memory_order import MemoryOrder
from .chunk_adjoint import chunk_adjoint_tiles
from .chunk_columns import TOGETHER
from .chunk_gradient_tables import fill_tables, pull_back
from .simd import lanes
from .threads import share

Array = npt.NDArray[Any]

# Steps of a chunk, the faster first where both divide a length, as measured with AVX-512 and with AVX2.
CHUNKS = (64, 32) if lanes(np.float32) > 8 else (32, 64)
# Tiles that a call should have, for cores to share.
TILES = 16
# Channels whose tables are made at a time, or more for more than a few threads: some megabytes.
CHANNELS = 64


def best_chunk(n_modes: int, batch: int, n_channels: int, length: int) -> int | None:
    """Steps per chunk where float32 gradients by chunks are faster than step by step, by the shape alone; else None.

    Costs are per channel in multiply-adds at the rate of a core's limit, as measured with 8 to 32 modes.
    """
    if 0 in (n_modes, batch, n_channels, length):
        return None
    for chunk in CHUNKS:
        size = 2 * -(-n_modes // lanes(np.float32)) * lanes(np.float32)
        # States once more, cotangents of states, of inputs, of V and G; K and h_q u_j.
        per_step = 2.2 * (5 * size + 1.1 * chunk)
        tables = 1000 * size * chunk
        # A quarter faster: where it is less, nothing is lost.
        if length % chunk == 0 and 1.25 * (per_step * batch * length + tables) < 56 * n_modes * batch * length:
            return chunk
    return None


class Tables(NamedTuple):
    """What chunks of some channels need, as `chunk_adjoint_tiles` takes it."""

    kernel: Array
    inputs: Array
    turned_inputs: Array
    turned_outputs: Array
    transition: Array
    turned_transition: Array

    @classmethod
    def of(cls, parts: Array, chunk: int, dtype: npt.DTypeLike, threads: int) -> Tables:
        """Tables for chunks of `chunk` steps, a multiple of two vectors of `dtype`.

        Args:
            parts: (3, channels, P) float64 of Ā, B̄ and conj(weight · C), real parts of all modes and then the imaginary
                ones.

        Accuracy:
            Powers by products in float64, K_i by sums in it; each number is rounded once to `dtype`.
        """
        _, n_channels, size = parts.shape
        wide, narrow = (n_channels, chunk * size), (n_channels, size)
        tables = [np.empty(shape, dtype) for shape in ((n_channels, 2 * chunk), wide, wide, wide, narrow, narrow)]
        with np.errstate(over="ignore"):
            share(lambda first, end: fill_tables(*parts, *tables, first, end), n_channels, threads)
        return cls(*tables)

    @property
    def finite(self) -> bool:
        """False where a power of Ā within a chunk leaves the dtype's range; only then do not use these tables."""
        return all(bool(np.isfinite(t).all()) for t in (self.kernel, self.inputs, self.turned_outputs, self.transition))


def chunked_vjp(
    system: DiagonalSystem,
    chunk: int,
    u: Array,
    state: Array | None,
    grad_y: Array | None,
    grad_state: Array | None,
    threads: int,
) -> Gradients | None:
    """Gradients of y and the final state of x_k = Ā∘x_{k-1} + B̄ u_k, y_k = weight · Re(C x_k), as `Backend.scan_vjp`.

    Args:
        system: in u's dtype.
        chunk: steps at once, a multiple of two vectors.
        u, grad_y: (batch, H, L), L a multiple of the chunk.
        state, grad_state: (batch, H, M), or None for zero.
        threads: changes no result.

    Returns:
        None where a power of Ā within a chunk leaves the range of u's dtype.

    Memory: gradients; per thread the states between the chunks of the rows of a tile; the tables of some channels and,
    at most `TILES` times, their cotangents.

    Accuracy:
        Chunks are counted from the first step.  States, cotangents and the sums of a block of 64 columns for tables are
        sums in any order of fused products in u's dtype.  Sums over blocks, and what parameters have of them, are
        float64 and rounded once.  docs/bounds-gradients.md, The linear recurrence by chunks.

    References: Eq. 2.
    """
    memory, w = MemoryOrder.of(u), lanes(u.dtype)
    batch, n_channels, length = u.shape
    size = 2 * max(1, -(-system.n_modes // w)) * w
    values = system.A_bar, system.B_bar, np.conj(system.weight * system.C)
    parts = np.stack([_parts(value, (n_channels, size), np.float64) for value in values])
    states, cotangents = (_parts(x, (batch, n_channels, size), u.dtype) for x in (state, grad_state))
    flat_u, of_y, grad_u = memory.flat(u), memory.cotangent(grad_y, u.dtype), memory.empty(u.dtype)
    groups, of_parts = -(-batch // TOGETHER), np.empty_like(parts)
    splits = min(groups, max(1, TILES // -(-n_channels // w)))
    at_once = max(CHANNELS, 2 * threads * w)
    for base in range(0, n_channels, at_once):
        some = parts[:, base : base + at_once]
        tables = Tables.of(some, chunk, u.dtype, threads)
        if not tables.finite:
            return None
        count = some.shape[1]
        tiles = -(-count // w)
        channels = base + np.arange(tiles * w).clip(max=count - 1).reshape(-1, w)
        places = np.ascontiguousarray(memory.starts().reshape(batch, -1)[:, channels].swapaxes(0, 1))
        totals = np.zeros((splits, count, size + 2 * chunk * size + chunk**2))
        given = *tables, base, places, groups, splits, batch, flat_u, of_y, memory.flat(grad_u)
        _run_tiles((*given, states, cotangents, totals, length, memory.apart), tiles * splits, threads)
        _pull_back(some, chunk, totals.sum(axis=0), of_parts[:, base : base + at_once], threads)
    found = {"A_bar": of_parts[0], "B_bar": of_parts[1], "C": system.weight * of_parts[2]}
    found["C"][:, size // 2 :] *= -1
    gradients = {name: _whole(found[name], value.shape[-1], value.dtype) for name, value in system.parameters.items()}
    kind = np.result_type(u.dtype, np.complex64) if system.is_complex else u.dtype
    return Gradients(gradients, grad_u, _whole(cotangents, system.n_modes, kind))


def _run_tiles(given: tuple[Any, ...], tiles: int, threads: int) -> None:
    share(lambda first, end: chunk_adjoint_tiles(*given, first, end), tiles, threads)


def _pull_back(parts: Array, chunk: int, totals: Array, of_parts: Array, threads: int) -> None:
    share(lambda first, end: pull_back(*parts, chunk, totals, *of_parts, first, end), parts.shape[1], threads)


def _parts(values: Array | None, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Real parts of numbers (…, M), or of zeros, and then imaginary ones, each padded to half of the last axis."""
    parts = np.zeros(shape, dtype)
    if values is not None:
        n_modes, half = values.shape[-1], shape[-1] // 2
        parts[..., :n_modes], parts[..., half : half + n_modes] = values.real, values.imag
    return parts


def _whole(parts: Array, n_modes: int, dtype: npt.DTypeLike) -> Array:
    """The inverse of `_parts`, rounded to `dtype`; the real parts alone if that is real."""
    half = parts.shape[-1] // 2
    values = np.empty((*parts.shape[:-1], n_modes), dtype)
    values.real = parts[..., :n_modes]
    if np.iscomplexobj(values):
        values.imag = parts[..., half : half + n_modes]
    return values
