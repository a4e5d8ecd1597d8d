"""The correlation terms of `pb`, Eq. 15, added to an output in one pass over it: no term is ever stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .caching import compiled, inlined
from .scan import STEPS
from .simd import VECTOR_BYTES, fma, load, store, width
from .threads import share
from .tiles import Layout, read_rows, write_rows

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
_ALONE = 1 << 14


@compiled
def add_tiles(packs, offsets, rows, u, y, sums, recent, order, elementary, length, first, end):  # type: ignore[no-untyped-def]
    """Tiles `first` … `end` - 1, lanes are rows.

    Args:
        packs: (packs, (order - 1) · W) the factors β.
        y: read and written.
        sums: (tiles, order · W) the sums so far; replaced by the final ones.
        recent: (tiles, (order - 1) · W) the inputs before u_0, newest last.
    """
    n_packs = packs.shape[0]
    w = width(sums)
    inputs = np.empty((STEPS + order - 1) * w, sums.dtype)
    outputs = np.empty(STEPS * w, sums.dtype)
    block = np.empty(w * w, sums.dtype)
    for tile in range(first, end):
        factors, tile_sums, places = packs[tile % n_packs], sums[tile], offsets[tile]
        n_rows = min(w, rows - tile * w)
        inputs[: (order - 1) * w] = recent[tile]
        for start in range(0, length, STEPS):
            steps = min(STEPS, length - start)
            read_rows(u, places, 0, start, steps, inputs, (order - 1) * w)
            read_rows(y, places, 0, start, steps, outputs, 0)
            if elementary and order == 3:
                _add_three(inputs, outputs, factors, tile_sums, steps)
            elif elementary:
                _add_elementary(inputs, outputs, factors, tile_sums, steps, order)
            else:
                _add_running(inputs, outputs, factors, tile_sums, steps, order)
            write_rows(outputs, steps, 1, n_rows, y, places, 0, start, block)
            for t in range(order - 1):
                store(inputs, t * w, load(inputs, (steps + t) * w))


def add_correlations(
    y: Array,
    u: Array,
    responses: Array,
    *,
    order: int,
    elementary: bool,
    sums: Array | None,
    previous: Array | None,
    threads: int,
) -> Array:
    """y ← y + Σ_{p=2..order} responses_p · term_p in place; the final sums as `Backend.correlate` returns them.

    Args:
        y: (batch, H, L), contiguous.
        responses: (order - 1, H).
        elementary: terms of kind `elementary`, else `running`.
        sums: (order, batch, H) for `elementary`, (order - 1, batch, H) for `running`; zeros if None.
        previous: (batch, H, n), inputs before u_0; zeros if None.

    Accuracy:
        Sums in the order of time, one fused multiply-add per step (`running`: p - 1 products and an addition); each
        term is added to y by one more.
    """
    batch, n_channels, length = u.shape
    lanes = VECTOR_BYTES // u.itemsize
    layout = Layout(batch * n_channels, n_channels, 1, lanes, 1)
    packs = layout.packed([r[:, None] for r in responses], u.dtype).reshape(layout.packs, (order - 1) * lanes)
    shape = (order if elementary else order - 1, batch, n_channels)
    carried = np.zeros((layout.tiles, order * lanes), u.dtype)
    if sums is not None:
        given = _by_tile(sums.reshape(shape[0], layout.rows), layout)
        carried[:, : shape[0] * lanes] = given.reshape(layout.tiles, shape[0] * lanes)
    recent = np.zeros((order - 1, batch, n_channels), u.dtype)
    if previous is not None:
        known = min(order - 1, previous.shape[-1])
        recent[order - 1 - known :] = np.moveaxis(previous[..., previous.shape[-1] - known :], -1, 0)
    before = _by_tile(recent.reshape(order - 1, layout.rows), layout).reshape(layout.tiles, (order - 1) * lanes)
    offsets = layout.row_of_lane * length
    signals = np.ascontiguousarray(u).reshape(-1), y.reshape(-1)

    def work(first: int, end: int) -> None:
        add_tiles(packs, offsets, layout.rows, *signals, carried, before, order, elementary, length, first, end)

    share(work, layout.tiles, threads if layout.rows * length > _ALONE else 1)
    final = carried.reshape(layout.tiles, order, lanes)[:, : shape[0]].transpose(1, 0, 2)
    return np.ascontiguousarray(final.reshape(shape[0], layout.tiles * lanes)[:, : layout.rows].reshape(shape))


def _by_tile(values: Array, layout: Layout) -> Array:
    """(n, rows) as (tiles, n, W)."""
    padded = np.zeros((len(values), layout.tiles * layout.lanes), values.dtype)
    padded[:, : layout.rows] = values
    return np.ascontiguousarray(padded.reshape(len(values), layout.tiles, layout.lanes).transpose(1, 0, 2))
