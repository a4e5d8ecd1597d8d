"""Products of adjacent inputs u_k u_{k-1} … u_{k-p+1} and their sums over time.

Time is the last axis; the result of order p is entry p - 2 of the first axis.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from liquid_ssm.summation import delayed, moving_sum

Array = npt.NDArray[Any]


def adjacent_products(v: Array, order: int) -> Array:
    """c_p(k) = c_{p-1}(k)·v_{k-p+1} with c_1 = v, for p = 2 … order; zeros before the start.

    Args:
        v: (..., L).
        order: highest p >= 1.

    Returns:
        (order - 1, ..., L).

    Accuracy:
        p - 1 products, relative error at most (1 + u)^(p-1) - 1.
    """
    products = np.empty((order - 1, *v.shape), v.dtype)
    newest = v
    for p in range(2, order + 1):
        newest = newest * delayed(v, p - 1)
        products[p - 2] = newest
    return products


def adjacent_products_vjp(v: Array, products: Array, grad: Array) -> Array:
    """Gradient of v from the cotangents (order - 1, ..., L) of the products."""
    grad_v = np.zeros_like(v)
    carry = np.zeros_like(v)
    for p in range(len(products) + 1, 1, -1):
        carry = carry + grad[p - 2]
        lower = products[p - 3] if p > 2 else v
        steps = min(p - 1, v.shape[-1])
        grad_v[..., : v.shape[-1] - steps] += (carry * lower)[..., steps:]
        carry = carry * delayed(v, p - 1)
    return grad_v + carry


def running_sums(products: Array, sums: Array | None) -> Array:
    """s_p(k) = s_p(k-1) + c_p(k), added one after the other from `sums`, (order - 1, ...), or zero."""
    if sums is None:
        return np.add.accumulate(products, axis=-1)
    started = np.concatenate([sums[..., np.newaxis], products], axis=-1)
    return np.add.accumulate(started, axis=-1)[..., 1:]


def running_sums_vjp(grad: Array, grad_sums: Array | None) -> tuple[Array, Array]:
    """Cotangents of the products and of the sums before the first."""
    total = running_sums(grad[..., ::-1], grad_sums)
    first = total[..., -1] if grad.shape[-1] else grad_sums
    if first is None:
        first = np.zeros(grad.shape[:-1], grad.dtype)
    return total[..., ::-1], first


def windowed_sums(products: Array, window: int) -> Array:
    """Σ of the newest window - p + 1 products of order p: those of inputs in the window only."""
    sums = np.empty_like(products)
    for p, product in enumerate(products, start=2):
        sums[p - 2] = moving_sum(product, window - p + 1)
    return sums


def windowed_sums_vjp(grad: Array, window: int) -> Array:
    """Cotangents of the products: the moving sum in reversed time."""
    return windowed_sums(grad[..., ::-1], window)[..., ::-1]
