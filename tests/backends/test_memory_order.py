"""Signals row after row and with their channels last: what is copied and what is not."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends._memory_order import MemoryOrder

SHAPE = (2, 3, 5)


def filled(*shape):
    return np.arange(np.prod(shape), dtype=float).reshape(shape)


def test_both_orders_are_told_apart():
    assert not MemoryOrder.of(filled(*SHAPE)).channels_last
    assert MemoryOrder.of(filled(2, 5, 3).swapaxes(1, 2)).channels_last


@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3), (2, 5, 0), (2, 5, 1), (2, 1, 3), (1, 1, 1)])
def test_where_both_are_the_same_it_is_row_after_row(shape):
    assert not MemoryOrder.of(filled(*shape).swapaxes(1, 2)).channels_last


@pytest.mark.parametrize(
    "u",
    [
        filled(5, 2, 3).transpose(1, 2, 0),  # time first
        filled(2, 10, 3)[:, ::2].swapaxes(1, 2),
        filled(2, 5, 4)[:, :, :3].swapaxes(1, 2),
        filled(2, 5, 3)[:, ::-1].swapaxes(1, 2),
        np.broadcast_to(filled(2, 5, 1), (2, 5, 3)).swapaxes(1, 2),
    ],
)
def test_every_other_order_is_to_be_copied(u):
    memory = MemoryOrder.of(u)
    assert u.shape == SHAPE
    assert not memory.channels_last
    assert np.array_equal(memory.flat(u), u.reshape(-1))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", [SHAPE, (3, 1, 4), (1, 4, 1), (0, 3, 2)])
def test_numbers_are_where_it_says(shape, channels_last):
    memory = MemoryOrder(shape, channels_last)
    u = memory.empty("float32")
    u[...] = filled(*shape)
    assert (u.shape, u.dtype) == (shape, np.float32)
    flat = memory.flat(u)
    assert u.size == 0 or np.shares_memory(flat, u)
    for row, start in enumerate(memory.starts()):
        found = [flat[start + t * memory.apart] for t in range(shape[2])]
        assert np.array_equal(found, u[row // shape[1], row % shape[1]])


@pytest.mark.parametrize("channels_last", [False, True])
def test_arrays_in_the_other_order_are_copied(channels_last):
    memory, other = MemoryOrder(SHAPE, channels_last), MemoryOrder(SHAPE, not channels_last)
    u = other.empty(float)
    u[...] = filled(*SHAPE)
    arranged = memory.arranged(u)
    assert MemoryOrder.of(arranged) == memory
    assert np.array_equal(arranged, u)
    assert not np.shares_memory(arranged, u)
    assert memory.arranged(arranged) is arranged or np.shares_memory(memory.arranged(arranged), arranged)
    assert np.array_equal(memory.flat(u), memory.cotangent(u, float))
    assert not memory.cotangent(None, float).any()
