"""Which precision of the state a tolerance asks for, from a worst case that needs no reference.

One step of a recurrence is off by at most 10 u X, where X is the largest modulus that its state takes: with ρ >= |a_k|
and |w_k| <= |x_k| + |a_k||x_{k-1}| <= (1 + ρ) X the local error of docs/bounds.md is at most
u X (ρ + (1 + ρ) + √5 ρ + 2 (1 + ρ) + 1) < 10.3 u X for ρ <= 1.  Errors pass on with ρ, so after L steps they are
at most 10.3 u X min(L, 1/(1 - ρ)).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import ParameterError
from .problem import Problem

WIDE_STATE = "numba-wide-state"
_PER_STEP = 10.3


def state_error(system: Any, problem: Problem, largest_input: float) -> float:
    """Bound on the error of a state that is kept in u's dtype, relative to the largest modulus it takes.

    Args:
        system: discrete; for other structures than `diagonal` and `mimo` ρ is taken to be 1.
        largest_input: max |u|, which for other modes than s4 adds |b̄||u| to |ā|.

    Returns:
        10.3 u min(L, 1/(1 - ρ)), with ρ the largest |ā| + |b̄||u|, at most 1; where ρ is above 1 the error may grow with
        the state, and relative to it is bounded in the same way.
    """
    unit = float(np.finfo(problem.dtype).eps) / 2
    steps = float(max(1, problem.length))
    if problem.structure in ("diagonal", "mimo"):
        drive = np.abs(system.B_bar) * (0.0 if problem.spec.mode == "s4" else largest_input)
        if problem.structure == "mimo":
            drive = drive.sum(axis=1)
        radius = float(np.max(np.abs(system.A_bar) + drive, initial=0.0))
        if radius < 1:
            steps = min(steps, 1 / (1 - radius))
    return _PER_STEP * unit * steps


def backend_for(system: Any, problem: Problem, largest_input: float, tolerance: float) -> str | None:
    """The backend that a tolerance asks for: `numba-wide-state`, or None if a state in u's dtype is enough.

    Raises:
        ParameterError: not even that is enough, or the mode is no recurrence.
    """
    if not tolerance > 0:
        raise ParameterError(f"tolerance is {tolerance}; it must be a positive relative error, such as 1e-5.")
    spec = problem.spec
    recurrence = spec.mode in ("s4", "liquid", "truncated") or spec.order == 1
    diagonal_sums = spec.mode == "kb" and spec.correlations == "all" and spec.window is None
    if not recurrence and not (diagonal_sums and problem.structure == "diagonal"):
        raise ParameterError(
            f"a tolerance chooses the precision of a recurrence's state; {spec.label} also adds up products of inputs "
            "in u's own dtype. Leave it out and see `verify` for the errors of this mode."
        )
    unit = float(np.finfo(problem.dtype).eps) / 2
    error = state_error(system, problem, largest_input)
    if error <= tolerance:
        return None
    if problem.dtype == "float64" or unit > tolerance:
        raise ParameterError(
            f"tolerance {tolerance:g} cannot be promised for {problem.dtype} inputs: rounding alone is {unit:.2g}, the "
            f"bound on a state of {problem.length} steps {error:.2g}. "
            + ("Give u in float64." if problem.dtype == "float32" else "Ask for a larger one.")
        )
    return WIDE_STATE
