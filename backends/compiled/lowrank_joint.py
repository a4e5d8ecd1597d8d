"""`kb` over adjacent index tuples on "diagonal plus low rank" systems as one recurrence, and its adjoint.

x_k = Ā x_{k-1} + Σ_p B̄^p c_p(k), c_p(k) = u_k u_{k-1} … u_{k-p+1}, y_k = weight · Re(C x_k) (Eq. 14).  All orders have
one cotangent ν of the state; an order costs Σ_k ν_k c_p(k), for its power of B̄, and Re conj(B̄^p) ν_k, for its product.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from liquid_ssm.backend import Gradients
from liquid_ssm.systems import DPLRSystem

from .adjacent import drive, hand_back, multiply, power_sums, pull_back, read_with_earlier
from .caching import compiled, inlined
from .joint import of_input, powers_of
from .lowrank import Tiles
from .lowrank_adjoint import enter, factor_sums, retreat
from .lowrank_forward import LINEAR, STEPS, copy, start
from .lowrank_lanes import aligned
from .lowrank_sweep import DRIVE, FACTORS, OUTPUT, PER_RANK, coupled, joined, lowered, product, project, put
from .scan import clear, linear_step
from .simd import fma, load, splat, store, width
from .threads import share
from .tiles import read_signal, write_rows, write_signal

Array = npt.NDArray[Any]


@inlined
def joint_sweep(  # type: ignore[no-untyped-def]
    pack, powers, depth, rank, paired, group, order, products, t, reads, states, source, target, stride, low_rank, s,
    at, to,
):  # fmt: skip
    """`sweep` with the drive Σ_p B̄^p c_p(t), to which Λ̄ x is accumulated: 8 + 2 · order operations per mode with pairs
    and rank 1, 2 more for the read-out.
    """
    w = width(states)
    nothing = splat(states.dtype.type(0))
    s_real, s_imaginary, y_real, y_imaginary = nothing, nothing, nothing, nothing
    sr, si = load(s, at), load(s, at + w)
    coupled(pack, depth, rank, paired, s, at, low_rank)
    for v in range(depth):
        o, m = v * (FACTORS + PER_RANK * rank) * w, v * stride
        wr, wi = drive(powers, v * 2 * order * w, products, t, order)
        xr, xi = load(states, source + m), load(states, source + m + w)
        xr, xi = linear_step(load(pack, o), load(pack, o + w), wr, wi, xr, xi)
        xr, xi = lowered(pack, o, rank, paired, low_rank, 2 * v * w, sr, si, xr, xi)
        store(states, target + m, xr)
        store(states, target + m + w, xi)
        q = o + (FACTORS + 2) * w
        s_real, s_imaginary = joined(load(pack, q), load(pack, q + w), xr, xi, paired, s_real, s_imaginary)
        if reads:
            y_real = fma(load(pack, o + OUTPUT * w), xr, y_real)
            y_imaginary = fma(load(pack, o + (OUTPUT + 1) * w), xi, y_imaginary)
    put(s_real, s_imaginary, paired, group, s, to)
    for r in range(1, rank):
        project(pack, depth, rank, r, paired, group, states, target, stride, s, to + 2 * r * w)
    return y_real, y_imaginary


@inlined
def joint_advance(  # type: ignore[no-untyped-def]
    pack, powers, depth, rank, paired, group, order, products, steps, states, stride, moves, low_rank, s, out, reads
):
    """A block of steps for one tile: `advance` of the linear recurrence, with products of inputs for inputs."""
    w = width(states)
    per_slot = 2 * rank * w
    for t in range(steps):
        x, at = t * moves * 2 * w, t * moves * per_slot
        # The common case by itself: its loops over orders have constant bounds, and no branches for other systems.
        if order == 3 and paired and rank == 1:
            real, imaginary = joint_sweep(
                pack, powers, depth, 1, True, group, 3, products, t, reads,
                states, x, x + moves * 2 * w, stride, low_rank, s, at, at + moves * per_slot,
            )  # fmt: skip
        else:
            real, imaginary = joint_sweep(
                pack, powers, depth, rank, paired, group, order, products, t, reads,
                states, x, x + moves * 2 * w, stride, low_rank, s, at, at + moves * per_slot,
            )  # fmt: skip
        if reads:
            store(out, t * w, real - imaginary)


@compiled
def lowrank_joint_tiles(  # type: ignore[no-untyped-def]
    packs, powers, offsets, rows, group, rank, paired, order, u, y, states, kept, length, apart, first, end
):
    """Tiles `first` … `end` - 1.

    Args:
        powers: (packs, depth · 2 · order · W): B̄^p for p = 1 … order.
        states: (tiles, depth · 2 · W) zeros; replaced by the final ones.
        others: as in `lowrank_tiles`.
    """
    w = width(states)
    per_mode = (FACTORS + PER_RANK * rank) * w
    depth, count = packs.shape[1] // per_mode, states.shape[1] // w
    per_tile = w // group
    pack, power = aligned(packs, packs.shape[1]), aligned(powers, powers.shape[1])
    x, s, low_rank = aligned(states, count * w), aligned(states, 2 * rank * w), aligned(states, 2 * depth * w)
    inputs, products = aligned(states, (STEPS + order - 1) * w), aligned(states, STEPS * order * w)
    outputs, block = aligned(states, STEPS * w), aligned(states, w * w)
    for tile in range(first, end):
        places, n_rows = offsets[tile], min(per_tile, rows - tile * per_tile)
        copy(packs[tile % packs.shape[0]], 0, pack, 0, packs.shape[1] // w)
        copy(powers[tile % packs.shape[0]], 0, power, 0, powers.shape[1] // w)
        copy(states[tile], 0, x, 0, count)
        start(pack, depth, rank, paired, group, 1, x, 2 * w, 0, s)
        for begin in range(0, length, STEPS):
            steps = min(STEPS, length - begin)
            if kept.shape[0] > 0:
                copy(x, 0, kept[tile], begin // STEPS * count * w, count)
            read_with_earlier(u, places, begin, steps, apart, order - 1, inputs)
            multiply(inputs, products, steps, order)
            joint_advance(
                pack, power, depth, rank, paired, group, order, products, steps, x, 2 * w, 0, low_rank, s, outputs, True
            )  # fmt: skip
            write_signal(outputs, steps, group, n_rows, y, places, begin, apart, block)
        copy(x, 0, states[tile], 0, count)


@inlined
def own_sums(g, steps, states, x, cotangents, n, scratch):  # type: ignore[no-untyped-def]
    """One mode over a block: sums for Λ̄ and C in `scratch`, zeros for B̄; 8 operations a step."""
    w = width(states)
    nothing = splat(states.dtype.type(0))
    lr, li, cr, ci = nothing, nothing, nothing, nothing
    xr, xi = load(states, x), load(states, x + w)
    for t in range(steps):
        slot = 2 * t * w
        qr, qi = product(xr, -xi, load(cotangents, n + slot + 2 * w), load(cotangents, n + slot + 3 * w))
        lr, li = lr + qr, li + qi
        xr, xi = load(states, x + slot + 2 * w), load(states, x + slot + 3 * w)
        of_y = load(g, t * w)
        cr, ci = fma(of_y, xr, cr), fma(-of_y, xi, ci)
    store(scratch, 0, lr)
    store(scratch, w, li)
    store(scratch, DRIVE * w, nothing)
    store(scratch, (DRIVE + 1) * w, nothing)
    store(scratch, OUTPUT * w, cr)
    store(scratch, (OUTPUT + 1) * w, ci)


@inlined
def joint_collect(  # type: ignore[no-untyped-def]
    powers, depth, rank, paired, order, products, g, steps, states, cotangents, stride, s, turned, of_products, scratch,
    of_powers, totals, power_totals,
):  # fmt: skip
    """Sums of a block over time are added to `totals` and `power_totals` in their dtype; `of_products` is written."""
    w = width(states)
    components, per_slot = FACTORS + PER_RANK * rank, 2 * rank * w
    clear(of_products, steps * order)
    for v in range(depth):
        x, o, q = v * stride, v * components * w, v * 2 * order * w
        own_sums(g, steps, states, x, cotangents, x, scratch)
        for r in range(rank):
            to = (FACTORS + PER_RANK * r) * w
            factor_sums(paired, steps, states, x, cotangents, x, s, 2 * r * w, turned, per_slot, scratch, to)
        n = x + 2 * w
        # Loops with constant bounds save a fifth of the adjoint's time.
        if order == 3:
            power_sums(powers, q, products, steps, 3, cotangents, n, 2 * w, of_products, of_powers)
        else:
            power_sums(powers, q, products, steps, order, cotangents, n, 2 * w, of_products, of_powers)
        for i in range(components * w):
            totals[o + i] += scratch[i]
        for i in range(2 * order * w):
            power_totals[q + i] += of_powers[i]


@compiled
def lowrank_joint_adjoint_tiles(  # type: ignore[no-untyped-def]
    packs, turned_packs, powers, offsets, before, rows, group, rank, paired, order, u, grad_y, grad_u, grad_before,
    kept, cotangents, totals, power_totals, length, apart, first, end,
):  # fmt: skip
    """Tiles `first` … `end` - 1 of the adjoint of `lowrank_joint_tiles`, whose arguments it takes besides.

    Args:
        turned_packs, grad_y, grad_u, totals: as in `lowrank_adjoint_tiles`.
        before: (tiles, W) where the row of each lane begins in `grad_before`, the gradient of `order` - 1 inputs before
            the first, which are zeros.
        kept: as in `lowrank_adjoint_tiles`.
        cotangents: (tiles, depth · 2 · W) zeros; replaced by those of the initial states.
        power_totals: (tiles, depth · 2 · order · W) float64; gradients of the powers of B̄ are added.
    """
    w = width(cotangents)
    per_mode = (FACTORS + PER_RANK * rank) * w
    depth, count = packs.shape[1] // per_mode, cotangents.shape[1] // w
    per_tile, blocks, earlier = w // group, (length + STEPS - 1) // STEPS, order - 1
    # An odd number of slots, so that modes do not all fall into the same sets of the cache.
    slots = min(STEPS, length) + 1
    stride, per_slot = 2 * (slots | 1) * w, 2 * rank * w
    pack, turned_pack = aligned(packs, packs.shape[1]), aligned(packs, packs.shape[1])
    power = aligned(powers, powers.shape[1])
    known = kept.shape[0] > 0
    found, now = aligned(packs, 1 if known else max(blocks, 1) * count * w), aligned(packs, count * w)
    x, n = aligned(packs, depth * stride), aligned(packs, depth * stride)
    s, turned = aligned(packs, slots * per_slot), aligned(packs, slots * per_slot)
    low_rank, scratch = aligned(packs, 2 * depth * w), aligned(packs, per_mode)
    of_powers = aligned(packs, 2 * order * w)
    inputs, gradient = aligned(packs, (earlier + STEPS) * w), aligned(packs, (earlier + STEPS) * w)
    products, of_products = aligned(packs, STEPS * order * w), aligned(packs, STEPS * order * w)
    g, block = aligned(packs, STEPS * w), aligned(packs, w * w)
    for tile in range(first, end):
        places, n_rows = offsets[tile], min(per_tile, rows - tile * per_tile)
        copy(packs[tile % packs.shape[0]], 0, pack, 0, packs.shape[1] // w)
        copy(turned_packs[tile % packs.shape[0]], 0, turned_pack, 0, packs.shape[1] // w)
        copy(powers[tile % packs.shape[0]], 0, power, 0, powers.shape[1] // w)
        states = kept[tile] if known else found
        clear(now, count)
        start(pack, depth, rank, paired, group, 1, now, 2 * w, 0, s)
        for b in range(0 if known else blocks):
            copy(now, 0, found, b * count * w, count)
            if b < blocks - 1:
                read_with_earlier(u, places, b * STEPS, STEPS, apart, earlier, inputs)
                multiply(inputs, products, STEPS, order)
                joint_advance(
                    pack, power, depth, rank, paired, group, order, products, STEPS, now, 2 * w, 0, low_rank, s, g,
                    False,
                )  # fmt: skip
        for v in range(depth):
            copy(cotangents[tile], v * 2 * w, n, v * stride, 2)
        clear(gradient, earlier + STEPS)
        for k in range(blocks):
            b = blocks - 1 - k
            begin = b * STEPS
            steps = min(STEPS, length - begin)
            read_with_earlier(u, places, begin, steps, apart, earlier, inputs)
            multiply(inputs, products, steps, order)
            read_signal(grad_y, places, begin, steps, apart, g, 0)
            for v in range(depth):
                copy(states, (b * count + 2 * v) * w, x, v * stride, 2)
            start(pack, depth, rank, paired, group, 1, x, stride, 0, s)
            joint_advance(
                pack, power, depth, rank, paired, group, order, products, steps, x, stride, 1, low_rank, s, g, False
            )  # fmt: skip
            enter(turned_pack, depth, 1, LINEAR, load(g, (steps - 1) * w), steps, n, stride)
            start(turned_pack, depth, rank, paired, group, 1, n, stride, steps, turned)
            retreat(
                turned_pack, depth, rank, paired, group, 1, LINEAR, inputs, g, steps, n, stride, low_rank, turned
            )  # fmt: skip
            joint_collect(
                power, depth, rank, paired, order, products, g, steps, x, n, stride, s, turned, of_products, scratch,
                of_powers, totals[tile], power_totals[tile],
            )  # fmt: skip
            pull_back(inputs, products, of_products, steps, order, gradient)
            write_signal(gradient[earlier * w :], steps, group, n_rows, grad_u, places, begin, apart, block)
            if b > 0:
                hand_back(gradient, earlier, STEPS)
        write_rows(gradient, earlier, group, n_rows, grad_before, before[tile], 0, 0, block)
        for v in range(depth):
            copy(n, v * stride, cotangents[tile], v * 2 * w, 2)


def lowrank_joint_scan(
    system: DPLRSystem, u: Array, *, order: int, threads: int, state_dtype: npt.DTypeLike | None = None
) -> Array:
    """y (batch, H, L) from rest.

    Accuracy: as `lowrank_run`, with a drive as in `joint_scan`; Λ̄ x is accumulated to it, so the low-rank part is
    subtracted from a sum that has the drive in it.
    """
    tiles = Tiles(system, u, "linear", 1, state_dtype)
    packs, powers, states, y = tiles.packs(), _powers(tiles, order), tiles.states_in(None), tiles.memory.empty(u.dtype)
    offsets, rows, group, rank, paired, _, _, given = tiles.arguments
    kept = tiles.room_for_blocks()

    def work(first: int, end: int) -> None:
        lowrank_joint_tiles(
            packs, powers, offsets, rows, group, rank, paired, order, given, tiles.memory.flat(y), states, kept,
            *tiles.steps, first, end,
        )  # fmt: skip

    share(work, tiles.layout.tiles, threads)
    return y


def lowrank_joint_vjp(
    system: DPLRSystem,
    u: Array,
    grad_y: Array | None,
    *,
    order: int,
    threads: int,
    state_dtype: npt.DTypeLike | None = None,
) -> Gradients:
    """Adjoint of `lowrank_joint_scan`; the state's gradients are as in `joint_vjp`.

    Memory and accuracy: as `lowrank_vjp`; a cotangent of c_p passes at most 2 · order products and additions to inputs.
    """
    tiles = Tiles(system, u, "linear", 1, state_dtype)
    layout, earlier = tiles.layout, order - 1
    packs, turned_packs, powers = tiles.packs(), tiles.packs(adjoint=True), _powers(tiles, order)
    cotangents = tiles.states_in(None)
    grad_u, grad_before = tiles.memory.empty(u.dtype), np.empty((*u.shape[:2], earlier), u.dtype)
    of_y = tiles.memory.cotangent(grad_y, u.dtype)
    totals = np.zeros((layout.tiles, layout.depth * tiles.components * layout.lanes))
    power_totals = np.zeros((layout.tiles, layout.depth * 2 * order * layout.lanes))
    offsets, rows, group, rank, paired, _, _, given = tiles.arguments
    kept = tiles.kept_blocks()

    def work(first: int, end: int) -> None:
        lowrank_joint_adjoint_tiles(
            packs, turned_packs, powers, offsets, layout.row_of_lane * earlier, rows, group, rank, paired, order, given,
            of_y, tiles.memory.flat(grad_u), grad_before.reshape(-1), kept, cotangents, totals, power_totals,
            *tiles.steps, first, end,
        )  # fmt: skip

    share(work, layout.tiles, threads)
    parts = layout.unpacked(power_totals.reshape(layout.tiles, layout.depth, 2 * order, layout.lanes))
    gradients = tiles.gradients(totals) | {"B_bar": of_input(system.B_bar, parts[0::2] + 1j * parts[1::2])}
    return Gradients(gradients, grad_u, (tiles.states_out(cotangents)[:, 0], grad_before))


def _powers(tiles: Tiles, order: int) -> Array:
    """(packs, depth · 2 · order · W): B̄^p for p = 1 … order."""
    layout = tiles.layout
    planes = [part for power in powers_of(tiles.system.B_bar, order) for part in (power.real, power.imag)]
    return np.ascontiguousarray(layout.packed(planes, tiles.dtype)).reshape(layout.packs, -1)
