"""The correlation terms of `pb`, Eq. 15, added to an output in one pass over it: no term is ever stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._memory_order import MemoryOrder
from .caching import compiled, inlined
from .elementary_step import in_lanes, sums_in, sums_out
from .scan import STEPS
from .simd import fma, lanes, load, store, width
from .threads import share
from .tiles import read_signal, write_signal

Array = npt.NDArray[Any]


@inlined
def _add_elementary(inputs, outputs, factors, sums, steps, order):  # type: ignore[no-untyped-def]
    """y ← y + Σ_p β_p e_p with e_p(k) = e_p(k-1) + u_k e_{p-1}(k-1), the highest order first."""
    w = width(outputs)
    for t in range(steps):
        now = load(inputs, (t + order - 1) * w)
        for lower in range(order - 1):
            p = order - 1 - lower
            store(sums, p * w, fma(now, load(sums, (p - 1) * w), load(sums, p * w)))
        store(sums, 0, load(sums, 0) + now)
        y = load(outputs, t * w)
        for p in range(1, order):
            y = fma(load(factors, (p - 1) * w), load(sums, p * w), y)
        store(outputs, t * w, y)


@inlined
def _add_three(inputs, outputs, factors, sums, steps):  # type: ignore[no-untyped-def]
    """The same for order 3, in registers."""
    w = width(outputs)
    second, third = load(factors, 0), load(factors, w)
    e1, e2, e3 = load(sums, 0), load(sums, w), load(sums, 2 * w)
    for t in range(steps):
        now = load(inputs, (t + 2) * w)
        e3 = fma(now, e2, e3)
        e2 = fma(now, e1, e2)
        e1 = e1 + now
        store(outputs, t * w, fma(third, e3, fma(second, e2, load(outputs, t * w))))
    store(sums, 0, e1)
    store(sums, w, e2)
    store(sums, 2 * w, e3)


@inlined
def _add_running(inputs, outputs, factors, sums, steps, order):  # type: ignore[no-untyped-def]
    """y ← y + Σ_p β_p s_p with s_p(k) = s_p(k-1) + u_k u_{k-1} … u_{k-p+1}."""
    w = width(outputs)
    for t in range(steps):
        product = load(inputs, (t + order - 1) * w)
        y = load(outputs, t * w)
        for p in range(1, order):
            product = product * load(inputs, (t + order - 1 - p) * w)
            total = load(sums, (p - 1) * w) + product
            store(sums, (p - 1) * w, total)
            y = fma(load(factors, (p - 1) * w), total, y)
        store(outputs, t * w, y)


# Numbers that one thread has added to before another has begun.
ALONE = 1 << 14


@compiled
def add_tiles(  # type: ignore[no-untyped-def]
    factors, offsets, rows, u, y, total, sums, recent, order, elementary, length, apart, first, end
):
    """Tiles `first` … `end` - 1, lanes are rows.

    Args:
        factors: (tiles, (order - 1) · W) β.
        offsets: (tiles, W) where the row of each lane begins.
        y, total: one-dimensional; `total` is written, and may be `y`.
        sums: (tiles, n · W) the sums so far; replaced by the final ones.
        recent: (tiles, (order - 1) · W) the inputs before u_0, newest last.
        apart: numbers from one time step of a row to the next.
    """
    w = width(sums)
    inputs = np.empty((STEPS + order - 1) * w, sums.dtype)
    outputs = np.empty(STEPS * w, sums.dtype)
    block = np.empty(w * w, sums.dtype)
    for tile in range(first, end):
        tile_sums, places = sums[tile], offsets[tile]
        n_rows = min(w, rows - tile * w)
        inputs[: (order - 1) * w] = recent[tile]
        for start in range(0, length, STEPS):
            steps = min(STEPS, length - start)
            read_signal(u, places, start, steps, apart, inputs, (order - 1) * w)
            read_signal(y, places, start, steps, apart, outputs, 0)
            if elementary and order == 3:
                _add_three(inputs, outputs, factors[tile], tile_sums, steps)
            elif elementary:
                _add_elementary(inputs, outputs, factors[tile], tile_sums, steps, order)
            else:
                _add_running(inputs, outputs, factors[tile], tile_sums, steps, order)
            write_signal(outputs, steps, 1, n_rows, total, places, start, apart, block)
            for t in range(order - 1):
                store(inputs, t * w, load(inputs, (steps + t) * w))


def add_correlations(
    y: Array,
    total: Array,
    u: Array,
    responses: Array,
    *,
    order: int,
    elementary: bool,
    sums: Array | None,
    previous: Array | None,
    threads: int,
) -> Array:
    """total ← y + Σ_{p=2..order} responses_p · term_p; the final sums as `Backend.correlate` returns them.

    Args:
        y: (batch, H, L).
        total: of the same shape, in one of the two memory orders, y itself or other memory.
        u: (batch, H, L).
        responses: (order - 1, H).
        elementary: terms of kind `elementary`, else `running`.
        sums: (order, batch, H) for `elementary`, (order - 1, batch, H) for `running`; zeros if None.
        previous: (batch, H, n), inputs before u_0; zeros if None.

    Accuracy:
        Sums in the order of time, one fused multiply-add per step (`running`: p - 1 products and an addition); each
        term is added to y by one more.
    """
    rows, length = u.shape[0] * u.shape[1], u.shape[2]
    n_sums = order if elementary else order - 1
    carried = sums_in(sums, n_sums, rows, u.dtype)
    recent = sums_in(newest(u, previous, order), order - 1, rows, u.dtype)
    factors = by_row(responses, u)
    # Not that of u: `total` is written where it is.
    memory = MemoryOrder.of(total)
    offsets = in_lanes(memory.starts(), lanes(u.dtype))
    signals = memory.flat(u), memory.flat(y), memory.flat(total)
    given = factors, offsets, rows, *signals, carried, recent, order, elementary, length, memory.apart

    def work(first: int, end: int) -> None:
        add_tiles(*given, first, end)

    share(work, len(carried), threads if rows * length > ALONE else 1)
    return sums_out(carried, n_sums, u.shape[:-1])


def by_row(responses: Array, u: Array) -> Array:
    """(tiles, n · W) from (n, H): the same for every sequence."""
    n, (batch, n_channels, _) = len(responses), u.shape
    return sums_in(np.broadcast_to(responses[:, None], (n, batch, n_channels)), n, batch * n_channels, u.dtype)


def newest(u: Array, previous: Array | None, order: int) -> Array:
    """The order - 1 inputs before u_0, the newest last, (order - 1, batch, H); zeros where they are not known."""
    found = np.zeros((order - 1, *u.shape[:-1]), u.dtype)
    if previous is not None:
        known = min(order - 1, previous.shape[-1])
        found[order - 1 - known :] = np.moveaxis(previous[..., previous.shape[-1] - known :], -1, 0)
    return found
