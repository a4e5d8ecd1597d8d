"""Seconds of a call: median, spread, and a refusal where a call is too slow to be repeated."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter

from .errors import ParameterError

RUNS = 7
MOST_RUNS = 25
# A measured stretch is at least this long, far above the clock's resolution.
STRETCH = 2e-3
# Fast calls are run more than RUNS times, until they have taken about this long together, if not told otherwise.
TOGETHER = 0.15


@dataclass(frozen=True)
class Timing:
    """Seconds of one call.

    Attributes:
        median, minimum, maximum: over the runs [s].
        runs: how many stretches were timed, at least 7.
        inner: calls in one stretch; each stretch counts as its mean.
    """

    median: float
    minimum: float
    maximum: float
    runs: int
    inner: int = 1

    def __add__(self, other: Timing) -> Timing:
        """One call after the other; the spread is the widest that the two allow."""
        return Timing(
            self.median + other.median,
            self.minimum + other.minimum,
            self.maximum + other.maximum,
            min(self.runs, other.runs),
            min(self.inner, other.inner),
        )


class TooSlow(Exception):
    """One call took longer than the limit, so it was not repeated.

    Attributes:
        seconds: what the call took.
        limit: what one call may take [s].
    """

    def __init__(self, seconds: float, limit: float) -> None:
        self.seconds, self.limit = seconds, limit
        super().__init__(f"one call took {seconds:.3g} s, more than the {limit:.3g} s that a row may take")


def time_call(
    call: Callable[[], object],
    *,
    runs: int = RUNS,
    limit: float | None = None,
    compiles: bool = True,
    together: float = TOGETHER,
    clock: Callable[[], float] = perf_counter,
) -> Timing:
    """Median and spread of `call` over at least `runs` stretches, after a warm-up.

    Args:
        call: what is timed; its inputs exist already.
        runs: the least number of stretches, >= 1.
        limit: seconds that one call may take; None for no limit.
        compiles: the first call may compile, so the limit holds from the second on.
        together: fast calls are repeated until they have taken about this long [s].
        clock: seconds, increasing.

    Returns:
        Timing.

    Raises:
        TooSlow: a call took longer than `limit`.
        ParameterError: runs below 1.
    """
    if runs < 1:
        raise ParameterError(f"runs is {runs}; a median needs at least 1.")

    def stretch(calls: int) -> float:
        start = clock()
        for _ in range(calls):
            call()
        return (clock() - start) / calls

    once = stretch(1)
    if compiles or limit is None or once <= limit:
        once = stretch(1)
    if limit is not None and once > limit:
        raise TooSlow(once, limit)
    inner = 1 if once >= STRETCH else math.ceil(STRETCH / max(once, 1e-9))
    count = max(runs, min(MOST_RUNS, int(together / max(once * inner, 1e-9))))
    seconds = [stretch(inner) for _ in range(count)]
    return Timing(median(seconds), min(seconds), max(seconds), count, inner)
