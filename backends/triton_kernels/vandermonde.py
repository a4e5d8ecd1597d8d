"""Convolution kernels of diagonal systems: two tables of powers and one matrix product per channel."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from ..eager.vandermonde import power_table, table_sizes, to_power
from .configurations import interpreting, power_of_two

Tensor = torch.Tensor

# Entries of the result per program, rows by columns, and of the sum at once.
TILE, DEPTH = 64, 32


@triton.jit
def table_product_kernel(  # type: ignore[no-untyped-def]
    giant_ptr,
    baby_ptr,
    k_ptr,
    n_giant,
    n_baby,
    depth,
    length,
    TILE_G: tl.constexpr,
    TILE_B: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """K[i · n_baby + j] = Σ_d giant[i, d] baby[d, j] for one channel (program 2) and one tile of it.

    The products are those of the precision at hand: TF32 would keep 10 bits of a power.

    Args:
        giant_ptr: (H, n_giant, depth).
        baby_ptr: (H, depth, n_baby).
        k_ptr: (H, length), written.
    """
    h = tl.program_id(2).to(tl.int64)
    i = tl.program_id(0) * TILE_G + tl.arange(0, TILE_G)
    j = tl.program_id(1) * TILE_B + tl.arange(0, TILE_B)
    d = tl.arange(0, DEPTH)
    is_i = (i < n_giant)[:, None]
    is_j = (j < n_baby)[None, :]
    giant_ptr += h * n_giant * depth
    baby_ptr += h * depth * n_baby
    total = tl.zeros((TILE_G, TILE_B), giant_ptr.dtype.element_ty)
    for first in range(0, depth, DEPTH):
        is_d = first + d < depth
        giant = tl.load(giant_ptr + i[:, None] * depth + first + d[None, :], is_i & is_d[None, :], 0.0)
        baby = tl.load(baby_ptr + (first + d)[:, None] * n_baby + j[None, :], is_d[:, None] & is_j, 0.0)
        total = tl.dot(giant, baby, total, input_precision="ieee", out_dtype=total.dtype)
    at = i[:, None] * n_baby + j[None, :]
    tl.store(k_ptr + h * length + at, total, is_i & is_j & (at < length))


def diagonal_kernel(system: Any, length: int, power: int, empty: Any = torch.empty) -> Tensor:
    """K_i = weight · Re(C Āⁱ B̄^{∘power}), (H, length), in the system's precision.

    Accuracy:
        Baby steps āʲ and giant steps C B̄^power ā^{iQ} are formed in float64 and rounded once; a single entry is formed
        in float64 and rounded once (docs/bounds-kernels.md, kernels from tables).

    References:
        Eq. 5; baby steps and giant steps, Paterson and Stockmeyer, SIAM J. Comput. 2, 1973.
    """
    dtype, weight = system.dtype, system.weight
    a, b, c = (parameter.detach().to(torch.complex128) for parameter in (system.A_bar, system.B_bar, system.C))
    first: Tensor = weight * c * to_power(b, power)
    n_channels, n_modes = a.shape
    if length == 0 or n_channels == 0 or n_modes == 0:
        return torch.zeros((n_channels, length), dtype=dtype, device=a.device)
    if length == 1:
        single: Tensor = first.real.sum(-1, keepdim=True)
        return single.to(dtype)
    n_baby, n_giant = table_sizes(length)
    baby = power_table(a, n_baby)  # (H, M, Q)
    giant = power_table(baby[..., -1] * a, n_giant) * first[..., None]
    left = torch.cat([giant.real, -giant.imag], 1).mT.to(dtype).contiguous()
    right = torch.cat([baby.real, baby.imag], 1).to(dtype).contiguous()
    kernel: Tensor = empty((n_channels, length), dtype=dtype, device=a.device)
    # tl.dot takes tiles of at least 16; in float64 smaller ones fit into the registers.
    most = 128 if interpreting() else TILE if dtype == torch.float32 else TILE // 2
    tile_g, tile_b = (min(most, max(16, power_of_two(n))) for n in (n_giant, n_baby))
    grid = (triton.cdiv(n_giant, tile_g), triton.cdiv(n_baby, tile_b), n_channels)
    table_product_kernel[grid](
        left,
        right,
        kernel,
        n_giant,
        n_baby,
        2 * n_modes,
        length,
        TILE_G=tile_g,
        TILE_B=tile_b,
        DEPTH=min(DEPTH, max(16, power_of_two(2 * n_modes))),
        num_warps=4,
        enable_fp_fusion=True,
    )
    return kernel
