"""Convolution kernel of a diagonal-plus-low-rank system: the sums over the modes of `_cauchy.py`, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._cauchy import _truncated_output
from .._fft_convolution import power_of_two
from .._read_out import read_out
from .caching import compiled, inlined
from .simd import fma, lanes, load, splat, store, width
from .threads import share
from .vandermonde import product

Array = npt.NDArray[Any]


def dplr_kernel(
    Lambda_bar: Array,
    P_bar: Array,
    Q_bar: Array,
    B_bar: Array,
    C: Array,
    length: int,
    conjugate_pairs: bool,
    threads: int,
) -> Array:
    """K_i = weight · Re(C Āⁱ B̄) for Ā = diag(Λ̄) - P̄ Q̄*, computed in float64.

    The algorithm is that of `_cauchy.dplr_kernel`, which explains it; only the sums Σ_m v_m / (1 - z Λ̄_m) are formed
    otherwise, eight frequencies at a time and without arrays of modes times frequencies.

    Args:
        Lambda_bar, B_bar, C: (H, M), complex or real.
        P_bar, Q_bar: (R, H, M).
        length: number of kernel entries.
        conjugate_pairs: one of each conjugate pair is stored.
        threads: no bit of the result depends on them.

    Returns:
        (H, length) float64; a channel whose Āⁿ leaves float64's range is NaN.

    Accuracy:
        That of `_cauchy.dplr_kernel`, bounded in docs/bounds-kernels.md: the same powers, radius and points;
        complex products of one fused multiply-add in each part; 1/(1 - z Λ̄) and its conjugate mode's are added before
        they are multiplied by the real and imaginary parts of the weight, so that a term passes through 2M + 1
        roundings instead of 4M.

    Memory: O((1 + R)² length + M²) per channel in work.

    References:
        Algorithm 1, lines 1 to 5.
    """
    from scipy import fft  # type: ignore[import-untyped, unused-ignore]

    vectors = Lambda_bar, P_bar, Q_bar, B_bar, C
    poles, P, Q, B, C = (np.ascontiguousarray(v, np.complex128) for v in vectors)
    if length <= 1:
        # C B̄ alone, which needs no resolvent.
        return read_out(C, B, 1 + conjugate_pairs, axis=-1)[:, None][:, :length]
    kernel = np.empty((len(C), length))
    n = power_of_two(length)
    n_points = n // 2 + 1 if conjugate_pairs else n
    root, root_gap = _points(n, n_points)
    # Not shared among threads: a BLAS may have threads of its own.
    truncated = [_truncated_output(poles[h], P[:, h], Q[:, h], C[h], n, conjugate_pairs) for h in range(len(C))]

    def work(first: int, end: int) -> None:
        for h in range(first, end):
            damping, C_tilde = truncated[h]
            if not (np.isfinite(damping) and np.isfinite(C_tilde).all()):
                kernel[h] = np.nan
                continue
            radius = np.exp(-damping / n)
            z, z_gap = radius * root, radius * root_gap - np.expm1(-damping / n)
            rows = np.concatenate([C_tilde[None], Q[:, h].conj()])
            columns = np.concatenate([B[h][None], P[:, h]])
            weights = rows[:, None] * columns[None]
            sums = cauchy_sums(weights, poles[h], z, z_gap, conjugate_pairs)
            values = _woodbury(sums, z)[:n_points]
            damped = fft.irfft(values, n) if conjugate_pairs else fft.ifft(values).real
            kernel[h] = damped[:length] * np.exp(damping / n * np.arange(length))

    share(work, len(C), threads)
    return kernel


def _points(n: int, n_points: int) -> tuple[Array, Array]:
    """e^(-2πij/n) and 1 minus it for j < `n_points`, and ones and zeros up to a whole number of vectors."""
    index = np.arange(n_points)
    # Angles in [-π, π]: an angle's rounding error is proportional to it.
    angle = -2j * np.pi / n * np.where(2 * index > n, index - n, index)
    w = lanes(np.float64)
    padded = -(-n_points // w) * w
    root, gap = np.ones(padded, np.complex128), np.zeros(padded, np.complex128)
    root[:n_points], gap[:n_points] = np.exp(angle), -np.expm1(angle)
    return root, gap


def cauchy_sums(weights: Array, poles: Array, z: Array, z_gap: Array, conjugate_pairs: bool) -> Array:
    """Σ_m v_m / ((1 - z) + z (1 - λ_m)) for each of the weights v, over λ and v and, with pairs, their conjugates.

    Args:
        weights: (K, K, M) complex128.
        poles: (M,) complex128.
        z, z_gap: z and 1 - z, (F,) complex128, F a multiple of the lanes of a vector.

    Returns:
        (K, K, F) complex128.
    """
    n_sums = weights.shape[0] * weights.shape[1]
    # Mode by mode: 1 - λ, then the weights.
    table = np.empty((len(poles), 1 + n_sums), np.complex128)
    table[:, 0], table[:, 1:] = 1 - poles, weights.reshape(n_sums, -1).T
    parts = np.empty((2 * n_sums, len(z)))
    inputs = (np.ascontiguousarray(v) for v in (z.real, z.imag, z_gap.real, z_gap.imag))
    sum_modes(table.view(np.float64).ravel(), *inputs, conjugate_pairs, parts)
    sums = np.empty((*weights.shape[:2], len(z)), np.complex128)
    sums.real, sums.imag = parts.reshape(*weights.shape[:2], 2, -1).transpose(2, 0, 1, 3)
    return sums


def _woodbury(sums: Array, z: Array) -> Array:
    """S_CB - z S_CP (I + z S_QP)⁻¹ S_QB, (F,)."""
    plain, left, right, inner = sums[0, 0], sums[0, 1:], sums[1:, 0], sums[1:, 1:]
    rank = len(inner)
    if rank == 0:
        return np.asarray(plain)
    if rank == 1:
        # By conj(c)/|c|²: LAPACK takes longer to be called than all else takes.
        capacitance = 1 + z * inner[0, 0]
        scale = 1 / (capacitance.real**2 + capacitance.imag**2)
        capacitance.real *= scale
        capacitance.imag *= -scale
        return np.asarray(plain - z * (left[0] * (right[0] * capacitance)))
    stacked = np.eye(rank) + (z * inner).transpose(2, 0, 1)
    solved = np.linalg.solve(stacked, right.T[..., None])[..., 0]
    return np.asarray(plain - z * (left.T * solved).sum(axis=1))


@inlined
def inverse(dr, di, one):  # type: ignore[no-untyped-def]
    """conj(d)/|d|², four roundings behind each part."""
    scale = one / fma(dr, dr, di * di)
    return dr * scale, -(di * scale)


@compiled
def sum_modes(table, zr, zi, gr, gi, conjugate_pairs, sums):  # type: ignore[no-untyped-def]
    """The sums of `cauchy_sums`.

    Args:
        table: (M, 1 + sums, 2) flat: 1 - λ and the weights.
        zr, zi, gr, gi: z and 1 - z.
        sums: (2 · sums, F), real and imaginary parts of each; written.
    """
    w = width(zr)
    n_sums = sums.shape[0] // 2
    entries = 2 + 2 * n_sums
    n_modes = table.shape[0] // entries
    one, nothing = splat(table.dtype.type(1)), splat(table.dtype.type(0))
    total = np.empty(2 * n_sums * w, table.dtype)
    for f in range(0, sums.shape[1], w):
        xr, xi, yr, yi = load(zr, f), load(zi, f), load(gr, f), load(gi, f)
        for k in range(2 * n_sums):
            store(total, k * w, nothing)
        for m in range(n_modes):
            o = m * entries
            pr, pi = splat(table[np.uintp(o)]), splat(table[np.uintp(o + 1)])
            tr, ti = product(pr, pi, xr, xi)
            sr, si = inverse(yr + tr, yi + ti, one)
            if conjugate_pairs:
                # v g + conj(v) g' = Re v (g + g') + i Im v (g - g'), g' the inverse of the conjugate mode.
                tr, ti = product(pr, -pi, xr, xi)
                hr, hi = inverse(yr + tr, yi + ti, one)
                sr, si, dr, di = sr + hr, si + hi, sr - hr, si - hi
            else:
                dr, di = sr, si
            for k in range(n_sums):
                vr, vi = splat(table[np.uintp(o + 2 + 2 * k)]), splat(table[np.uintp(o + 3 + 2 * k)])
                at = 2 * k * w
                store(total, at, fma(-vi, di, fma(vr, sr, load(total, at))))
                store(total, at + w, fma(vi, dr, fma(vr, si, load(total, at + w))))
        for k in range(2 * n_sums):
            store(sums[k], f, load(total, k * w))
