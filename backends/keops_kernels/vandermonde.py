"""Kernels of diagonal systems and their gradients: sums of exponentials, over modes and over time."""

from __future__ import annotations

import torch

from .compiling import Reduction, concatenated
from .logarithm import log_parts

Tensor = torch.Tensor

_POWERS = ("time = Vi(1)", "decay = Vj(1)", "angle = Vj(1)")
_OVER_MODES = Reduction(
    "vandermonde",
    "Exp(time * decay) * (re * Cos(time * angle) - im * Sin(time * angle))",
    (*_POWERS, "re = Vj(1)", "im = Vj(1)"),
)
_OVER_TIME = Reduction(
    "vandermonde_transposed",
    concatenated([f"Exp(time * decay) * {part}(time * angle) * grad" for part in ("Cos", "Sin")]),
    ("decay = Vi(1)", "angle = Vi(1)", "time = Vj(1)", "grad = Vj(2)"),
)


def diagonal_kernel(
    A_bar: Tensor, B_bar: Tensor, C: Tensor, length: int, power: int, weight: int, dtype: torch.dtype
) -> Tensor:
    """K_i = weight · Re Σ_n C_n B̄_n^power exp(i log ā_n).

    Args:
        A_bar, B_bar, C: (H, M) complex128.
        length: number of entries.
        dtype: real dtype in which logarithms are multiplied, exponentials taken and terms added up: float32 or float64.

    Returns:
        (H, length) of that dtype.

    Accuracy:
        `oracle.exponential_powers.from_exponentials`.  Behind each term: power complex products for C B̄^power; two
        products by the time; exp, cos and sin of the C++ or CUDA library; two products, a subtraction and a product;
        the sum over the modes in their order.
    """
    n_channels, n_modes = C.shape
    if 0 in (n_channels, n_modes, length):
        return C.new_zeros((n_channels, length), dtype=dtype)
    coefficients = weight * C * _to_the(B_bar, power)
    columns = _columns(dtype, *log_parts(A_bar), *_parts(coefficients))
    kernel: Tensor = _OVER_MODES(_times(length, C, dtype), *columns)[..., 0]
    return kernel


def diagonal_kernel_vjp(
    A_bar: Tensor, B_bar: Tensor, C: Tensor, power: int, weight: int, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of Ā, B̄ and C, (H, M) complex128, from the cotangent (H, length) of `diagonal_kernel`.

    With S_n = Σ_i g_i ā_nⁱ and S'_n = Σ_i i g_i ā_n^(i-1), both by one reduction over time,
      grad C = weight · conj(B̄^power S),
      grad B̄ = weight · conj(power C B̄^(power-1) S),
      grad Ā = weight · conj(C B̄^power S').

    Accuracy:
        With q_i = √5 (power + 1) + 4ε + 3 + L + (2λ + 1) i |log ā|, λ and ε the ulps of logarithm and functions (4, 2),
        u the unit roundoff of grad's dtype and γ[x] = x / (1 - x), each is within weight · Σ_i γ[q_i u] of the moduli
        of its terms: 4ε + 1 for the power as in the kernel, one product by g_i and one in i g_i, L - 1 additions in any
        order, power + 1 complex products and one by `power`.  `oracle.kernel_gradients.kernel_gradient_bounds` allows
        for that much.
    """
    n_channels, n_modes = C.shape
    length, dtype = grad.shape[-1], grad.dtype
    if 0 in (n_channels, n_modes, length):
        return torch.zeros_like(A_bar), torch.zeros_like(B_bar), torch.zeros_like(C)
    times = _times(length, C, dtype)
    slopes = torch.zeros_like(grad)
    slopes[:, :-1] = times[0, 1:, 0] * grad[:, 1:]
    sums = _OVER_TIME(*_columns(dtype, *log_parts(A_bar)), times, torch.stack([grad, slopes], dim=-1))
    re, im = sums.to(torch.float64).split(2, dim=-1)
    plain, slope = torch.complex(re, im).unbind(dim=-1)
    below = _to_the(B_bar, power - 1)
    coefficients = C * below
    grad_A = coefficients * B_bar * slope
    grad_B = power * coefficients * plain
    grad_C = below * B_bar * plain
    return tuple((weight * g).conj_physical() for g in (grad_A, grad_B, grad_C))  # type: ignore[return-value]


def _to_the(base: Tensor, power: int) -> Tensor:
    """base^power by power - 1 products; ones for 0."""
    result = torch.ones_like(base) if power == 0 else base
    for _ in range(power - 1):
        result = result * base
    return result


def _times(length: int, like: Tensor, dtype: torch.dtype) -> Tensor:
    """0 … length - 1, (1, length, 1)."""
    return torch.arange(length, dtype=dtype, device=like.device)[None, :, None]


def _parts(z: Tensor) -> tuple[Tensor, Tensor]:
    return z.real, z.imag


def _columns(dtype: torch.dtype, *arrays: Tensor) -> list[Tensor]:
    return [array.to(dtype)[..., None] for array in arrays]
