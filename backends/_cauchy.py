"""Convolution kernel of a diagonal-plus-low-rank system: generating function, Cauchy sums, Woodbury."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ._fft_convolution import power_of_two
from ._pieces import pieces
from ._read_out import read_out

Array = npt.NDArray[Any]

# Complex products in the sums of one block of frequencies: temporaries stay in the second-level cache, and
# OpenBLAS starts no threads, which on a busy machine cost a hundred times as much as such a product.
BLOCK_PRODUCTS = 2**15


def dplr_kernel(
    Lambda_bar: Array, P_bar: Array, Q_bar: Array, B_bar: Array, C: Array, length: int, *, conjugate_pairs: bool
) -> Array:
    """K_i = weight · Re(C Āⁱ B̄) for Ā = diag(Λ̄) - P̄ Q̄*, computed in float64.

    With n >= length a power of two and a radius r <= 1, the generating function of the first n entries,
      Σ_{i<n} K_i zⁱ = C (I - zⁿ Āⁿ) (I - z Ā)⁻¹ B̄,
    is evaluated at the n points z_j = r e^(-2πij/n), where zⁿ = rⁿ; the inverse FFT gives K_i rⁱ.
    Woodbury turns the resolvent into sums Σ_m v_m / (1 - z Λ̄_m) over the full, conjugate-closed state and
    one R×R system per point.  With conjugate pairs K is real, so half of the points are enough.

    The radius keeps every pole off the circle: rⁿ = min(1, 1/(2 ‖Āⁿ‖)) makes I - zⁿ Āⁿ well
    conditioned and the spectral radius of rĀ at most 2^(-1/n).  With r = 1, as in S4, a slow system
    (n dt |Re Λ| ≪ 1) loses all digits and an eigenvalue 1 divides by zero.

    Args:
        Lambda_bar, B_bar, C: (H, M) complex128.
        P_bar, Q_bar: (R, H, M) complex128.
        length: number of kernel entries.
        conjugate_pairs: one of each conjugate pair is stored.

    Returns:
        (H, length) float64; a channel whose Āⁿ leaves float64's range is NaN.

    Accuracy:
        Normwise, growing like r^(-i) along the kernel (docs/bounds-kernels.md).  Behind each value of the
        generating function: log2 n steps X -> 2X + X² of size 2M for Āⁿ - I, or S -> S² from the level on
        where S = I + X is smaller in the Frobenius norm; one complex product, two subtractions and one
        addition for 1 - zΛ̄, five real operations for its inverse, two products per term of a sum of up
        to 2M terms, and the R×R elimination.

    References:
        Algorithm 1, lines 1 to 5.  Gu, Goel, Ré, S4, ICLR 2022, appendix C.3.
    """
    from scipy import fft  # type: ignore[import-untyped, unused-ignore]

    n_channels = len(C)
    if length <= 1:
        # C B̄ alone, which needs no resolvent.
        return read_out(C, B_bar, 1 + conjugate_pairs, axis=-1)[:, None][:, :length]
    kernel = np.empty((n_channels, length))
    n = power_of_two(length)
    n_points = n // 2 + 1 if conjugate_pairs else n
    index = np.arange(n_points)
    # Angles in [-π, π]: an angle's rounding error is proportional to it.
    angle = -2j * np.pi / n * np.where(2 * index > n, index - n, index)
    root, root_gap = np.exp(angle), -np.expm1(angle)
    for h in range(n_channels):
        damping, C_tilde = _truncated_output(Lambda_bar[h], P_bar[:, h], Q_bar[:, h], C[h], n, conjugate_pairs)
        if not (np.isfinite(damping) and np.isfinite(C_tilde).all()):
            kernel[h] = np.nan
            continue
        rows = np.concatenate([C_tilde[None], Q_bar[:, h].conj()])
        columns = np.concatenate([B_bar[h][None], P_bar[:, h]])
        poles = Lambda_bar[h]
        if conjugate_pairs:
            rows, columns, poles = (np.concatenate([v, v.conj()], axis=-1) for v in (rows, columns, poles))
        weights = rows[:, None] * columns[None]
        radius = np.exp(-damping / n)
        z, z_gap = radius * root, radius * root_gap - np.expm1(-damping / n)
        values = np.empty(n_points, np.complex128)
        for (block,) in pieces((n_points,), weights.size, BLOCK_PRODUCTS):
            values[block] = _resolvent(weights, poles, z[block], z_gap[block])
        damped = fft.irfft(values, n) if conjugate_pairs else fft.ifft(values).real
        kernel[h] = damped[:length] * np.exp(damping / n * np.arange(length))
    return kernel


def _truncated_output(
    Lambda_bar: Array, P_bar: Array, Q_bar: Array, C: Array, n: int, conjugate_pairs: bool
) -> tuple[float, Array]:
    """(-n log r, C (I - rⁿ Āⁿ)) of one channel, the power by squaring a real matrix of size 2M."""
    # Āⁿ - I by X -> 2X + X²: a slow system, whose powers stay near I, keeps the digits of the difference.
    # Once the power is the smaller of the two, squaring it leaves errors in proportion to it instead of to I.
    change = real_matrix(Lambda_bar - 1, P_bar, Q_bar, conjugate_pairs)
    identity = np.eye(len(change))
    power, far = change + identity, False
    for _ in range(n.bit_length() - 1):
        far = far or bool(np.vdot(power, power) < np.vdot(change, change))
        if far:
            power = power @ power
        else:
            change = 2 * change + change @ change
            power = change + identity
    # ‖X‖₂² <= ‖X‖₁ ‖X‖_∞: no singular values needed.
    size = np.abs(power)
    norm = float(np.sqrt(size.sum(axis=0).max(initial=0.0)) * np.sqrt(size.sum(axis=1).max(initial=0.0)))
    # np.maximum, unlike max, passes NaN on.
    damping = float(np.log(np.maximum(1.0, 2 * norm)))
    row = np.concatenate([C.real, -C.imag])
    kept, removed = (row, row @ power) if far else (-np.expm1(-damping) * row, row @ change)
    row = kept - np.exp(-damping) * removed
    return damping, row[: len(C)] - 1j * row[len(C) :]


def real_matrix(Lambda_bar: Array, P_bar: Array, Q_bar: Array, conjugate_pairs: bool) -> Array:
    """Ā of one channel as the real matrix that acts on [Re x; Im x].

    With conjugate pairs Q̄* x runs over both halves and is real, 2 Re(Q̄* x).

    Args:
        Lambda_bar: (M,) complex128.
        P_bar, Q_bar: (R, M) complex128.

    Returns:
        (2M, 2M) float64.
    """
    re, im = np.diag(Lambda_bar.real), np.diag(Lambda_bar.imag)
    diagonal = np.block([[re, -im], [im, re]])
    P_re, Q_re = (np.concatenate([v.real, v.imag], axis=-1) for v in (P_bar, Q_bar))
    if conjugate_pairs:
        return np.asarray(diagonal - 2 * P_re.T @ Q_re)
    P_im, Q_im = (np.concatenate([-v.imag, v.real], axis=-1) for v in (P_bar, Q_bar))
    return np.asarray(diagonal - P_re.T @ Q_re - P_im.T @ Q_im)


def _resolvent(weights: Array, poles: Array, z: Array, z_gap: Array) -> Array:
    """C̃ (I - z Ā)⁻¹ B̄ by Woodbury from the products of the vectors C̃, Q̄_r* with B̄, P̄_r.

    Args:
        weights: (1 + R, 1 + R, N) complex128, entry (a, b) the elementwise product of vectors a and b.
        poles: (N,) complex128.
        z, z_gap: z and 1 - z, (F,) complex128.

    Returns:
        (F,) complex128.
    """
    # 1 - zλ = (1 - z) + z (1 - λ): for slow modes both differences are small and each keeps its digits.
    inverse = z_gap + (1 - poles)[:, None] * z
    # conj(d)/|d|², in place and in real arithmetic: twice as fast as a complex division.
    scale = 1 / (inverse.real**2 + inverse.imag**2)
    inverse.real *= scale
    inverse.imag *= -scale
    sums = (weights.reshape(-1, len(poles)) @ inverse).reshape(*weights.shape[:2], -1)
    plain, left, right, inner = sums[0, 0], sums[0, 1:], sums[1:, 0], sums[1:, 1:]
    capacitance = np.eye(len(inner)) + (z * inner).transpose(2, 0, 1)
    solved = np.linalg.solve(capacitance, right.T[..., None])[..., 0]
    return np.asarray(plain - z * (left.T * solved).sum(axis=1))
