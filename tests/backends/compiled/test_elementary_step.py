from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends.compiled.elementary_step import rows_in_lanes, sums_in, sums_out
from liquid_ssm.backends.compiled.simd import lanes


def test_lanes_without_a_row_repeat_the_last_one() -> None:
    np.testing.assert_array_equal(rows_in_lanes(3, 10, 2), [[0, 10], [20, 20]])
    assert rows_in_lanes(0, 10, 2).shape == (0, 2)


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (2, 3), (3, 11)])
@pytest.mark.parametrize("n_sums", [0, 1, 3])
def test_sums_come_back(n_sums: int, shape: tuple[int, int]) -> None:
    sums = np.random.default_rng(0).standard_normal((n_sums, *shape))
    state = sums_in(sums, n_sums, shape[0] * shape[1], np.float64)
    w = lanes(np.float64)
    assert state.shape == (-(-shape[0] * shape[1] // w), n_sums * w)
    np.testing.assert_array_equal(sums_out(state, n_sums, shape), sums)


def test_rows_are_beside_each_other_and_missing_sums_are_zero() -> None:
    state = sums_in(np.array([[[1.0, 2]], [[3, 4]]]), 2, 2, np.float64)
    w = lanes(np.float64)
    np.testing.assert_array_equal(state[0, :2], [1, 2])
    np.testing.assert_array_equal(state[0, w : w + 2], [3, 4])
    assert not sums_in(None, 2, 2, np.float64).any()
