"""Convolution kernels, and bounds for the linear term computed as kernel and convolution.

An FFT mixes the rounding errors of all steps, so its bound is on the 2-norm over time (Higham, Accuracy
and Stability of Numerical Algorithms, 2nd ed., Theorem 24.2); docs/bounds.md has the derivation.
"""

from __future__ import annotations

from math import log2, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from .realization import Realization
from .rounding import COMPLEX_PRODUCT, INFLATION, RoundingModel

Array = npt.NDArray[Any]

# Tabulated roots of unity are within 2u of the exact ones; correct rounding of both parts would give u.
_TWIDDLE = 2.0
_BLOCK = 256


def kernel_and_size(realization: Realization, length: int, power: int = 1) -> tuple[Array, Array]:
    """K_i = weight · Re(C Āⁱ B̄^{∘power}) and weight · Σ_n |C_n||B̄_n|^power |Ā_n|ⁱ, both (H, length), float64.

    The second is what rounding errors of a diagonal kernel are relative to; for `dplr` and `dense` it is
    weight-free ‖C‖₂ ‖Āⁱ B̄^{∘power}‖₂ on the full state.
    """
    channels = realization.n_channels
    values, sizes = np.zeros((channels, length)), np.zeros((channels, length))
    if realization.structure == "diagonal":
        for h in range(channels):
            a = realization.A[h].astype(complex)
            c = realization.C[h].astype(complex) * realization.B[h].astype(complex) ** power
            baby = _powers(a, min(_BLOCK, length))  # (Q, M)
            giant = c
            step = a ** len(baby) if len(baby) else a
            for start in range(0, length, _BLOCK):
                part = slice(start, min(length, start + _BLOCK))
                size = part.stop - part.start
                values[h, part] = (baby[:size] @ giant).real
                sizes[h, part] = np.abs(baby[:size]) @ np.abs(giant)
                giant = giant * step
        return realization.weight * values, realization.weight * sizes
    A, B, C = (v.astype(complex) for v in realization.full_matrices())
    x = B**power
    for i in range(length):
        values[:, i] = np.einsum("hn,hn->h", C, x).real
        sizes[:, i] = np.linalg.norm(C, axis=1) * np.linalg.norm(x, axis=1)
        x = np.einsum("hnm,hm->hn", A, x)
    return values, sizes


def _powers(a: Array, count: int) -> Array:
    table = np.ones((count, *a.shape), a.dtype)
    for i in range(1, count):
        table[i] = table[i - 1] * a
    return table


def transform_error(size: int, unit: float) -> float:
    """Relative 2-norm error of one FFT of a power-of-two size (Higham, Theorem 24.2)."""
    eta = _TWIDDLE * unit + 4 * unit / (1 - 4 * unit) * (sqrt(2) + _TWIDDLE * unit)
    stages = max(1.0, log2(size))
    return stages * eta / (1 - stages * eta)


def fft_bound(kernel: Array, kernel_error: Array, source: Array, source_error: Array, model: RoundingModel) -> Array:
    """‖computed − exact‖₂ over time of irfft(rfft(K)·rfft(u)), (batch, H).

    Args:
        kernel: exact kernel (H, n), float64.
        kernel_error: ‖error of the computed kernel‖₂, (H,).
        source: exact inputs (batch, H, L), float64.
        source_error: ‖error of the computed inputs‖₂, (batch, H).
    """
    total = source.shape[-1] + kernel.shape[-1] - 1
    if source.shape[-1] == 0 or source.size == 0 or kernel.shape[-1] == 0:
        return np.zeros(source.shape[:2])
    size = 1 << max(0, (total - 1).bit_length())
    u, epsilon = model.unit, transform_error(size, model.unit)
    gain_u = np.abs(np.fft.rfft(source, size)).max(axis=-1)  # max |F u|: the operator norm of "convolve with u"
    gain_k = np.abs(np.fft.rfft(kernel, size)).max(axis=-1)
    norm_u, norm_k = _norm(source) + source_error, _norm(kernel) + kernel_error
    product = np.minimum(norm_k * gain_u, norm_u * gain_k)
    rounding = epsilon * (norm_k * gain_u + norm_u * gain_k) + (COMPLEX_PRODUCT * u + epsilon) * product
    inherited = kernel_error * gain_u + source_error * gain_k + kernel_error * source_error * sqrt(size)
    # 2^-20 covers the products of two first-order terms and this float64 evaluation
    return np.asarray((rounding + inherited) * (1 + 4 * epsilon) * (1 + 2.0**-20) + size * model.tiny)


def direct_error(kernel: Array, kernel_error: Array, source: Array, source_error: Array, model: RoundingModel) -> Array:
    """Componentwise error of a causal convolution summed directly in any order, (batch, H, L)."""
    terms = min(kernel.shape[-1], source.shape[-1])
    gamma = (terms + 1) * model.unit / (1 - (terms + 1) * model.unit)
    size_k, size_u = np.abs(kernel) + kernel_error, np.abs(source) + source_error
    error = gamma * _causal(size_k, size_u) + _causal(kernel_error, size_u) + _causal(size_k, source_error)
    return np.asarray(error * INFLATION + 2 * terms * model.tiny)


def _causal(kernel: Array, source: Array) -> Array:
    """Σ_i kernel_i source_{k-i} for non-negative arrays, by direct sums: every rounding stays relative."""
    result = np.zeros(source.shape)
    length = source.shape[-1]
    for i in range(min(kernel.shape[-1], length)):
        result[..., i:] += kernel[..., i, None] * source[..., : length - i]
    return result * (1 + 2.0**-40)


def _norm(values: Array) -> Array:
    return np.asarray(np.sqrt((np.asarray(values, float) ** 2).sum(axis=-1)) * INFLATION)
