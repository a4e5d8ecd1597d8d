"""What fits into the memory of a device."""

from __future__ import annotations

import pytest

from liquid_ssm.backends.triton_kernels.memory import (
    advice_for_output,
    fitting_interval,
    kept_bytes,
)


def test_kept_states_are_counted():
    # 100 steps: 25 of every fourth, and two blocks of one interval with the one that is not full.
    assert kept_bytes(10, 100, 4, 2) == 10 * (25 + 3)
    assert kept_bytes(10, 3, 64, 8) == 10 * (1 + 1)


@pytest.mark.parametrize("free", [100, 250, 400, 10**6])
@pytest.mark.parametrize("length", [1, 64, 1000])
def test_the_shortest_interval_that_fits_is_found(length, free):
    found = fitting_interval(10, length, 4, free)
    intervals = [4 << i for i in range(12)]
    fitting = [i for i in intervals if kept_bytes(10, length, i, 4) <= free]
    assert found == (fitting[0] if fitting else None)


def test_advice_for_outputs_counts_rows():
    assert "enough for 3 of 5 row(s)" in advice_for_output(5, 10, 35)
    assert "not even one row" in advice_for_output(5, 10, 9)
