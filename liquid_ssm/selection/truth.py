"""The exact values of the rows that are verified, and how far each contender may be from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from ..compute import Array
from ..errors import OracleInconclusive
from ..rounding_errors import NO_SCAN_BOUND, has_bound, options, realization_of, rounding_models
from .contenders import Contender
from .data import Data

if TYPE_CHECKING:
    from ..oracle.reference import Bound, Reference
    from ..oracle.rounding import RoundingModel

# Steps on which the interval tier confirms the other one: scalar recurrences that take some 20 ms.
ENCLOSED = 1 << 11
_SAMPLE = 16


@dataclass(frozen=True)
class Finding:
    """One output against the exact one.

    Attributes:
        error: largest error relative to the largest |y| of its row, the reference's own radius included.
        bound: the derived bound on it.
        ratio: largest error in units of its bound; at most 1 passes.
        where: the step of the largest error.
    """

    error: float
    bound: float
    ratio: float
    where: int

    def worse(self, other: Finding) -> Finding:
        """The larger of each number; NaN counts as larger than any."""
        last = max(self, other, key=lambda f: np.inf if np.isnan(f.error) else f.error)
        return Finding(
            float(np.max([self.error, other.error])),
            float(np.max([self.bound, other.bound])),
            float(np.max([self.ratio, other.ratio])),
            last.where,
        )


class Truth:
    """The oracle's values on the verified rows and their first `steps` steps, for every dtype of the contenders.

    Args:
        contenders: those that have a derived bound; see `unbounded`.
        systems: system and u as NumPy arrays, by dtype: what the contenders get.
        given: the dtype of the data; errors are against their exact values.
        steps: how many.
        state: at which the signal starts; None for rest.
        confirm: enclose the first steps of one row by intervals, too.

    Raises:
        OracleInconclusive: two tiers of the oracle contradict each other.
        OutputOverflow: the recurrence leaves every range.
    """

    def __init__(
        self,
        contenders: Sequence[Contender],
        systems: dict[str, tuple[Any, Array]],
        given: str,
        steps: int,
        state: Array | None = None,
        confirm: bool = True,
    ) -> None:
        self.steps, self.given, self._state = steps, given, state
        self._models: dict[str, list[RoundingModel]] = {}
        self._place: dict[str, slice] = {}
        spec = contenders[0].problem.spec
        self._spec = spec
        for c in contenders:
            models = self._models.setdefault(c.problem.dtype, [])
            own = rounding_models(c.backend, c.problem)
            self._place[c.name] = slice(len(models), len(models) + len(own))
            models += own
        self._models.setdefault(given, [])
        self.references = {dtype: self._reference(*systems[dtype], models) for dtype, models in self._models.items()}
        system, u = systems[given]
        self.enclosed = self._confirm(system, u) if confirm else 0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and channels."""
        batch, channels, _ = self.references[self.given].value.shape
        return batch, channels

    @property
    def radius(self) -> float:
        """Largest bound on the reference's own error."""
        return float(self.references[self.given].radius.max(initial=0))

    def finding(self, contender: Contender, y: Array) -> Finding:
        """How far an output (rows, channels, n), n <= steps, in the contender's dtype, is from the exact one."""
        from ..oracle.metrics import absolute_error

        n = y.shape[-1]
        own = self.references[contender.problem.dtype]
        bound = self._bound(own, contender, n)
        error = absolute_error(y, own.value[..., :n], 0.0) + own.radius[..., :n]
        ratio = bound.units(error)
        exact = self.references[self.given]
        with np.errstate(over="ignore"):
            out = y.astype(self.given, copy=False)
        total = absolute_error(out, exact.value[..., :n], 0.0) + exact.radius[..., :n]
        size = np.abs(exact.value[..., :n]).max(axis=-1).astype(float)
        limit = bound.componentwise.max(axis=-1) + bound.normwise
        if contender.problem.dtype != self.given:
            # Rounding the data to the contender's dtype, and y to theirs, are not in the bound of its arithmetic.
            shift = absolute_error(own.value[..., :n], exact.value[..., :n], 0.0).max(axis=-1)
            limit = limit + shift + float(np.finfo(self.given).eps) / 2 * size
        flat = total.reshape(-1, n)
        where = int(np.argmax(np.where(np.isnan(flat), np.inf, flat).max(axis=0))) if flat.size else -1
        # Relative to a row of zeros only errors count: underflow may lose the smallest numbers there.
        limit = np.where(size == 0, limit * 0, limit)
        return Finding(_relative(total.max(axis=-1), size), _relative(limit, size), float(ratio), where)

    def _first(self, shared: bool) -> Array | None:
        """The state of the first row and channel."""
        if self._state is None:
            return None
        return self._state[:1] if shared else self._state[:1, ..., :1, :]

    def _bound(self, reference: Reference, contender: Contender, n: int) -> Bound:
        from ..oracle.reference import Bound

        parts = reference.bounds[self._place[contender.name]]
        return Bound(
            np.sum([b.componentwise[..., :n] for b in parts], axis=0), np.sum([b.normwise for b in parts], axis=0)
        )

    def _reference(self, system: Any, u: Array, models: Sequence[RoundingModel]) -> Reference:
        from ..oracle.reference import reference

        spec = self._spec
        return reference(
            realization_of(system),
            u[..., : self.steps],
            spec.mode,
            models=models,
            state=self._state,
            dtype=np.longdouble,
            **options(spec),
        )

    def _confirm(self, system: Any, u: Array) -> int:
        """Enclose the first steps of one row by intervals; the number of steps."""
        from ..oracle.enclosure import enclose
        from ..oracle.metrics import absolute_error

        spec = self._spec
        shared = system.structure == "mimo"
        modes = system.n_modes
        cost = modes if system.structure in ("diagonal", "mimo") else modes * modes
        cost *= (spec.order if spec.has_order else 1) * (u.shape[1] if shared else 1)
        n = int(min(self.steps, max(8, ENCLOSED // cost)))
        one, row = (system, u[:1]) if shared else (system.take([0]), u[:1, :1])
        e = enclose(realization_of(one), row[..., :n], spec.mode, state=self._first(shared), **options(spec))
        own = self.references[self.given]
        value, radius = own.value[:1, : row.shape[1], :n], own.radius[:1, : row.shape[1], :n]
        gap = absolute_error(value, e.hi, e.lo)
        if not np.all(gap <= radius + e.radius):
            raise OracleInconclusive(
                f"tiers T1 and T3 of the oracle disagree on {spec.label} {self.given} by {float(gap.max()):.3g}; this "
                "is a defect of liquid-ssm, please report it with the system and signal."
            )
        return n


def unbounded(contender: Contender) -> str:
    """Why no bound is known for a contender; the empty text where one is."""
    return "" if has_bound(contender.backend, contender.problem) else NO_SCAN_BOUND


def affordable_steps(
    data: Data, contenders: Sequence[Contender], seconds: float, clock: Callable[[], float] = perf_counter
) -> int:
    """How many steps the reference can take in that time, judged by shorter runs, which are part of it.

    Each run has four times the steps of the one before, and its successor is expected to grow as it has grown: few
    steps cost about the same, and some structures more than in proportion.  No fewer than the longest run are taken,
    so that it may all be twice the time.
    """
    length = data.problem.length
    end = clock() + seconds
    steps, taken, growth = _SAMPLE, 0.0, 4.0
    while steps < length:
        systems = {}
        for dtype in {data.problem.dtype, *(c.problem.dtype for c in contenders)}:
            system, u = data.few(dtype)
            systems[dtype] = (system, u[..., :steps])
        start = clock()
        Truth(contenders, systems, data.problem.dtype, steps, confirm=False)
        before, taken = taken, max(clock() - start, 1e-9)
        growth = max(2.0, taken / before) if before else 4.0
        left = end - clock()
        if left < taken * growth:
            exponent = max(1.0, math.log(growth) / math.log(4))
            return int(min(length, max(steps, steps * (max(left, 0.0) / taken) ** (1 / exponent))))
        steps *= 4
    return length


def _relative(error: Array, size: Array) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error == 0, 0.0, np.asarray(error, float) / size)
    return float(ratio.max(initial=0.0))
