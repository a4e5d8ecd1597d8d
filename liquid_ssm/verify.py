"""Every backend against the exact reference, on the user's own system and signal.

What is compared with what, and when a row passes, is stated in docs/verification.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .apply import apply, check_input, problem_of
from .errors import OracleInconclusive, ParameterError, unknown_name
from .problem import CORRELATIONS, DEFAULT_ORDER, DTYPES, MODES, ModeSpec, Problem
from .registry import backend_names, get_backend, rejection

if TYPE_CHECKING:
    from .oracle.realization import Realization
    from .oracle.reference import Bound, Reference
    from .oracle.rounding import RoundingModel
    from .report import DiscretizationRow, Report, RoundingRow, TruncationRow

Array = npt.NDArray[Any]
Progress = Callable[[int, int, str], None]

WINDOWS = 5  # excerpts that T1 encloses where a whole signal would take too long
WINDOW_LENGTH = 1024

METHODS = ("euler", "bilinear", "zoh", "adams-bashforth", "bilinear-exact")


@dataclass(frozen=True)
class _Case:
    """One dtype: the system and signal that the backends get, and the same numbers for the oracle."""

    dtype: str
    system: Any
    u: Array
    realization: Realization | Any = None

    @property
    def wider(self) -> Any:
        """The dtype in which T3 computes: wider than the backends', no slower than need be."""
        return np.float64 if self.dtype == "float32" else np.longdouble


def verify(
    system: Any,
    u: Array,
    backends: Sequence[str] | None = None,
    modes: Sequence[str] | None = None,
    *,
    order: int = DEFAULT_ORDER,
    window: int | None = 32,
    correlations: Sequence[str] | None = None,
    dtypes: Sequence[str] | None = None,
    discretization: str | None = None,
    seed: int = 0,
    oracle_budget: int = 2**21,
    progress: Progress | None = None,
) -> Report:
    """Compare every mode of every backend with the exact recurrence.

    Args:
        system: a `ContinuousSystem` (the discretisation errors are then reported too), a discrete system, or
            an integrator.
        u: inputs (batch, H, L).
        backends: names, or None for all that are known.
        modes: names, or None for all that the system has.
        order: highest order of `truncated`, `kb` and `pb`.
        window: window of the windowed forms of `kb` and `pb`; None leaves them out.
        correlations: `all`, `adjacent`, or None for both.
        dtypes: `float32`, `float64`, or None for both.
        discretization: how a continuous system is discretised; None is `bilinear`.
        seed: chooses the excerpts of long signals.
        oracle_budget: mode-steps up to which the interval tier T1 encloses every step of a row; beyond,
            T3 covers every step and T1 encloses seeded excerpts.
        progress: called with (rows done, rows in all, what comes next).

    Returns:
        Report: `.passed`, `.table()`, `.to_json()`, `.to_html(path)`.

    Raises:
        ParameterError, ShapeError, DTypeError: bad arrays, names or options.
        UnstableRecurrence: the state overflows on this signal.
        OracleInconclusive: two tiers of the oracle contradict each other.
    """
    from .environment import environment
    from .report import Report

    continuous = system if hasattr(system, "discretize") else None
    method = discretization or "bilinear"
    if continuous is not None:
        system = continuous.discretize(method)
    elif discretization is not None:
        raise ParameterError(
            f"discretization={discretization!r} needs a ContinuousSystem; the system given is discrete."
        )
    u = check_input(system, u)
    names = _chosen("backend", backends, backend_names())
    kinds = _chosen("dtype", dtypes, DTYPES)
    specs = tuple(_specs(system, modes, order, window, _chosen("correlations", correlations, CORRELATIONS)))

    rows: list[RoundingRow] = []
    truncation: tuple[TruncationRow, ...] = ()
    for spec in specs:
        problem_of(system, u, spec)  # refuses modes that the system does not have
    total = len(kinds) * len(specs) * len(names)
    notes: list[str] = []
    for dtype in kinds:
        case = _Case(dtype, system.astype(dtype), u.astype(dtype))
        if system.structure == "integrator":
            rows += _integrator_rows(case, names)
            continue
        case = replace(case, realization=_realization(case.system))
        values: dict[ModeSpec, Array] = {}
        for spec in specs:
            what = f"{spec.label} {dtype}"
            if progress:
                progress(len(rows), total, what)
            found, value = _mode_rows(case, spec, names, seed, oracle_budget)
            rows += found
            values[spec] = value
        truncation = _truncation_rows(case, values)  # the last dtype is the widest
    discretization_rows, note = _discretization_rows(continuous, u)
    notes += note
    if progress:
        progress(total, total, "done")
    problem = {
        "structure": system.structure,
        "batch": u.shape[0],
        "n_channels": u.shape[1],
        "n_modes": system.n_modes,
        "length": u.shape[2],
        "order": order,
        "window": window,
        "discretization": method if continuous is not None else "given",
        "seed": seed,
        "oracle_budget": oracle_budget,
    }
    return Report(tuple(rows), truncation, discretization_rows, environment(), problem, tuple(notes))


def _chosen(kind: str, given: Sequence[str] | None, allowed: Sequence[str]) -> tuple[str, ...]:
    if given is None:
        return tuple(allowed)
    if isinstance(given, str):
        given = (given,)
    for name in given:
        if name not in allowed:
            raise unknown_name(kind, name, allowed)
    return tuple(dict.fromkeys(given))


def _specs(
    system: Any, modes: Sequence[str] | None, order: int, window: int | None, correlations: Sequence[str]
) -> Iterator[ModeSpec]:
    names = _chosen("mode", modes, MODES)
    if modes is None and system.structure == "mimo":
        names = ("s4", "liquid", "truncated")  # kb and pb multiply scalar inputs
    if modes is None and system.structure == "integrator":
        names = ("liquid",)
    for mode in names:
        if mode not in ("kb", "pb"):
            yield ModeSpec(mode, order)
            continue
        for kind in correlations:
            yield ModeSpec(mode, order, kind)
            if window is not None:
                yield ModeSpec(mode, order, kind, window)


def _realization(system: Any) -> Realization:
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

    by_fft = backend.linear_method == "convolution" and problem.structure in backend.capabilities.primitives["kernel"]
    return RoundingModel.of_dtype(
        problem.dtype,
        pairwise=backend.arithmetic.summation == "pairwise",
        fft=by_fft,
        kernel_dtype=backend.arithmetic.kernel_dtype,
    )


def _options(spec: ModeSpec) -> dict[str, Any]:
    return {"order": spec.order, "correlations": spec.correlations, "window": spec.window}


def _mode_rows(
    case: _Case, spec: ModeSpec, names: Sequence[str], seed: int, budget: int
) -> tuple[list[RoundingRow], Array]:
    """The rows of one mode and dtype, one per backend, and the reference values (batch, H, L)."""
    from .oracle.reference import reference
    from .report import RoundingRow

    problem = problem_of(case.system, case.u, spec)
    reasons = {name: rejection(name, problem) for name in names}
    able = [name for name in names if reasons[name] is None]
    # before the oracle, so that a signal on which the recurrence overflows is said at once
    outputs = {name: _timed(case.system, case.u, spec, name) for name in able}
    models = [rounding_model(get_backend(name), problem) for name in able]
    whole = reference(case.realization, case.u, spec.mode, models=models, dtype=case.wider, **_options(spec))
    excerpts = _excerpts(case, spec, seed, budget)
    parts = [_Part(case, spec, excerpt, models) for excerpt in excerpts] if excerpts else []
    enclosed = None if excerpts else _Part(case, spec, None, models, whole)

    rows = []
    for name in names:
        reason = reasons[name]
        if reason is not None:
            rows.append(RoundingRow(name, spec.label, case.dtype, "rejected", reason=str(reason)))
            continue
        i = able.index(name)
        y, seconds = outputs[name]
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


def _timed(system: Any, u: Array, spec: ModeSpec, name: str) -> tuple[Array, float]:
    start = perf_counter()
    y = apply(system, u, mode=spec.mode, backend=name, **_options(spec))
    return y, perf_counter() - start


@dataclass(frozen=True)
class _Excerpt:
    """Which steps of which signal a part of the verification looks at."""

    row: int
    steps: slice
    channels: tuple[int, ...] | None  # None = all


def _excerpts(case: _Case, spec: ModeSpec, seed: int, budget: int) -> list[_Excerpt]:
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
        case: _Case,
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
                realization = _realization(self.system)
        self.u, self.length = u, u.shape[-1]
        self.enclosure = enclose(realization, u, spec.mode, **_options(spec))
        self.reference = whole or reference(
            realization, u, spec.mode, models=models, dtype=case.wider, **_options(spec)
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
        return self.compare(_timed(self.system, self.u, self.spec, name)[0], model)


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


def _truncation_rows(case: _Case, values: dict[ModeSpec, Array]) -> tuple[TruncationRow, ...]:
    """What each approximation costs against `liquid`, by the oracle."""
    from .oracle.metrics import absolute_error, summarize
    from .oracle.reference import reference
    from .report import TruncationRow

    exact = next((value for spec, value in values.items() if spec.mode == "liquid"), None)
    if exact is None:
        exact = reference(case.realization, case.u, "liquid", dtype=case.wider).value
    rows = []
    for spec, value in values.items():
        if spec.mode != "liquid":
            found = summarize(absolute_error(value, exact), exact)
            rows.append(TruncationRow(spec.label, found.relative, found.componentwise, found.worst_step))
    return tuple(rows)


def _discretization_rows(continuous: Any, u: Array) -> tuple[tuple[DiscretizationRow, ...], list[str]]:
    """`liquid` after each discretisation against the continuous model with held input, by the oracle."""
    from .report import DiscretizationRow

    if continuous is None:
        return (), ["No discretisation errors: the system was given in discrete form."]
    if continuous.structure != "diagonal":
        return (), [
            f"No discretisation errors: the exact solution with held input is computed for diagonal systems, "
            f"not for {continuous.structure}."
        ]
    from .oracle.discretisation import adams_bashforth, bilinear_exact, held_input_solution
    from .oracle.metrics import absolute_error, summarize
    from .oracle.reference import reference

    parameters = (continuous.Lambda, continuous.B, continuous.C, continuous.dt, u)
    pairs = {"conjugate_pairs": continuous.conjugate_pairs}
    with np.errstate(over="ignore", invalid="ignore"):  # a method may be unstable here; its row then says inf
        exact = held_input_solution(*parameters, **pairs)
        rows = []
        for method in METHODS:
            if method == "adams-bashforth":
                y = adams_bashforth(*parameters, **pairs)
            elif method == "bilinear-exact":
                y = bilinear_exact(*parameters, **pairs)
            else:
                y = reference(_realization(continuous.discretize(method)), u, "liquid").value
            found = summarize(absolute_error(y, exact), exact)
            rows.append(DiscretizationRow(method, found.relative, found.componentwise, found.worst_step))
    return tuple(rows), []


def _integrator_rows(case: _Case, names: Sequence[str]) -> list[RoundingRow]:
    """Rows of an integrator, which is its own NumPy code and has the mode `liquid` only."""
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
        compared = [_compare(y, exact.value, 0.0, exact.radius, exact.bounds[0])]
        rows.append(_row(name, spec, case.dtype, compared, "T3", f"all {case.u.shape[-1]} steps", seconds))
    return rows
