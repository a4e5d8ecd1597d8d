"""Rounding errors: every backend against the exact value of the same mode and the same discrete parameters.

When a row passes is stated in docs/verification.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .compute import compute, problem_of
from .curves import ErrorCurve, largest, lengths, rounded, starts
from .errors import OracleInconclusive, ParameterError
from .modes import linear_method
from .problem import ModeSpec, Problem
from .registry import get_backend, rejection

if TYPE_CHECKING:
    from .oracle.realization import Realization
    from .oracle.reference import Bound, Reference
    from .oracle.rounding import RoundingModel
    from .report import RoundingRow

Array = npt.NDArray[Any]

WINDOWS = 5  # excerpts that T1 encloses where a whole signal would take too long
WINDOW_LENGTH = 1024

# Runs of a length of their own: from where an FFT is worth it, to where the plot has cost enough.
OWN_RUNS = (64, 2**14)


@dataclass(frozen=True)
class Case:
    """One dtype: the system and signal that the backends get, and the same numbers for the oracle."""

    dtype: str
    system: Any
    u: Array
    realization: Realization | Any = None
    shared: dict[Any, Any] = field(default_factory=dict)  # what references of different modes have in common

    @property
    def wider(self) -> Any:
        """The dtype in which T3 computes: wider than the backends', no slower than need be."""
        return np.float64 if self.dtype == "float32" else np.longdouble

    def wider_than(self, models: Sequence[RoundingModel]) -> Any:
        """The same where some backends keep states in a finer dtype than u's."""
        return np.longdouble if any(model.state_unit is not None for model in models) else self.wider


def realization_of(system: Any) -> Realization:
    from .oracle.realization import Realization

    if system.structure == "dplr":
        return Realization(
            "dplr",
            system.Lambda_bar,
            system.B_bar,
            system.C,
            system.P_bar,
            system.Q_bar,
            conjugate_pairs=system.conjugate_pairs,
        )
    return Realization(system.structure, system.A_bar, system.B_bar, system.C, conjugate_pairs=system.conjugate_pairs)


def rounding_model(backend: Any, problem: Problem) -> RoundingModel:
    """What the bounds need to know of how `backend` computes `problem`."""
    from .oracle.rounding import RoundingModel

    kernels = backend.capabilities.primitives.get("kernel", ())
    arithmetic = backend.arithmetic_for(problem)
    by_fft = backend.linear_method == "convolution" and problem.structure in kernels
    return RoundingModel.of_dtype(
        problem.dtype,
        pairwise=arithmetic.summation == "pairwise",
        fft=by_fft,
        kernel_dtype=arithmetic.kernel_dtype,
        fused=arithmetic.fused,
        scan=arithmetic.scan,
        powers=arithmetic.powers,
        scan_chunk=arithmetic.scan_chunk,
        state_dtype=arithmetic.state_dtype,
        kernels=arithmetic.kernels,
        table_dtype=arithmetic.table_dtype,
        # with a state every order has its own, and its own recurrence
        joint_adjacent=arithmetic.joint_adjacent and not problem.state,
        linear_chunk=arithmetic.linear_chunk,
        scaled_states=arithmetic.scaled_states,
        factor_dtype=arithmetic.factor_dtype,
        gradient_chunk=arithmetic.gradient_chunk,
        correlations=arithmetic.correlations,
    )


def rounding_models(backend: Any, problem: Problem) -> list[RoundingModel]:
    """The ways of computing whose bounds add up to that of `backend` on `problem`, states included."""
    model = rounding_model(backend, problem)
    if not model.fft or linear_method(problem, backend) == "convolution":
        return [model]
    # With a state or gradients the linear term is a recurrence, whatever the backend prefers; finite kernels stay FFTs.
    recurrence = replace(model, fft=False)
    spec = problem.spec
    windowed = spec.window is not None and spec.order > 1
    finite_kernels = spec.mode == "kb" and spec.correlations == "adjacent" and windowed
    return [recurrence, model] if finite_kernels else [recurrence]


def has_bound(backend: Any, problem: Problem) -> bool:
    """Whether the oracle has a bound for this way of computing: see `NO_SCAN_BOUND`."""
    if backend.arithmetic_for(problem).scan == "sequential" or problem.structure in ("diagonal", "mimo"):
        return True
    return problem.spec.mode == "s4" and linear_method(problem, backend) == "convolution"


NO_SCAN_BOUND = "no error bound is derived for dplr and dense scans in another order than that of time"


def options(spec: ModeSpec) -> dict[str, Any]:
    return {"order": spec.order, "correlations": spec.correlations, "window": spec.window}


def mode_rows(
    case: Case,
    spec: ModeSpec,
    names: Sequence[str],
    seed: int,
    budget: int,
    curves: list[ErrorCurve] | None = None,
) -> tuple[list[RoundingRow], Array]:
    """The rows of one mode and dtype, one per backend, and the reference values (batch, H, L).

    Args:
        curves: takes the error curves of every row that was compared; None for none.
    """
    from .oracle.errors import OutputOverflow, PrecisionExhausted
    from .oracle.reference import reference
    from .report import RoundingRow

    problem = problem_of(case.system, case.u, spec)
    reasons = {name: rejection(name, problem) for name in names}
    unbounded = {name for name in names if reasons[name] is None and not has_bound(get_backend(name), problem)}
    able = [name for name in names if reasons[name] is None and name not in unbounded]
    # before the oracle, so that a signal on which the recurrence overflows is said at once
    outputs = {name: _timed(case.system, case.u, spec, name) for name in able}
    models = [rounding_model(get_backend(name), problem) for name in able]
    whole = reference(
        case.realization,
        case.u,
        spec.mode,
        models=models,
        dtype=case.wider_than(models),
        shared=case.shared,
        **options(spec),
    )
    excerpts = _excerpts(case, spec, seed, budget)
    gave_up = ""
    try:
        parts = [_Part(case, spec, excerpt, models) for excerpt in excerpts]
        enclosed = None if excerpts else _Part(case, spec, None, models, whole)
    except (PrecisionExhausted, OutputOverflow) as error:
        gave_up = f"T1 does not enclose this: {error}"

    rows = []
    for name in names:
        reason = reasons[name]
        if reason is not None:
            rows.append(RoundingRow(name, spec.label, case.dtype, "rejected", reason=str(reason)))
            continue
        if name in unbounded:
            rows.append(RoundingRow(name, spec.label, case.dtype, "inconclusive", reason=NO_SCAN_BOUND))
            continue
        if gave_up:
            rows.append(RoundingRow(name, spec.label, case.dtype, "inconclusive", reason=gave_up))
            continue
        i = able.index(name)
        y, seconds = outputs[name]
        if curves is not None:
            e = None if enclosed is None else enclosed.enclosure
            hi, lo = (whole.value, 0.0) if e is None else (e.hi, e.lo)
            curves += _error_curves(name, spec, case.dtype, y, hi, lo, whole.bounds[i])
        if enclosed is not None:
            compared = [enclosed.compare(y, i)]
            oracle, coverage = "T1", f"all {case.u.shape[-1]} steps"
        else:
            compared = [_compare(y, whole.value, 0.0, whole.radius, whole.bounds[i])]
            compared += [part.compare_again(name, i) for part in parts]
            oracle = "T3+T1"
            sizes = sorted({part.length for part in parts})
            coverage = (
                f"T3: all {case.u.shape[-1]} steps; T1: {len(parts)} windows of {sizes[-1]} steps, both ends included"
            )
        rows.append(_row(name, spec, case.dtype, compared, oracle, coverage, seconds))
    return rows, np.asarray(whole.value)


def _error_curves(
    name: str, spec: ModeSpec, dtype: str, y: Array, hi: Array, lo: Array | float, bound: Bound
) -> list[ErrorCurve]:
    """Error and bound against the step, and against the length where the first L steps are a run of L steps."""
    from .oracle.metrics import absolute_error

    error = absolute_error(y, hi, lo)
    b, h = _nearest_to_bound(error, bound)
    errors, allowed = error[b, h], _allowed(bound)[b, h]
    steps = tuple(map(int, starts(len(errors))))
    step = ErrorCurve(name, spec.label, dtype, "step", steps, largest(errors), largest(allowed), batch=b, channel=h)
    if not bound.is_componentwise:
        return [step]
    sizes = lengths(len(errors))
    error_up_to, allowed_up_to = (rounded(values[:size].max() for size in sizes) for values in (errors, allowed))
    return [
        step,
        ErrorCurve(name, spec.label, dtype, "length", sizes, error_up_to, allowed_up_to, batch=b, channel=h),
    ]


def _allowed(bound: Bound) -> Array:
    """What each single error may be: one entry of a vector is at most its 2-norm."""
    return np.asarray(bound.componentwise + bound.normwise[..., None])


def _nearest_to_bound(error: Array, bound: Bound) -> tuple[int, int]:
    """Batch row and channel with the largest error in units of the bound, as the verdict counts it."""
    units = np.empty(error.shape[:2])
    for b, h in np.ndindex(units.shape):
        one = slice(b, b + 1), slice(h, h + 1)
        units[b, h] = replace(bound, componentwise=bound.componentwise[one], normwise=bound.normwise[one]).units(
            error[one]
        )
    b, h = np.unravel_index(int(np.argmax(units)), units.shape)
    return int(b), int(h)


def length_curves(case: Case, spec: ModeSpec, names: Sequence[str]) -> list[ErrorCurve]:
    """Error and bound against the length for the backends that compute this by FFT: a run for every length.

    An FFT of L steps is not the beginning of a longer one; lengths beyond `OWN_RUNS` are left out.
    """
    from .oracle.metrics import absolute_error
    from .oracle.reference import reference

    problem = problem_of(case.system, case.u, spec)
    able = [name for name in names if rejection(name, problem) is None and has_bound(get_backend(name), problem)]
    models = {name: rounding_model(get_backend(name), problem) for name in able}
    models = {name: model for name, model in models.items() if model.fft}
    if not models:
        return []
    found: dict[str, list[tuple[int, float, float]]] = {}
    for size in lengths(min(case.u.shape[-1], OWN_RUNS[1]), OWN_RUNS[0]):
        u = case.u[..., :size]
        exact = reference(
            case.realization,
            u,
            spec.mode,
            models=list(models.values()),
            dtype=case.wider_than(list(models.values())),
            **options(spec),
        )
        bounds = dict(zip(models, exact.bounds, strict=True))
        # Backends with an FFT compute some modes by recurrence, which `mode_rows` has drawn.
        models = {name: model for name, model in models.items() if not bounds[name].is_componentwise}
        if not models:
            break
        for name in models:
            error = absolute_error(_output(case.system, u, spec, name), exact.value)
            row = _nearest_to_bound(error, bounds[name])
            found.setdefault(name, []).append((size, error[row].max(), _allowed(bounds[name])[row].max()))
    curves = []
    for name, points in found.items():
        sizes, errors, allowed = zip(*points, strict=True)
        curves.append(
            ErrorCurve(name, spec.label, case.dtype, "length", sizes, rounded(errors), rounded(allowed), own_runs=True)
        )
    return curves


def _timed(system: Any, u: Array, spec: ModeSpec, name: str) -> tuple[Array, float]:
    """y, and the seconds of a second call: the first one may compile."""
    y = _output(system, u, spec, name)
    start = perf_counter()
    _output(system, u, spec, name)
    return y, perf_counter() - start


def _output(system: Any, u: Array, spec: ModeSpec, name: str) -> Array:
    return np.asarray(compute(system, u, spec, backend=name))


@dataclass(frozen=True)
class _Excerpt:
    """Which steps of which signal a part of the verification looks at."""

    row: int
    steps: slice
    channels: tuple[int, ...] | None  # None = all


def _excerpts(case: Case, spec: ModeSpec, seed: int, budget: int) -> list[_Excerpt]:
    """No excerpts if the whole signal is affordable for T1; else seeded ones, the first and the last included."""
    batch, channels, length = case.u.shape
    per_channel = _enclosure_cost(case.system, spec)
    if batch * channels * length * per_channel <= budget:
        return []
    rng = np.random.default_rng(seed)
    shared = case.system.structure == "mimo"
    affordable = budget / WINDOWS / per_channel  # channel-steps of one excerpt
    taken = channels if shared else min(channels, max(1, int(affordable // WINDOW_LENGTH)))
    size = int(min(length, WINDOW_LENGTH, max(64, affordable // taken)))
    last = length - size
    inner = rng.integers(0, last + 1, WINDOWS - 2)
    starts = [0, *sorted(int(s) for s in inner), last] if last else [0]
    excerpts = []
    for start in starts:
        chosen = None if taken == channels else tuple(sorted(int(h) for h in rng.permutation(channels)[:taken]))
        excerpts.append(_Excerpt(int(rng.integers(batch)), slice(start, start + size), chosen))
    return excerpts


def _enclosure_cost(system: Any, spec: ModeSpec) -> float:
    """Scalar complex recurrences that T1 runs per channel and step: what the oracle budget counts."""
    modes = system.n_modes
    # measured: a product with a full matrix in C costs about half as much per entry as a scalar mode in Python
    per_order = modes if system.structure in ("diagonal", "mimo") else modes * modes / 2
    return float(per_order * (spec.order if spec.has_order else 1))


class _Part:
    """An excerpt as a signal of its own, from rest, enclosed by T1."""

    def __init__(
        self,
        case: Case,
        spec: ModeSpec,
        excerpt: _Excerpt | None,
        models: Sequence[RoundingModel],
        whole: Reference | None = None,
    ) -> None:
        from .oracle.enclosure import enclose
        from .oracle.reference import reference

        self.case, self.spec = case, spec
        realization, u = case.realization, case.u
        self.system = case.system
        if excerpt is not None:
            u = u[excerpt.row : excerpt.row + 1, :, excerpt.steps]
            if excerpt.channels is not None:
                keep = list(excerpt.channels)
                u = u[:, keep]
                self.system = case.system.take(keep)
                realization = realization_of(self.system)
        self.u, self.length = u, u.shape[-1]
        self.enclosure = enclose(realization, u, spec.mode, **options(spec))
        self.reference = whole or reference(
            realization, u, spec.mode, models=models, dtype=case.wider_than(models), **options(spec)
        )
        self._tiers_agree()

    def _tiers_agree(self) -> None:
        from .oracle.metrics import absolute_error

        e = self.enclosure
        gap = absolute_error(self.reference.value, e.hi, e.lo)
        if not np.all(gap <= self.reference.radius + e.radius):
            k = int(np.argmax((gap - self.reference.radius - e.radius).max(axis=(0, 1))))
            raise OracleInconclusive(
                f"tiers T1 and T3 of the oracle disagree on {self.spec.label} {self.case.dtype} at step {k} by "
                f"{float(gap.max()):.3g}; this is a defect of liquid-ssm, please report it with the system and signal."
            )

    def compare(self, y: Array, model: int) -> _Compared:
        e = self.enclosure
        return _compare(y, e.hi, e.lo, e.radius, self.reference.bounds[model])

    def compare_again(self, name: str, model: int) -> _Compared:
        """Run the backend on the excerpt alone and compare."""
        return self.compare(_output(self.system, self.u, self.spec, name), model)


@dataclass(frozen=True)
class _Compared:
    """Errors of one output against one reference."""

    componentwise: float
    relative: float
    relative_max: float
    ratio: float  # largest error/bound, taking the nearest point of the enclosure
    ratio_upper: float  # the same, taking its farthest point
    worst_step: int
    radius: float
    kind: str
    bounded: bool  # the bound is finite everywhere: an infinite one is no statement


def _compare(y: Array, hi: Array, lo: Array | float, radius: Array, bound: Bound) -> _Compared:
    from .oracle.metrics import absolute_error, summarize

    error = absolute_error(y, hi, lo)
    summary = summarize(error, hi)
    largest = float(np.abs(hi).max(initial=0))
    relative_max = summary.componentwise / largest if largest else (0.0 if summary.componentwise == 0 else np.inf)
    return _Compared(
        summary.componentwise,
        summary.relative,
        relative_max,
        bound.units(np.maximum(error - radius, 0)),
        bound.units(error + radius),
        summary.worst_step,
        float(radius.max(initial=0)),
        "componentwise" if bound.is_componentwise else "normwise",
        bool(np.isfinite(bound.componentwise).all() and np.isfinite(bound.normwise).all()),
    )


def _row(
    name: str, spec: ModeSpec, dtype: str, compared: Sequence[_Compared], oracle: str, coverage: str, seconds: float
) -> RoundingRow:
    from .report import RoundingRow

    worst = max(compared, key=lambda c: c.ratio_upper)
    # `not (… <= 1)`: a NaN must not pass
    if any(not c.ratio <= 1 for c in compared):
        status, reason = "fail", f"error is {max(c.ratio for c in compared):.3g} times the bound"
    elif not all(c.bounded for c in compared):
        status, reason = "inconclusive", "the recurrence amplifies rounding errors too much for a finite bound"
    elif any(not c.ratio_upper <= 1 for c in compared):
        status, reason = "inconclusive", "the reference's own radius is too large to decide"
    else:
        status, reason = "pass", ""
    return RoundingRow(
        name,
        spec.label,
        dtype,
        status,
        componentwise_error=max(c.componentwise for c in compared),
        relative_error=max(c.relative for c in compared),
        norm_inf_error=max(c.relative_max for c in compared),
        error_over_bound=worst.ratio_upper,
        bound_kind=worst.kind,
        worst_step=compared[0].worst_step,
        oracle=oracle,
        radius=max(c.radius for c in compared),
        coverage=coverage,
        seconds=seconds,
        reason=reason,
    )


def integrator_rows(
    case: Case, names: Sequence[str], curves: list[ErrorCurve] | None = None
) -> tuple[list[RoundingRow], Array]:
    """Rows of an integrator, which is its own NumPy code and has the mode `liquid` only, and the reference values.

    Args:
        curves: takes the error curves; None for none.
    """
    from .oracle.integrator_reference import integrator_reference
    from .oracle.rounding import RoundingModel
    from .report import RoundingRow

    system, spec = case.system, ModeSpec("liquid")
    if system.continuous.structure != "diagonal":
        raise ParameterError(
            f"{system.name} has derived error bounds for diagonal systems, not for {system.continuous.structure}; "
            "verify it on a diagonal system, or choose euler, bilinear or zoh."
        )
    model = RoundingModel.of_dtype(case.dtype, pairwise=True)
    y, seconds = _timed(system, case.u, spec, "numpy")
    p = system.parameters
    exact = integrator_reference(
        system.name,
        p["Lambda"],
        p["B"],
        p["C"],
        p["dt"],
        case.u,
        conjugate_pairs=system.conjugate_pairs,
        models=[model],
    )
    rows = []
    for name in names:
        if name != "numpy":
            reason = f"{name}: structure: needs a discrete system, got {system.name}"
            rows.append(RoundingRow(name, spec.label, case.dtype, "rejected", reason=reason))
            continue
        if curves is not None:
            curves += _error_curves(name, spec, case.dtype, y, exact.value, 0.0, exact.bounds[0])
        compared = [_compare(y, exact.value, 0.0, exact.radius, exact.bounds[0])]
        rows.append(_row(name, spec, case.dtype, compared, "T3", f"all {case.u.shape[-1]} steps", seconds))
    return rows, np.asarray(exact.value)
