"""Products of adjacent inputs u_k u_{k-1} … u_{k-p+1} and their sums over time.

Time is the last axis; the result of order p is entry p - 2 of the first axis.
"""

from __future__ import annotations

import torch

from .sliding import advanced, delayed, moving_sum, reversed_sum, running_sum


def adjacent_products(v: torch.Tensor, order: int) -> torch.Tensor:
    """c_p(k) = c_{p-1}(k)·v_{k-p+1} with c_1 = v, for p = 2 … order >= 1; zeros before the start.

    Args:
        v: (..., L).

    Returns:
        (order - 1, ..., L).

    Accuracy:
        p - 1 products, relative error at most (1 + u)^(p-1) - 1.
    """
    products, newest = [], v
    for p in range(2, order + 1):
        newest = newest * delayed(v, p - 1)
        products.append(newest)
    return torch.stack(products) if products else v.new_zeros((0, *v.shape))


def adjacent_products_vjp(v: torch.Tensor, products: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """Gradient of v from the cotangents (order - 1, ..., L) of the products."""
    grad_v = carry = torch.zeros_like(v)
    for p in range(len(products) + 1, 1, -1):
        carry = carry + grad[p - 2]
        lower = products[p - 3] if p > 2 else v
        grad_v = grad_v + advanced(carry * lower, p - 1)
        carry = carry * delayed(v, p - 1)
    return grad_v + carry


def running_sums(products: torch.Tensor, sums: torch.Tensor | None) -> torch.Tensor:
    """s_p(k) = s_p(k-1) + c_p(k) from `sums`, (order - 1, ...), or from zero; (order - 1, ..., L)."""
    if sums is None:
        return running_sum(products)
    return running_sum(torch.cat([sums[..., None], products], -1))[..., 1:]


def running_sums_vjp(grad: torch.Tensor, grad_sums: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Cotangents of the products and of the sums before the first."""
    if grad_sums is not None:
        total = reversed_sum(torch.cat([grad, grad_sums[..., None]], -1))
        return total[..., :-1], total[..., 0]
    total = reversed_sum(grad)
    return total, total[..., 0] if grad.shape[-1] else grad.new_zeros(grad.shape[:-1])


def windowed_sums(products: torch.Tensor, window: int) -> torch.Tensor:
    """Σ of the newest window - p + 1 products of order p: those of inputs in the window only."""
    sums = [moving_sum(product, window - p + 1) for p, product in enumerate(products, start=2)]
    return torch.stack(sums) if sums else products.clone()


def windowed_sums_vjp(grad: torch.Tensor, window: int) -> torch.Tensor:
    """Cotangents of the products: the moving sum in reversed time."""
    return windowed_sums(grad.flip(-1), window).flip(-1)
