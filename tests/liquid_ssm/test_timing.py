"""The timer: medians of many runs, warm-ups outside them, and slow calls given up."""

from __future__ import annotations

from itertools import chain, repeat

import pytest

from liquid_ssm.errors import ParameterError
from liquid_ssm.timing import RUNS, STRETCH, Timing, TooSlow, time_call


class Clock:
    """A clock that a call moves on by the next of the given seconds."""

    def __init__(self, *seconds: float, rest: float) -> None:
        self.now, self.calls = 0.0, 0
        self.next = chain(seconds, repeat(rest))

    def __call__(self) -> float:
        return self.now

    def work(self) -> None:
        self.now += next(self.next)
        self.calls += 1


def test_median_and_spread_leave_out_both_warm_ups():
    clock = Clock(100.0, 1.0, 3.0, 1.0, 2.0, 9.0, 4.0, 5.0, 2.5, rest=1e9)
    found = time_call(clock.work, clock=clock)
    assert found == Timing(3.0, 1.0, 9.0, 7, 1)
    assert clock.calls == 2 + RUNS


def test_a_fast_call_is_repeated_until_the_clock_can_tell():
    clock = Clock(rest=1e-5)
    found = time_call(clock.work, clock=clock)
    assert found.inner == round(STRETCH / 1e-5)
    assert found.runs > RUNS
    # A stretch counts as the mean of its calls.
    assert found.median == pytest.approx(1e-5)
    assert clock.calls == 2 + found.runs * found.inner


def test_a_slow_call_is_given_up_after_its_first_warm_run():
    clock = Clock(rest=2.0)
    with pytest.raises(TooSlow, match=r"one call took 2 s, more than the 1 s") as caught:
        time_call(clock.work, limit=1.0, clock=clock)
    assert (caught.value.seconds, caught.value.limit) == (2.0, 1.0)
    assert clock.calls == 2


def test_what_cannot_compile_is_given_up_after_one_call_and_what_can_is_not():
    slow = Clock(rest=2.0)
    with pytest.raises(TooSlow):
        time_call(slow.work, limit=1.0, compiles=False, clock=slow)
    assert slow.calls == 1
    compiling = Clock(15.0, rest=0.5)
    assert time_call(compiling.work, limit=1.0, clock=compiling).median == 0.5


def test_no_runs_are_an_error():
    with pytest.raises(ParameterError, match="runs is 0; a median needs at least 1"):
        time_call(lambda: None, runs=0)


def test_one_call_after_the_other_adds_medians_and_spreads():
    assert Timing(1, 0.5, 2, 7, 3) + Timing(10, 9, 12, 9, 1) == Timing(11, 9.5, 14, 7, 1)
