"""Accuracy next to time: the largest error of each backend, mode and dtype in units of its derived bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from ..problem import ModeSpec
from ..rounding_errors import Case, mode_rows, realization_of
from .shapes import WORK, Shape
from .subjects import subject

# Two channels, the fastest and the slowest, and four batch rows of work W's systems, on few steps: the enclosing
# reference takes about as long for them as one slow row of the benchmark.
STEPS = 64
BUDGET = 2**21


@dataclass(frozen=True)
class Accuracy:
    """The error of one backend on an excerpt.

    Attributes:
        error_over_bound: largest |error| in units of its derived bound (docs/bounds.md); at most 1 is within.
        relative_error: in the 2-norm.
        status: `pass`, `fail`, `inconclusive` or `rejected`, as in `liquid-ssm verify`.
        reason: why the status is not `pass`, else empty.
    """

    subject: str
    mode: str
    dtype: str
    status: str
    error_over_bound: float | None = None
    relative_error: float | None = None
    reason: str = ""


@cache
def _case(dtype: str, steps: int) -> Case:
    shape = Shape(WORK.batch, WORK.n_channels, WORK.n_state, steps)
    whole = subject(shape, dtype)
    channels = [0, shape.n_channels - 1]
    system = whole.system.take(channels)
    return Case(dtype, system, np.ascontiguousarray(whole.u[:, channels]), realization_of(system))


def accuracy(names: Sequence[str], spec: ModeSpec, dtype: str, steps: int = STEPS) -> list[Accuracy]:
    """One entry per backend, each against the enclosing reference T1 (`rounding_errors`).

    The error of a backend depends on the shape: this is the one of a short excerpt, and `liquid-ssm verify` has
    those of whole signals.
    """
    rows, _ = mode_rows(_case(dtype, steps), spec, names, 0, BUDGET)
    found = []
    for row in rows:
        computed = row.status in ("pass", "fail") or row.oracle
        found.append(
            Accuracy(
                row.backend,
                row.mode,
                row.dtype,
                row.status,
                row.error_over_bound if computed else None,
                row.relative_error if computed else None,
                row.reason,
            )
        )
    return found
