"""Convolution kernel of a dense system, from tables of C Ā^(kQ) and Āʲ B̄."""

from __future__ import annotations

from math import isqrt

import torch

from .._fft_convolution import power_of_two
from .._pieces import pieces

# Memory of the tables of one piece of channels.
PIECE_BYTES = 2**28


def dense_kernel(A_bar: torch.Tensor, B_bar: torch.Tensor, C: torch.Tensor, length: int, power: int) -> torch.Tensor:
    """K_i = Re(C Āⁱ B̄^{∘power}), computed in float64 and rounded once.

    The algorithm of `backends._matrix_powers`, some channels at once.

    Args:
        A_bar: (H, N, N), real or complex.
        B_bar, C: (H, N).
        length: number of kernel entries.
        power: >= 1.

    Returns:
        (H, length) in the parameters' real dtype.

    Accuracy:
        Products of the same matrices in the same order as there, and power - 1 products for B̄^{∘power}
        (docs/bounds-kernels.md).

    References:
        Eq. 5 and 14.
    """
    like = C.real
    dtype = torch.complex128 if any(part.is_complex() for part in (A_bar, B_bar, C)) else torch.float64
    A, B, C = (part.to(dtype) for part in (A_bar, B_bar, C))
    powered = B
    for _ in range(power - 1):
        powered = powered * B
    n_channels, n_state = C.shape
    if length == 0 or n_channels == 0:
        return like.new_zeros((n_channels, length))
    n_baby = power_of_two(isqrt(length - 1) + 1)
    n_giant = -(-length // n_baby)
    item = C.element_size() * (3 * n_state * n_state + n_state * (n_baby + n_giant) + n_baby * n_giant)
    kernels = [
        _channels(A[h], powered[h], C[h], n_baby, n_giant)[:, :length].to(like)
        for (h,) in pieces((n_channels,), item, PIECE_BYTES)
    ]
    return kernels[0] if len(kernels) == 1 else torch.cat(kernels)


def _channels(A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, n_baby: int, n_giant: int) -> torch.Tensor:
    square, columns, rows = A, B[:, :, None], C[:, None, :]
    while columns.shape[2] < n_baby:
        columns = torch.cat([columns, square @ columns], 2)
        square = square @ square
    while rows.shape[1] < n_giant:
        rows = torch.cat([rows, rows[:, : n_giant - rows.shape[1]] @ square], 1)
        square = square @ square
    return (rows @ columns).real.reshape(len(rows), n_giant * n_baby)
