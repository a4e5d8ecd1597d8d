"""The scan of few rows, parallel in time: pieces of a sequence are rows of their own.

Two passes: each piece from rest, with the product of its transitions; from these, one piece after the other, the state
in which each begins; then each piece once more, from that state.  About 2.2 times the operations of one pass, on as
many lanes and cores as there are pieces.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from liquid_ssm.systems import DiagonalSystem

from .._memory_order import MemoryOrder
from .caching import compiled, inlined
from .diagonal import Tiles, run_scan, scan
from .scan import COMPONENTS, STEPS, linear_step, liquid_step
from .simd import VECTOR_BYTES, fma, load, splat, store, width
from .threads import share
from .tiles import read_signal

Array = npt.NDArray[Any]

# A piece shorter than this is not worth its share of the serial part.
SHORTEST = 512
# Below this one core is done before others have begun.
LONG = 16384
MOST = 64
# Vectors that the modes of all rows fill: with fewer, one core waits for the latency of its own multiply-adds.
FEW_VECTORS = 1


def pieces_for(rows: int, n_modes: int, length: int, dtype: npt.DTypeLike) -> int:
    """How many pieces a scan of this shape is cut into; 1 where there are rows enough.

    The shape alone decides, not the cores of this machine, so that results do not depend on them.
    """
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    if length < LONG or not 0 < rows * n_modes <= FEW_VECTORS * lanes:
        return 1
    return min(MOST, length // SHORTEST)


@inlined
def _summary_mode(pack, o, u, steps, state, product, s, liquid):  # type: ignore[no-untyped-def]
    """One mode over one block: its state and the product of its transitions."""
    w = width(state)
    ar, ai, br, bi = load(pack, o), load(pack, o + w), load(pack, o + 2 * w), load(pack, o + 3 * w)
    xr, xi = load(state, s), load(state, s + w)
    pr, pi = load(product, s), load(product, s + w)
    for t in range(steps):
        now = load(u, t * w)
        if liquid:
            xr, xi = liquid_step(ar, ai, br, bi, now, xr, xi)
            tr, ti = fma(br, now, ar), fma(bi, now, ai)
        else:
            xr, xi = linear_step(ar, ai, br * now, bi * now, xr, xi)
            tr, ti = ar, ai
        pr, pi = fma(tr, pr, -(ti * pi)), fma(tr, pi, ti * pr)
    store(state, s, xr)
    store(state, s + w, xi)
    store(product, s, pr)
    store(product, s + w, pi)


@compiled
def summary_tiles(packs, offsets, u, states, products, length, apart, liquid, first, end):  # type: ignore[no-untyped-def]
    """The first pass over tiles `first` … `end` - 1; `states` and `products` as in `scan_tiles`, both written."""
    n_packs = packs.shape[0]
    w = width(states)
    depth = states.shape[1] // (2 * w)
    inputs = np.empty(STEPS * w, states.dtype)
    one, zero = splat(states.dtype.type(1)), splat(states.dtype.type(0))
    for tile in range(first, end):
        pack, state, product = packs[tile % n_packs], states[tile], products[tile]
        for v in range(depth):
            store(product, 2 * v * w, one)
            store(product, (2 * v + 1) * w, zero)
        for start in range(0, length, STEPS):
            steps = min(STEPS, length - start)
            read_signal(u, offsets[tile], start, steps, apart, inputs, 0)
            for v in range(depth):
                _summary_mode(pack, v * COMPONENTS * w, inputs, steps, state, product, v * 2 * w, liquid)


def scan_in_pieces(
    system: DiagonalSystem,
    u: Array,
    state: Array | None,
    *,
    liquid: bool,
    pieces: int,
    threads: int,
    state_dtype: npt.DTypeLike | None = None,
) -> tuple[Array, Array]:
    """`diagonal.scan` with every row cut into `pieces` pieces of L // pieces steps; what is left over comes last.

    Accuracy: a scan whose states are passed on in the order of time after every L // pieces steps; the products
    that join them are not fused (docs/bounds.md, Scans).
    """
    batch, n_channels, length = u.shape
    whole = length - length % pieces
    tiles = Tiles(system, u[..., :whole], state_dtype, pieces)
    layout, by_piece = tiles.layout, (batch, n_channels, pieces, system.n_modes)
    ends, products = tiles.planes(None), tiles.planes(None)

    def summarise(first: int, end: int) -> None:
        summary_tiles(tiles.packs, tiles.offsets, tiles.u, ends, products, *tiles.steps, liquid, first, end)

    share(summarise, layout.tiles, threads)
    from_rest, factors = (tiles.rows(planes).reshape(by_piece) for planes in (ends, products))
    starts = np.zeros(by_piece, tiles.kind)
    x = starts[:, :, 0] if state is None else np.asarray(state, tiles.kind)
    for i in range(pieces):
        starts[:, :, i] = x
        x = factors[:, :, i] * x + from_rest[:, :, i]
    y = MemoryOrder.of(u).empty(u.dtype)
    states = tiles.planes(starts.reshape(layout.rows, system.n_modes))
    y[..., :whole] = run_scan(tiles, states, liquid=liquid, threads=threads)
    final = tiles.rows(states).reshape(by_piece)[:, :, -1]
    if whole == length:
        return y, np.ascontiguousarray(final)
    rest = scan(system, u[..., whole:], final, liquid=liquid, threads=threads, state_dtype=state_dtype)
    y[..., whole:] = rest[0]
    return y, rest[1]
