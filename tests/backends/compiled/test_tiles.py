"""Layouts: every mode of every row in one lane, in and out again."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends._memory_order import MemoryOrder
from liquid_ssm.backends.compiled.caching import compiled
from liquid_ssm.backends.compiled.simd import lanes
from liquid_ssm.backends.compiled.tiles import (
    CORES,
    Layout,
    choose_layout,
    read_rows,
    read_signal,
    turn_block,
    turn_block_back,
    write_rows,
    write_signal,
)

LAYOUTS = [
    Layout(rows, n_channels, n_modes, 8, group, pieces)
    for group in (1, 2, 8)
    for rows, n_channels, n_modes, pieces in ((1, 1, 1, 1), (6, 3, 5, 1), (17, 17, 9, 1), (24, 3, 2, 4), (40, 5, 16, 2))
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_states_come_back(layout):
    rng = np.random.default_rng(0)
    state = rng.normal(size=(2, layout.rows, layout.n_modes))
    state = state[0] + 1j * state[1]
    planes = layout.state_in(state, "float64")
    assert planes.shape == (layout.tiles, layout.depth, 2, layout.lanes)
    assert np.array_equal(layout.state_out(planes, "complex128"), state)
    assert not layout.state_in(None, "float64").any()


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_lane_has_the_parameters_of_its_row(layout):
    values = np.arange(1.0, 1 + layout.n_channels * layout.n_modes).reshape(layout.n_channels, layout.n_modes)
    packed = layout.packed([values, -values], "float64")
    for tile in range(layout.tiles):
        pack = packed[tile % layout.packs]
        for lane in range(layout.lanes):
            row = tile * layout.rows_per_tile + lane // layout.group
            for v in range(layout.depth):
                mode = v * layout.group + lane % layout.group
                if row < layout.rows:
                    assert layout.row_of_lane[tile, lane] == row
                    channel = row // layout.pieces % layout.n_channels
                    expected = values[channel, mode] if mode < layout.n_modes else 0
                    assert (pack[v, :, lane] == [expected, -expected]).all()


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_sums_over_the_rows_of_a_channel(layout):
    batch = layout.rows // (layout.n_channels * layout.pieces)
    if batch * layout.n_channels * layout.pieces != layout.rows:
        pytest.skip("these rows are no whole batch")
    values = np.random.default_rng(0).integers(-9, 9, (layout.rows, layout.n_modes)).astype(float)
    planes = layout.state_in(values + 2j * values, "float64")
    found = layout.unpacked(planes)
    expected = values.reshape(batch, layout.n_channels, layout.pieces, layout.n_modes).sum(axis=(0, 2))
    assert np.array_equal(found, [expected, 2 * expected])


def test_many_rows_get_lanes_for_rows_and_few_get_lanes_for_modes():
    w = lanes("float32")
    assert choose_layout(64 * w, 64 * w, 32, "float32").group == 1
    assert choose_layout(1, 1, 32 * w, "float32").group == w
    small = choose_layout(512, 128, 3, "float32")
    assert (small.group, small.depth) == (1, 3)
    # Rows that fill two vectors are work for two cores; given to modes, some lanes make work for eight.
    assert choose_layout(2 * w, 2 * w, 32, "float32").tiles >= CORES


@pytest.mark.parametrize("rows", [1, 3, 16, 100])
@pytest.mark.parametrize("n_modes", [1, 3, 16, 33])
def test_read_outs_pass_no_more_additions_than_one_mode_after_the_other(rows, n_modes):
    chosen = choose_layout(rows, rows, n_modes, "float64")
    # docs/bounds.md counts n_modes - 1 for a sum in any order.
    assert chosen.depth - 1 + chosen.group - 1 <= max(0, n_modes - 1)


@compiled
def copy(u, y, offsets, group, n_rows, start, steps, buffer, block):
    read_rows(u, offsets, 0, start, steps, buffer, 0)
    write_rows(buffer, steps, group, n_rows, y, offsets, 0, start, block)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("steps", [1, 7, 16, 37])
def test_rows_in_and_out(dtype, group, steps):
    w = lanes("float64")
    layout = Layout(w // group - 1 or 1, 1, 1, w, group)
    u = np.random.default_rng(0).integers(-99, 99, (layout.rows, 50)).astype(dtype)
    y = np.full_like(u, np.nan)
    offsets = (layout.row_of_lane * 50).reshape(-1)
    copy(u.reshape(-1), y.reshape(-1), offsets, group, layout.rows, 5, steps, np.zeros(40 * w), np.zeros(w * w))
    # All lanes of a row hold its input, so the sum over a group is a multiple of it.
    assert np.array_equal(y[:, 5 : 5 + steps], group * u[:, 5 : 5 + steps])
    assert np.isnan(y[:, :5]).all()
    assert np.isnan(y[:, 5 + steps :]).all()


@compiled
def copy_signal(u, y, offsets, group, n_rows, start, steps, apart, buffer, block):
    read_signal(u, offsets, start, steps, apart, buffer, 0)
    write_signal(buffer, steps, group, n_rows, y, offsets, start, apart, block)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("group", [1, 2, lanes("float64")])
@pytest.mark.parametrize("n_channels", [1, 3, 64])
@pytest.mark.parametrize("channels_last", [False, True])
def test_signals_in_and_out_in_either_memory_order(dtype, group, n_channels, channels_last):
    w, length, start, steps = lanes("float64"), 50, 5, 37
    # 3 channels: tiles begin in one row of the batch and end in the next.
    layout = Layout(3 * n_channels, n_channels, 1, w, group)
    memory = MemoryOrder((3, n_channels, length), channels_last)
    u, y = memory.empty(dtype), memory.empty(dtype)
    u[...] = np.random.default_rng(0).integers(-99, 99, u.shape)
    y[...] = np.nan
    offsets = memory.starts()[layout.row_of_lane]
    for tile in range(layout.tiles):
        n_rows = min(layout.rows_per_tile, layout.rows - tile * layout.rows_per_tile)
        given = offsets[tile], group, n_rows, start, steps, memory.apart, np.zeros(40 * w), np.zeros(w * w)
        copy_signal(memory.flat(u), memory.flat(y), *given)
    assert np.array_equal(y[..., start : start + steps], group * u[..., start : start + steps])
    assert np.isnan(y[..., :start]).all()
    assert np.isnan(y[..., start + steps :]).all()


@compiled
def turn(source, target, back, at, apart, to, between, steps, n):
    turn_block(source, at, apart, target, to, between, steps, n)
    turn_block_back(target, to, between, back, at, apart, steps, n)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("missing", [0, 1])
@pytest.mark.parametrize("steps", [1, 16, 37])
def test_blocks_of_channels_become_rows_and_come_back(dtype, missing, steps):
    """A whole vector of channels and one channel fewer; nothing else is written."""
    n, n_channels, room = lanes(dtype) - missing, lanes(dtype) + 3, 40
    source = np.random.default_rng(0).normal(size=(steps + 4, n_channels)).astype(dtype)
    rows, back = np.full((n + 1, room), np.nan, dtype), np.full_like(source, np.nan)
    turn(source.reshape(-1), rows.reshape(-1), back.reshape(-1), 3 * n_channels + 2, n_channels, 1, room, steps, n)
    assert np.array_equal(rows[:n, 1 : 1 + steps], source[3 : 3 + steps, 2 : 2 + n].T)
    assert np.isnan(rows).sum() == rows.size - n * steps
    assert np.array_equal(back[3 : 3 + steps, 2 : 2 + n], source[3 : 3 + steps, 2 : 2 + n])
    assert np.isnan(back).sum() == back.size - n * steps
