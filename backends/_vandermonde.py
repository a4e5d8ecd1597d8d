"""Convolution kernel of a diagonal system: a Vandermonde product by baby steps and giant steps."""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from ._pieces import pieces

Array = npt.NDArray[Any]


def diagonal_kernel(A_bar: Array, B_bar: Array, C: Array, length: int, weight: int) -> Array:
    """K_i = weight · Re Σ_n C_n B̄_n Ā_nⁱ, computed in float64.

    With i = kQ + j and Q ≈ √length, K_(kQ+j) = weight · [Re, -Im](C B̄ Ā^(kQ)) · [Re; Im](Āʲ):
    two tables of about √length powers each and one real matrix product per channel.

    Args:
        A_bar, B_bar, C: (H, M) complex128.
        length: number of kernel entries.
        weight: 2 where one of each conjugate pair is stored, else 1.

    Returns:
        (H, length) float64.

    Accuracy:
        Behind entry i of mode n stand i + 1 rounded complex products at most (one for C B̄, kQ for
        the giant step, j - 1 for the baby step if j > 0; the product of the two steps belongs to
        the sum), then one real inner product over 2M terms in an order that BLAS chooses:
        |error_i| <= weight Σ_n |C_n B̄_n| |Ā_n|ⁱ ((1 + √5 u)^(i+1) (1 + γ_2M) - 1), u = 2⁻⁵³.

    References:
        Eq. 5.  Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., sections 3.1, 3.6;
        √5 u for a complex product: Brent, Percival, Zimmermann, Math. Comp. 76 (2007), 1469-1481.
    """
    n_channels, n_modes = A_bar.shape
    kernel = np.empty((n_channels, length))
    if length == 0:
        return kernel
    n_baby = isqrt(length - 1) + 1
    n_giant = -(-length // n_baby)
    # Complex and real tables, and the product that is cut to `length`.
    for (channels,) in pieces((n_channels,), 48 * n_modes * (n_baby + n_giant) + 8 * n_baby * n_giant):
        a = A_bar[channels]
        baby = power_table(a, n_baby)
        giant = power_table(baby[..., -1] * a, n_giant)
        giant *= (C[channels] * B_bar[channels])[..., None]
        rows = weight * np.concatenate([giant.real, -giant.imag], axis=1).swapaxes(1, 2)
        columns = np.concatenate([baby.real, baby.imag], axis=1)
        kernel[channels] = (rows @ columns).reshape(len(a), -1)[:, :length]
    return kernel


def power_table(base: Array, count: int) -> Array:
    """baseⁱ for i = 0 … count - 1 on a new last axis, by repeated doubling.

    Accuracy:
        Power i >= 1 has exactly i - 1 rounded products behind it: a product of powers i and j adds
        one to (i - 1) + (j - 1), and products by the leading 1 are exact.
    """
    table = np.ones((*base.shape, 1), base.dtype)
    while table.shape[-1] < count:
        missing = count - table.shape[-1]
        table = np.concatenate([table, base[..., None] * table[..., :missing]], axis=-1)
        # A square beyond the last power could overflow for nothing.
        if table.shape[-1] < count:
            base = base * base
    return table
