"""Sums of the newest values by van Herk's scheme: two sums that grow by one value per step, and nothing is removed.

Time is cut into blocks as long as the span.  The newest values are the end of one block and the beginning of the next.
The sums over the ends of the block before and the values of the current one share a buffer: position i is needed for
the last time one step before it is overwritten.
"""

from __future__ import annotations

from .caching import inlined
from .simd import load, splat, store, width


@inlined
def moving_sum(current, steps, span, position, total, ends, base):  # type: ignore[no-untyped-def]
    """Replace `current` by the sums of its newest `span` values.

    Args:
        position: of the first value in its block of `span`.
        total: sum of that block so far.
        ends: (span + 1) vectors from `base` on, see the module; zeros before the first step, the last always.

    Returns:
        position and sum for the next call.
    """
    w = width(current)
    nothing = splat(current.dtype.type(0))
    for t in range(steps):
        now = load(current, t * w)
        total = total + now
        store(current, t * w, total + load(ends, base + (position + 1) * w))
        store(ends, base + position * w, now)
        position += 1
        if position == span:
            sum_ends(ends, base, span)
            position, total = 0, nothing
    return position, total


@inlined
def sum_ends(ends, base, span):  # type: ignore[no-untyped-def]
    """ends[i] ← ends[i] + … + ends[span - 1]."""
    w = width(ends)
    total = splat(ends.dtype.type(0))
    for back in range(span):
        at = base + (span - 1 - back) * w
        total = total + load(ends, at)
        store(ends, at, total)
