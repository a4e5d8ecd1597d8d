"""Layers by the two-step Adams-Bashforth method, which remembers the slope of the step before."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch

from ..backend import Backend
from ..errors import ParameterError, ShapeError
from ..modes import initial_state
from ..problem import ModeSpec
from ..tensors import has_numbers
from .discretize import ADAMS_BASHFORTH, driven_by
from .parameters import ContinuousParameters
from .pieces import steps_at_once
from .recompute import Tensors
from .sampled_correlations import scan_correlations, takes
from .sampling import in_pieces, require_finite_outputs, require_intervals, scan_sampled


def scan_by_steps(
    parameters: ContinuousParameters,
    method: str,
    spec: ModeSpec,
    u: torch.Tensor,
    dt: torch.Tensor,
    state: Any = None,
    *,
    rate: float | torch.Tensor = 1.0,
    reverse: bool = False,
    backend: str | Backend | None = None,
) -> tuple[torch.Tensor, Any]:
    """`scan_multistep` for `adams-bashforth`, `scan_correlations` for what it takes, else `scan_sampled`; see there."""
    if method == ADAMS_BASHFORTH:
        return scan_multistep(parameters, u, dt, state, reverse=reverse)
    if takes(parameters.structure, method, spec):
        # One direction: a bidirectional layer takes no dt.
        return scan_correlations(parameters, method, spec, u, dt, state, rate=rate)
    return scan_sampled(parameters, method, spec, u, dt, state, reverse=reverse, backend=backend)


class MultistepState(NamedTuple):
    """What a layer with `adams-bashforth` carries from one call to the next.

    Attributes:
        x: (batch, H, M), `mimo` (batch, M).
        f: the derivative that the last step used, of the same shape.
        interval: that before the last step, in units of δt, (batch,); infinite where there was no step yet, whose next
            one is Euler's.
    """

    x: torch.Tensor
    f: torch.Tensor
    interval: torch.Tensor


def scan_multistep(
    parameters: ContinuousParameters,
    u: torch.Tensor,
    dt: torch.Tensor,
    state: Any = None,
    *,
    reverse: bool = False,
) -> tuple[torch.Tensor, MultistepState]:
    """Outputs and final state of x_k = x_{k−1} + h_k ((1 + r/2) f_k − r/2 f_{k−1}), f_k = M_k x_{k−1} + B u_k.

    M_k = A + diag(B u_k), h_k = dt_k δt, and r = dt_k/dt_{k−1}: equal intervals have the weights 3/2 and −1/2.  The
    first step is Euler's.  O(N) per step; stable for small δt |λ| only.

    Args:
        parameters: the continuous system.
        u: (batch, H, L).
        dt: factors of δt, (batch, L), positive.
        state: of an earlier call, or x_{-1} alone, or None for rest.
        reverse: with the output vectors of the second direction.

    Raises:
        ShapeError, ParameterError: dt or the state does not fit.
        UnstableRecurrence: the state left the range of the dtype.

    Accuracy: the parameters are rounded to u's dtype once; equal intervals of 1 give what `liquid_ssm.integrators`
        does, within the same bound.

    References: arXiv 2209.12951, Appendix D; for unequal intervals Hairer, Nørsett and Wanner, Solving Ordinary
        Differential Equations I, III.5.
    """
    require_intervals(u, dt)
    start = starting_state(parameters, u, state)
    y, final = in_pieces(parameters, ADAMS_BASHFORTH, lambda _: partial(_steps, reverse), u, dt, tuple(start))
    require_finite_outputs(ADAMS_BASHFORTH, u, (start.x, start.f), y)
    return y, MultistepState(*final)


def starting_state(parameters: ContinuousParameters, u: torch.Tensor, state: Any) -> MultistepState:
    """The state before the first step of u (batch, H, L).

    Raises:
        ShapeError, ParameterError: no state of this layer.
    """

    def full(x: Any) -> torch.Tensor:
        found: torch.Tensor = initial_state(parameters.sizes("euler"), ModeSpec("liquid"), u, x)
        return found

    if not isinstance(state, MultistepState):
        if isinstance(state, tuple):
            raise ParameterError(
                f"{ADAMS_BASHFORTH} carries its state as MultistepState, not as {type(state).__name__}."
            )
        x = full(state)
        return MultistepState(x, torch.zeros_like(x), u.new_full(u.shape[:1], torch.inf))
    if tuple(state.interval.shape) != tuple(u.shape[:1]):
        raise ShapeError(f"interval has shape {tuple(state.interval.shape)}; one for each of {len(u)} rows is needed.")
    if has_numbers(state.interval) and not bool((state.interval > 0).all()):
        raise ParameterError(
            f"interval of the state holds {float(state.interval.detach().min()):.3g}; intervals are positive factors "
            "of the step size, infinite where there was no step yet."
        )
    return MultistepState(full(state.x), full(state.f), state.interval)


@torch.no_grad()
def largest_root(
    Lambda: torch.Tensor, B: torch.Tensor, P: torch.Tensor | None, dt: torch.Tensor, u: torch.Tensor
) -> float:
    """The largest |ζ| of ζ² − (1 + 3/2 z) ζ + z/2 = 0, z = δt (λ + B u): the factor per step if u stays what it is.

    In low-rank systems z is δt times the eigenvalues of A + diag(B u), at the least and the largest input of a channel.

    Args:
        dt: step sizes that broadcast against Lambda.
        u: (batch, H, L); without any values it is that at 0.
    """
    if u.numel() == 0:
        u = u.new_zeros((1, u.shape[1], 1))
    if P is not None:
        u = torch.stack([u.amin((0, 2)), u.amax((0, 2))])[..., None]
    largest = 0.0
    for piece in torch.split(u, steps_at_once(Lambda.numel() * len(u)), -1):
        moved = Lambda + driven_by(B, piece.movedim(-1, 0), shared=Lambda.ndim == 1)
        if P is not None:
            whole, P2 = torch.cat([moved, moved.conj()], -1), torch.cat([P, P.conj()], -1)
            moved = torch.linalg.eigvals(torch.diag_embed(whole) - torch.einsum("rhn,rhm->hnm", P2, P2.conj()))
        z = dt * moved
        middle = (1 + 1.5 * z) / 2
        root = torch.sqrt(middle * middle - z / 2)
        largest = max(largest, float(torch.maximum((middle + root).abs(), (middle - root).abs()).amax()))
    return largest


def _steps(
    reverse: bool, parameters: ContinuousParameters, u: torch.Tensor, dt: torch.Tensor, *state: torch.Tensor
) -> Tensors:
    """Some steps, as `in_pieces` takes them."""
    x, f, last = state
    Lambda, B, P = parameters.joined()
    # Each factor with its conjugate.
    factors = [] if P is None else [(p, torch.conj_physical(p)) for p in P.to(x.dtype)]
    drive = driven_by(B.to(x.dtype), u, shared=Lambda.ndim == 1)
    steps, moved = parameters.step_sizes(dt).to(x.real.dtype), Lambda.to(x.dtype) + drive
    ratio = (dt / torch.cat([last[None], dt[:-1]])).to(steps.dtype) / 2
    half = ratio.reshape(*ratio.shape, *(1,) * (x.ndim - 1))
    states = []
    # Unbound: the gradient of every index would be written into zeros of all steps.
    for m, w, h, r in zip(*(part.unbind(0) for part in (moved, drive, steps, half)), strict=True):
        before, f = f, m * x + w
        for p, q in factors:
            f = f - p * (2 * (q * x).real.sum(-1, keepdim=True))
        x = x + h * ((1 + r) * f - r * before)
        states.append(x)
    return parameters.read(torch.stack(states), reverse=reverse).to(u.dtype), x, f, dt[-1].to(last.dtype)
