"""The adjoint of the recurrences on "diagonal plus low rank" systems.

One state per block of time is kept on the way forward; a block's states are computed again, with the same rounding,
then its cotangents backwards in time, and from both, mode after mode, the gradients.
"""

from __future__ import annotations

from .caching import compiled, inlined
from .lowrank_forward import CHAIN, LIQUID, STEPS, TRUNCATED, advance, copy, start
from .lowrank_lanes import aligned
from .lowrank_sweep import DRIVE, FACTORS, OUTPUT, PER_RANK, product, sweep
from .simd import fma, load, splat, store, width
from .tiles import read_signal, write_signal


@inlined
def enter(pack, depth, order, kind, g, slot, cotangents, stride):  # type: ignore[no-untyped-def]
    """Cotangents after the last step of a block, in `slot`: what comes from later, in slot 0, and the output's."""
    w = width(cotangents)
    components = pack.size // (depth * w)
    for p in range(order):
        seen = kind == TRUNCATED or p == order - 1
        for v in range(depth):
            n, o = (p * depth + v) * stride, (v * components + OUTPUT) * w
            nr, ni = load(cotangents, n), load(cotangents, n + w)
            if seen:
                nr, ni = fma(load(pack, o), g, nr), fma(load(pack, o + w), g, ni)
            store(cotangents, n + slot * 2 * w, nr)
            store(cotangents, n + slot * 2 * w + w, ni)


@inlined
def retreat(  # type: ignore[no-untyped-def]
    pack, depth, rank, paired, group, order, kind, u, g, steps, cotangents, stride, low_rank, s
):
    """Cotangents of a block of steps, from that in slot `steps` down to slot 0, without the output's there.

    Args:
        pack: of the adjoint system.
        u, g: (steps, W) inputs and cotangents of outputs.
        cotangents, s: as `states` and `s` of `advance`.
    """
    w = width(cotangents)
    per_order, per_slot = depth * stride, 2 * order * rank * w
    nothing = splat(cotangents.dtype.type(0))
    for k in range(steps):
        t = steps - 1 - k
        now = load(u, t * w)
        before = nothing
        if t > 0:
            before = load(g, (t - 1) * w)
        # The common case by itself, as in `advance`.
        if order == 1 and paired and rank == 1:
            n, at = (t + 1) * 2 * w, (t + 1) * per_slot
            sweep(
                pack, depth, 1, True, group, OUTPUT, now, before, kind == LIQUID, 0, True,
                False, cotangents, n, n - 2 * w, n, stride, low_rank, s, at, at - per_slot,
            )  # fmt: skip
            continue
        for p in range(order):
            last = p == order - 1
            feed = 0 if last else (1 if kind == TRUNCATED else 2)
            n, at = p * per_order + (t + 1) * 2 * w, (t + 1) * per_slot + p * 2 * rank * w
            sweep(
                pack, depth, rank, paired, group, OUTPUT, now, before, kind == LIQUID, feed, last or kind == TRUNCATED,
                False, cotangents, n, n - 2 * w, n + per_order, stride, low_rank, s, at, at - per_slot,
            )  # fmt: skip


@inlined
def own_sums(pack, o, kind, p, last, u, g, steps, states, x, below, cotangents, n, du, scratch):  # type: ignore[no-untyped-def]
    """One mode and order over a block: sums for Λ̄, B̄ and C in `scratch`; what its drive adds to `du`.

    14 operations a step, at most 2 more.
    """
    w = width(states)
    nothing = splat(states.dtype.type(0))
    lr, li, br, bi, cr, ci = nothing, nothing, nothing, nothing, nothing, nothing
    Br, Bi = load(pack, o + DRIVE * w), load(pack, o + (DRIVE + 1) * w)
    xr, xi = load(states, x), load(states, x + w)
    for t in range(steps):
        slot = 2 * t * w
        nr, ni = load(cotangents, n + slot + 2 * w), load(cotangents, n + slot + 3 * w)
        qr, qi = product(xr, -xi, nr, ni)
        lr, li = lr + qr, li + qi
        if p > 0 and kind == CHAIN:
            yr, yi = load(states, below + slot), load(states, below + slot + w)
            store(du, t * w, fma(yi, ni, fma(yr, nr, load(du, t * w))))
        else:
            dr, di = nr, ni
            if p > 0:
                dr, di = product(load(states, below + slot), -load(states, below + slot + w), nr, ni)
            elif kind == LIQUID:
                dr, di = nr + qr, ni + qi
            now = load(u, t * w)
            br, bi = fma(now, dr, br), fma(now, di, bi)
            store(du, t * w, fma(Bi, di, fma(Br, dr, load(du, t * w))))
        xr, xi = load(states, x + slot + 2 * w), load(states, x + slot + 3 * w)
        if last or kind == TRUNCATED:
            of_y = load(g, t * w)
            cr, ci = fma(of_y, xr, cr), fma(-of_y, xi, ci)
    store(scratch, 0, lr)
    store(scratch, w, li)
    store(scratch, DRIVE * w, br)
    store(scratch, (DRIVE + 1) * w, bi)
    store(scratch, OUTPUT * w, cr)
    store(scratch, (OUTPUT + 1) * w, ci)


@inlined
def factor_sums(paired, steps, states, x, cotangents, n, s, at, turned, per_slot, scratch, to):  # type: ignore[no-untyped-def]
    """The same for P̄_r and Q̄_r: Σ conj(s) ν and Σ conj(σ) x, σ the cotangent's functional; 4 operations, or 8."""
    w = width(states)
    nothing = splat(states.dtype.type(0))
    pr, pi, qr, qi = nothing, nothing, nothing, nothing
    for t in range(steps):
        slot, i = 2 * t * w, at + t * per_slot
        nr, ni = load(cotangents, n + slot + 2 * w), load(cotangents, n + slot + 3 * w)
        xr, xi = load(states, x + slot), load(states, x + slot + w)
        sr, tr = load(s, i), load(turned, i + per_slot)
        pr, pi = fma(sr, nr, pr), fma(sr, ni, pi)
        qr, qi = fma(tr, xr, qr), fma(tr, xi, qi)
        if not paired:
            si, ti = load(s, i + w), load(turned, i + per_slot + w)
            pr, pi = fma(si, ni, pr), fma(-si, nr, pi)
            qr, qi = fma(ti, xi, qr), fma(-ti, xr, qi)
    store(scratch, to, pr)
    store(scratch, to + w, pi)
    store(scratch, to + 2 * w, qr)
    store(scratch, to + 3 * w, qi)


@inlined
def collect(  # type: ignore[no-untyped-def]
    pack,
    depth,
    rank,
    paired,
    order,
    kind,
    u,
    g,
    steps,
    states,
    cotangents,
    stride,
    s,
    turned,
    part,
    du,
    scratch,
    totals,
):
    """Gradients of a block: `du` (steps, W) is written, sums over time are added to `totals` in its dtype.

    Args:
        states, cotangents: as in `advance`; s, turned: their functionals.
        part: as `du`, room.
        scratch: room for all sums of a mode.
    """
    w = width(states)
    components = FACTORS + PER_RANK * rank
    per_slot = 2 * order * rank * w
    nothing = splat(states.dtype.type(0))
    for p in range(order):
        # Each order has a sum over modes of its own, so that no term passes more additions than modes and orders.
        sum_of_modes = du if p == 0 else part
        for t in range(steps):
            store(sum_of_modes, t * w, nothing)
        for v in range(depth):
            x, o = (p * depth + v) * stride, v * components * w
            below = x - depth * stride
            own_sums(
                pack, o, kind, p, p == order - 1, u, g, steps, states, x, below, cotangents, x, sum_of_modes, scratch
            )  # fmt: skip
            for r in range(rank):
                at, to = 2 * (p * rank + r) * w, (FACTORS + PER_RANK * r) * w
                factor_sums(paired, steps, states, x, cotangents, x, s, at, turned, per_slot, scratch, to)
            for i in range(components * w):
                totals[o + i] += scratch[i]
        if p > 0:
            for t in range(steps):
                store(du, t * w, load(du, t * w) + load(part, t * w))


@compiled
def lowrank_adjoint_tiles(  # type: ignore[no-untyped-def]
    packs, turned_packs, offsets, rows, group, rank, paired, order, kind, u, grad_y, grad_u, states, kept, cotangents,
    totals, length, apart, first, end,
):  # fmt: skip
    """Tiles `first` … `end` - 1 of the adjoint of `lowrank_tiles`, whose arguments it takes besides.

    Args:
        turned_packs: the adjoint system, packed alike: conj of Λ̄, B̄ and C, and P̄ and Q̄ exchanged.
        grad_y, grad_u: one-dimensional; `grad_u` is written.
        states: initial states, not written to.
        kept: (tiles, blocks · order · depth · 2 · W), those before each block as the forward pass has them; or (0, 0).
        cotangents: of the final states, replaced by those of the initial ones.
        totals: (tiles, depth · (FACTORS + PER_RANK · rank) · W) float64; gradients of the packed parameters are added,
            those of P̄ and Q̄ with the opposite sign.
    """
    w = width(states)
    per_mode = (FACTORS + PER_RANK * rank) * w
    depth, count = packs.shape[1] // per_mode, states.shape[1] // w
    per_tile, blocks = w // group, (length + STEPS - 1) // STEPS
    # An odd number of slots, so that modes do not all fall into the same sets of the cache.
    slots = min(STEPS, length) + 1
    stride, per_slot = 2 * (slots | 1) * w, 2 * order * rank * w
    pack, turned_pack = aligned(packs, packs.shape[1]), aligned(packs, packs.shape[1])
    known = kept.shape[0] > 0
    found, now = aligned(states, 1 if known else max(blocks, 1) * count * w), aligned(states, count * w)
    x, n = aligned(states, order * depth * stride), aligned(states, order * depth * stride)
    s, turned = aligned(states, slots * per_slot), aligned(states, slots * per_slot)
    low_rank, scratch = aligned(states, 2 * depth * w), aligned(states, per_mode)
    inputs, g, du, part = (
        aligned(states, STEPS * w), aligned(states, STEPS * w), aligned(states, STEPS * w), aligned(states, STEPS * w)
    )  # fmt: skip
    block = aligned(states, w * w)
    for tile in range(first, end):
        places, n_rows = offsets[tile], min(per_tile, rows - tile * per_tile)
        copy(packs[tile % packs.shape[0]], 0, pack, 0, packs.shape[1] // w)
        copy(turned_packs[tile % packs.shape[0]], 0, turned_pack, 0, packs.shape[1] // w)
        before = kept[tile] if known else found
        copy(states[tile], 0, now, 0, count)
        start(pack, depth, rank, paired, group, order, now, 2 * w, 0, s)
        for b in range(0 if known else blocks):
            copy(now, 0, found, b * count * w, count)
            if b < blocks - 1:
                read_signal(u, places, b * STEPS, STEPS, apart, inputs, 0)
                advance(
                    pack, depth, rank, paired, group, order, kind, inputs, STEPS, now, 2 * w, 0, low_rank, s, du, False
                )  # fmt: skip
        for i in range(count // 2):
            copy(cotangents[tile], i * 2 * w, n, i * stride, 2)
        for k in range(blocks):
            b = blocks - 1 - k
            begin = b * STEPS
            steps = min(STEPS, length - begin)
            read_signal(u, places, begin, steps, apart, inputs, 0)
            read_signal(grad_y, places, begin, steps, apart, g, 0)
            for i in range(count // 2):
                copy(before, (b * count + 2 * i) * w, x, i * stride, 2)
            start(pack, depth, rank, paired, group, order, x, stride, 0, s)
            advance(
                pack, depth, rank, paired, group, order, kind, inputs, steps, x, stride, 1, low_rank, s, du, False
            )  # fmt: skip
            enter(turned_pack, depth, order, kind, load(g, (steps - 1) * w), steps, n, stride)
            start(turned_pack, depth, rank, paired, group, order, n, stride, steps, turned)
            retreat(
                turned_pack, depth, rank, paired, group, order, kind, inputs, g, steps, n, stride, low_rank, turned
            )  # fmt: skip
            collect(
                pack, depth, rank, paired, order, kind, inputs, g, steps, x, n, stride, s, turned, part, du, scratch,
                totals[tile],
            )  # fmt: skip
            write_signal(du, steps, group, n_rows, grad_u, places, begin, apart, block)
        for i in range(count // 2):
            copy(n, i * stride, cotangents[tile], i * 2 * w, 2)
