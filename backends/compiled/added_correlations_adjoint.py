"""Adjoint of `added_correlations`: blocks of time, the last one first; nothing of the size of the terms is stored.

With G_k = Σ_{j>=k} g_j of the output's cotangent g, and c_p(k) what order p adds to its sum at step k, summation by
parts gives Σ_k g_k term_p(k) = Σ_k G_k c_p(k) + G_0 · (the sum before u_0): the terms themselves are not needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._memory_order import MemoryOrder
from .added_correlations import ALONE, by_row, newest
from .caching import compiled, inlined
from .elementary_step import in_lanes, sums_in, sums_out
from .product_adjoint import clear
from .scan import STEPS
from .scan_adjoint import add_sums
from .simd import fma, lanes, load, splat, store, width
from .threads import share
from .tiles import read_signal, write_signal

Array = npt.NDArray[Any]


@inlined
def _states(inputs, steps, sums, kept, order, keep):  # type: ignore[no-untyped-def]
    """e_1 … e_(order-1) over a block, rounded as forwards; with `keep` also those before every step."""
    w = width(inputs)
    for t in range(steps):
        now = load(inputs, t * w)
        for lower in range(order - 1):
            p = order - 1 - lower
            value = load(sums, (p - 1) * w)
            if keep:
                store(kept, (t * (order - 1) + p - 1) * w, value)
            store(sums, (p - 1) * w, value + now if p == 1 else fma(now, load(sums, (p - 2) * w), value))


@inlined
def _states_of_three(inputs, steps, sums, kept, keep):  # type: ignore[no-untyped-def]
    """The same for order 3, in registers."""
    w = width(inputs)
    e1, e2 = load(sums, 0), load(sums, w)
    for t in range(steps):
        now = load(inputs, t * w)
        if keep:
            store(kept, 2 * t * w, e1)
            store(kept, (2 * t + 1) * w, e2)
        e2 = fma(now, e1, e2)
        e1 = e1 + now
    store(sums, 0, e1)
    store(sums, w, e2)


@inlined
def _adjoint(inputs, cotangents, kept, factors, steps, carry, total, gradient, partial, order):  # type: ignore[no-untyped-def]
    """A block backwards: a_p(k-1) = a_p(k) + u_k a_{p+1}(k), to which β_p g_k came before, and ∂u_k = Σ_p a_p e_{p-1}.

    Args:
        kept: e_1 … e_(order-1) before every step.
        carry: a_1 … a_order after the block; replaced by those before it.
        total: G after the block; replaced.
        gradient: of u, one vector per step; written.
        partial: Σ_k G_k u_k e_{p-1}(k-1), p >= 2; written.
    """
    w = width(inputs)
    clear(partial, 0, order - 1)
    summed = load(total, 0)
    for back in range(steps):
        t = steps - 1 - back
        now, out = load(inputs, t * w), load(cotangents, t * w)
        summed = summed + out
        passed = summed * now
        a = load(carry, 0)
        of_input = a
        for p in range(1, order):
            below = load(kept, (t * (order - 1) + p - 1) * w)
            higher = fma(load(factors, (p - 1) * w), out, load(carry, p * w))
            of_input = fma(higher, below, of_input)
            store(partial, (p - 1) * w, fma(passed, below, load(partial, (p - 1) * w)))
            store(carry, (p - 1) * w, fma(now, higher, a))
            a = higher
        store(carry, (order - 1) * w, a)
        store(gradient, t * w, of_input)
    store(total, 0, summed)


@inlined
def _adjoint_of_three(inputs, cotangents, kept, factors, steps, carry, total, gradient, partial):  # type: ignore[no-untyped-def]
    """The same for order 3, in registers."""
    w = width(inputs)
    second, third = load(factors, 0), load(factors, w)
    a1, a2, a3, summed = load(carry, 0), load(carry, w), load(carry, 2 * w), load(total, 0)
    of_second = splat(partial.dtype.type(0))
    of_third = of_second
    for back in range(steps):
        t = steps - 1 - back
        now, out = load(inputs, t * w), load(cotangents, t * w)
        e1, e2 = load(kept, 2 * t * w), load(kept, (2 * t + 1) * w)
        a2, a3 = fma(second, out, a2), fma(third, out, a3)
        summed = summed + out
        passed = summed * now
        of_second, of_third = fma(passed, e1, of_second), fma(passed, e2, of_third)
        store(gradient, t * w, fma(a3, e2, fma(a2, e1, a1)))
        a1, a2 = fma(now, a2, a1), fma(now, a3, a2)
    store(carry, 0, a1)
    store(carry, w, a2)
    store(carry, 2 * w, a3)
    store(total, 0, summed)
    store(partial, 0, of_second)
    store(partial, w, of_third)


@compiled
def elementary_tiles(  # type: ignore[no-untyped-def]
    u, g, grad_u, offsets, rows, factors, sums, carries, totals, of_factors, order, length, apart, first, end
):
    """Tiles `first` … `end` - 1 where terms are elementary symmetric polynomials; lanes are rows.

    Args:
        u, g, grad_u: one-dimensional; `grad_u` is written.
        offsets: (tiles, W) where the row of each lane begins.
        factors: (tiles, (order - 1) · W) β.
        sums: (tiles, order · W) e_1 … e_order before u_0; spent.
        carries: (tiles, order · W) cotangents of the final sums; replaced by those of the first.
        totals: (tiles, W) zero before; receives G_0.
        of_factors: (tiles, (order - 1) · W) float64, zero before; receives Σ_k G_k u_k e_{p-1}(k-1).
        apart: numbers from one time step of a row to the next.
    """
    w = width(sums)
    blocks = (length + STEPS - 1) // STEPS
    starts = np.empty((max(blocks, 1), order * w), sums.dtype)
    inputs = np.empty(STEPS * w, sums.dtype)
    cotangents = np.empty(STEPS * w, sums.dtype)
    gradient = np.empty(STEPS * w, sums.dtype)
    kept = np.empty(STEPS * (order - 1) * w, sums.dtype)
    partial = np.empty((order - 1) * w, sums.dtype)
    room = np.empty(w * w, sums.dtype)
    for tile in range(first, end):
        places, state, carry = offsets[tile], sums[tile], carries[tile]
        n_rows = min(w, rows - tile * w)
        for b in range(blocks):
            starts[b, :] = state
            if b + 1 < blocks:
                read_signal(u, places, b * STEPS, STEPS, apart, inputs, 0)
                if order == 3:
                    _states_of_three(inputs, STEPS, state, kept, False)
                else:
                    _states(inputs, STEPS, state, kept, order, False)
        for back in range(blocks):
            b = blocks - 1 - back
            start = b * STEPS
            steps = min(STEPS, length - start)
            read_signal(u, places, start, steps, apart, inputs, 0)
            read_signal(g, places, start, steps, apart, cotangents, 0)
            fixed = inputs, cotangents, kept, factors[tile], steps, carry, totals[tile], gradient, partial
            if order == 3:
                _states_of_three(inputs, steps, starts[b], kept, True)
                _adjoint_of_three(*fixed)
            else:
                _states(inputs, steps, starts[b], kept, order, True)
                _adjoint(*fixed, order)
            add_sums(of_factors[tile], 0, partial, (order - 1) * w)
            write_signal(gradient, steps, 1, n_rows, grad_u, places, start, apart, room)


@inlined
def _product_adjoint(  # type: ignore[no-untyped-def]
    inputs, cotangents, factors, of_sums, steps, total, gradient, partial, products, order
):
    """A block of sums of products, backwards: the cotangent of c_p(k) is β_p G_k + that of the final sum.

    Args:
        inputs, gradient: begin `order` - 1 steps before the block; the gradients are added to.
        of_sums: cotangents of the final sums.
        total: G after the block; replaced.
        partial: Σ_k G_k c_p(k), p >= 2; written.
        products: room for order - 1 vectors.
    """
    w = width(inputs)
    earlier = order - 1
    clear(partial, 0, earlier)
    summed = load(total, 0)
    for back in range(steps):
        t = steps - 1 - back
        summed = summed + load(cotangents, t * w)
        product = load(inputs, (earlier + t) * w)
        for i in range(earlier):
            store(products, i * w, product)
            product = product * load(inputs, (earlier + t - 1 - i) * w)
            store(partial, i * w, fma(summed, product, load(partial, i * w)))
        a = fma(load(factors, (earlier - 1) * w), summed, load(of_sums, (earlier - 1) * w))
        for lower in range(earlier):
            i = earlier - 1 - lower
            at = (earlier + t - 1 - i) * w
            store(gradient, at, fma(a, load(products, i * w), load(gradient, at)))
            older = load(inputs, at)
            if i > 0:
                a = fma(a, older, fma(load(factors, (i - 1) * w), summed, load(of_sums, (i - 1) * w)))
            else:
                at = (earlier + t) * w
                store(gradient, at, fma(a, older, load(gradient, at)))
    store(total, 0, summed)


@inlined
def _product_adjoint_of_three(inputs, cotangents, factors, of_sums, steps, total, gradient, partial):  # type: ignore[no-untyped-def]
    """The same for order 3, in registers; the gradients of the two inputs before the block are written."""
    w = width(inputs)
    second, third = load(factors, 0), load(factors, w)
    of_first, of_last = load(of_sums, 0), load(of_sums, w)
    newest, middle = load(inputs, (steps + 1) * w), load(inputs, steps * w)
    of_newest, of_middle = load(gradient, (steps + 1) * w), load(gradient, steps * w)
    summed = load(total, 0)
    of_second = splat(partial.dtype.type(0))
    of_third = of_second
    for back in range(steps):
        t = steps - 1 - back
        oldest = load(inputs, t * w)
        summed = summed + load(cotangents, t * w)
        pair = newest * middle
        of_second, of_third = fma(summed, pair, of_second), fma(summed, pair * oldest, of_third)
        a = fma(third, summed, of_last)
        of_oldest = a * pair
        a = fma(a, oldest, fma(second, summed, of_first))
        store(gradient, (t + 2) * w, fma(a, middle, of_newest))
        of_newest, of_middle = fma(a, newest, of_middle), of_oldest
        newest, middle = middle, oldest
    store(gradient, w, of_newest)
    store(gradient, 0, of_middle)
    store(total, 0, summed)
    store(partial, 0, of_second)
    store(partial, w, of_third)


@compiled
def running_tiles(  # type: ignore[no-untyped-def]
    u, g, grad_u, offsets, rows, factors, recent, of_sums, totals, of_factors, order, length, apart, first, end
):
    """Tiles `first` … `end` - 1 where terms are running sums of products of adjacent inputs, order at least 2.

    Args:
        recent: (tiles, (order - 1) · W) the inputs before u_0, newest last; replaced by their gradients.
        of_sums: (tiles, (order - 1) · W) cotangents of the final sums, which are also those of the first.
        of_factors: receives Σ_k G_k c_p(k).
        others: as in `elementary_tiles`.
    """
    w = width(recent)
    earlier = order - 1
    blocks = (length + STEPS - 1) // STEPS
    inputs = np.empty((earlier + STEPS) * w, recent.dtype)
    gradient = np.empty((earlier + STEPS) * w, recent.dtype)
    cotangents = np.empty(STEPS * w, recent.dtype)
    products = np.empty(earlier * w, recent.dtype)
    partial = np.empty(earlier * w, recent.dtype)
    room = np.empty(w * w, recent.dtype)
    for tile in range(first, end):
        places, before = offsets[tile], recent[tile]
        n_rows = min(w, rows - tile * w)
        clear(gradient, 0, earlier + STEPS)
        for back in range(blocks):
            start = (blocks - 1 - back) * STEPS
            steps = min(STEPS, length - start)
            known = min(start, earlier)
            for i in range(earlier - known):
                store(inputs, i * w, load(before, (start + i) * w))
            read_signal(u, places, start - known, known + steps, apart, inputs, (earlier - known) * w)
            read_signal(g, places, start, steps, apart, cotangents, 0)
            fixed = inputs, cotangents, factors[tile], of_sums[tile], steps, totals[tile], gradient, partial
            if order == 3:
                _product_adjoint_of_three(*fixed)
            else:
                _product_adjoint(*fixed, products, order)
            add_sums(of_factors[tile], 0, partial, earlier * w)
            write_signal(gradient[earlier * w :], steps, 1, n_rows, grad_u, places, start, apart, room)
            if start > 0:
                # What this block gave to inputs before it is handed on, the last first, since both may overlap.
                for i in range(earlier):
                    at = (earlier - 1 - i) * w
                    store(gradient, at + STEPS * w, load(gradient, at))
                clear(gradient, 0, STEPS)
        for i in range(earlier):
            store(before, i * w, load(gradient, i * w))


def add_correlations_vjp(
    u: Array,
    responses: Array,
    grad_y: Array,
    grad_sums: Array | None,
    *,
    order: int,
    elementary: bool,
    sums: Array | None,
    previous: Array | None,
    threads: int,
) -> tuple[Array, Array, Array | None, Array | None]:
    """Gradients of u, responses, `sums` and `previous` from the cotangents of the output and of the final sums.

    Args:
        grad_y: (batch, H, L).
        grad_sums: of the shape of the final sums, zeros if None.
        threads: at most so many; no result depends on it.
        others: as in `add_correlations`.

    Returns:
        (batch, H, L) in u's memory order, (order - 1, H), and the shapes of `sums` and `previous`, None where those
        were not given.

    Accuracy:
        e as forwards.  A cotangent passes one fused multiply-add and, where an output joins, one more per step; G one
        addition per step.  Sums over time run over a block in u's dtype, over blocks and rows in float64, and are
        rounded once.  docs/bounds-gradients.md, The correlations of `pb` in one pass.
    """
    rows, length, w = u.shape[0] * u.shape[1], u.shape[2], lanes(u.dtype)
    n_sums = order if elementary else order - 1
    carries = sums_in(grad_sums, n_sums, rows, u.dtype)
    state = sums_in(sums if elementary else newest(u, previous, order), n_sums, rows, u.dtype)
    totals, of_factors = np.zeros((len(state), w), u.dtype), np.zeros((len(state), (order - 1) * w))
    memory = MemoryOrder.of(u)
    grad_u = memory.empty(u.dtype)
    factors, offsets = by_row(responses, u), in_lanes(memory.starts(), w)
    signals = memory.flat(u), memory.flat(grad_y), memory.flat(grad_u)
    given = *signals, offsets, rows, factors, state, carries, totals, of_factors, order, length, memory.apart
    run = elementary_tiles if elementary else running_tiles

    def work(first: int, end: int) -> None:
        run(*given, first, end)

    if not elementary and order == 1:
        grad_u[...] = 0
    else:
        share(work, len(state), threads if rows * length > ALONE else 1)
    shape = u.shape[:-1]
    summed = sums_out(of_factors, order - 1, shape)
    if sums is not None:
        summed += sums[n_sums - order + 1 :] * sums_out(totals.astype(np.float64), 1, shape)
    grad_responses = summed.sum(axis=1).astype(u.dtype)
    grad_sums = None
    if sums is not None:
        # A running sum is what it began with and the products since.
        grad_sums = sums_out(carries, n_sums, shape)
        if not elementary:
            grad_sums += responses[:, None] * sums_out(totals, 1, shape)
    grad_previous = None
    if previous is not None:
        grad_previous = np.zeros(previous.shape, u.dtype)
        if not elementary:
            known = min(order - 1, previous.shape[-1])
            found = sums_out(state, order - 1, shape)[order - 1 - known :]
            grad_previous[..., previous.shape[-1] - known :] = np.moveaxis(found, 0, -1)
    return grad_u, grad_responses, grad_sums, grad_previous
