"""Recurrences whose transition is another one at every step: irregular sampling, and the exact bilinear step."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from ..backend import Backend
from ..errors import ParameterError, ShapeError, UnstableRecurrence
from ..instability import require_finite_input
from ..modes import State, initial_state
from ..problem import ModeSpec, commutes
from ..tensors import has_numbers
from .discretize import BILINEAR_EXACT, Discrete
from .parameters import ContinuousParameters
from .pieces import steps_at_once
from .piecewise import in_turn
from .recompute import Tensors
from .sampled_compiled import scan_compiled, takes

MODES = ("s4", "liquid", "truncated")

_STEPS = 64


def scan_sampled(
    parameters: ContinuousParameters,
    method: str,
    spec: ModeSpec,
    u: torch.Tensor,
    dt: torch.Tensor,
    state: Any = None,
    *,
    reverse: bool = False,
    backend: str | Backend | None = None,
) -> tuple[torch.Tensor, Any]:
    """Outputs and final state where step k has Ā(dt_k δt) and B̄(dt_k δt), in the liquid term too.

    Steps are discretised and computed some tens at a time, and again on the way back, so memory does not grow with the
    length beyond u, y and a state per chunk.  `bilinear` and `bilinear-exact` of `diagonal` and `dplr` systems on the
    CPU are computed by compiled kernels, where numba is installed; all else by torch, which takes much longer.

    `kb` over all index tuples moves every Ā in front of every B̄: for a diagonal system, whose matrices commute, this
    changes nothing, and it is `truncated`, with one step size or with many.

    Args:
        parameters: the continuous system.
        method: `euler`, `bilinear`, `zoh` or `bilinear-exact`.
        spec: mode `s4`, `liquid` or `truncated`; of order 1 any; for `diagonal` also `kb` over all index tuples
            without window.  With `bilinear-exact` `liquid` alone.  Others: `sampled_correlations`.
        u: (batch, H, L).
        dt: factors of δt, (batch, L), positive.
        state: as in `liquid_ssm.apply`.
        reverse: with the output vectors of the second direction.
        backend: that of the layer; with `torch` nothing is compiled.

    Returns:
        y (batch, H, L) and the final state.

    Raises:
        ShapeError, ParameterError: dt does not fit or is not positive, or a mode whose terms belong to one step size.
        UnstableRecurrence: the state left the range of the dtype, or `bilinear-exact` met a pole.
    """
    structured = spec.mode not in MODES
    if structured and spec.order > 1 and not commutes(parameters.structure, spec):
        raise ParameterError(
            f"{spec.label} of a {parameters.structure} system has no recurrence of its own size where every step has "
            f"its own Ā and B̄ (Eq. 13 to 15); allowed with dt: {', '.join(MODES)}, and of kb and pb without window all "
            "but kb over all tuples, which only diagonal systems have. For one interval everywhere use rate."
        )
    require_intervals(u, dt)
    x = initial_state(parameters.sizes(method), spec, u, state)
    terms = spec
    if structured:
        terms, x = ModeSpec("truncated", spec.order), x.x
    elif method == BILINEAR_EXACT:
        terms = ModeSpec("s4")  # all that u does to a step is in its Ā and B̄

    def by_torch(
        parameters: ContinuousParameters, u: torch.Tensor, dt: torch.Tensor, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        y, (final,) = in_pieces(parameters, method, partial(_Steps, method, terms, reverse), u, dt, (x,))
        return y, final

    found = None
    if takes(parameters.structure, method, backend, u):
        found = scan_compiled(parameters, method, terms, u, dt, x, by_torch, reverse=reverse)
    y, final = found or by_torch(parameters, u, dt, x)
    require_finite_outputs(spec.label if method != BILINEAR_EXACT else method, u, (x,), y)
    return y, State(final) if structured else final


def require_intervals(u: torch.Tensor, dt: torch.Tensor) -> None:
    """Raise a `ShapeError` or `ParameterError` unless dt is (batch, L), positive and finite, for u (batch, H, L)."""
    batch, _, length = u.shape
    if tuple(dt.shape) != (batch, length):
        raise ShapeError(f"dt has shape {tuple(dt.shape)}; one interval per row and step is ({batch}, {length}).")
    if has_numbers(dt) and not bool(((dt > 0) & (dt < math.inf)).all()):
        bad = dt[~((dt > 0) & (dt < math.inf))]
        raise ParameterError(
            f"dt times rate holds {float(bad[0]):.3g}; intervals are positive factors of the step size."
        )


def require_finite_outputs(label: str, u: torch.Tensor, state: Tensors, y: torch.Tensor) -> None:
    """Raise an `UnstableRecurrence` where y is not finite, or a `ParameterError` where u or the state is not.

    A state that is not finite makes outputs that are not, whatever C is: 0 times infinity is NaN.

    Args:
        u, y: (batch, H, L).
        state: parts of that before the first step.
    """
    if not has_numbers(y) or _finite(y):
        return
    require_finite_input(u.numpy(force=True))
    if not all(map(_finite, state)):
        raise ParameterError("state holds NaN or infinite values; a state must be finite.")
    bad = (~torch.isfinite(y)).nonzero()
    _, channel, step = bad[bad[:, 2].argmin()].tolist()
    raise UnstableRecurrence(
        f"{label} left the range of {u.dtype} at step {step}, channel {channel}; scale u or dt down.",
        step=step,
        channel=channel,
        input_bound=None,
    )


def _finite(tensor: torch.Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def in_pieces(
    parameters: ContinuousParameters,
    method: str,
    run: Callable[[int], Callable[..., Tensors]],
    u: torch.Tensor,
    dt: torch.Tensor,
    state: Tensors,
) -> tuple[torch.Tensor, Tensors]:
    """y (batch, H, L) and the state after it, at most some tens of steps at a time and on the way back once more.

    Args:
        run: run(start) gives, for the steps from start, a function (parameters, u, dt, *state) -> (y, *state) for u and
            y (T, batch, H) and dt (T, batch).
    """
    steps = steps_at_once(u.shape[0] * parameters.numbers_per_step(method), _STEPS)
    y, *after = in_turn(run, steps, parameters, u, dt, *state)
    return y, tuple(after)


class _Steps:
    """The steps from start, as `in_pieces` takes them."""

    def __init__(self, method: str, spec: ModeSpec, reverse: bool, start: int) -> None:
        self.method, self.spec, self.reverse, self.start = method, spec, reverse, start

    def __call__(self, parameters: ContinuousParameters, u: torch.Tensor, dt: torch.Tensor, x: torch.Tensor) -> Tensors:
        at, drive = self._discretized(parameters, u, dt, x.dtype)
        A = at.A_bar
        if self.spec.mode == "liquid":
            A = A + (torch.diag_embed(drive) if A.ndim > drive.ndim else drive)
        along = [A, drive]
        if at.P_bar is not None and at.Q_bar is not None:
            along += [part for P, Q in zip(at.P_bar, at.Q_bar, strict=True) for part in (P, torch.conj_physical(Q))]
        if self.spec.mode == "truncated":
            along = [part[:, :, None] for part in along]
        states = []
        # Unbound: the gradient of every index would be written into zeros of all steps.
        for a, w, *factors in zip(*(part.unbind(0) for part in along), strict=True):
            x = self._step(x, a, w, factors)
            states.append(x)
        every = torch.stack(states)
        y = parameters.read(every.sum(2) if self.spec.mode == "truncated" else every, reverse=self.reverse)
        return y.to(u.dtype), x

    def _discretized(
        self, parameters: ContinuousParameters, u: torch.Tensor, dt: torch.Tensor, dtype: torch.dtype
    ) -> tuple[Discrete, torch.Tensor]:
        """Ā, and B̄ times the input."""
        exact = self.method == BILINEAR_EXACT
        found = parameters.driven(u, dt, self.start) if exact else parameters.discretize(self.method, dt)
        at = Discrete(*(None if part is None else part.to(dtype) for part in found))
        if exact:
            return at, at.B_bar
        if parameters.structure == "mimo":
            return at, (at.B_bar @ u.to(dtype)[..., None])[..., 0]
        return at, at.B_bar * u[..., None]

    def _step(self, x: torch.Tensor, a: torch.Tensor, w: torch.Tensor, factors: list[torch.Tensor]) -> torch.Tensor:
        if self.spec.mode == "truncated":
            # Order p is driven by order p - 1 before the step, order 1 by the input alone.
            w = w * torch.cat([torch.ones_like(x[:, :1]), x[:, :-1]], 1)
        return linear_step(x, a, w, factors)


def linear_step(x: torch.Tensor, a: torch.Tensor, drive: torch.Tensor, factors: list[torch.Tensor]) -> torch.Tensor:
    """Ā x + drive with a the diagonal of Ā, or all of it (..., N, N).

    Args:
        factors: P̄ and conj(Q̄) in turn, of the low rank that is subtracted from it, over both halves of every pair.
    """
    # No matrix product, which flags of torch may round to fewer bits.
    after = (a * x[..., None, :]).sum(-1) if a.ndim > x.ndim else a * x
    for p, q in zip(factors[::2], factors[1::2], strict=True):
        after = after - p * (2 * (q * x).real.sum(-1, keepdim=True))
    return after + drive
