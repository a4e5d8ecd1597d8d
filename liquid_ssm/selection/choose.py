"""Selection for one problem: availability, capability, verification, timing; the fastest that passes wins."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import numpy as np

from ..backend import Rejection
from ..certificate import Candidate, Certificate
from ..compute import compute, compute_vjp
from ..errors import BackendRejected, BackendUnavailable, LiquidSSMError, ParameterError, UnstableRecurrence
from ..timing import Timing, time_call
from .contenders import Contender, contenders
from .data import Data, extended
from .defaults import BUDGET
from .domain import domain_of, measures
from .gradient_check import check_gradients
from .truth import Finding, Truth, affordable_steps, unbounded
from .verification import (
    CARRIED,
    LONGEST_BASE,
    RESIDUES,
    Refused,
    carried_signal,
    check_carried,
    check_heads,
    check_whole,
    run_whole,
    sweep,
    sweep_lengths,
    synchronize,
)

# An error that was measured on a few rows must leave this much room below the tolerance; a derived bound need not.
MARGIN = 4.0
# Who has been chosen before stays, unless another is faster by more than this share and by more than the spread.
HYSTERESIS = 0.1
# Shares of the budget: of the reference, of one more contender's runs.
_REFERENCE, _RUNS = 0.25, 0.25
# Shares of what is left of the budget, and of all of it, that whole calls may take to decide the order.
_ORDER, _ORDER_AT_LEAST = 0.5, 0.2
# Within this factor of the shortest estimate, whole calls decide who is verified first.
_CLOSE = 3.0
# Who is slow is verified all the same where a piece of the problem takes less than this share.
_CHEAP = 0.02
# A piece is timed three times where it takes less than this share of the budget.
_SMALL = 0.01
# Steps of the pieces that are timed first.
_SHORT, _LONGER = 64, 512


@dataclass
class _Tried:
    """What is known of a contender so far."""

    contender: Contender
    finding: Finding | None = None
    timing: Timing | None = None
    compiling: float = 0.0
    estimate: float = 0.0
    status: str = ""
    reason: str = ""

    def candidate(self) -> Candidate:
        f, t = self.finding, self.timing
        return Candidate(
            self.contender.name,
            self.status,
            self.reason,
            None if f is None else f.error,
            None if f is None else f.bound,
            None if f is None else f.ratio,
            None if t is None else t.median,
            None if t is None else t.minimum,
            None if t is None else t.maximum,
            0 if t is None else t.runs,
            self.compiling if t is not None else None,
        )


class Selection:
    """One selection, step by step.

    Args:
        data: the problem with its numbers.
        tolerance: largest relative error, or None for the derived bound alone.
        budget: seconds that the selection may take, what first calls compile apart; contenders are verified until one
            passes, whatever that takes.
        validators: what the certificate depends on.
        incumbent: the backend that a certificate of the same domain has named before, if any.
        excluded: backends that may not be chosen, and why.
        residues: residues modulo 128 of lengths at which the incumbent has been verified before.
        only: the backends to consider; () for all.
    """

    def __init__(
        self,
        data: Data,
        *,
        tolerance: float | None = None,
        budget: float = BUDGET,
        validators: dict[str, str],
        incumbent: str | None = None,
        excluded: Sequence[tuple[str, str]] = (),
        residues: Sequence[int] = (),
        only: tuple[str, ...] = (),
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self.data, self.tolerance, self.budget = data, tolerance, budget
        self.validators, self.incumbent, self.excluded = validators, incumbent, dict(excluded)
        self.known_residues, self.only, self.clock = set(residues), only, clock
        self.checks: list[str] = []
        self.compiled = 0.0
        self.unstable: UnstableRecurrence | None = None

    def run(self) -> Certificate:
        """The certificate of the fastest backend that passes.

        Raises:
            BackendRejected: none does; carries every reason.
            UnstableRecurrence: the state leaves the range of the dtype on this signal.
            OracleInconclusive: two tiers of the oracle contradict each other.
        """
        self.start = self.clock()
        found = list(contenders(self.data.problem, other_dtypes=self.tolerance is not None, only=self.only))
        tried = [_Tried(c) for c in found if isinstance(c, Contender)]
        able = [t for t in tried if not self._keep_out(t)]
        if able:
            self._verify(able)
            self._sweep_fastest(able)
        by_name = {t.contender.name: t.candidate() for t in tried}
        candidates = [by_name[c.name] if isinstance(c, Contender) else c for c in found]
        chosen = [c for c in candidates if c.status == "chosen"]
        if not chosen:
            if self.unstable is not None:
                raise self.unstable
            raise self._nothing(candidates)
        return self._certificate(chosen[0].name, tuple(candidates))

    @property
    def left(self) -> float:
        """Seconds that are left of the budget; what first calls took to compile is not of it."""
        return self.budget + self.compiled - (self.clock() - self.start)

    @contextmanager
    def _compiling(self, t: _Tried) -> Iterator[None]:
        """Takes what is compiled meanwhile for this contender out of the budget: checks run it in other ways too."""
        backend = t.contender.backend
        before = backend.compile_seconds()
        try:
            yield
        finally:
            self.compiled += backend.compile_seconds() - before

    def _keep_out(self, t: _Tried) -> bool:
        """Give a status to who need not be run at all."""
        c = t.contender
        loading = c.backend.warm_up_seconds()
        if c.name in self.excluded:
            t.status, t.reason = "refused", f"quarantined: {self.excluded[c.name]}"
        elif loading > 0 and loading > self.left / 2:
            # Before anything else is asked of it, which might load what it needs.
            t.status = "not tried"
            t.reason = (
                f"its first call may load and compile for {_seconds(loading)}, more than half of the "
                f"{_seconds(max(0.0, self.left))} that are left of the budget of {self.budget:g} s"
            )
        elif without_bound := unbounded(c):
            t.status, t.reason = "refused", f"inconclusive: {without_bound}"
        elif self.tolerance is not None and self.tolerance < _rounding(self.data.problem.dtype, c.problem.dtype):
            t.status = "refused"
            t.reason = (
                f"rounding one number of y to {min(c.problem.dtype, self.data.problem.dtype)} may cost "
                f"{_rounding(self.data.problem.dtype, c.problem.dtype):.1g}, more than the tolerance {self.tolerance:g}"
            )
        return bool(t.status)

    def _verify(self, able: list[_Tried]) -> None:
        for t in able:
            self._estimate(t, min((a.estimate for a in able if a.estimate > 0), default=math.inf))
        self._refine([t for t in able if not t.status])
        running = sorted((t for t in able if not t.status), key=lambda t: t.estimate)
        self._run_in_order(running, lambda passed: True)
        # The budget ends a selection, not before something has passed.
        waiting = [t for t in running if t.status == "not tried"]
        if waiting and all(t.status for t in able):
            for t in waiting:
                t.status = t.reason = ""
            self._run_in_order(waiting, lambda passed: passed)

    def _refine(self, able: list[_Tried]) -> None:
        """Better estimates of who may be the fastest, by whole calls.

        Where the budget lasts for one verification, its order decides who is chosen, and pieces may mislead.
        """
        limit = _CLOSE * min((t.estimate for t in able), default=math.inf)
        close = [t for t in able if t.estimate <= limit]
        may_take = max(self.left * _ORDER, self.budget * _ORDER_AT_LEAST)
        if len(close) < 2 or sum(2 * t.estimate for t in close) > may_take:
            return
        for t in close:
            with self._compiling(t), self._faults(t):
                call = self._call(t.contender, *self.data.whole(self.data.problem.dtype), label=True)
                t.estimate = min(_once(call, self.clock), _once(call, self.clock))

    def _run_in_order(self, running: list[_Tried], stops: Callable[[bool], bool]) -> None:
        """Judge and time one after the other.

        Args:
            stops: whether the budget counts, given whether one has passed; for the first it never does.
        """
        late = running[1:] if stops(False) else []
        running = [t for t in running if t not in late or not self._skip_if_long(t)]
        if running:
            self._find_truth([_for_forward(t.contender) for t in running])
        best = math.inf
        for k, t in enumerate(running):
            if k > 0 and stops(best < math.inf) and self._skip_if_long(t):
                continue
            with self._compiling(t):
                self._judge(t)
                if not t.status:
                    self._time(t, best)
            if not t.status:
                best = min(best, _timing(t).median)

    def _find_truth(self, everyone: list[Contender]) -> None:
        from ..oracle.errors import OutputOverflow

        problem = self.data.problem
        with np.errstate(over="ignore", invalid="ignore"):
            share = self.budget * _REFERENCE
            self.steps = affordable_steps(self.data, everyone, min(share, max(self.left / 3, share / 4)), self.clock)
            dtypes = {problem.dtype, *(c.problem.dtype for c in everyone)}
            make = carried_signal if problem.state else (lambda data, dtype, steps: data.few(dtype))
            self.signals = {dtype: make(self.data, dtype, self.steps) for dtype in dtypes}
            steps = max(self.steps, CARRIED) if problem.state else self.steps
            start = self.clock()
            try:
                self.truth: Truth | None = Truth(everyone, self.signals, problem.dtype, steps)
                self.seconds_per_step = (self.clock() - start) / steps
                heads = {dtype: self.data.heads(dtype) for dtype in dtypes}
                size = heads[problem.dtype][1].shape[-1]
                self.heads = Truth(everyone, heads, problem.dtype, size, confirm=False)
            except OutputOverflow:
                self.truth = None  # the backends say where and how

    def _skip_if_long(self, t: _Tried) -> bool:
        if t.estimate > self.left * _RUNS:
            t.status = "not tried"
            t.reason = (
                f"one call takes about {_seconds(t.estimate)}, and {_seconds(max(0.0, self.left))} of the budget of "
                f"{self.budget:g} s are left"
            )
        return bool(t.status)

    def _estimate(self, t: _Tried, best: float) -> None:
        """How long one call will take, by pieces of the problem; the first compiles.

        Args:
            best: the shortest estimate so far [s]: who takes longer for a piece is not asked for more.
        """
        p = self.data.problem
        whole = p.batch * p.n_channels
        b, h = min(p.batch, 2), min(p.n_channels, 2)
        most = max(3 * best, self.budget * _CHEAP)
        with self._faults(t):
            few, short, t.compiling = self._time_piece(t.contender, b, h, min(p.length, _SHORT))
            seconds = short
            if p.length > 2 * _LONGER and short < most:
                # What is too slow by far shows before it has taken a second.
                few, longer, compiling = self._time_piece(t.contender, b, h, _LONGER, warm=True)
                t.compiling += compiling
                per_step = max(0.0, longer - short) / (_LONGER - _SHORT)
                seconds = longer + per_step * (p.length - _LONGER)
            if p.length > _SHORT and seconds < most:
                few, seconds, compiling = self._time_piece(t.contender, b, h, p.length, warm=True)
                t.compiling += compiling
            self.compiled += t.compiling
            if seconds > most:
                t.status = "not tried"
                t.reason = (
                    f"{few} of {whole} rows take about {_seconds(seconds)}, all of them {_seconds(best)} by another"
                )
                return
            t.estimate = seconds * whole / few
            if whole > 16 * few and t.estimate > self.budget / 100:
                more, longer, compiling = self._time_piece(
                    t.contender, min(p.batch, 8), min(p.n_channels, 8), p.length, warm=True
                )
                t.compiling += compiling
                self.compiled += compiling
                slope = max(0.0, longer - seconds) / max(1, more - few)
                t.estimate = longer + slope * (whole - more)

    @contextmanager
    def _faults(self, t: _Tried) -> Iterator[None]:
        """Gives a status to a contender that does not compute."""
        try:
            yield
        except UnstableRecurrence as error:
            self._unstable(t, error)
        except BackendUnavailable as error:
            t.status, t.reason = "unavailable", str(error)
        except LiquidSSMError:
            raise
        except Exception as error:
            # A defect of the backend, which must neither stop the others nor stay unsaid.
            t.status, t.reason = "failed", f"{type(error).__name__}: {error}"

    def _time_piece(
        self, c: Contender, rows: int, channels: int, length: int, *, warm: bool = False
    ) -> tuple[int, float, float]:
        """Rows of the piece, seconds of a call, and seconds that the first call took beyond that."""
        system, u = self.data.whole(c.problem.dtype)
        if self.data.problem.structure == "mimo":
            channels = self.data.problem.n_channels
        else:
            system = system.take(range(channels))
        call = self._call(c, system, u[:rows, :channels, :length])
        before = c.backend.compile_seconds()
        first = _once(call, self.clock)
        # Longer pieces may be computed by other code, which is compiled only now.
        warm = warm and c.backend.compile_seconds() == before
        second = first if warm else _once(call, self.clock)
        # What disturbed one call of a piece would be multiplied for the whole problem.
        times = [second, *(_once(call, self.clock) for _ in range(2 * (second < self.budget * _SMALL)))]
        return rows * channels, min(times), max(0.0, first - second)

    def _judge(self, t: _Tried) -> None:
        """Give a status to a contender that does not pass."""
        c = _for_forward(t.contender)
        try:
            outputs = run_whole(c, self.data)
            if self.truth is None:
                raise Refused("inconclusive: the reference leaves every range on this signal")
            t.finding = check_whole(c, self.data, self.truth, outputs)
            t.finding = t.finding.worse(check_heads(c, self.data, self.heads, outputs))
            if self.data.problem.state:
                system, u = self.signals[c.problem.dtype]
                t.finding = t.finding.worse(check_carried(c, system, u, self.data, self.truth))
            if self.data.problem.gradient:
                t.finding = t.finding.worse(check_gradients(t.contender, self.data))
        except Refused as refusal:
            t.status, t.reason = "refused", str(refusal)
        except UnstableRecurrence as error:
            self._unstable(t, error)
        except LiquidSSMError:
            raise
        except Exception as error:
            t.status, t.reason = "failed", f"{type(error).__name__}: {error}"
        else:
            t.status, t.reason = verdict(t.finding, self.tolerance, whole=self.steps == self.data.problem.length)

    def _unstable(self, t: _Tried, error: UnstableRecurrence) -> None:
        t.status, t.reason = "failed", f"its output is not finite: {error}"
        self.unstable = self.unstable or error

    def _time(self, t: _Tried, best: float) -> None:
        call = self._call(t.contender, *self.data.whole(self.data.problem.dtype), label=True)
        once = _once(call, self.clock)
        if once > 3 * best:
            once = min(once, _once(call, self.clock))  # the first one may have been disturbed
        if once > 3 * best or 4 * once > self.left:
            t.timing = Timing(once, once, once, 1)
        else:
            t.timing = time_call(call, runs=5 if once < 0.02 else 3, compiles=False, together=0.05, clock=self.clock)

    def _call(self, c: Contender, system: Any, u: Any, *, label: bool = False) -> Callable[[], object]:
        """The call of the problem itself.

        Args:
            label: on data of the problem's dtype, conversions included.
        """
        p = self.data.problem
        backend = c.name if label and c.problem.dtype != p.dtype else c.backend
        if p.gradient:
            grad_y = u * 0 + 1

            def gradients() -> object:
                found = compute_vjp(system, u, p.spec, grad_y, backend=backend)
                synchronize(found.u)
                return found

            return gradients

        def outputs() -> object:
            result = compute(system, u, p.spec, backend=backend, return_state=p.state)
            synchronize(result[0] if p.state else result)
            return result

        return outputs

    def _sweep_fastest(self, able: list[_Tried]) -> None:
        """Choose the fastest that also passes at the other lengths of the domain."""
        passed = [t for t in able if not t.status]
        while passed:
            best = self._fastest(passed)
            passed.remove(best)
            with self._compiling(best):
                self._sweep(best)
            if not best.status:
                best.status = "chosen"
                best.reason = self._why(best, passed)
                for t in passed:
                    t.status, t.reason = "passed", self._slower(t, best)
                return

    def _fastest(self, passed: list[_Tried]) -> _Tried:
        """The smallest median; among those that noise could make the smallest who was chosen before, else the first."""
        first = min(passed, key=lambda t: _timing(t).median)
        order = [t for t in self.order(passed) if _alike(_timing(t), _timing(first))]
        return next((t for t in order if t.contender.name == self.incumbent), order[0] if order else first)

    def order(self, tried: list[_Tried]) -> list[_Tried]:
        from ..registry import backend_names

        names = [*self.only, *backend_names()]
        return sorted(tried, key=lambda t: (":" in t.contender.name, names.index(t.contender.name.partition(":")[0])))

    def _why(self, best: _Tried, others: list[_Tried]) -> str:
        faster = [t for t in others if _timing(t).median < _timing(best).median]
        if not faster:
            return "the fastest that passed" if others else "the only one that passed"
        kept = "was chosen before" if best.contender.name == self.incumbent else "comes first in the fixed order"
        return f"{faster[0].contender.name} is faster by no more than noise, and this one {kept}"

    def _slower(self, t: _Tried, best: _Tried) -> str:
        ratio = _timing(t).median / _timing(best).median
        return f"takes {ratio:.3g} times as long as {best.contender.name}"

    def _sweep(self, t: _Tried) -> None:
        from ..oracle.errors import OutputOverflow

        p = self.data.problem
        c = _for_forward(t.contender)
        known = self.known_residues if t.contender.name == self.incumbent else set()
        self.residues: list[int] | str = sorted({p.length % RESIDUES} | known)
        self.swept = 0
        lengths = sweep_lengths(p.length, self._affordable_base())
        if p.gradient or (p.state and p.length < 2):
            return
        longest = max(lengths)
        signals = {}
        for dtype in {p.dtype, c.problem.dtype}:
            system, u = self.data.few(dtype)
            if p.structure != "mimo":
                system, u = system.take([0]), u[:, :1]
            signals[dtype] = (system, extended(u[:1], longest))
        try:
            truth = Truth([c], signals, p.dtype, longest, confirm=False)
            done = {p.length % RESIDUES} | known
            until = self.clock() + max(self.left - self.budget * 0.05, 0.05)
            for length, finding in sweep(
                c, self.data, lengths, *signals[c.problem.dtype], truth, until, clock=self.clock
            ):
                status, reason = verdict(finding, self.tolerance, f" at length {length}")
                if status:
                    t.status, t.reason, t.finding = status, reason, finding
                    return
                done.add(length % RESIDUES)
                self.swept += 1
        except Refused as refusal:
            t.status, t.reason = "refused", str(refusal)
            return
        except (OutputOverflow, UnstableRecurrence):
            self.checks.append("no other lengths: the state leaves its range on a longer signal")
            return
        except LiquidSSMError:
            raise
        except Exception as error:
            t.status, t.reason = "failed", f"at another length of the domain: {type(error).__name__}: {error}"
            return
        self.residues = "all" if self.swept == len(lengths) or len(done) == RESIDUES else sorted(done)
        self.checks.append(f"{self.swept} of {len(lengths)} other lengths, {min(lengths)} to {longest}")

    def _affordable_base(self) -> int:
        """The power of two at which the sweep may start, so that its reference takes half of what is left at most."""
        steps = self.left / 2 / self.seconds_per_step
        base = RESIDUES
        while 2 * base < LONGEST_BASE + 1 and 2 * base + RESIDUES <= steps:
            base *= 2
        return base

    def _certificate(self, backend: str, candidates: tuple[Candidate, ...]) -> Certificate:
        data, p = self.data, self.data.problem
        truth = self.truth
        if truth is None:
            raise ParameterError("a certificate needs a reference.")
        radius, drive = measures(data.system, data.u, exact=True)
        whole = self.steps == p.length
        coverage = f"{len(data.rows)} of {p.batch} rows, {len(data.channels)} of {p.n_channels} channels, " + (
            f"all {p.length} steps" if whole else f"the first {self.steps} of {p.length} steps"
        )
        rows, channels = self.heads.shape
        checks = [f"the first {self.heads.steps} steps of {rows} rows and {channels} channels", *self.checks]
        if p.state:
            checks.append("states handed on from call to call")
        if p.gradient:
            checks.append("gradients against exact ones of 6 steps and against float64 on up to 128 steps")
        return Certificate(
            backend=backend,
            domain=domain_of(p, radius, drive, self.tolerance, data.dt),
            problem={
                "spec": p.spec.label,
                "batch": p.batch,
                "n_channels": p.n_channels,
                "n_modes": p.n_modes,
                "length": p.length,
                "largest |a|": radius,
                "largest |b u|": drive,
                "data": data.origin,
                "budget": self.budget,
                "seconds": self.clock() - self.start,
            },
            candidates=candidates,
            oracle={
                "tiers": f"T3, on the first {truth.enclosed} steps confirmed by T1",
                "coverage": coverage,
                "radius": truth.radius,
                "seed": data.seed,
                "rows": data.rows,
                "channels": data.channels,
                "residues": self.residues,
                "checks": checks,
                "margin": MARGIN,
            },
            validators=self.validators,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _nothing(self, candidates: Sequence[Candidate]) -> BackendRejected:
        label = self.data.problem.spec.label
        asked = "its derived bound" if self.tolerance is None else f"the tolerance {self.tolerance:g}"
        verified = [c for c in candidates if c.error is not None]
        advice = "Name a backend, or give backend='first', to compute without a certificate."
        if self.tolerance is not None and verified:
            advice = (
                f"Ask for a larger tolerance{' or give float64 data' if self.data.problem.dtype == 'float32' else ''}."
            )
        if any(c.status == "not tried" for c in candidates):
            advice += " A larger budget= tries more of them."
        return BackendRejected(
            f"no backend computes {label} for this problem within {asked}. {advice}",
            [Rejection(c.name, c.status, f"an error within {asked}", c.reason) for c in candidates],
            candidates,
        )


def verdict(
    finding: Finding, tolerance: float | None, what: str = "", *, margin: float = MARGIN, whole: bool = True
) -> tuple[str, str]:
    """The status and the reason of who does not pass; two empty texts for who does.

    Args:
        margin: how far below the tolerance the error must be; 1 where it is that of the output in question.
        whole: every step was compared; errors of the first steps say nothing of later ones, so only a bound may count.
    """
    # `not (… <= 1)`: a NaN must not pass
    if not finding.ratio <= 1:
        at = f" at step {finding.where}" if finding.where >= 0 else ""
        return "refused", (
            f"its error{what} is {finding.ratio:.3g} times the derived bound: {finding.error:.3g} of the largest "
            f"|y|{at}"
        )
    if not math.isfinite(finding.bound):
        return "refused", "inconclusive: rounding errors are amplified too much for a finite bound"
    if tolerance is None or finding.bound <= tolerance or (whole and margin * finding.error <= tolerance):
        return "", ""
    if not whole:
        return "refused", (
            f"its bound is {finding.bound:.3g}, above the tolerance {tolerance:g}, and its error is known for the "
            "first steps only; a larger budget compares them all"
        )
    return "refused", (
        f"its error{what} is {finding.error:.3g} and its bound {finding.bound:.3g}; the tolerance {tolerance:g} asks "
        f"for a bound below it, or an error below {tolerance / margin:g}"
    )


def _for_forward(c: Contender) -> Contender:
    """The contender as its outputs are computed: as without gradients with NumPy arrays, of which `vjp` has none."""
    if c.problem.gradient and (c.problem.arrays == "numpy" or c.backend.gradients_apart):
        return replace(c, problem=replace(c.problem, gradient=False))
    return c


def _rounding(*dtypes: str) -> float:
    """Unit roundoff of the coarsest of them."""
    return max(float(np.finfo(dtype).eps) / 2 for dtype in dtypes)


def _timing(t: _Tried) -> Timing:
    assert t.timing is not None
    return t.timing


def _alike(one: Timing, fastest: Timing) -> bool:
    """Whether one may be as fast: within a share of the fastest, or in three times that where spreads overlap."""
    if one.median <= (1 + HYSTERESIS) * fastest.median:
        return True
    overlap = one.minimum <= fastest.maximum and min(one.runs, fastest.runs) > 1
    return overlap and one.median <= (1 + 3 * HYSTERESIS) * fastest.median


def _once(call: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    call()
    return clock() - start


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds >= 0.1 else f"{1e3 * seconds:.2g} ms"
