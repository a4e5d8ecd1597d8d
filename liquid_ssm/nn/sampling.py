"""Irregularly sampled signals: a recurrence whose step size differs from step to step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from ..errors import ParameterError, ShapeError, UnstableRecurrence
from ..modes import State, initial_state
from ..problem import ModeSpec, commutes
from ..tensors import has_numbers
from .discretize import Discrete
from .parameters import ContinuousParameters

MODES = ("s4", "liquid", "truncated")

# Numbers of one temporary: some tens of megabytes at most.
_ELEMENTS = 1 << 20
_STEPS = 64


def scan_sampled(
    parameters: ContinuousParameters,
    method: str,
    spec: ModeSpec,
    u: torch.Tensor,
    dt: torch.Tensor,
    state: Any = None,
) -> tuple[torch.Tensor, Any]:
    """Outputs and final state where step k has Ā(dt_k δt) and B̄(dt_k δt), in the liquid term too.

    Steps are discretised and computed some tens at a time, and again on the way back, so memory does not grow with the
    length beyond u, y and a state per chunk.

    `kb` over all index tuples moves every Ā in front of every B̄: for a diagonal system, whose matrices commute, this
    changes nothing, and it is `truncated`, with one step size or with many.

    Args:
        parameters: the continuous system.
        method: `euler` or `bilinear`, for `diagonal` and `mimo` also `zoh`.
        spec: mode `s4`, `liquid` or `truncated`; of order 1 any; for `diagonal` also `kb` over all index tuples
            without window.
        u: (batch, H, L).
        dt: factors of δt, (batch, L), positive.
        state: as in `liquid_ssm.apply`.

    Returns:
        y (batch, H, L) and the final state.

    Raises:
        ShapeError, ParameterError: dt does not fit or is not positive, or a mode whose terms belong to one step size.
        UnstableRecurrence: the state left the range of the dtype.
    """
    structured = spec.mode not in MODES
    if structured and spec.order > 1 and not commutes(parameters.structure, spec):
        raise ParameterError(
            f"{spec.label} of a {parameters.structure} system is defined by powers of one Ā and B̄ (Eq. 13 to 15), "
            f"which per-step intervals do not have; allowed with dt: {', '.join(MODES)}, and for diagonal systems kb "
            "with correlations='all' and no window. For one interval everywhere use rate."
        )
    batch, _, length = u.shape
    if tuple(dt.shape) != (batch, length):
        raise ShapeError(f"dt has shape {tuple(dt.shape)}; one interval per row and step is ({batch}, {length}).")
    if has_numbers(dt) and not bool(((dt > 0) & (dt < math.inf)).all()):
        bad = dt[~((dt > 0) & (dt < math.inf))]
        raise ParameterError(
            f"dt times rate holds {float(bad[0]):.3g}; intervals are positive factors of the step size."
        )
    # Ā of a single step is never a full matrix.
    x = initial_state(parameters.sizes("euler"), spec, u, state)
    terms = spec
    if structured:
        terms, x = ModeSpec("truncated", spec.order), x.x
    share = max(1, batch * parameters.n_channels * parameters.n_modes)
    steps = max(1, min(_STEPS, _ELEMENTS // share))
    y = []
    recorded = torch.is_grad_enabled()
    for start in range(0, length, steps):
        piece = (u[..., start : start + steps].movedim(-1, 0), dt[:, start : start + steps].mT, x)
        run = _Chunk(parameters, method, terms)
        part, x = checkpoint(run, *piece, use_reentrant=False) if recorded else run(*piece)
        y.append(part)
    whole = torch.cat(y).movedim(0, -1) if y else torch.zeros_like(u)
    if has_numbers(whole) and not bool(torch.isfinite(whole).all()):
        bad = (~torch.isfinite(whole)).nonzero()
        first = bad[bad[:, 2].argmin()].tolist()
        raise UnstableRecurrence(
            f"{spec.label} left the range of {u.dtype} at step {first[2]}, channel {first[1]}; scale u or dt down.",
            step=first[2],
            channel=first[1],
            input_bound=None,
        )
    return whole, State(x) if structured else x


class _Chunk:
    """Some steps: u (T, batch, H), dt (T, batch) and a state give y (T, batch, H) and a state."""

    def __init__(self, parameters: ContinuousParameters, method: str, spec: ModeSpec) -> None:
        self.parameters, self.method, self.spec = parameters, method, spec
        self.shared = parameters.structure == "mimo"

    def __call__(self, u: torch.Tensor, dt: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.parameters.discretize(self.method, dt)
        at = Discrete(*(None if part is None else part.to(x.dtype) for part in found))
        drive = (at.B_bar @ u.to(x.dtype)[..., None])[..., 0] if self.shared else at.B_bar * u[..., None]
        states = []
        for k in range(len(u)):
            x = self._step(at, drive[k], x, k)
            states.append(x)
        return self._read(torch.stack(states)).to(u.dtype), x

    def _step(self, at: Discrete, drive: torch.Tensor, x: torch.Tensor, k: int) -> torch.Tensor:
        orders = self.spec.mode == "truncated"
        a = at.A_bar[k]
        if self.spec.mode == "liquid":
            a = a + drive
        if orders:
            a, drive = a[:, None], drive[:, None]
        after: torch.Tensor = a * x
        factors = () if at.P_bar is None or at.Q_bar is None else zip(at.P_bar, at.Q_bar, strict=True)
        for P_bar, Q_bar in factors:
            p, q = (P_bar[k][:, None], Q_bar[k][:, None]) if orders else (P_bar[k], Q_bar[k])
            after = after - p * (2 * (q.conj() * x).real.sum(-1, keepdim=True))
        if orders:
            # Order p is driven by order p - 1 before the step, order 1 by the input alone.
            return after + drive * torch.cat([torch.ones_like(x[:, :1]), x[:, :-1]], 1)
        return after + drive

    def _read(self, x: torch.Tensor) -> torch.Tensor:
        """y (T, batch, H) of states (T, batch, [order,] H, M), for `mimo` (T, batch, [order,] M)."""
        if self.spec.mode == "truncated":
            x = x.sum(2)
        C = torch.view_as_complex(self.parameters.C.contiguous()).to(x.dtype)
        if self.shared:
            return 2 * (x @ C.mT).real
        return 2 * (C * x).real.sum(-1)
