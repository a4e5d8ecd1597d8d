"""C (I - rⁿ Āⁿ) of a diagonal-plus-low-rank system, by squaring real matrices, and its gradients."""

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
    rⁿ = min(1, 1/(2 ‖Āⁿ‖)) keeps the poles off the circle.

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


def truncate_vjp(truncation: Truncation, C: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of C, (H, M) complex128, and of Ā on [Re x; Im x], (H, 2M, 2M), with the radius held fixed.

    Args:
        cotangent: D with dL = Re Σ D dC̃, (H, M) complex128.
    """
    shrunk = truncation.damping[:, None, None]
    row = torch.cat([C.real, -C.imag], dim=-1)[:, None]
    grad = torch.cat([cotangent.real, cotangent.imag], dim=-1)[:, None]
    kept = torch.where(truncation.far, grad, -torch.expm1(-shrunk) * grad)
    grad_row = (kept - torch.exp(-shrunk) * (grad @ truncation.factor.mT))[:, 0]
    grad_matrix = -torch.exp(-shrunk) * (row.mT @ grad)
    # 2X + X² and S² change alike: dS -> S dS + dS S.
    for power in reversed(truncation.powers):
        grad_matrix = power.mT @ grad_matrix + grad_matrix @ power.mT
    half = C.shape[-1]
    return torch.complex(grad_row[:, :half], -grad_row[:, half:]), grad_matrix


def real_matrix(Lambda_bar: Tensor, P_bar: Tensor, Q_bar: Tensor, conjugate_pairs: bool) -> Tensor:
    """diag(Λ̄) - P̄ Q̄* as the real matrix that acts on [Re x; Im x], (H, 2M, 2M).

    With conjugate pairs Q̄* x runs over both halves and is real, 2 Re(Q̄* x).
    """
    re, im = torch.diag_embed(Lambda_bar.real), torch.diag_embed(Lambda_bar.imag)
    matrix = torch.cat([torch.cat([re, -im], dim=-1), torch.cat([im, re], dim=-1)], dim=-2)
    P, Q = _real(P_bar), _real(Q_bar)
    if conjugate_pairs:
        return matrix - 2 * P.mT @ Q
    return matrix - P.mT @ Q - _real(1j * P_bar).mT @ _real(1j * Q_bar)


def real_matrix_vjp(P_bar: Tensor, Q_bar: Tensor, grad: Tensor, conjugate_pairs: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of Λ̄, (H, M), P̄ and Q̄, (R, H, M), complex128, from that of `real_matrix`."""
    a, b, c, d = (
        torch.diagonal(block, dim1=-2, dim2=-1) for rows in grad.chunk(2, dim=-2) for block in rows.chunk(2, dim=-1)
    )
    grad_Lambda = torch.complex(a + d, c - b)
    P, Q = _real(P_bar), _real(Q_bar)
    if conjugate_pairs:
        return grad_Lambda, _complex(-2 * Q @ grad.mT), _complex(-2 * P @ grad)
    turned_P, turned_Q = _real(1j * P_bar), _real(1j * Q_bar)
    grad_P = _complex(-Q @ grad.mT) + 1j * _complex(turned_Q @ grad.mT)
    grad_Q = _complex(-P @ grad) + 1j * _complex(turned_P @ grad)
    return grad_Lambda, grad_P, grad_Q


def _squares(matrix: Tensor) -> Tensor:
    return (matrix * matrix).sum(dim=(-2, -1), keepdim=True)


def _real(factors: Tensor) -> Tensor:
    """(R, H, M) complex as [Re, Im], (H, R, 2M)."""
    return torch.cat([factors.real, factors.imag], dim=-1).transpose(0, 1)


def _complex(factors: Tensor) -> Tensor:
    """The inverse of `_real`."""
    re, im = factors.transpose(0, 1).chunk(2, dim=-1)
    return torch.complex(re.contiguous(), im.contiguous())
