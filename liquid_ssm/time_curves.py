"""Seconds of each backend over the length of a signal, next to what the machine allows at best."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from .bench.limits import Limits, measure_limits
from .bench.shapes import Shape
from .bench.work import FORWARD, slots, traffic
from .compute import compute, problem_of
from .curves import TimeCurve, lengths, rounded
from .problem import ModeSpec
from .registry import rejection
from .timing import TooSlow, time_call

Array = npt.NDArray[Any]

LEAST = 64
RUNS = 3
SLOWEST = 0.25  # seconds of one call; a curve ends before the length that takes longer
COPY_BYTES = 1 << 26


def time_curves(
    system: Any, u: Array, specs: Sequence[ModeSpec], names: Sequence[str]
) -> tuple[tuple[TimeCurve, ...], list[str]]:
    """Median seconds at powers of two up to the length of u, and limits of the machine for the same work.

    Args:
        system: in the precision of u.
        u: (batch, H, L), float32 or float64.
        specs: modes.
        names: backends; those that reject the problem are left out.

    Returns:
        Curves, and notes on what they show.
    """
    limits, note = _limits()
    sizes = lengths(u.shape[-1], LEAST)
    curves = []
    for spec in specs:
        problem = problem_of(system, u, spec)
        for name in names:
            # An integrator is its own NumPy code.
            if name != "numpy" if system.structure == "integrator" else rejection(name, problem) is not None:
                continue
            curves.append(_timed(system, u, spec, name, sizes))
        curves += _limit_curves(system, u, spec, sizes, limits)
    notes = [
        f"Times are medians of at least {RUNS} calls on the first L steps; a curve ends where one call would take more "
        f"than {SLOWEST} s. {note}"
    ]
    return tuple(curve for curve in curves if curve.length), notes


def _timed(system: Any, u: Array, spec: ModeSpec, name: str, sizes: Sequence[int]) -> TimeCurve:
    done, seconds = [], []
    for size in sizes:
        part = np.ascontiguousarray(u[..., :size])
        try:
            timing = time_call(
                partial(compute, system, part, spec, backend=name),
                runs=RUNS,
                limit=SLOWEST,
            )
        except TooSlow:
            break
        done.append(size)
        seconds.append(timing.median)
    return TimeCurve(name, spec.label, u.dtype.name, False, tuple(done), rounded(seconds))


def _limits() -> tuple[Limits, str]:
    """The machine's limits; where the compiled backend cannot measure them, the rate of NumPy's copy alone."""
    limits = measure_limits()
    if limits.known:
        return limits, "Limits: multiply-adds, and a copy that no cache holds; what a cache holds may pass the latter."
    source = np.ones(COPY_BYTES // 8)
    target = np.empty_like(source)
    seconds = []
    for _ in range(5):
        start = perf_counter()
        np.copyto(target, source)
        seconds.append(perf_counter() - start)
    return (
        Limits(copy=2 * COPY_BYTES / min(seconds[1:]), reason=limits.reason),
        f"Limit: NumPy's copy of an array that no cache holds; that of multiply-adds {limits.reason}.",
    )


def _limit_curves(system: Any, u: Array, spec: ModeSpec, sizes: Sequence[int], limits: Limits) -> list[TimeCurve]:
    batch, channels, _ = u.shape
    shapes = [Shape(batch, channels, 2 * system.n_modes, size) for size in sizes]

    def curve(name: str, seconds: list[float]) -> TimeCurve:
        return TimeCurve(name, spec.label, u.dtype.name, True, tuple(sizes), rounded(seconds))

    found = []
    if limits.copy is not None:
        moved = [traffic(FORWARD, shape, u.itemsize) / limits.copy for shape in shapes]
        found.append(curve("limit: memory", moved))
    rate = limits.fma(u.dtype.name)
    # The counts are those of plain recurrences of diagonal systems.
    if rate is not None and system.structure == "diagonal":
        work = [slots(spec, FORWARD, shape) for shape in shapes]
        if None not in work:
            found.append(curve("limit: multiply-adds", [(w or 0) / rate for w in work]))
    return found
