"""The data of a report's plots: few enough points to store and to draw, and no peak lost.

Numbers keep four significant digits, which is more than a plot shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

POINTS = 128  # of one error curve; the plots are some 300 pixels wide
BAND_POINTS = 256  # of one signal, which a reader may want to recognise


@dataclass(frozen=True)
class ErrorCurve:
    """Errors of one backend under their bound, in the row of the batch and the channel that comes nearest to it.

    Attributes:
        against: `step`: |error| at step k; `length`: the largest |error| of a run of L steps.
        x: steps k (the first of each block), or lengths L.
        error, bound: the largest of each block [units of y].
        own_runs: every length is a run of its own; else the first L steps of one run.
        batch, channel: which row was drawn; -1 where it differs from length to length.
    """

    backend: str
    mode: str
    dtype: str
    against: Literal["step", "length"]
    x: tuple[int, ...]
    error: tuple[float, ...]
    bound: tuple[float, ...]
    own_runs: bool = False
    batch: int = -1
    channel: int = -1


@dataclass(frozen=True)
class TruncationCurve:
    """What a mode costs against `liquid` at each order, both by the oracle.

    Attributes:
        mode: name, and the correlations where it has them.
        order: P.
        error: ‖y_mode − y_liquid‖₂ / ‖y_liquid‖₂.
    """

    mode: str
    order: tuple[int, ...]
    error: tuple[float, ...]


@dataclass(frozen=True)
class DiscretizationCurve:
    """What a method costs against the continuous model as the step gets smaller, both by the oracle.

    Attributes:
        dt: step size of the channel with the largest one [time].
        error: ‖y − y_exact‖₂ / ‖y_exact‖₂ at the ends of the signal's steps.
        slope: order of convergence, fitted to the smallest steps; NaN where too few errors are finite.
    """

    method: str
    dt: tuple[float, ...]
    error: tuple[float, ...]
    slope: float


@dataclass(frozen=True)
class TimeCurve:
    """Median seconds of one backend over the length of the signal, or a limit of the machine for the same work.

    Attributes:
        name: the backend, or what the limit is.
        limit: this is a limit, not a backend.
        length: L.
        seconds: [s].
    """

    name: str
    mode: str
    dtype: str
    limit: bool
    length: tuple[int, ...]
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Band:
    """Smallest and largest value of each block of steps.

    Attributes:
        of: `u`, or the mode whose exact output this is.
        batch, channel: which row.
        step: first step of each block.
        low, high: [units of u or y].
    """

    of: str
    batch: int
    channel: int
    step: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Curves:
    """Everything that the plots of a report show beyond its rows.

    Attributes:
        notes: how the curves were made, and why some are missing; one sentence each.
    """

    errors: tuple[ErrorCurve, ...] = ()
    truncation: tuple[TruncationCurve, ...] = ()
    discretization: tuple[DiscretizationCurve, ...] = ()
    times: tuple[TimeCurve, ...] = ()
    bands: tuple[Band, ...] = ()
    notes: tuple[str, ...] = ()


def rounded(values: Iterable[Any]) -> tuple[float, ...]:
    """Four significant digits of each, as Python's floats."""
    return tuple(float(f"{float(value):.4g}") for value in values)


def starts(length: int, points: int = POINTS) -> npt.NDArray[np.intp]:
    """First index of each of at most `points` blocks of equal size, the last perhaps shorter."""
    size = max(1, -(-length // points))
    return np.arange(0, length, size)


def largest(values: Array, points: int = POINTS) -> tuple[float, ...]:
    """The largest value of each block; a NaN is kept."""
    return rounded(np.maximum.reduceat(values, starts(len(values), points)))


def lengths(longest: int, least: int = 1) -> tuple[int, ...]:
    """Powers of two from `least` on, and the longest length itself."""
    if longest < 1:
        return ()
    powers = [2**k for k in range(longest.bit_length()) if least <= 2**k < longest]
    return (*powers, longest)


def band(of: str, values: Array, batch: int, channel: int) -> Band:
    """The band of one row of (batch, H, L)."""
    row = values[batch, channel]
    first = starts(len(row), BAND_POINTS)
    low, high = (rounded(extreme.reduceat(row, first)) for extreme in (np.minimum, np.maximum))
    return Band(of, batch, channel, tuple(map(int, first)), low, high)
