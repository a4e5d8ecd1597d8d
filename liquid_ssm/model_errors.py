"""What the model itself costs: truncation against `liquid`, discretisation against the continuous system.

Both sides are computed by the oracle; no backend is involved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .claims.convergence import slope
from .curves import DiscretizationCurve, TruncationCurve, rounded
from .discretize import DISCRETIZATIONS
from .problem import ModeSpec
from .rounding_errors import Array, Case, realization_of

if TYPE_CHECKING:
    from .report import DiscretizationRow, TruncationRow

ORDERS = tuple(range(1, 7))
# Truncation errors need no long signals; full matrices cost some hundred times as much as diagonal ones.
LONGEST_SCALAR, LONGEST_MATRIX = 4096, 256

# Held steps are divided into up to 1024 parts: Euler is stable at none larger on high frequencies.
EXCERPT = 16
DIVISIONS = tuple(2**k for k in range(11))
# Slopes are fitted to the smallest steps, and to small errors, where the lowest power of dt is nearly alone.
FITTED, LEAST_FITTED, ASYMPTOTIC = 4, 3, 0.1


def truncation_rows(case: Case, values: dict[ModeSpec, Array]) -> tuple[TruncationRow, ...]:
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


def discretization_rows(continuous: Any, u: Array) -> tuple[tuple[DiscretizationRow, ...], list[str]]:
    """`liquid` after each discretisation against the continuous model with held input, by the oracle."""
    from .report import DiscretizationRow

    if continuous is None:
        return (), ["No discretisation errors: the system was given in discrete form."]
    if continuous.structure != "diagonal":
        return (), [
            f"No discretisation errors: the exact solution with held input is computed for diagonal systems, "
            f"not for {continuous.structure}."
        ]
    from .oracle.discretisation import held_input_solution
    from .oracle.metrics import absolute_error, summarize

    with np.errstate(over="ignore", invalid="ignore"):  # a method may be unstable here; its row then says inf
        exact = held_input_solution(*_parameters(continuous), u, **_options(continuous))
        rows = []
        for method in DISCRETIZATIONS:
            found = summarize(absolute_error(_discretized(continuous, method, u), exact), exact)
            rows.append(DiscretizationRow(method, found.relative, found.componentwise, found.worst_step))
    return tuple(rows), []


def _parameters(continuous: Any) -> tuple[Any, Any, Any, Any]:
    return continuous.Lambda, continuous.B, continuous.C, continuous.dt


def _options(continuous: Any) -> dict[str, Any]:
    # Discretisation errors are far above float64's rounding, and an unstable method in extended precision is slow.
    return {"conjugate_pairs": continuous.conjugate_pairs, "precision": "float64"}


def _discretized(continuous: Any, method: str, u: Array) -> Array:
    """`liquid` by one method, by the oracle."""
    from .oracle.discretisation import adams_bashforth, bilinear_exact
    from .oracle.reference import reference

    if method == "adams-bashforth":
        return adams_bashforth(*_parameters(continuous), u, **_options(continuous))
    if method == "bilinear-exact":
        return bilinear_exact(*_parameters(continuous), u, **_options(continuous))
    return reference(realization_of(continuous.discretize(method)), u, "liquid", dtype=np.float64).value


def truncation_curves(case: Case, specs: Sequence[ModeSpec]) -> tuple[TruncationCurve, ...]:
    """The error of each mode with an order, without window, against `liquid` at the orders 1 to 6, by the oracle."""
    from .oracle.metrics import absolute_error, summarize
    from .oracle.reference import reference

    forms = dict.fromkeys((spec.mode, spec.correlations) for spec in specs if spec.has_order)
    if not forms:
        return ()
    u = case.u[..., : LONGEST_SCALAR if case.system.structure in ("diagonal", "mimo") else LONGEST_MATRIX]
    shared: dict[Any, Any] = {}
    curves = []
    with np.errstate(over="ignore", invalid="ignore"):  # high orders may overflow; the error is then inf
        exact = reference(case.realization, u, "liquid", dtype=np.float64).value
        for mode, correlations in forms:
            errors = []
            for order in ORDERS:
                value = reference(
                    case.realization,
                    u,
                    mode,
                    order=order,
                    correlations=correlations,
                    dtype=np.float64,
                    shared=shared,
                ).value
                errors.append(summarize(absolute_error(value, exact), exact).relative)
            label = mode if mode == "truncated" else f"{mode} ({correlations})"
            curves.append(TruncationCurve(label, ORDERS, rounded(errors)))
    return tuple(curves)


def discretization_curves(continuous: Any, u: Array) -> tuple[DiscretizationCurve, ...]:
    """Every method with each step of the signal divided into 1 to 1024, against the continuous model, by the oracle.

    The input stays held over the signal's own steps, so that the exact solution is known in closed form.  An excerpt
    of 16 steps around the largest |u| is taken.
    """
    if continuous is None or continuous.structure != "diagonal":
        return ()
    from .oracle.discretisation import held_input_solution
    from .oracle.metrics import absolute_error, summarize

    peak, length = int(np.abs(u).max(axis=(0, 1)).argmax()), u.shape[-1]
    start = max(0, min(peak - EXCERPT // 2, length - EXCERPT))
    held = np.asarray(u[..., start : start + EXCERPT], float)
    errors: dict[str, list[float]] = {method: [] for method in DISCRETIZATIONS}
    with np.errstate(all="ignore"):  # a method may be unstable at a large step; its error is then inf
        exact = held_input_solution(*_parameters(continuous), held, **_options(continuous))
        for parts in DIVISIONS:
            finer = replace(continuous, dt=continuous.dt / parts)
            divided = np.repeat(held, parts, axis=-1)
            for method, found in errors.items():
                y = _discretized(finer, method, divided)[..., parts - 1 :: parts]
                found.append(summarize(absolute_error(y, exact), exact).relative)
    steps = [float(continuous.dt.max()) / parts for parts in DIVISIONS]
    return tuple(
        DiscretizationCurve(method, rounded(steps), rounded(found), _fitted_slope(steps, found))
        for method, found in errors.items()
    )


def _fitted_slope(steps: Sequence[float], errors: Sequence[float]) -> float:
    last = list(zip(steps, errors, strict=True))[-FITTED:]
    usable = [(step, error) for step, error in last if 0 < error < ASYMPTOTIC]
    if len(usable) < LEAST_FITTED:
        return float("nan")
    return slope(*zip(*usable, strict=True))
