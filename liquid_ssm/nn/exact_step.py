"""The transition (I − h M)⁻¹ (I + h M) of the exact bilinear step, M = A + diag(B u), h = δt/2: its poles and its norm.

With Re λ_n + |B_n u| <= r in every mode the Hermitian part of M is no larger than r, since −P P* only dissipates; and
then ‖(I − h M)⁻¹ (I + h M)‖₂ <= max(1, (1 + h r)/(1 − h r)) for h r < 1 (von Neumann's inequality on a half-plane).
"""

from __future__ import annotations

from typing import NoReturn

import torch

from ..errors import UnstableRecurrence
from ..tensors import has_numbers
from .discretize import BILINEAR_EXACT, driven_by
from .pieces import steps_at_once


def dissipative_limit(Lambda: torch.Tensor, B: torch.Tensor, room: torch.Tensor | float = 0.0) -> torch.Tensor:
    """|u| up to which Re λ_n + |B_n u| <= room in every mode: (H,), for `mimo` with Σ_h |B_nh| and one number, ().

    With room 0 the exact bilinear step contracts and has no pole; −P P* only dissipates.

    Args:
        Lambda: (H, M) or (M,).
        B: (H, M) or (M, H).
        room: [1/time], broadcast against Lambda.
    """
    drive = B.abs().sum(-1) if Lambda.ndim == 1 else B.abs()
    left = room - Lambda.real
    # 0/0 is a mode at the limit without input.
    return torch.where(left > 0, left / drive, torch.zeros_like(left)).amin(-1)


def gain_limit(Lambda: torch.Tensor, B: torch.Tensor, dt: torch.Tensor, bound: float) -> torch.Tensor:
    """|u| up to which the transition has norm <= bound, by the inequality above; as `dissipative_limit`.

    Args:
        dt: step sizes that broadcast against Lambda.
        bound: at least 1.
    """
    return dissipative_limit(Lambda, B, 2 * (bound - 1) / (bound + 1) / dt)


@torch.no_grad()
def largest_gain(
    Lambda: torch.Tensor, B: torch.Tensor, P: torch.Tensor | None, dt: torch.Tensor, u: torch.Tensor
) -> float:
    """The largest |(1 + m)/(1 − m)|, m = h (λ + B u), over rows, steps, channels and modes.

    Low-rank systems, whose modes mix: the bound above with Re B_n u for |B_n u|; infinite where it holds for none.

    Args:
        dt: step sizes that broadcast against Lambda.
        u: (batch, H, L); without any values it is the gain at 0.
    """
    if u.numel() == 0:
        u = u.new_zeros((1, u.shape[1], 1))
    largest = 0.0
    for piece in torch.split(u, steps_at_once(Lambda.numel() * len(u)), -1):
        m = dt / 2 * (Lambda + driven_by(B, piece.movedim(-1, 0), shared=Lambda.ndim == 1))
        if P is None:
            found = ((1 + m) / (1 - m)).abs().amax()
        else:
            room = m.real.amax().clamp(min=0)
            found = torch.where(room < 1, (1 + room) / (1 - room), torch.inf)
        largest = max(largest, float(found))
    return largest


def require_no_pole(
    Lambda: torch.Tensor,
    B: torch.Tensor,
    P: torch.Tensor | None,
    drive: torch.Tensor,
    dt: torch.Tensor,
    u: torch.Tensor,
    start: int,
) -> None:
    """Raise an `UnstableRecurrence` where a divisor of the step cannot be told from 0.

    The divisors are 1 − h (λ + B u) and, for `dplr`, the determinant of I + h P* D P with D = 1/(1 − h (λ + B u)).
    Woodbury needs both, though the matrix itself has an inverse where one of the first is 0 alone.

    Args:
        drive: B u, (steps, batch, H, M), `mimo` (steps, batch, M).
        dt: step sizes that broadcast against it.
        u: (steps, batch, H).
        start: number of the first step.

    Accuracy: 1 − h (λ + B u) is off by no more than 2 eps (1 + h (|λ| + |B u|)); entries of the core by that times |D|²
        and by eps |D| in every term; its determinant by the difference of the products of the row sums of moduli.
    """
    if not has_numbers(drive):
        return
    with torch.no_grad():
        h = dt / 2
        eps = torch.finfo(h.dtype).eps
        divisor = 1 - h * (Lambda + drive)
        sizes = driven_by(B.abs(), u.to(h.dtype).abs(), shared=Lambda.ndim == 1)
        slack = 2 * eps * (1 + h * (Lambda.abs() + sizes))
        # Squares: a modulus of complex numbers takes several times as long.
        bad = (divisor.real.square() + divisor.imag.square() <= slack.square()).any(-1)
        if P is not None and not bool(bad.any()):
            bad = _singular_core(P, 1 / divisor, h, slack)
        if bool(bad.any()):
            _fail(Lambda, B, u, bad.nonzero()[0].tolist(), start)


def _singular_core(P: torch.Tensor, D: torch.Tensor, h: torch.Tensor, slack: torch.Tensor) -> torch.Tensor:
    eps = torch.finfo(h.dtype).eps
    size = D.abs()
    doubt = size * (size * slack + eps)
    # Sums over the modes of both halves of every conjugate pair, rows and columns last.
    core = 2 * torch.einsum("rhm,shm,...hm->...hrs", P.conj(), P, D).real * h[..., None]
    off = 2 * torch.einsum("rhm,shm,...hm->...hrs", P.abs().to(size), P.abs().to(size), doubt) * h[..., None]
    unit = torch.eye(len(P), dtype=h.dtype, device=h.device)
    core, off = core + unit, off + eps * unit
    rows = core.abs().sum(-1)
    bad: torch.Tensor = torch.linalg.det(core).abs() <= (rows + off.sum(-1)).prod(-1) - rows.prod(-1)
    return bad


def _fail(Lambda: torch.Tensor, B: torch.Tensor, u: torch.Tensor, at: list[int], start: int) -> NoReturn:
    # The state of a mimo system belongs to no channel.
    k, row, channel = (*at, 0) if Lambda.ndim == 1 else at
    limits = dissipative_limit(Lambda, B)
    limit = float(limits if limits.ndim == 0 else limits[channel])
    inputs = u[k, row] if Lambda.ndim == 1 else u[k, row, channel]
    raise UnstableRecurrence(
        f"{BILINEAR_EXACT} has a pole, or divides by what cannot be told from 0, at step {start + k}, channel "
        f"{channel} (|u| there: {float(inputs.abs().max()):.3g}); it contracts as long as |u| < {limit:.3g}; scale u, "
        "dt or rate down.",
        step=start + k,
        channel=channel,
        input_bound=limit,
    )
