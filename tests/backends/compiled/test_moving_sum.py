from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from liquid_ssm.backends.compiled.caching import compiled
from liquid_ssm.backends.compiled.moving_sum import moving_sum
from liquid_ssm.backends.compiled.simd import lanes, splat, width


@compiled
def in_parts(values, span, ends, base, first, second):  # type: ignore[no-untyped-def]
    """Moving sums of `values` in place, `first` steps and then `second`."""
    w = width(values)
    position, total = 0, splat(values.dtype.type(0))
    position, total = moving_sum(values, first, span, position, total, ends, base)
    position, total = moving_sum(values[first * w :], second, span, position, total, ends, base)


@pytest.mark.parametrize("span", [1, 2, 3, 7, 12, 13, 20])
def test_is_the_sum_of_the_newest_values(span: int) -> None:
    w, steps = lanes(np.float64), 13
    values: Any = np.random.default_rng(0).integers(-9, 10, (steps, w)).astype(float)
    expected = [values[max(0, k - span + 1) : k + 1].sum(axis=0) for k in range(steps)]
    for first in (0, 1, 7, 13):
        for base in (0, 3 * w):
            sums, ends = values.copy(), np.zeros(base + (span + 1) * w)
            in_parts(sums.reshape(-1), span, ends, base, first, steps - first)
            np.testing.assert_array_equal(sums, expected)
            assert not ends[:base].any()
