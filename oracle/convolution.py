"""Convolution kernels, and bounds for the linear term computed as kernel and convolution.

An FFT mixes the rounding errors of all steps, so its bound is on the 2-norm over time (Higham, Accuracy
and Stability of Numerical Algorithms, 2nd ed., section 24.1); docs/bounds-kernels.md has the derivation.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from .realization import Realization
from .rounding import COMPLEX_PRODUCT, INFLATION, RoundingModel
from .scaling import normalised, scaled

Array = npt.NDArray[Any]

_BLOCK = 256
_DOUBLE = 2.0**-53


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
    # squares of tiny or huge entries would leave float64's range
    (x, scale_B), (C, scale_C) = normalised(B**power), normalised(C)
    norm_C, scale = np.linalg.norm(C, axis=1), (scale_B + scale_C)[:, None]
    for i in range(length):
        values[:, i] = (C * x).sum(axis=1).real
        sizes[:, i] = norm_C * np.linalg.norm(x, axis=1)
        x = np.einsum("hnm,hm->hn", A, x)
    return scaled(values, scale), scaled(sizes, scale)


def kernel_moduli(realization: Realization, length: int, power: int = 1) -> Array:
    """weight · Σ_n |(C Āⁱ)_n||B̄_n|^power on the full state, (H, length): what an error of B̄^{∘power} does to K_i."""
    if realization.structure == "diagonal":
        return kernel_and_size(realization, length, power)[1]
    A, B, C = (v.astype(complex) for v in realization.full_matrices())
    (size, scale_B), (row, scale_C) = normalised(np.abs(B) ** power), normalised(C)
    moduli = np.zeros((realization.n_channels, length))
    for i in range(length):
        moduli[:, i] = (np.abs(row) * size).sum(axis=1)
        row = np.einsum("hnm,hn->hm", A, row)
    return scaled(moduli, (scale_B + scale_C)[:, None]) * (1 + 2.0**-20)


def _powers(a: Array, count: int) -> Array:
    table = np.ones((count, *a.shape), a.dtype)
    for i in range(1, count):
        table[i] = table[i - 1] * a
    return table


def twiddle_error(size: int, unit: float) -> float:
    """How far a tabulated root of unity e^(-2πik/size), size a power of two, may be from the exact one.

    Tables are made in double precision as products of two entries of a smaller table, and rounded to the
    working precision where that is coarser.  Up to size 2^20 every root was compared with the exact one
    (largest error 2.44·2^-53; a test repeats it); beyond, 6·2^-53 is derived from a sine and cosine within
    0.56 ulp and two roundings of the angle.
    """
    table = (3.0 if size <= 1 << 20 else 6.0) * _DOUBLE
    return table + (unit if unit > _DOUBLE else 0.0)


def transform_error(size: int, unit: float) -> float:
    """ε of one FFT of a power-of-two size: ‖error‖₂ <= ε ‖Fv‖₂, and |error| <= ε Σ|v| at each frequency.

    At most log2(size) - 2 products with roots that are not 1 or ±i, and log2(size) + 1 additions, on every
    path from an input to an output: radix 2, 4, 8, split radix, and real input by any of them.
    """
    levels = (size - 1).bit_length()
    product = COMPLEX_PRODUCT * unit
    roundings = max(0, levels - 2) * (product + twiddle_error(size, unit) * (1 + product)) + (levels + 1) * unit
    return roundings / (1 - roundings) if roundings < 0.5 else float("inf")


def fft_bound(
    kernel: Array,
    kernel_error: Array,
    source: Array,
    source_error: Array,
    model: RoundingModel,
    total: int | None = None,
) -> Array:
    """‖computed − exact‖₂ over time of irfft(rfft(K)·rfft(u)), (batch, H).

    The same of a correlation, where one of the spectra is conjugated.

    Args:
        kernel: exact kernel (H, n), float64.
        kernel_error: ‖error of the computed kernel‖₂, (H,).
        source: exact inputs (batch, H, L), float64.
        source_error: ‖error of the computed inputs‖₂, (batch, H).
        total: steps that the transforms have room for, by default L + n - 1; with less, lags that are not used overlap.
    """
    total = source.shape[-1] + kernel.shape[-1] - 1 if total is None else total
    if source.shape[-1] == 0 or source.size == 0 or kernel.shape[-1] == 0:
        return np.zeros(source.shape[:2])
    size = 1 << max(0, (total - 1).bit_length())
    with np.errstate(invalid="ignore", over="ignore"):
        return _fft_bound(kernel, kernel_error, source, source_error, model, size)


def _fft_bound(
    kernel: Array, kernel_error: Array, source: Array, source_error: Array, model: RoundingModel, size: int
) -> Array:
    u, epsilon = model.unit, transform_error(size, model.unit)
    # the bound is linear in both, and squares of tiny or huge numbers would leave float64's range
    (kernel, scale_k), (source, scale_u) = normalised(kernel), normalised(source)
    kernel_error, source_error = scaled(kernel_error, -scale_k), scaled(source_error, -scale_u)
    U, K = _power_spectrum(source, size), _power_spectrum(kernel, size)
    gain_u, gain_k = np.sqrt(U.max(axis=-1)), np.sqrt(K.max(axis=-1))  # the operator norm of "convolve with"
    norm_u, norm_k = _norm(source) + source_error, _norm(kernel) + kernel_error
    sum_u = np.abs(source).sum(axis=-1) * INFLATION + sqrt(source.shape[-1]) * source_error
    sum_k = np.abs(kernel).sum(axis=-1) * INFLATION + sqrt(kernel.shape[-1]) * kernel_error

    inherited = kernel_error * gain_u + source_error * gain_k + sqrt(size) * kernel_error * source_error
    # errors of one spectrum times the other one, of the exact inputs; then times what those inherited; then both
    forward = epsilon * (_worst_gain(U, norm_k, sum_k) + _worst_gain(K, norm_u, sum_u))
    forward = forward + epsilon * (sum_k * source_error + sum_u * kernel_error) + epsilon**2 * sum_k * norm_u
    # the last term is what the float64 transforms of this function may be off by
    output = np.sqrt((U * K).sum(axis=-1) / size) + 4 * transform_error(size, _DOUBLE) * norm_k * gain_u
    product = COMPLEX_PRODUCT * u
    rounding = forward + (product + epsilon * (1 + product)) * (output + inherited + forward)
    bound = scaled((rounding + inherited) * (1 + 2.0**-20), scale_u + scale_k)
    # products that underflow: at most 5·size·tiny in the 2-norm of each transform, and the final scaling
    lost = 5 * sqrt(size) * (scaled(sum_u, scale_u) + scaled(sum_k, scale_k) + 4)
    bound = bound + lost * model.tiny
    return np.asarray(np.where(np.isnan(bound), np.inf, bound))


def _power_spectrum(values: Array, size: int) -> Array:
    """|F v|² at all `size` frequencies of real v."""
    half = np.abs(np.fft.rfft(values, size)) ** 2
    return np.concatenate([half, half[..., 1 : size - half.shape[-1] + 1]], axis=-1)


def _worst_gain(power_spectrum: Array, norm: Array, total: Array) -> Array:
    """max ‖D ∘ S‖₂/√n over all D with ‖D‖₂ <= √n·norm and |D| <= total, where |S|² is given: the largest |S| first."""
    size = power_spectrum.shape[-1]
    largest = -np.sort(-power_spectrum, axis=-1)
    sums = np.cumsum(largest, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        count = np.nan_to_num(size * (norm / total) ** 2)  # how many entries of D can be as large as total
    whole = np.minimum(np.floor(count), size - 1).astype(int)
    shape = np.broadcast_shapes(whole.shape, sums.shape[:-1])
    index = np.broadcast_to(whole, shape)[..., None]
    taken = np.take_along_axis(np.broadcast_to(sums, (*shape, size)), index, axis=-1)[..., 0]
    last = np.take_along_axis(np.broadcast_to(largest, (*shape, size)), index, axis=-1)[..., 0]
    return np.asarray(total * np.sqrt((taken - np.maximum(0.0, whole + 1 - count) * last) / size) * INFLATION)


def direct_error(
    kernel: Array,
    kernel_error: Array,
    source: Array,
    source_error: Array,
    model: RoundingModel,
    kernel_norm: Array | None = None,
) -> Array:
    """Componentwise error of a causal convolution summed directly in any order, (batch, H, L).

    Args:
        kernel_norm: 2-norm of a further error of the kernel, (H,).
    """
    terms = min(kernel.shape[-1], source.shape[-1])
    gamma = (terms + 1) * model.unit / (1 - (terms + 1) * model.unit)
    size_k, size_u = np.abs(kernel) + kernel_error, np.abs(source) + source_error
    error = gamma * _causal(size_k, size_u) + _causal(kernel_error, size_u) + _causal(size_k, source_error)
    if kernel_norm is not None and kernel_norm.any():
        # by Cauchy's inequality, with the 2-norm of the inputs that a step still sees
        seen, scale = normalised(size_u)
        norms = scaled(np.sqrt(_causal(np.ones_like(kernel), seen**2)), scale[..., None])
        error = error + (1 + gamma) * kernel_norm[:, None] * norms * INFLATION
    return np.asarray(error * INFLATION + 2 * terms * model.tiny)


def _causal(kernel: Array, source: Array) -> Array:
    """Σ_i kernel_i source_{k-i} for non-negative arrays, by direct sums: every rounding stays relative."""
    result = np.zeros(source.shape)
    length = source.shape[-1]
    for i in range(min(kernel.shape[-1], length)):
        result[..., i:] += kernel[..., i, None] * source[..., : length - i]
    return result * (1 + 2.0**-40)


def _norm(values: Array) -> Array:
    entries, exponent = normalised(np.abs(values))
    return scaled(np.sqrt((entries**2).sum(axis=-1)) * INFLATION, exponent)
