"""How many steps are computed at once."""

from __future__ import annotations

import pytest

from liquid_ssm.nn.pieces import ELEMENTS, steps_at_once


@pytest.mark.parametrize("numbers", [1, 7, 1000, ELEMENTS])
def test_as_many_as_fit(numbers):
    steps = steps_at_once(numbers)
    assert steps * numbers <= ELEMENTS < (steps + 1) * numbers


def test_at_least_one_and_no_division_by_nothing():
    assert steps_at_once(ELEMENTS + 1) == 1
    assert steps_at_once(0) == ELEMENTS
