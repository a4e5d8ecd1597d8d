from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from liquid_ssm.backends.compiled.caching import compiled
from liquid_ssm.backends.compiled.lowrank_lanes import aligned, row_sum
from liquid_ssm.backends.compiled.simd import VECTOR_BYTES, lanes, load, store


@compiled
def summed(numbers, group):  # type: ignore[no-untyped-def]
    room = aligned(numbers, numbers.size)
    store(room, 0, row_sum(load(numbers, 0), group))
    return room


@compiled
def places(like, count):  # type: ignore[no-untyped-def]
    room = aligned(like, count)
    return room.size, room.ctypes.data


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_lane_gets_the_sum_of_its_row(dtype: Any) -> None:
    n = lanes(dtype)
    numbers = np.arange(1, n + 1, dtype=dtype) ** 2  # whole numbers: sums are exact
    for group in (1 << i for i in range(n.bit_length())):
        expected = np.repeat(numbers.reshape(-1, group).sum(axis=1), group)
        np.testing.assert_array_equal(summed(numbers, group), expected)


@pytest.mark.parametrize("count", [0, 1, 17, 1000])
def test_room_begins_with_a_cache_line(count: int) -> None:
    for dtype in (np.float32, np.float64):
        size, address = places(np.empty(0, dtype), count)
        assert size == count
        assert address % VECTOR_BYTES == 0
