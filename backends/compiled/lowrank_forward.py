"""The recurrences on "diagonal plus low rank" systems, forwards: Eq. 2, 11, 12 and the chains of Eq. 14.

Serial in time, one sweep over the modes per step and order, states and parameters of a tile in the first-level cache.
"""

from __future__ import annotations

from .caching import compiled, inlined
from .lowrank_lanes import aligned
from .lowrank_sweep import DRIVE, FACTORS, PER_RANK, project, sweep
from .simd import load, splat, store, width
from .tiles import read_signal, write_signal

# Time steps of a block: its inputs and outputs stay in the first-level cache, its set-up costs little.
STEPS = 64
LINEAR, LIQUID, TRUNCATED, CHAIN = 0, 1, 2, 3


@compiled
def advance(  # type: ignore[no-untyped-def]
    pack, depth, rank, paired, group, order, kind, u, steps, states, stride, moves, low_rank, s, out, reads
):
    """A block of steps for one tile.

    Args:
        u, out: (steps, W) inputs, and outputs if `reads`.
        states: mode v of order p at (p · depth + v) · stride; step t begins in slot t · moves (two vectors each) and
            ends in the next, or in the same one if `moves` is 0.
        low_rank: as in `sweep`.
        s: their functionals, (slots, order, rank, 2, W); those of the first slot are given.
    """
    w = width(states)
    per_order, per_slot = depth * stride, 2 * order * rank * w
    nothing = splat(states.dtype.type(0))
    # The common case by itself: a sweep without branches for the others is a fifth faster.
    if order == 1 and paired and rank == 1:
        for t in range(steps):
            now = load(u, t * w)
            x, at = t * moves * 2 * w, t * moves * per_slot
            real, imaginary = sweep(
                pack, depth, 1, True, group, DRIVE, now, now, kind == LIQUID, 0, True, reads,
                states, x, x + moves * 2 * w, x, stride, low_rank, s, at, at + moves * per_slot,
            )  # fmt: skip
            if reads:
                store(out, t * w, real - imaginary)
        return
    for t in range(steps):
        now = load(u, t * w)
        slot = t * moves
        real, imaginary = nothing, nothing
        # From the highest order down: each takes the old state of the one below.
        for q in range(order):
            p = order - 1 - q
            feed = 0 if p == 0 else (1 if kind == TRUNCATED else 2)
            seen = reads and (kind == TRUNCATED or q == 0)
            x, at = p * per_order + slot * 2 * w, slot * per_slot + p * 2 * rank * w
            y_real, y_imaginary = sweep(
                pack, depth, rank, paired, group, DRIVE, now, now, kind == LIQUID, feed, p == 0, seen,
                states, x, x + moves * 2 * w, x - per_order, stride, low_rank, s, at, at + moves * per_slot,
            )  # fmt: skip
            real, imaginary = real + y_real, imaginary + y_imaginary
        if reads:
            store(out, t * w, real - imaginary)


@inlined
def start(pack, depth, rank, paired, group, order, states, stride, slot, s):  # type: ignore[no-untyped-def]
    """The functionals of the states in a slot, all orders."""
    w = width(states)
    for p in range(order):
        x, at = p * depth * stride + slot * 2 * w, (slot * order + p) * 2 * rank * w
        for r in range(rank):
            project(pack, depth, rank, r, paired, group, states, x, stride, s, at + 2 * r * w)


@inlined
def copy(source, start, target, to, count):  # type: ignore[no-untyped-def]
    """`count` vectors."""
    w = width(target)
    for i in range(count):
        store(target, to + i * w, load(source, start + i * w))


@compiled
def lowrank_tiles(  # type: ignore[no-untyped-def]
    packs, offsets, rows, group, rank, paired, order, kind, u, y, states, kept, length, apart, first, end
):
    """Tiles `first` … `end` - 1.

    Args:
        packs: (packs, depth · (FACTORS + PER_RANK · rank) · W) parameters; 2 C and 2 Q̄ for C and Q̄ if `paired`.
        offsets: (tiles, W) where the row of each lane begins in `u` and `y`.
        rows: number of rows; lanes beyond them are computed and dropped.
        rank: at least 1.
        u, y: one-dimensional; `y` is written.
        apart: numbers from one time step of a row to the next in `u` and `y`.
        states: (tiles, order · depth · 2 · W), in the dtype of the computation; replaced by the final ones.
        kept: (tiles, blocks · order · depth · 2 · W), gets those before each block; or (0, 0).
    """
    w = width(states)
    per_mode = (FACTORS + PER_RANK * rank) * w
    depth, count = packs.shape[1] // per_mode, states.shape[1] // w
    per_tile = w // group
    pack, x = aligned(packs, packs.shape[1]), aligned(states, count * w)
    s, low_rank = aligned(states, 2 * order * rank * w), aligned(states, 2 * depth * w)
    inputs, outputs, block = aligned(states, STEPS * w), aligned(states, STEPS * w), aligned(states, w * w)
    for tile in range(first, end):
        places, n_rows = offsets[tile], min(per_tile, rows - tile * per_tile)
        copy(packs[tile % packs.shape[0]], 0, pack, 0, packs.shape[1] // w)
        copy(states[tile], 0, x, 0, count)
        start(pack, depth, rank, paired, group, order, x, 2 * w, 0, s)
        for begin in range(0, length, STEPS):
            steps = min(STEPS, length - begin)
            if kept.shape[0] > 0:
                copy(x, 0, kept[tile], begin // STEPS * count * w, count)
            read_signal(u, places, begin, steps, apart, inputs, 0)
            advance(
                pack, depth, rank, paired, group, order, kind, inputs, steps, x, 2 * w, 0, low_rank, s, outputs, True
            )  # fmt: skip
            write_signal(outputs, steps, group, n_rows, y, places, begin, apart, block)
        copy(x, 0, states[tile], 0, count)
