"""Independent pieces of work on several cores; which thread takes which piece changes no result."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from .openmp import run_together, team

_pools: dict[int, ThreadPoolExecutor] = {}

if hasattr(os, "register_at_fork"):
    # The threads of a pool do not exist in a child process.
    os.register_at_fork(after_in_child=_pools.clear)


def available_threads() -> int:
    """Numba's setting (`NUMBA_NUM_THREADS`), at most the cores that this process may run on."""
    from numba import config

    return max(1, min(int(config.NUMBA_NUM_THREADS), cores()))


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share(work: Callable[[int, int], None], pieces: int, threads: int, at_once: int | None = None) -> None:
    """Call work(first, end) until it has covered the pieces 0 … `pieces` - 1, on up to `threads` threads.

    They are torch's where it has been imported and has as many (`openmp.py`), else Python's own.

    Args:
        work: releases the interpreter's lock; pieces must not depend on each other.
        pieces: number of pieces.
        threads: the calling thread included.
        at_once: pieces that are taken at a time; None for a quarter of a thread's share, since every call costs time
            with the interpreter's lock.
    """
    if at_once is None:
        at_once = max(1, -(-pieces // (4 * threads)))
    batches = -(-pieces // at_once)
    threads = min(threads, batches)
    if threads <= 1:
        if pieces:
            work(0, pieces)
        return
    # Whoever is free takes the next pieces: cores of a shared machine are not equally fast.
    ticket, seats = count(), count()

    def take() -> None:
        while (i := next(ticket)) < batches:
            work(i * at_once, min((i + 1) * at_once, pieces))

    def take_a_seat() -> None:
        if next(seats) < threads:
            take()

    if size := team(threads):
        run_together(take_a_seat, size)
        return
    helpers = [_pool(threads - 1).submit(take) for _ in range(threads - 1)]
    try:
        take()
    finally:
        for helper in helpers:
            helper.result()


def _pool(size: int) -> ThreadPoolExecutor:
    if size not in _pools:
        _pools[size] = ThreadPoolExecutor(size, thread_name_prefix="liquid-ssm")
    return _pools[size]
