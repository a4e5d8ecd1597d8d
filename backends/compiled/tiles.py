"""How rows and modes are laid out in vectors, and the way in and out.

A row is one channel of one sequence, or of one piece of it.  A tile is `W` lanes wide: `rows_per_tile` rows, each with
`group` lanes, and as many vectors deep as it takes for all modes, lane (r, g) of vector v holding mode v·group + g of
row r.  With group = 1 lanes are rows, the layout for many rows or few modes; with group = W they are modes, the one
for few rows; both, and what lies between, are the same kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import gcd
from typing import Any

import numpy as np
import numpy.typing as npt

from .caching import inlined
from .simd import (
    VECTOR_BYTES,
    from_lane,
    gather_block,
    load,
    load_as,
    splat,
    store,
    transpose_apart,
    transpose_block,
    width,
)

Array = npt.NDArray[Any]

# Cores that a layout should keep busy.
CORES = 8


@dataclass(frozen=True)
class Layout:
    """Tiles for `rows` rows of `n_modes` modes; `n_channels` consecutive rows have different parameters.

    Args:
        rows: batch · channels · pieces.
        n_channels: period of the parameters along the rows, in units of `pieces` rows.
        n_modes: stored modes.
        lanes: lanes of a vector.
        group: lanes per row, a power of two that divides `lanes`.
        pieces: consecutive rows that share a channel's parameters (pieces of one sequence).
    """

    rows: int
    n_channels: int
    n_modes: int
    lanes: int
    group: int
    pieces: int = 1

    @property
    def rows_per_tile(self) -> int:
        return self.lanes // self.group

    @property
    def tiles(self) -> int:
        return -(-self.rows // self.rows_per_tile)

    @property
    def depth(self) -> int:
        """Vectors per tile that hold one number of every mode."""
        return max(1, -(-self.n_modes // self.group))

    @property
    def packs(self) -> int:
        """Tiles after which the channels of the lanes repeat."""
        period = max(1, self.n_channels * self.pieces)
        return min(max(self.tiles, 1), period // gcd(period, self.rows_per_tile))

    @cached_property
    def row_of_lane(self) -> Array:
        """(tiles, lanes): which row; lanes without one repeat the last row."""
        rows = np.arange(self.tiles * self.rows_per_tile).clip(max=max(self.rows - 1, 0))
        return np.repeat(rows.reshape(self.tiles, self.rows_per_tile), self.group, axis=1)

    def packed(self, parameters: list[Array], dtype: npt.DTypeLike) -> Array:
        """(packs, depth, len(parameters), lanes) from real arrays (H, M); zeros beyond the last mode."""
        count = self.packs * self.rows_per_tile
        channels = (np.arange(count) // self.pieces) % max(self.n_channels, 1)
        packed = np.zeros((self.packs, self.depth, len(parameters), self.lanes), dtype)
        for k, values in enumerate(parameters):
            padded = np.zeros((count, self.depth * self.group), dtype)
            padded[:, : self.n_modes] = values[channels]
            packed[:, :, k] = self._by_tile(padded)
        return packed

    def unpacked(self, packed: Array) -> Array:
        """Sums over rows of the same channel, (components, H, M), of (tiles, depth, components, lanes).

        Accuracy: rows are added in their order, in the array's dtype.
        """
        tiles, depth, components, _ = packed.shape
        split = packed.reshape(tiles, depth, components, self.rows_per_tile, self.group)
        rows = split.transpose(2, 0, 3, 1, 4).reshape(components, tiles * self.rows_per_tile, depth * self.group)
        rows = rows[:, : self.rows, : self.n_modes]
        batch = self.rows // max(1, self.n_channels * self.pieces)
        split_rows = rows.reshape(components, batch, self.n_channels, self.pieces, self.n_modes)
        return np.asarray(split_rows.sum(axis=(1, 3)))

    def state_in(self, state: Array | None, dtype: npt.DTypeLike) -> Array:
        """(tiles, depth, 2, lanes) real and imaginary parts of a state (rows, M) or of rest."""
        planes = np.zeros((self.tiles, self.depth, 2, self.lanes), dtype)
        if state is not None and state.size:
            padded = np.zeros((self.tiles * self.rows_per_tile, self.depth * self.group), dtype)
            for k, part in enumerate((state.real, state.imag)):
                padded[: self.rows, : self.n_modes] = part
                planes[:, :, k] = self._by_tile(padded)
        return planes

    def state_out(self, planes: Array, kind: npt.DTypeLike) -> Array:
        """The inverse of `state_in`: (rows, M) in the dtype `kind`, whose real part alone is kept if it is real."""
        split = planes.reshape(self.tiles, self.depth, 2, self.rows_per_tile, self.group)
        rows = split.transpose(2, 0, 3, 1, 4).reshape(2, self.tiles * self.rows_per_tile, self.depth * self.group)
        rows = rows[:, : self.rows, : self.n_modes]
        state = np.empty(rows.shape[1:], kind)
        state.real = rows[0]
        if np.iscomplexobj(state):
            state.imag = rows[1]
        return state

    def _by_tile(self, rows: Array) -> Array:
        """(n · rows_per_tile, depth · group) as (n, depth, lanes)."""
        tiles = len(rows) // self.rows_per_tile
        split = rows.reshape(tiles, self.rows_per_tile, self.depth, self.group)
        return split.transpose(0, 2, 1, 3).reshape(tiles, self.depth, self.lanes)


def choose_layout(rows: int, n_channels: int, n_modes: int, dtype: npt.DTypeLike, pieces: int = 1) -> Layout:
    """The layout that takes the least time on `CORES` cores, among equals the one with the most lanes for rows.

    A step of a tile costs some 8 cycles for each vector of modes, and 2 for each lane to bring its input in and its
    output out.  The choice depends on the shape alone, never on the cores or threads at hand, so that no result does.
    """
    n_lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    groups = [1 << i for i in range(n_lanes.bit_length()) if 1 << i <= max(1, n_modes)]
    layouts = [Layout(rows, n_channels, n_modes, n_lanes, group, pieces) for group in groups]
    return min(layouts, key=lambda layout: max(1.0, layout.tiles / CORES) * (8 * layout.depth + 2 * n_lanes))


@inlined
def read_rows(u, offsets, first, start, steps, target, index):  # type: ignore[no-untyped-def]
    """target[index + W·t + l] = u[offsets[first + l] + start + t], t < steps: a transpose, block by block."""
    w = width(target)
    whole = steps - steps % w
    for t in range(0, whole, w):
        gather_block(u, start + t, offsets, first, target, index + t * w)
    for t in range(whole, steps):
        for lane in range(w):
            target[index + t * w + lane] = u[offsets[first + lane] + start + t]


@inlined
def write_rows(source, steps, group, n_rows, y, offsets, first, start, block):  # type: ignore[no-untyped-def]
    """y[offsets[first + r·group] + start + t] = Σ_g source[W·t + r·group + g] for the first `n_rows` rows of a tile.

    Args:
        block: W² numbers of room.
    """
    w = width(source)
    whole = steps - steps % w
    for t in range(0, whole, w):
        transpose_block(source, t * w, block, 0)
        for r in range(n_rows):
            lane = r * group * w
            summed = load(block, lane)
            for g in range(1, group):
                summed = summed + load(block, lane + g * w)
            store(y, offsets[first + r * group] + start + t, summed)
    for t in range(whole, steps):
        for r in range(n_rows):
            number = source[t * w + r * group]
            for g in range(1, group):
                number += source[t * w + r * group + g]
            y[offsets[first + r * group] + start + t] = number


@inlined
def are_adjacent(offsets):  # type: ignore[no-untyped-def]
    """Whether the lanes are rows that begin beside each other."""
    adjacent = True
    for lane in range(1, offsets.shape[0]):
        adjacent = adjacent and offsets[lane] == offsets[0] + lane
    return adjacent


@inlined
def lanes_per_row(offsets):  # type: ignore[no-untyped-def]
    """How many lanes hold the same row, the first one."""
    group = 1
    while group < offsets.shape[0] and offsets[group] == offsets[0]:
        group += 1
    return group


@inlined
def read_signal(u, offsets, start, steps, apart, target, index):  # type: ignore[no-untyped-def]
    """target[index + W·t + l] = u[offsets[l] + (start + t)·apart], t < steps: `read_rows` in either memory order.

    Args:
        offsets: of the lanes of one tile.
        apart: numbers from one time step of a row to the next, 1 or, channels last, H: then lanes for consecutive rows
            are one vector in memory.
    """
    w = width(target)
    if apart == 1:
        read_rows(u, offsets, 0, start, steps, target, index)
        return
    if are_adjacent(offsets):
        for t in range(steps):
            store(target, index + t * w, load_as(u, offsets[0] + (start + t) * apart, target))
        return
    group = lanes_per_row(offsets)
    for t in range(steps):
        at = (start + t) * apart
        if group == 1:
            for lane in range(w):
                target[index + t * w + lane] = u[offsets[lane] + at]
        else:
            now = splat(target.dtype.type(u[offsets[0] + at]))
            for lane in range(group, w, group):
                now = from_lane(lane, splat(target.dtype.type(u[offsets[lane] + at])), now)
            store(target, index + t * w, now)


@inlined
def write_signal(source, steps, group, n_rows, y, offsets, start, apart, block):  # type: ignore[no-untyped-def]
    """y[offsets[r·group] + (start + t)·apart] = Σ_g source[W·t + r·group + g]: `write_rows` in either memory order."""
    w = width(source)
    if apart == 1:
        write_rows(source, steps, group, n_rows, y, offsets, 0, start, block)
        return
    if n_rows == w and are_adjacent(offsets):
        for t in range(steps):
            store(y, offsets[0] + (start + t) * apart, load(source, t * w))
        return
    whole = steps - steps % w if group > 1 else 0
    for t in range(0, whole, w):
        transpose_block(source, t * w, block, 0)
        for r in range(n_rows):
            lane = r * group * w
            summed = load(block, lane)
            for g in range(1, group):
                summed = summed + load(block, lane + g * w)
            store(block, lane, summed)
            for i in range(w):
                y[offsets[r * group] + (start + t + i) * apart] = block[lane + i]
    for t in range(whole, steps):
        for r in range(n_rows):
            number = source[t * w + r * group]
            for g in range(1, group):
                number += source[t * w + r * group + g]
            y[offsets[r * group] + (start + t) * apart] = number


@inlined
def turn_block(source, at, apart, target, to, between, steps, n):  # type: ignore[no-untyped-def]
    """target[to + between·l + t] = source[at + apart·t + l], t < steps and l < n, n at most the lanes of a vector."""
    w = width(source)
    whole = steps - steps % w if n == w else 0
    for t in range(0, whole, w):
        transpose_apart(source, at + t * apart, apart, target, to + t, between)
    for t in range(whole, steps):
        for lane in range(n):
            target[to + between * lane + t] = source[at + t * apart + lane]


@inlined
def turn_block_back(source, at, between, target, to, apart, steps, n):  # type: ignore[no-untyped-def]
    """The inverse of `turn_block`: target[to + apart·t + l] = source[at + between·l + t]."""
    w = width(source)
    whole = steps - steps % w if n == w else 0
    for t in range(0, whole, w):
        transpose_apart(source, at + t, between, target, to + t * apart, apart)
    for t in range(whole, steps):
        for lane in range(n):
            target[to + t * apart + lane] = source[at + between * lane + t]
