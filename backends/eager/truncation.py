"""C (I - rⁿ Āⁿ) of diagonal-plus-low-rank systems, by squaring real matrices."""

from __future__ import annotations

from dataclasses import dataclass

import torch

Tensor = torch.Tensor


@dataclass(frozen=True)
class Truncation:
    """What makes the generating function of a kernel end after n entries.

    Attributes:
        damping: -n log r, (H,) float64.
        C_tilde: C (I - rⁿ Āⁿ), (H, M) complex128.
        powers: Ā^(2^s) for s = 0 … log2 n - 1 on [Re x; Im x], each (H, 2M, 2M) float64.
        factor: what C was multiplied with, Āⁿ or Āⁿ - I.
        far: (H, 1, 1), whether it was Āⁿ.
    """

    damping: Tensor
    C_tilde: Tensor
    powers: list[Tensor]
    factor: Tensor
    far: Tensor


def truncate(
    Lambda_bar: Tensor, P_bar: Tensor, Q_bar: Tensor, C: Tensor, n: int, *, conjugate_pairs: bool
) -> Truncation:
    """The truncated output vector of every channel; n is a power of two.

    Āⁿ - I comes from X -> 2X + X², which keeps the digits of slow systems, until the power is the smaller of the two in
    the Frobenius norm, and Āⁿ from S -> S² from then on: `backends/_cauchy.py` for all channels at once.
    rⁿ = min(1, 1/(2 ‖Āⁿ‖)) keeps the poles off the circle; r is a constant to autograd, since no kernel depends on it.

    Args:
        Lambda_bar, C: (H, M) complex128.
        P_bar, Q_bar: (R, H, M) complex128.
    """
    change = real_matrix(Lambda_bar - 1, P_bar, Q_bar, conjugate_pairs)
    identity = torch.eye(change.shape[-1], dtype=change.dtype, device=change.device)
    power = change + identity
    far = torch.zeros((len(change), 1, 1), dtype=torch.bool, device=change.device)
    powers = []
    for _ in range(n.bit_length() - 1):
        powers.append(power)
        far = far | (_squares(power) < _squares(change))
        factor = torch.where(far, power, change)
        square = factor @ factor
        change = torch.where(far, change, 2 * change + square)
        power = torch.where(far, square, change + identity)
    with torch.no_grad():
        # ‖X‖₂² <= ‖X‖₁ ‖X‖_∞: no singular values needed.
        size = power.abs()
        norm = size.sum(dim=-2).amax(dim=-1).sqrt() * size.sum(dim=-1).amax(dim=-1).sqrt()
        damping = torch.log(torch.clamp(2 * norm, min=1.0))
    factor = torch.where(far, power, change)
    row = torch.cat([C.real, -C.imag], dim=-1)[:, None]
    shrunk = damping[:, None, None]
    kept = torch.where(far, row, -torch.expm1(-shrunk) * row)
    row = (kept - torch.exp(-shrunk) * (row @ factor))[:, 0]
    half = C.shape[-1]
    return Truncation(damping, torch.complex(row[:, :half], -row[:, half:]), powers, factor, far)


def _squares(matrix: Tensor) -> Tensor:
    """‖·‖_F² of each matrix, (H, 1, 1)."""
    with torch.no_grad():
        return (matrix * matrix).sum((-2, -1), keepdim=True)


def real_matrix(poles: Tensor, P: Tensor, Q: Tensor, conjugate_pairs: bool) -> Tensor:
    """Ā of each channel as the real matrix that acts on [Re x; Im x].

    With conjugate pairs Q̄* x runs over both halves and is real, 2 Re(Q̄* x).

    Args:
        poles: (h, M) complex128.
        P, Q: (R, h, M) complex128.

    Returns:
        (h, 2M, 2M) float64.
    """
    re, im = torch.diag_embed(poles.real), torch.diag_embed(poles.imag)
    matrix = torch.cat([torch.cat([re, -im], -1), torch.cat([im, re], -1)], -2)
    P_re, Q_re = (torch.cat([v.real, v.imag], -1) for v in (P, Q))
    if conjugate_pairs:
        return matrix - 2 * _outer(P_re, Q_re)
    P_im, Q_im = (torch.cat([-v.imag, v.real], -1) for v in (P, Q))
    return matrix - _outer(P_re, Q_re) - _outer(P_im, Q_im)


def _outer(P: Tensor, Q: Tensor) -> Tensor:
    """Σ_r P_r Q_rᵀ, (h, 2M, 2M)."""
    return P.movedim(0, -1) @ Q.movedim(0, 1)
