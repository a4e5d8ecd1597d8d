"""Every backend against the exact reference, on the user's own system and signal.

What is compared with what, and when a row passes, is stated in docs/verification.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .compute import check_input, problem_of
from .errors import ParameterError, unknown_name
from .problem import CORRELATIONS, DEFAULT_ORDER, DTYPES, MODES, ModeSpec
from .registry import backend_names

if TYPE_CHECKING:
    from .curves import Band, Curves, ErrorCurve
    from .report import Report, RoundingRow, TruncationRow
    from .rounding_errors import Case

Array = npt.NDArray[Any]
Progress = Callable[[int, int, str], None]

DRAWN_CHANNELS = 4  # of the outputs of each mode


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
    curves: bool = False,
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
        curves: also compute the data of the plots, `Report.curves`, which takes longer.
        progress: called with (rows done, rows in all, what comes next).

    Returns:
        Report: `.passed`, `.table()`, `.to_json()`, `.to_html(path)`.

    Raises:
        ParameterError, ShapeError, DTypeError: bad arrays, names or options.
        UnstableRecurrence: the state overflows on this signal.
        OracleInconclusive: two tiers of the oracle contradict each other.
    """
    from .environment import environment
    from .model_errors import discretization_rows, truncation_rows
    from .report import Report
    from .rounding_errors import Case, integrator_rows, length_curves, mode_rows, realization_of

    continuous = system if hasattr(system, "discretize") else None
    method = discretization or "bilinear"
    if continuous is not None:
        system = continuous.discretize(method)
    elif discretization is not None:
        raise ParameterError(
            f"discretization={discretization!r} needs a ContinuousSystem; the system given is discrete."
        )
    u = check_input(system, u)
    if u.size == 0:
        raise ParameterError(f"u has shape {u.shape} and so no samples; verify needs at least one.")
    names = _chosen("backend", backends, backend_names())
    kinds = _chosen("dtype", dtypes, DTYPES)
    specs = tuple(_specs(system, modes, order, window, _chosen("correlations", correlations, CORRELATIONS)))

    rows: list[RoundingRow] = []
    truncation: tuple[TruncationRow, ...] = ()
    first = {spec.mode: spec for spec in reversed(specs)}  # the plots show one form of each mode
    drawn: list[ErrorCurve] = []
    sink = drawn if curves else None
    for spec in specs:
        problem_of(system, u, spec)  # refuses modes that the system does not have
    total = len(kinds) * len(specs) * len(names)
    notes: list[str] = []
    for dtype in kinds:
        case = Case(dtype, system.astype(dtype), _rounded(u, dtype))
        if system.structure == "integrator":
            found, value = integrator_rows(case, names, sink)
            rows += found
            values = {specs[0]: value}
            continue
        case = replace(case, realization=realization_of(case.system))
        values = {}
        for spec in specs:
            what = f"{spec.label} {dtype}"
            if progress:
                progress(len(rows), total, what)
            found, value = mode_rows(case, spec, names, seed, oracle_budget, sink)
            rows += found
            values[spec] = value
            if curves and spec in first.values():
                drawn += length_curves(case, spec, names)
        truncation = truncation_rows(case, values)
    discretized, note = discretization_rows(continuous, u)
    notes += note
    if system.structure == "mimo" and modes is None:
        notes.append("kb and pb are left out: they multiply scalar inputs, a mimo system has one state for all.")
    data = None
    if curves:
        if progress:
            progress(total, total, "data of the plots")
        unusual = {(row.backend, row.mode, row.dtype) for row in rows if row.status != "pass"}
        labels = {spec.label for spec in first.values()}
        chosen = [c for c in drawn if c.mode in labels or (c.backend, c.mode, c.dtype) in unusual]
        data = _curves(case, continuous, u, specs, names, chosen, values, kinds[0])
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
    return Report(tuple(rows), truncation, discretized, environment(), problem, tuple(notes), data)


def _curves(
    case: Case,
    continuous: Any,
    u: Array,
    specs: Sequence[ModeSpec],
    names: Sequence[str],
    errors: Sequence[ErrorCurve],
    values: dict[ModeSpec, Array],
    timed_dtype: str,
) -> Curves:
    """The data of the plots that the rows do not have; `case` is that of the last dtype."""
    from .curves import Curves
    from .model_errors import ASYMPTOTIC, EXCERPT, discretization_curves, truncation_curves
    from .time_curves import time_curves

    notes = []
    first = {spec.mode: spec for spec in reversed(specs)}
    truncation = () if case.realization is None else truncation_curves(case, specs)
    if not truncation:
        notes.append("No truncation errors against the order: no mode with an order was verified.")
    discretization = discretization_curves(continuous, u)
    if discretization:
        notes.append(
            f"Discretisation errors against the step: at the ends of up to {EXCERPT} steps around the largest |u|, "
            f"each divided further with the input held; slopes are fitted to errors below {ASYMPTOTIC:.0%} among "
            "those of the four smallest steps."
        )
    else:
        notes.append("No discretisation errors against the step: they need a continuous diagonal system.")
    timed = [spec for mode, spec in first.items() if mode in ("liquid", "s4")] or [specs[0]]
    times, about = time_curves(case.system.astype(timed_dtype), _rounded(u, timed_dtype), timed[::-1], names)
    bands = _bands(case.u, {first[mode]: values[first[mode]] for mode in MODES if mode in first})
    return Curves(tuple(errors), truncation, discretization, times, bands, (*notes, *about))


def _bands(u: Array, values: dict[ModeSpec, Array]) -> tuple[Band, ...]:
    """The signal, row by row of the batch, and the exact outputs of its first row, channel by channel."""
    from .curves import band

    found = [band("u", u, b, 0) for b in range(min(DRAWN_CHANNELS, u.shape[0]))]
    for spec, y in values.items():
        found += [band(spec.label, y, 0, h) for h in range(min(DRAWN_CHANNELS, y.shape[1]))]
    return tuple(found)


def _rounded(u: Array, dtype: str) -> Array:
    with np.errstate(over="ignore"):  # found and named below
        narrow = u.astype(dtype)
    if not np.isfinite(narrow).all():
        raise ParameterError(
            f"u holds values up to {np.abs(u).max():.3g}, beyond the range of {dtype}; verify in float64 alone "
            "(dtypes=['float64'], on the command line --dtype float64) or scale u down."
        )
    return narrow


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
