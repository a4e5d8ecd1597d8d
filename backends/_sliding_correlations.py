"""Products of the newest inputs and sums of products of inputs: what `kb` and `pb` multiply kernels with.

u is (batch, H, L), terms are (order - 1, batch, H, L) with order p at entry p - 2.
"""

from __future__ import annotations

from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _truncated_polynomials as polynomials
from ._sliding import from_blocks, in_blocks, sliding_aggregate

Array = npt.NDArray[Any]


def adjacent_products(u: Array, order: int, previous: Array | None) -> Array:
    """Terms u_k u_{k-1} … u_{k-p+1}: p - 1 rounded products, newest input first."""
    return _extended_products(u, order, previous, order - 1)[..., order - 1 :]


def running_products(u: Array, order: int, sums: Array | None, previous: Array | None) -> tuple[Array, Array]:
    """Sums of the adjacent products so far, and the sums at the end (order - 1, batch, H).

    Accuracy: behind the product that ends at input i, p - 1 products and one addition per later step.
    """
    terms = adjacent_products(u, order, previous)
    start = np.zeros(terms.shape[:-1], u.dtype) if sums is None else sums
    carried = _running_sum(start, terms)
    return carried[..., 1:], carried[..., -1].copy()


def moving_products(u: Array, order: int, window: int, previous: Array | None) -> Array:
    """Sums of those adjacent products that use the newest `window` inputs only: window - p + 1 of each.

    Accuracy: behind each product p - 1 products and at most window - p additions.
    """
    length = u.shape[-1]
    window = _useful_window(length, order, window, previous)
    products = _extended_products(u, order, previous, window - 1)
    terms = np.empty((order - 1, *u.shape), u.dtype)
    for p in range(2, order + 1):
        earlier, current = products[p - 2, ..., : window - 1], products[p - 2, ..., window - 1 :]
        blocks = in_blocks(current, window - p + 1, earlier)
        none = np.zeros((), u.dtype)
        sums = [older + newer for older, newer in sliding_aggregate(blocks, lambda x: x, add, none)]
        terms[p - 2] = from_blocks(np.array(sums), length)
    return terms


def elementary(u: Array, order: int, sums: Array | None) -> tuple[Array, Array]:
    """e_p(k) = e_p(k-1) + u_k e_{p-1}(k-1) of all inputs so far, and e_1 … e_order at the end.

    Accuracy: behind each monomial p - 1 products and one addition per step after its first input.
    """
    start = np.zeros((order, *u.shape[:-1]), u.dtype) if sums is None else sums
    carried = np.empty((order, *u.shape[:-1], u.shape[-1] + 1), u.dtype)
    for p in range(order):
        carried[p] = _running_sum(start[p], u if p == 0 else u * carried[p - 1, ..., :-1])
    return carried[1:, ..., 1:], carried[..., -1].copy()


def moving_elementary(u: Array, order: int, window: int, previous: Array | None) -> Array:
    """e_p of the newest `window` inputs: coefficients of Π (1 + u_j t) mod t^(order+1).

    Accuracy: behind each monomial p - 1 products and at most window + p - 2 additions.
    """
    length = u.shape[-1]
    window = _useful_window(length, order, window, previous)
    blocks = in_blocks(u, window, previous)
    terms = np.zeros((order - 1, window, *blocks.shape[1:]), u.dtype)[:, :, 1:]

    def combine(earlier: list[Any], later: list[Any]) -> list[Any]:
        return polynomials.multiply(earlier, later, order + 1)

    def lift(x: Array) -> list[Any]:
        return [1.0, x]

    pairs = sliding_aggregate(blocks, lift, combine, [1.0])
    for i, (older, newer) in enumerate(pairs):
        for p in range(2, order + 1):
            value = polynomials.coefficient(older, newer, p)
            if value is not None:
                terms[p - 2, i] = value
    return np.stack([from_blocks(t, length) for t in terms]) if order > 1 else np.empty((0, *u.shape), u.dtype)


def _extended_products(u: Array, order: int, previous: Array | None, earlier: int) -> Array:
    """Adjacent products at the newest `earlier` previous inputs and at u, zeros before all of them."""
    known = 0 if previous is None else min(previous.shape[-1], earlier)
    extended = np.zeros((*u.shape[:-1], earlier + u.shape[-1]), u.dtype)
    extended[..., earlier:] = u
    if previous is not None:
        extended[..., earlier - known : earlier] = previous[..., previous.shape[-1] - known :]
    products = np.zeros((order - 1, *extended.shape), u.dtype)
    latest = extended
    for p in range(2, order + 1):
        products[p - 2, ..., p - 1 :] = latest[..., p - 1 :] * extended[..., : max(extended.shape[-1] - p + 1, 0)]
        latest = products[p - 2]
    return products


def _running_sum(start: Array, terms: Array) -> Array:
    """start, start + terms_0, …: one addition after the other in time order, (..., L + 1)."""
    return np.cumsum(np.concatenate([start[..., None], terms], axis=-1), axis=-1, dtype=terms.dtype)


def _useful_window(length: int, order: int, window: int, previous: Array | None) -> int:
    """The window without those steps that lie before every known input."""
    known = 0 if previous is None else previous.shape[-1]
    return max(order, min(window, length + known))
