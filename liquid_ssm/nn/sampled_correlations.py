"""`kb` over adjacent tuples and `pb` with an interval of its own for every step (Eq. 13 to 15 with many Ā and B̄).

With w_k = B̄_k u_k, elementwise in the modes, a term of the inputs i_1 < … < i_p is the product of their w, which `kb`
multiplies with Ā of every later step that is no i_j, and `pb` with nothing.  For one interval that is Eq. 14 and 15.
"""

from __future__ import annotations

from functools import partial
from itertools import accumulate, repeat
from operator import mul
from typing import Any

import torch

from ..errors import ParameterError, ShapeError
from ..modes import State, initial_state
from ..problem import ModeSpec
from .discretize import METHODS, Discrete
from .parameters import ContinuousParameters
from .recompute import Tensors
from .sampling import in_pieces, linear_step, require_finite_outputs, require_intervals


def is_sampled(state: Any) -> bool:
    """Whether a state is one of `scan_correlations`, whose products are of w, with an axis of modes, and not of u."""
    return isinstance(state, State) and any(part is not None and part.ndim == 4 for part in state[1:])


def takes(structure: str, method: str, spec: ModeSpec) -> bool:
    """Whether `scan_correlations` computes this."""
    adjacent = spec.correlations == "adjacent"
    known = spec.mode == "pb" or (spec.mode == "kb" and adjacent)
    return known and spec.order > 1 and spec.window is None and structure in ("diagonal", "dplr") and method in METHODS


def scan_correlations(
    parameters: ContinuousParameters,
    method: str,
    spec: ModeSpec,
    u: torch.Tensor,
    dt: torch.Tensor,
    state: Any = None,
    *,
    rate: float | torch.Tensor = 1.0,
) -> tuple[torch.Tensor, State]:
    """Outputs and final state where step k has Ā(dt_k δt) and B̄(dt_k δt), in every order.

    `kb` has one recurrence per order, driven by products of the newest w.  `pb` has that of `s4`, and sums of such
    products or the symmetric polynomials e_p(k) = e_p(k-1) + w_k e_{p-1}(k-1).

    Args:
        state: as it is returned; or, of steps of one interval, as in `liquid_ssm.apply`.
        rate: that interval, in units of δt.
        others: as in `sampling.scan_sampled`.

    Returns:
        y (batch, H, L) and a `State` whose sums (batch, n, H, M) and inputs (batch, H, n, M) are those of w.

    Raises:
        ShapeError, ParameterError: dt or the state does not fit, or dt is not positive.
        UnstableRecurrence: the state left the range of the dtype.

    Accuracy: operations as in `sampling.scan_sampled`; sums over time in any order.
    """
    require_intervals(u, dt)
    start = _starting(parameters, method, spec, u, state, rate)
    parts = tuple(part for part in start if part is not None)
    y, after = in_pieces(parameters, method, partial(_Steps, method, spec), u, dt, parts)
    require_finite_outputs(spec.label, u, parts, y)
    found = iter(after)
    return y, State(*(None if part is None else next(found) for part in start))


def require_one_interval(state: Any) -> None:
    """Raise a `ParameterError` if a state is one of steps with intervals of their own."""
    if is_sampled(state):
        raise ParameterError(
            "state comes from a call with dt: its products hold each step's own B̄. Go on with dt, where 1 is the "
            "interval of training, as torch.ones(batch, length)."
        )


def _starting(
    parameters: ContinuousParameters, method: str, spec: ModeSpec, u: torch.Tensor, state: Any, rate: Any
) -> State:
    """The state before the first step, its sums and inputs those of w."""
    sizes = parameters.sizes(method)
    sampled = is_sampled(state)
    x, sums, inputs = initial_state(sizes, spec, u, None if sampled else state)
    modes = (sizes.n_modes,)
    wanted = (x.shape, *(None if part is None else part.shape + modes for part in (sums, inputs)))
    if state is None:
        return State(*(None if shape is None else x.new_zeros(shape) for shape in wanted))
    if sampled:
        found = tuple(None if part is None else part.shape for part in state)
        if found != wanted:
            raise ShapeError(
                f"the parts of the state have shapes {_listed(found)}; with dt, those of {spec.label} have "
                f"{_listed(wanted)}."
            )
        return State(*(None if part is None else part.to(x.dtype) for part in state))
    B_bar = parameters.discretize(method, rate).B_bar.to(x.dtype)
    if sums is not None:
        powers = list(accumulate(repeat(B_bar, spec.order), mul))
        sums = sums[..., None] * torch.stack(powers[spec.order - sums.shape[1] :])
    return State(x, sums, None if inputs is None else inputs[..., None] * B_bar[:, None])


def _listed(shapes: Any) -> str:
    return ", ".join(f"{name} {None if s is None else tuple(s)}" for name, s in zip(State._fields, shapes, strict=True))


class _Steps:
    """Some steps, as `sampling.in_pieces` takes them."""

    def __init__(self, method: str, spec: ModeSpec, start: int) -> None:
        self.method, self.spec = method, spec

    def __call__(
        self, parameters: ContinuousParameters, u: torch.Tensor, dt: torch.Tensor, x: torch.Tensor, *rest: torch.Tensor
    ) -> Tensors:
        found = parameters.discretize(self.method, dt)
        at = Discrete(*(None if part is None else part.to(x.dtype) for part in found))
        w = at.B_bar * u[..., None]  # (T, batch, H, M)
        drive = w[:, :, None]
        after: Tensors = ()
        if self.spec.correlations == "adjacent":
            products, earlier = _adjacent(w, rest[-1], self.spec.order)
            after = (earlier,)
            if self.spec.mode == "kb":
                drive = torch.cat([drive, products], 2)
        every, x = _linear(at, drive, x)
        total = every.sum(2)
        if self.spec.mode == "pb":
            if self.spec.correlations == "adjacent":
                sums = rest[0] + products.cumsum(0)
                total = total + sums.sum(2)
            else:
                sums = _elementary(w, rest[0])
                total = total + sums[:, :, 1:].sum(2)
            after = (sums[-1].clone(), *after)
        return parameters.read(total).to(u.dtype), x, *after


def _linear(at: Discrete, drive: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All states of x_k = Ā_k x_{k-1} + drive_k, and the last of them, for drive (T, batch, n, H, M)."""
    along = [at.A_bar[:, :, None], drive]
    if at.P_bar is not None and at.Q_bar is not None:
        for P, Q in zip(at.P_bar, at.Q_bar, strict=True):
            along += [P[:, :, None], torch.conj_physical(Q)[:, :, None]]
    states = []
    # Unbound: the gradient of every index would be written into zeros of all steps.
    for a, d, *factors in zip(*(part.unbind(0) for part in along), strict=True):
        x = linear_step(x, a, d, factors)
        states.append(x)
    return torch.stack(states), x


def _adjacent(w: torch.Tensor, earlier: torch.Tensor, order: int) -> tuple[torch.Tensor, torch.Tensor]:
    """w_k … w_{k-p+1} for p = 2 … order, (T, batch, order - 1, H, M), and the newest order - 1 of w.

    Args:
        earlier: (batch, H, order - 1, M), those before the first step, newest last.
    """
    steps, held = len(w), order - 1
    every = torch.cat([earlier.movedim(2, 0), w])
    shifted = [every[held - p : held - p + steps] for p in range(order)]
    # A copy: what is kept of a state must not keep all steps before it.
    return torch.stack(list(accumulate(shifted, mul))[1:], 2), every[steps:].movedim(0, 2).clone()


def _elementary(w: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """e_1 … e_P after every step, (T, batch, P, H, M), from those before the first one, (batch, P, H, M)."""
    found: list[torch.Tensor] = []
    drive = w
    for start in before.unbind(1):
        found.append(start + drive.cumsum(0))
        drive = w * torch.cat([start[None], found[-1][:-1]])
    return torch.stack(found, 2)
