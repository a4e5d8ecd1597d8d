"""Gradients of what makes a generating function end after n entries, C (I - rⁿ Āⁿ)."""

from __future__ import annotations

import torch

from ..eager.truncation import Truncation

Tensor = torch.Tensor


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


def _real(factors: Tensor) -> Tensor:
    """(R, H, M) complex as [Re, Im], (H, R, 2M)."""
    return torch.cat([factors.real, factors.imag], dim=-1).transpose(0, 1)


def _complex(factors: Tensor) -> Tensor:
    """The inverse of `_real`."""
    re, im = factors.transpose(0, 1).chunk(2, dim=-1)
    return torch.complex(re.contiguous(), im.contiguous())
