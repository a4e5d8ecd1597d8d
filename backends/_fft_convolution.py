"""Causal convolution by the fast Fourier transform."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ._pieces import pieces

Array = npt.NDArray[Any]


def power_of_two(least: int) -> int:
    """The smallest power of two that is at least `least` (and at least 1)."""
    return 1 << max(least - 1, 0).bit_length()


def causal_convolution(kernel: Array, u: Array, workers: int) -> Array:
    """y_k = Σ_{i<=k} K_i u_{k-i} by zero-padded real transforms.

    The transform length is the next power of two n >= L + min(K, L) - 1, although other lengths are
    sometimes faster, because the error bound of the FFT is derived for it.

    Args:
        kernel: (H, K) real; entries from L on reach no output.
        u: (batch, H, L) float32 or float64.
        workers: threads; they share out whole rows, so their number changes no bit of the result.

    Returns:
        (batch, H, L) in u's dtype; the transforms are computed in it too.

    Accuracy:
        Normwise per row: two forward transforms, one complex product per frequency, one inverse
        transform, all of length n (docs/bounds.md).

    References:
        Eq. 6.  Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., theorem 24.2.
    """
    from scipy import fft  # type: ignore[import-untyped, unused-ignore]

    batch, n_channels, length = u.shape
    kernel = kernel[:, :length].astype(u.dtype, copy=False)
    if kernel.shape[1] == 0:
        return np.zeros_like(u)
    y = np.empty(u.shape, u.dtype)
    n = power_of_two(length + kernel.shape[1] - 1)
    # Padded input, spectrum, product and result of one row are alive at the same time.
    for channels, rows in pieces((n_channels, batch), 4 * n * u.itemsize):
        spectrum = fft.rfft(u[rows, channels], n, workers=workers)
        spectrum *= fft.rfft(kernel[channels], n, workers=workers)
        y[rows, channels] = fft.irfft(spectrum, n, overwrite_x=True, workers=workers)[..., :length]
    return y
