"""A row next to its limits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from liquid_ssm.bench.limits import Limits
from liquid_ssm.bench.rows import backend_row, timed_row, together
from liquid_ssm.bench.shapes import WORK, Shape
from liquid_ssm.bench.work import BACKWARD, BOTH, FORWARD, slots
from liquid_ssm.problem import ModeSpec
from liquid_ssm.timing import Timing

LIQUID = ModeSpec("liquid")
SECOND = Timing(1.0, 0.9, 1.2, 7)


def test_fractions_are_of_the_time_that_the_limit_allows():
    row = backend_row("numba", LIQUID, FORWARD, "float32", WORK, seconds=SECOND)
    work = slots(LIQUID, FORWARD, WORK)
    slow_memory = row.against(Limits(2, 2 * work, 1.0, 1.25 * 8 * WORK.elements))
    assert slow_memory.fma_fraction == pytest.approx(0.5)
    assert slow_memory.copy_fraction == pytest.approx(0.8)
    assert (slow_memory.binds, slow_memory.limit_fraction) == ("copy", slow_memory.copy_fraction)
    fast_memory = row.against(Limits(2, 2 * work, 1.0, 8e3 * WORK.elements))
    assert (fast_memory.binds, fast_memory.limit_fraction) == ("fma", fast_memory.fma_fraction)


def test_float64_has_its_own_limit():
    row = backend_row("numba", LIQUID, FORWARD, "float64", WORK, seconds=SECOND)
    assert row.against(Limits(2, 1.0, row.slots, 1e30)).fma_fraction == pytest.approx(1)


def test_without_limits_or_time_there_are_no_fractions():
    row = backend_row("numba", LIQUID, FORWARD, "float32", WORK, seconds=SECOND).against(Limits(reason="no numba"))
    assert (row.fma_fraction, row.limit_fraction, row.binds) == (None, None, "")
    missing = backend_row("numba", LIQUID, FORWARD, "float32", WORK, reason="too slow")
    assert missing.against(Limits(2, 1.0, 1.0, 1.0)) == missing


def test_a_rival_has_no_count_and_so_no_fraction():
    row = replace(backend_row("x", LIQUID, FORWARD, "float32", WORK, seconds=SECOND), slots=None)
    assert row.against(Limits(2, 1.0, 1.0, 1.0)).limit_fraction is None


def test_forward_and_backward_together():
    forward = backend_row("numba", LIQUID, FORWARD, "float32", WORK, seconds=SECOND)
    backward = backend_row("numba", LIQUID, BACKWARD, "float32", WORK, seconds=Timing(3.0, 2.9, 3.2, 9))
    both = together(forward, backward, LIQUID)
    assert both.direction == BOTH
    assert both.seconds.median == 4.0
    assert both.slots == forward.slots + backward.slots
    assert both.traffic == forward.traffic + backward.traffic
    lacking = together(forward, replace(backward, seconds=None, reason="no gradients"), LIQUID)
    assert (lacking.seconds, lacking.reason) == (None, "backward: no gradients")


def test_a_row_gets_its_time():
    row = timed_row(backend_row("numba", LIQUID, FORWARD, "float32", Shape(1, 1, 2, 1)), lambda: None, limit=1.0)
    assert row.seconds.runs >= 7
    assert row.seconds.minimum <= row.seconds.median <= row.seconds.maximum
