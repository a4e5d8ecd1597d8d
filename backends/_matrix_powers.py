"""Convolution kernel of a dense system, from tables of C Ā^(kQ) and Āʲ B̄."""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from ._fft_convolution import power_of_two
from ._pieces import pieces

Array = npt.NDArray[Any]


def dense_kernel(A_bar: Array, B_bar: Array, C: Array, length: int) -> Array:
    """K_i = Re(C Āⁱ B̄), computed in the precision of the arguments.

    With i = kQ + j and Q a power of two near √length, K_(kQ+j) = (C Ā^(kQ)) (Āʲ B̄): both tables
    grow by doubling, each time multiplied by the next square of Ā, and one product joins them.

    Args:
        A_bar: (H, N, N) float64 or complex128.
        B_bar, C: (H, N) of the same dtype.
        length: number of kernel entries.

    Returns:
        (H, length) float64.

    Accuracy:
        i factors Ā, C and B̄ are multiplied in some order by i + 1 rounded matrix products with
        inner dimension N: |error_i| <= ((1 + γ)^(i+1) - 1) |C| |Ā|ⁱ |B̄|, with γ = γ_N for real and
        γ = √2 γ_(N+2) for complex arguments, u = 2⁻⁵³.

    References:
        Eq. 5.  Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., sections 3.5, 3.6.
    """
    n_channels, n_state = B_bar.shape
    kernel = np.empty((n_channels, length))
    if length == 0:
        return kernel
    n_baby = power_of_two(isqrt(length - 1) + 1)
    n_giant = -(-length // n_baby)
    item_bytes = A_bar.itemsize * (3 * n_state * n_state + n_state * (n_baby + n_giant) + n_baby * n_giant)
    for (channels,) in pieces((n_channels,), item_bytes):
        square = A_bar[channels]
        columns = B_bar[channels][:, :, None]
        while columns.shape[2] < n_baby:
            columns = np.concatenate([columns, square @ columns], axis=2)
            square = square @ square
        rows = C[channels][:, None, :]
        while rows.shape[1] < n_giant:
            rows = np.concatenate([rows, rows[:, : n_giant - rows.shape[1]] @ square], axis=1)
            # A square beyond the last power could overflow for nothing.
            if rows.shape[1] < n_giant:
                square = square @ square
        kernel[channels] = (rows @ columns).real.reshape(len(rows), -1)[:, :length]
    return kernel
