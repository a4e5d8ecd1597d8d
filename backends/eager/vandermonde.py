"""Convolution kernel of a diagonal system from two tables of powers, and its gradients."""

from __future__ import annotations

from math import isqrt

import torch
from torch.nn.functional import pad

from liquid_ssm.complex_numbers import Number, cat, conj, each_part, in_double, is_complex, rounded_like, times

from .._pieces import pieces

# Memory of the tables and products of one piece of channels.
PIECE_BYTES = 2**28


def diagonal_kernel(A_bar: Number, B_bar: Number, C: Number, length: int, power: int, weight: int) -> torch.Tensor:
    """K_i = weight · Re Σ_n C_n B̄_n^power Ā_nⁱ, computed in float64 and rounded once.

    With i = kQ + j and Q ≈ √length, K_(kQ+j) = weight · [Re, -Im](C B̄^power Ā^(kQ)) · [Re; Im](Āʲ): two tables of about
    √length powers each and one real matrix product per channel.

    Args:
        A_bar, B_bar, C: (H, M), real or complex.
        length: number of kernel entries.
        power: >= 1.
        weight: 2 where one of each conjugate pair is stored, else 1.

    Returns:
        (H, length) in the parameters' real dtype.

    Accuracy:
        Behind entry i stand at most i + power complex products and a real inner product over 2M terms in unknown order,
        all in float64, and one rounding (docs/bounds-kernels.md, baby step and giant step).

    References:
        Eq. 5 and 14.  Paterson, Stockmeyer, SIAM J. Comput. 2 (1973), 60-66.
    """
    like: torch.Tensor = A_bar.real
    n_channels, n_modes = A_bar.shape
    a, b, c = (in_double(v) for v in (A_bar, B_bar, C))
    if length == 0 or n_channels == 0:
        return like.new_zeros((n_channels, length))
    n_baby, n_giant = table_sizes(length)
    kernels = []
    for (channels,) in pieces((n_channels,), 64 * n_modes * (n_baby + n_giant) + 16 * n_baby * n_giant, PIECE_BYTES):
        baby, giant = _tables(a[channels], n_baby, n_giant)
        rows = times(giant, times(c[channels], to_power(b[channels], power))[..., None])
        left, right = rows.real, baby.real
        if is_complex(rows) and is_complex(baby):
            left, right = torch.cat([left, -rows.imag], 1), torch.cat([right, baby.imag], 1)
        product = (weight * left).mT @ right
        kernels.append(product.reshape(len(product), n_giant * n_baby)[:, :length].to(like))
    return kernels[0] if len(kernels) == 1 else torch.cat(kernels)


def diagonal_kernel_vjp(
    A_bar: Number, B_bar: Number, C: Number, length: int, power: int, weight: int, grad: torch.Tensor
) -> dict[str, Number]:
    """Gradients of the parameters from the cotangent (H, length) of the kernel, in float64 and rounded once.

    With Z = Σ_l g_l Āˡ and Z' = Σ_l l g_l Ā^(l-1) they are weight times the conjugates of B̄^power Z, of
    power C B̄^(power-1) Z and of C B̄^power Z'.  Both sums are taken by the two tables of `diagonal_kernel`: inner sums
    over blocks of Q cotangents, then outer ones over the blocks.

    Returns:
        By name, each of its parameter's dtype and kind; the real part where that is real.

    Accuracy:
        Behind term l of a gradient stand at most √5 (l + power + 1) + Q + ceil(length / Q) + 2 roundings in float64,
        Q = ceil(√length): at most l - 1 complex products for Āˡ, one by the giant step is among them, power + 1 for C,
        B̄^power and their product with the sum, Q + ceil(length / Q) for the two sums, one each for l g_l and for the
        factor power.  The error is at most γ of that relative to the sum of moduli, and one rounding to the dtype.

    Memory: O(H length + H M √length).
    """
    n_channels, n_modes = A_bar.shape
    n_baby, n_giant = table_sizes(length)
    item = 64 * n_modes * (n_baby + 3 * n_giant) + 48 * n_baby * n_giant
    a, b, c, g = (in_double(v) for v in (A_bar, B_bar, C, grad))
    found = [
        _gradients(a[channels], b[channels], c[channels], power, weight, g[channels])
        for (channels,) in pieces((n_channels,), item, PIECE_BYTES)
    ]
    parameters = {"A_bar": A_bar, "B_bar": B_bar, "C": C}
    return {
        name: rounded_like(cat([gradients[i] for gradients in found], 0), like) if found else like * 0
        for i, (name, like) in enumerate(parameters.items())
    }


def _gradients(
    a: Number, b: Number, c: Number, power: int, weight: int, g: torch.Tensor
) -> tuple[Number, Number, Number]:
    """Gradients of Ā, B̄ and C for some channels, (h, M) each, in float64."""
    (h, length), n_modes = g.shape, a.shape[-1]
    n_baby, n_giant = table_sizes(length)
    baby, giant = _tables(a, n_baby, n_giant)
    # Σ l g_l Ā^(l-1) is a sum of (l + 1) g_(l+1) Āˡ: no division, which a zero mode would not survive.
    steps = torch.arange(length, dtype=g.dtype, device=g.device)
    filled = pad(torch.stack([g, (steps * g).roll(-1, -1)], 1), (0, n_baby * n_giant - length))
    blocks = filled.reshape(h, 2 * n_giant, n_baby)
    inner = each_part(baby, lambda table: (blocks @ table.mT).reshape(h, 2, n_giant, n_modes))
    outer = each_part(giant, lambda table: table.mT[:, None])
    Z = each_part(times(inner, outer), lambda part: part.sum(2))  # (h, 2, M)
    plain, sloped = Z[:, 0], Z[:, 1]
    powered = to_power(b, power)
    slope = c if power == 1 else times(c, to_power(b, power - 1)) * float(power)
    found = (times(times(c, powered), sloped), times(slope, plain), times(powered, plain))
    grad_A, grad_B, grad_C = (conj(z) * float(weight) for z in found)
    return grad_A, grad_B, grad_C


def table_sizes(length: int) -> tuple[int, int]:
    """Q baby steps and as many giant steps as it takes to reach `length` >= 1 entries."""
    n_baby = isqrt(max(length, 1) - 1) + 1
    return n_baby, -(-max(length, 1) // n_baby)


def power_table(base: Number, count: int) -> Number:
    """baseⁱ for i = 0 … count - 1 on a new last axis, by repeated doubling.

    Accuracy:
        Power i >= 1 has exactly i - 1 rounded products behind it; products by the leading 1 are exact.
    """
    table = (each_part(base, torch.zeros_like) + 1)[..., None]
    while table.shape[-1] < count:
        missing = count - table.shape[-1]
        table = cat([table, base[..., None] * table[..., :missing]], -1)
        base = base * base
    return table


def to_power(base: Number, power: int) -> Number:
    """base^power by power - 1 products."""
    result = base
    for _ in range(power - 1):
        result = result * base
    return result


def _tables(a: Number, n_baby: int, n_giant: int) -> tuple[Number, Number]:
    """aʲ, j < n_baby, and a^(k n_baby), k < n_giant."""
    baby = power_table(a, n_baby)
    return baby, power_table(baby[..., -1] * a, n_giant)
