"""What this machine can do at most: the limits that benchmarks are held against."""

from __future__ import annotations

from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from .caching import compiled
from .simd import fma, lanes, load, store, width
from .threads import share

RUNS = 7
# Long enough to be timed, short enough to be repeated: some 20 ms.
ROUNDS = 2_000_000
COPY_BYTES = 1 << 27
CHAINS = 10


@compiled
def _multiply_adds(numbers, rounds):  # type: ignore[no-untyped-def]
    """Ten independent chains of fused multiply-adds, more than their latency needs."""
    w = width(numbers)
    a, b = load(numbers, 0), load(numbers, w)
    # Loaded, since the compiler would run equal chains once.
    x0, x1, x2, x3, x4 = (
        load(numbers, 2 * w),
        load(numbers, 3 * w),
        load(numbers, 4 * w),
        load(numbers, 5 * w),
        load(numbers, 6 * w),
    )
    x5, x6, x7, x8, x9 = (
        load(numbers, 7 * w),
        load(numbers, 8 * w),
        load(numbers, 9 * w),
        load(numbers, 10 * w),
        load(numbers, 11 * w),
    )
    for _ in range(rounds):
        x0, x1, x2, x3, x4 = fma(a, x0, b), fma(a, x1, b), fma(a, x2, b), fma(a, x3, b), fma(a, x4, b)
        x5, x6, x7, x8, x9 = fma(a, x5, b), fma(a, x6, b), fma(a, x7, b), fma(a, x8, b), fma(a, x9, b)
    store(numbers, 0, x0 + x1 + x2 + x3 + x4 + x5 + x6 + x7 + x8 + x9)


def fma_rate(dtype: npt.DTypeLike, threads: int) -> float:
    """Fused multiply-adds per second on `threads` threads, each lane of a vector counted; the median of 7 runs."""

    def work(first: int, end: int) -> None:
        for _ in range(first, end):
            # At most 1, so that nothing overflows or becomes subnormal.
            _multiply_adds(np.full((2 + CHAINS) * lanes(dtype), 0.5, dtype), ROUNDS)

    _multiply_adds(np.zeros((2 + CHAINS) * lanes(dtype), dtype), 1)
    seconds = _timed(work, threads)
    return threads * ROUNDS * CHAINS * lanes(dtype) / seconds


def copy_rate(threads: int) -> float:
    """Bytes read and written per second by copies that no cache holds; the median of 7 runs."""
    source, target = np.ones(COPY_BYTES // 8), np.zeros(COPY_BYTES // 8)
    size = len(source) // threads

    def work(first: int, end: int) -> None:
        for i in range(first, end):
            target[i * size : (i + 1) * size] = source[i * size : (i + 1) * size]

    return 2 * 8 * size * threads / _timed(work, threads)


def _timed(work: Any, threads: int) -> float:
    share(work, threads, threads)
    seconds = []
    for _ in range(RUNS):
        start = perf_counter()
        share(work, threads, threads)
        seconds.append(perf_counter() - start)
    return median(seconds)
