"""What the model itself costs: truncation against `liquid`, discretisation against the continuous system.

Both sides are computed by the oracle; no backend is involved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .discretize import DISCRETIZATIONS
from .problem import ModeSpec
from .rounding_errors import Array, Case, realization_of

if TYPE_CHECKING:
    from .report import DiscretizationRow, TruncationRow


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
    from .oracle.discretisation import adams_bashforth, bilinear_exact, held_input_solution
    from .oracle.metrics import absolute_error, summarize
    from .oracle.reference import reference

    parameters = (continuous.Lambda, continuous.B, continuous.C, continuous.dt, u)
    # Discretisation errors are far above float64's rounding, and an unstable method in extended precision is slow.
    options = {"conjugate_pairs": continuous.conjugate_pairs, "precision": "float64"}
    with np.errstate(over="ignore", invalid="ignore"):  # a method may be unstable here; its row then says inf
        exact = held_input_solution(*parameters, **options)
        rows = []
        for method in DISCRETIZATIONS:
            if method == "adams-bashforth":
                y = adams_bashforth(*parameters, **options)
            elif method == "bilinear-exact":
                y = bilinear_exact(*parameters, **options)
            else:
                y = reference(realization_of(continuous.discretize(method)), u, "liquid", dtype=np.float64).value
            found = summarize(absolute_error(y, exact), exact)
            rows.append(DiscretizationRow(method, found.relative, found.componentwise, found.worst_step))
    return tuple(rows), []
