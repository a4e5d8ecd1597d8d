"""Causal convolution as the direct sum, O(L²), and its gradients."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from liquid_ssm.summation import pairwise_sum

Array = npt.NDArray[Any]

# Elements of the products formed at once: 2 MiB of float64, about a cache.
BLOCK_ELEMENTS = 1 << 18


def causal_convolution(kernel: Array, u: Array) -> Array:
    """y_k = Σ_{j ≤ k} K_j u_{k-j}.

    Args:
        kernel: (..., n) real, any n; beyond it the kernel is zero.
        u: (..., L) real; leading axes broadcast.

    Returns:
        (..., L).

    Accuracy:
        One product and ceil(log2 min(n, L)) additions on every term, hence an error of at most
        ((1 + u)^(1 + ceil(log2 min(n, L))) - 1) Σ|K_j u_{k-j}|.
    """
    length = u.shape[-1]
    reach = min(kernel.shape[-1], length)
    shape = np.broadcast_shapes(kernel.shape[:-1], u.shape[:-1])
    if reach == 0:
        return np.zeros((*shape, length), u.dtype)
    padded = np.concatenate([np.zeros((*u.shape[:-1], reach - 1), u.dtype), u], axis=-1)
    # newest[..., k, j] = u_{k-j}
    newest = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=-1)[..., ::-1]
    y = np.empty((*shape, length), u.dtype)
    steps = max(1, BLOCK_ELEMENTS // (reach * max(1, prod(shape))))
    for start in range(0, length, steps):
        block = newest[..., start : start + steps, :]
        y[..., start : start + steps] = pairwise_sum(kernel[..., np.newaxis, :reach] * block)
    return y


def causal_convolution_vjp(kernel: Array, u: Array, grad: Array) -> tuple[Array, Array]:
    """Gradients of kernel (H, n) and u (batch, H, L): both are causal convolutions in reversed time.

    grad u_i = Σ_{k ≥ i} g_k K_{k-i} and grad K_j = Σ_batch Σ_{k ≥ j} g_k u_{k-j}.
    """
    length = u.shape[-1]
    reach = min(kernel.shape[-1], length)
    reversed_grad = grad[..., ::-1]
    grad_u = causal_convolution(kernel, reversed_grad)[..., ::-1]
    grad_kernel = np.zeros_like(kernel)
    grad_kernel[..., :reach] = pairwise_sum(causal_convolution(reversed_grad, u), axis=0)[..., ::-1][..., :reach]
    return grad_kernel, np.ascontiguousarray(grad_u)
