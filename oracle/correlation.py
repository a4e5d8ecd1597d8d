"""Products and sums of inputs (Eq. 13 to 15) with their error bounds.

Arrays run over time on the last axis; errors carry the models on the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .rounding import INFLATION, RoundingModel
from .scalar_recurrence import units

Array = npt.NDArray[Any]
Elements = tuple[Array, ...]


def adjacent_products(u: Array, order: int, models: Sequence[RoundingModel]) -> tuple[list[Array], list[Array]]:
    """c_p(k) = u_k u_{k-1} … u_{k-p+1}, p = 1 … order; p − 1 rounded products each."""
    unit, tiny = units(models, u.ndim)
    values, errors = [u], [np.zeros((len(models), *u.shape))]
    for p in range(2, order + 1):
        values.append(values[-1] * shifted(u, p - 1))
        relative = (p - 1) * unit * (1 + p * unit)
        largest = np.maximum(1.0, np.abs(u).max(initial=0.0)) ** order  # what an underflow may be multiplied by
        errors.append((relative * _size(values[-1]) + p * tiny * float(largest)) * INFLATION)
    return values, errors


def running_sums(
    terms: list[Array], errors: list[Array], models: Sequence[RoundingModel]
) -> tuple[list[Array], list[Array]]:
    """Sums up to k of every term, added in the order of time."""
    unit, _ = units(models, terms[0].ndim)
    growth = np.exp(3 * unit * terms[0].shape[-1])
    sums = [np.cumsum(term, axis=-1) for term in terms]
    bounds = [
        np.cumsum(error + 2 * unit * _size(total), axis=-1) * growth * INFLATION
        for error, total in zip(errors, sums, strict=True)
    ]
    return sums, bounds


def elementary(u: Array, order: int, models: Sequence[RoundingModel]) -> tuple[list[Array], list[Array]]:
    """e_p(k) = e_p(k-1) + u_k e_{p-1}(k-1), p = 1 … order (Appendix E)."""
    unit, tiny = units(models, u.ndim)
    growth = np.exp(3 * unit * u.shape[-1])
    size = _size(u)
    value, error = np.ones_like(u), np.zeros((len(models), *u.shape))
    values, errors = [], []
    for p in range(1, order + 1):
        below = value if p == 1 else shifted(value, 1)
        below_error = error if p == 1 else shifted(error, 1)
        value = np.cumsum(u * below, axis=-1)
        entering = size * (below_error * (1 + 3 * unit) + unit * _size(below)) if p > 1 else 0 * unit
        error = np.cumsum(entering + 2 * unit * _size(value) + 2 * tiny, axis=-1) * growth * INFLATION
        values.append(value)
        errors.append(error)
    return values, errors


def windowed_elementary(
    u: Array, order: int, window: int, models: Sequence[RoundingModel]
) -> tuple[list[Array], list[Array]]:
    """e_p of the newest `window` inputs, p = 1 … order.

    Every scheme that only multiplies and adds passes a term through at most window + 2p + 2 roundings, so
    its error is at most that many u times e_p(|u|).
    """
    unit, tiny = units(models, u.ndim)
    values = _windowed_polynomials(u, order, window)
    sizes = _windowed_polynomials(_size(u), order, window)
    errors = [
        (count(window + 2 * p + 2, unit) * size + window * 4 * tiny * (1 + size)) * INFLATION
        for p, size in enumerate(sizes, start=1)
    ]
    return values, errors


def windowed_sums(
    terms: list[Array], errors: list[Array], window: int, models: Sequence[RoundingModel]
) -> tuple[list[Array], list[Array]]:
    """Order p: the sum of its newest window − p + 1 terms, in any order of addition."""
    unit, _ = units(models, terms[0].ndim)
    sums, bounds = [], []
    for p, (term, error) in enumerate(zip(terms, errors, strict=True), start=1):
        width = window - p + 1
        sums.append(moving_sum(term, width))
        inherited = moving_sum(error, width)
        bounds.append((inherited + count(width, unit) * (moving_sum(_size(term), width) + inherited)) * INFLATION)
    return sums, bounds


def moving_sum(values: Array, width: int) -> Array:
    """Sum of the newest `width` entries on the last axis, by addition only."""
    return sliding((np.moveaxis(values, -1, 0),), width, lambda old, new: (old[0] + new[0],))


def sliding(elements: Elements, window: int, combine: Callable[[Elements, Elements], Elements]) -> Array:
    """First part of the aggregate of the newest `window` elements under an associative `combine`.

    Blocks of `window` steps: suffixes of one block joined with prefixes of the next (van Herk), so nothing
    is ever removed and nothing cancels.

    Args:
        elements: arrays with time on the FIRST axis.
        combine: (older, newer) -> joined; must accept any leading axes.

    Returns:
        Array: the first array of each aggregate, time moved to the last axis.
    """
    length = elements[0].shape[0]
    window = min(window, length)
    if length == 0:
        return np.moveaxis(elements[0], 0, -1)
    blocks = -(-length // window)

    prefix: list[Elements] = []
    padded = [_blocked(part, blocks, window) for part in elements]
    suffix: list[Elements] = [()] * window
    for t in range(window):
        current = tuple(part[t] for part in padded)
        prefix.append(combine(prefix[-1], current) if t else current)
    for t in reversed(range(window)):
        current = tuple(part[t] for part in padded)
        suffix[t] = combine(current, suffix[t + 1]) if t < window - 1 else current
    columns = []
    for t in range(window):
        newest = prefix[t]
        if t == window - 1:
            columns.append(newest[0])
            continue
        older = tuple(part[:-1] for part in suffix[t + 1])
        joined = combine(older, tuple(part[1:] for part in newest))[0]
        columns.append(np.concatenate([newest[0][:1], joined]))
    result = np.stack(columns, axis=1)  # (blocks, window, …)
    return np.moveaxis(result.reshape(blocks * window, *result.shape[2:])[:length], 0, -1)


def _blocked(part: Array, blocks: int, window: int) -> Array:
    """(window, blocks, …): the element at offset t of every block; the end is padded with zeros."""
    missing = blocks * window - part.shape[0]
    padded = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)])
    return padded.reshape(blocks, window, *part.shape[1:]).swapaxes(0, 1)


def truncated_product(p: Array, q: Array) -> Array:
    """Product of two polynomials mod t^n, coefficients on axis 0 of length n."""
    n = p.shape[0]
    result = np.zeros(np.broadcast_shapes(p.shape, q.shape), np.result_type(p, q))
    for i in range(n):
        result[i:] += p[i] * q[: n - i]
    return result


def _windowed_polynomials(u: Array, order: int, window: int) -> list[Array]:
    time_first = np.moveaxis(u, -1, 0)
    element = np.zeros((u.shape[-1], order + 1, *u.shape[:-1]), u.dtype)
    element[:, 0] = 1
    element[:, 1] = time_first

    def combine(old: Elements, new: Elements) -> Elements:
        product = truncated_product(np.moveaxis(old[0], 1, 0), np.moveaxis(new[0], 1, 0))
        return (np.moveaxis(product, 0, 1),)

    coefficients = sliding((element,), window, combine)  # (order + 1, …, L)
    return [coefficients[p] for p in range(1, order + 1)]


def shifted(values: Array, steps: int) -> Array:
    """The array delayed by `steps` on the last axis, zeros in front."""
    result = np.zeros_like(values)
    if steps < values.shape[-1]:
        result[..., steps:] = values[..., : values.shape[-1] - steps]
    return result


def count(roundings: float | Array, unit: Array) -> Array:
    """γ_n = n u / (1 − n u), the relative error that n roundings may make (Higham, Lemma 3.1)."""
    product = roundings * unit
    return np.asarray(np.where(product < 0.5, product / (1 - np.minimum(product, 0.5)), np.inf))


def _size(z: Array) -> Array:
    return np.asarray(np.abs(z), np.float64) * INFLATION
