"""Why an output or a state is not finite, and which inputs are safe; NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ParameterError, UnstableRecurrence
from .finite import all_finite
from .modes import linear_method, require_finite_state, run
from .problem import ModeSpec, Problem
from .registry import get_backend

Array = npt.NDArray[Any]


def require_finite_input(array: Array) -> None:
    """Raise a `ParameterError` that names the first value of u that is NaN or infinite."""
    if not all_finite(array):
        bad = np.argwhere(~np.isfinite(array))
        row, channel, k = (int(i) for i in bad[0])
        raise ParameterError(
            f"u holds {len(bad)} value(s) that are NaN or infinite; the first is {array[row, channel, k]} at "
            f"batch {row}, channel {channel}, step {k}. Replace or cut them."
        )


def raise_not_finite(
    chosen: Any, system: Any, u: Array, spec: ModeSpec, problem: Problem, y: Array, final: Array, state: Any
) -> None:
    """Raise the error that says why y or the final state is not finite; NumPy arrays."""
    require_finite_input(u)
    require_finite_state(state)
    if linear_method(problem, chosen) == "convolution":
        # An FFT spreads one overflow over all steps; the recurrence shows where it happens.
        with np.errstate(over="ignore", invalid="ignore"):
            y, _ = run(get_backend("numpy"), system, u, spec, state, carry=True)
    bad = np.argwhere(~np.isfinite(y.transpose(2, 0, 1)))
    if linear_method(problem, chosen) == "convolution" and not len(bad):
        raise UnstableRecurrence(
            f"{spec.label} in {u.dtype}: the kernel or the FFT of backend {chosen.name!r} left the range of the dtype, "
            "the recurrence does not; use backend='numpy' or scale u down.",
            step=0,
            channel=0,
            input_bound=None,
        )
    k, _, channel = (int(i) for i in bad[0]) if len(bad) else (u.shape[-1] - 1, 0, 0)
    bounds = [safe_input_bound(system, h) for h in range(system.n_channels)]
    limit = min(bounds)
    largest = float(np.abs(u).max(initial=0.0))
    advice = (
        "its transition alone does not contract (|ā| is not below 1, or rounds to 1), so no input is safe: a decay or "
        "a step size has left its range, as by a learning rate too high, or the discretisation is euler, where "
        "bilinear and zoh contract."
        if limit <= 0
        else f"|u| < {limit:.3g} is a bound below which the liquid state stays bounded; scale u down or reduce dt."
    )
    raise UnstableRecurrence(
        f"{spec.label} in {u.dtype} left the range of the dtype at step {k}, channel {channel} "
        f"(largest |u| given: {largest:.3g}); {advice}",
        step=k,
        channel=channel,
        input_bound=limit,
    )


def safe_input_bound(system: Any, channel: int) -> float:
    """Largest B such that |u| < B guarantees a bounded liquid state of one channel.

    Diagonal and `mimo`: min over the modes of (1 - |ā|)/|b̄| (`mimo`: Σ_h |b̄_h|); `dplr` and `dense`:
    (1 - ‖Ā‖₂)/max |b̄|.  Zero where the transition alone does not contract.
    """
    if system.structure == "mimo":
        room, drive = 1 - np.abs(system.A_bar), np.abs(system.B_bar).sum(axis=1)
    elif system.structure == "diagonal":
        room, drive = 1 - np.abs(system.A_bar[channel]), np.abs(system.B_bar[channel])
    else:
        room = np.array([1 - np.linalg.norm(full_transition(system, channel), 2)])
        drive = np.abs(system.B_bar[channel]).max(keepdims=True)
    with np.errstate(divide="ignore"):
        return max(0.0, float(np.min(np.where(drive > 0, room / drive, np.inf), initial=np.inf)))


def full_transition(system: Any, channel: int) -> Array:
    """Ā of one channel of a `dplr` or `dense` system as a matrix on the full state."""
    if system.structure == "dense":
        return np.asarray(system.A_bar[channel])

    def both(v: Array) -> Array:
        return np.concatenate([v, v.conj()], axis=-1) if system.conjugate_pairs else v

    P, Q = both(system.P_bar[:, channel]), both(system.Q_bar[:, channel])
    return np.asarray(np.diag(both(system.Lambda_bar[channel])) - P.T @ Q.conj())
