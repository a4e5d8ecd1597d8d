"""Convolution kernel of a diagonal-plus-low-rank system: generating function, Cauchy sums, Woodbury."""

from __future__ import annotations

from math import pi

import torch

from liquid_ssm.complex_numbers import Number, imag, in_double

from .._fft_convolution import power_of_two
from .._pieces import pieces
from .truncation import truncate

# Memory of the temporaries of one piece of channels and frequencies.
PIECE_BYTES = 2**28


def dplr_kernel(
    Lambda_bar: Number,
    P_bar: Number,
    Q_bar: Number,
    B_bar: Number,
    C: Number,
    length: int,
    power: int,
    conjugate_pairs: bool,
) -> torch.Tensor:
    """K_i = weight · Re(C Āⁱ B̄^{∘power}) for Ā = diag(Λ̄) - P̄ Q̄*, computed in float64 and rounded once.

    The algorithm of `liquid_ssm.backends._cauchy`, all channels at once: with n >= length a power of two, the
    generating function of the first n entries is evaluated at n points z_j = r e^(-2πij/n) by Woodbury's formula, and
    the inverse FFT gives K_i rⁱ.  rⁿ = min(1, 1/(2 ‖Āⁿ‖)) keeps every pole off the circle; how Āⁿ is squared and r
    itself are chosen channel by channel without waiting for the device.

    Args:
        Lambda_bar, B_bar, C: (H, M), real or complex.
        P_bar, Q_bar: (R, H, M), R >= 0.
        length: number of kernel entries.
        power: >= 1.
        conjugate_pairs: one of each conjugate pair is stored.

    Returns:
        (H, length) in the parameters' real dtype; a channel whose Āⁿ leaves float64's range is NaN.

    Accuracy:
        Normwise, growing like r^(-i) along the kernel: docs/bounds-kernels.md, "Cauchy kernel".  Points and their
        distance from 1 come from the CPU, whose sine and cosine are within an ulp.

    Differentiable: r is a constant to autograd, since the kernel does not depend on it.

    References:
        Algorithm 1, lines 1 to 5.  Gu, Goel, Ré, S4, ICLR 2022, appendix C.3.
    """
    like: torch.Tensor = C.real
    poles, P, Q, B, C = (_complex(v) for v in (Lambda_bar, P_bar, Q_bar, B_bar, C))
    powered = B
    for _ in range(power - 1):
        powered = powered * B
    n_channels, n_modes = C.shape
    weight = 1 + conjugate_pairs
    if length <= 1 or n_channels == 0:
        # C B̄ alone, which needs no resolvent.
        first: torch.Tensor = weight * (C.real * powered.real - C.imag * powered.imag).sum(-1, keepdim=True)
        return first[:, :length].to(like)
    n = power_of_two(length)
    item = 16 * (8 * n_modes**2 + 4 * n)
    kernels = [
        _channels(poles[h], P[:, h], Q[:, h], powered[h], C[h], n, conjugate_pairs)[:, :length].to(like)
        for (h,) in pieces((n_channels,), item, PIECE_BYTES)
    ]
    return kernels[0] if len(kernels) == 1 else torch.cat(kernels)


def _complex(z: Number) -> torch.Tensor:
    """complex128."""
    double = in_double(z)
    return torch.complex(double.real, imag(double))


def _channels(
    poles: torch.Tensor,
    P: torch.Tensor,
    Q: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    n: int,
    conjugate_pairs: bool,
) -> torch.Tensor:
    """The first n entries of the kernels of some channels, (h, n) float64."""
    truncation = truncate(poles, P, Q, C, n, conjugate_pairs=conjugate_pairs)
    damping, C_tilde = truncation.damping, truncation.C_tilde
    finite = damping.isfinite() & C_tilde.isfinite().all(-1)
    rows = torch.cat([C_tilde[:, None], Q.conj().movedim(0, 1)], 1)  # (h, 1 + R, M)
    columns = torch.cat([B[:, None], P.movedim(0, 1)], 1)
    if conjugate_pairs:
        rows, columns, poles = (torch.cat([v, v.conj()], -1) for v in (rows, columns, poles))
    weights = rows[:, :, None] * columns[:, None]  # (h, 1 + R, 1 + R, N)
    n_points = n // 2 + 1 if conjugate_pairs else n
    root, root_gap = (v.to(C.device) for v in circle_points(n, n_points))
    shift = (damping / n)[:, None]
    radius, inward = torch.exp(-shift), -torch.expm1(-shift)
    item = 16 * len(C) * (4 * poles.shape[-1] + 4 * (1 + len(P)) ** 2)
    values = [
        _resolvent(weights, poles, radius * root[f], radius * root_gap[f] + inward)
        for (f,) in pieces((n_points,), item, PIECE_BYTES)
    ]
    spectrum = torch.cat(values, -1)
    damped = torch.fft.irfft(spectrum, n) if conjugate_pairs else torch.fft.ifft(spectrum).real
    kernel = damped * torch.exp(shift * torch.arange(n, dtype=shift.dtype, device=shift.device))
    return torch.where(finite[:, None], kernel, torch.nan)


def circle_points(n: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """e^(-iθ) and 1 - e^(-iθ) = 2 sin²(θ/2) + i sin θ, for the first `count` angles θ = 2πj/n."""
    index = torch.arange(count)
    # Angles in [-π, π]: an angle's rounding error is proportional to it.
    angle = torch.where(2 * index > n, index - n, index).to(torch.float64) * (2 * pi / n)
    sine = torch.sin(angle)
    return torch.complex(torch.cos(angle), -sine), torch.complex(2 * torch.sin(angle / 2) ** 2, sine)


def _resolvent(weights: torch.Tensor, poles: torch.Tensor, z: torch.Tensor, z_gap: torch.Tensor) -> torch.Tensor:
    """C̃ (I - z Ā)⁻¹ B̄ by Woodbury from the products of the vectors C̃, Q̄_r* with B̄, P̄_r.

    Args:
        weights: (h, 1 + R, 1 + R, N) complex128, entry (a, b) the elementwise product of vectors a and b.
        poles: (h, N) complex128.
        z, z_gap: z and 1 - z, (h, F) complex128.

    Returns:
        (h, F) complex128.
    """
    # 1 - zλ = (1 - z) + z (1 - λ): for slow modes both differences are small and each keeps its digits.
    inverse = _inverse(z_gap[:, None] + (1 - poles)[..., None] * z[:, None])
    h, width, _, n_modes = weights.shape
    sums = (weights.reshape(h, width * width, n_modes) @ inverse).reshape(h, width, width, -1)
    plain, left, right, inner = sums[:, 0, 0], sums[:, 0, 1:], sums[:, 1:, 0], sums[:, 1:, 1:]
    rank = width - 1
    if rank == 0:
        return plain
    if rank == 1:
        solved = right * _inverse(1 + z[:, None] * inner[:, 0])
    else:
        eye = torch.eye(rank, dtype=z.dtype, device=z.device)
        capacitance = eye + (z[:, None, None] * inner).movedim(-1, 1)
        # Without checks, which would wait for the device; what is singular becomes infinite or NaN.
        solved = torch.linalg.solve_ex(capacitance, right.mT[..., None])[0][..., 0].mT
    return plain - z * (left * solved).sum(1)


def _inverse(d: torch.Tensor) -> torch.Tensor:
    """1/d = conj(d)/|d|², four roundings on every path."""
    scale = 1 / (d.real**2 + d.imag**2)
    return torch.complex(d.real * scale, -d.imag * scale)
