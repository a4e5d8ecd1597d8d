"""Gradients of Eq. 2 on diagonal systems by chunks of Q steps: arrays in, tiles of work to the threads, arrays out.

Step by step, a mode's cotangents wait for those of the step after, and one number of a table serves one row.  By chunks
everything but the step from chunk to chunk is a product of matrices: less than half of the time for 32 modes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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

# Steps of a chunk, the longer the better where both divide a length.
CHUNKS = (64, 32)
# Tiles that a call should have, for cores to share.
TILES = 16


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


@dataclass(frozen=True)
class Tables:
    """What chunks of a system need, as `chunk_adjoint_tiles` takes it.

    Args:
        parts: (3, H, P) float64, of Ā, B̄ and conj(weight · C), real parts of all modes and then the imaginary ones.
        kernel, inputs, turned_inputs, turned_outputs, transition, turned_transition: in the dtype of the computation.
    """

    parts: Array
    kernel: Array
    inputs: Array
    turned_inputs: Array
    turned_outputs: Array
    transition: Array
    turned_transition: Array

    @classmethod
    def of(cls, system: DiagonalSystem, chunk: int, dtype: npt.DTypeLike, threads: int) -> Tables:
        """Tables of a system for chunks of `chunk` steps, a multiple of two vectors of `dtype`.

        Accuracy:
            Powers by products in float64, K_i by sums in it; each number is rounded once to `dtype`.
        """
        w = lanes(dtype)
        size, n_channels = 2 * max(1, -(-system.n_modes // w)) * w, system.n_channels
        values = system.A_bar, system.B_bar, np.conj(system.weight * system.C)
        parts = np.stack([_parts(value, (n_channels, size), np.float64) for value in values])
        wide, narrow = (n_channels, chunk * size), (n_channels, size)
        tables = [np.empty(shape, dtype) for shape in ((n_channels, 2 * chunk), wide, wide, wide, narrow, narrow)]
        with np.errstate(over="ignore"):
            share(lambda first, end: fill_tables(*parts, *tables, first, end), n_channels, threads)
        return cls(parts, *tables)

    @property
    def chunk(self) -> int:
        return int(self.kernel.shape[1] // 2)

    @property
    def finite(self) -> bool:
        """False where a power of Ā within a chunk leaves the dtype's range; only then do not use these tables."""
        tables = self.kernel, self.inputs, self.turned_outputs, self.transition
        return all(bool(np.isfinite(t).all()) for t in tables)


def chunked_vjp(
    system: DiagonalSystem,
    tables: Tables,
    u: Array,
    state: Array | None,
    grad_y: Array | None,
    grad_state: Array | None,
    threads: int,
) -> Gradients:
    """Gradients of y and the final state of x_k = Ā∘x_{k-1} + B̄ u_k, y_k = weight · Re(C x_k), as `Backend.scan_vjp`.

    Args:
        tables: of the system, in u's dtype.
        u, grad_y: (batch, H, L), L a multiple of the chunk.
        state, grad_state: (batch, H, M), or None for zero.
        threads: changes no result.

    Memory: gradients and tables; per thread the states between the chunks of the rows of a tile; for each channel, at
    most `TILES` times, the cotangents of its tables.

    Accuracy:
        Chunks are counted from the first step.  States, cotangents and the sums of a block of 64 columns for tables are
        sums in any order of fused products in u's dtype.  Sums over blocks, and what parameters have of them, are
        float64 and rounded once.  docs/bounds-gradients.md, The linear recurrence by chunks.

    References: Eq. 2.
    """
    memory, t = MemoryOrder.of(u), tables
    batch, n_channels, length = u.shape
    size, w = t.parts.shape[-1], lanes(u.dtype)
    channel_tiles, groups = -(-n_channels // w), -(-batch // TOGETHER)
    channels = np.arange(channel_tiles * w).clip(max=n_channels - 1).reshape(-1, w)
    places = np.ascontiguousarray(memory.starts().reshape(batch, -1)[:, channels].swapaxes(0, 1))
    parts = min(groups, max(1, TILES // channel_tiles))
    states, cotangents = (_parts(x, (batch, n_channels, size), u.dtype) for x in (state, grad_state))
    grad_u = memory.empty(u.dtype)
    totals = np.zeros((parts, n_channels, size + 2 * t.chunk * size + t.chunk**2))
    given = (
        t.kernel, t.inputs, t.turned_inputs, t.turned_outputs, t.transition, t.turned_transition, places, groups, parts,
        batch, memory.flat(u), memory.cotangent(grad_y, u.dtype),
    )  # fmt: skip
    written = memory.flat(grad_u), states, cotangents, totals, length, memory.apart
    share(lambda first, end: chunk_adjoint_tiles(*given, *written, first, end), channel_tiles * parts, threads)
    sums = totals[0] if parts == 1 else totals.sum(axis=0)
    of = np.empty_like(t.parts)
    share(lambda first, end: pull_back(*t.parts, t.chunk, sums, *of, first, end), n_channels, threads)
    found = {"A_bar": of[0], "B_bar": of[1], "C": system.weight * of[2]}
    found["C"][:, size // 2 :] *= -1
    gradients = {name: _whole(found[name], value.shape[-1], value.dtype) for name, value in system.parameters.items()}
    kind = np.result_type(u.dtype, np.complex64) if system.is_complex else u.dtype
    return Gradients(gradients, grad_u, _whole(cotangents, system.n_modes, kind))


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
