"""Sums and polynomials of inputs in other brackets than those of time, with their errors (docs/bounds.md).

The same as `correlation` where a model runs them in the order of time; see `RoundingModel.correlations`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import correlation, scan_bounds
from .correlation import count
from .rounding import INFLATION, RoundingModel

Array = npt.NDArray[Any]


def running_sums(
    terms: list[Array], errors: list[Array], models: Sequence[RoundingModel]
) -> tuple[list[Array], list[Array]]:
    """Sums up to k of every term."""
    return scan_bounds.running_sums(terms, errors, [model.for_correlations for model in models])


def elementary(u: Array, order: int, models: Sequence[RoundingModel]) -> tuple[list[Array], list[Array]]:
    """e_1 … e_order of the inputs so far."""
    values, errors = scan_bounds.elementary(u, order, [model.for_correlations for model in models])
    for i, model in enumerate(models):
        if model.correlations == "any":
            for p, found in enumerate(_by_polynomials(np.asarray(u, float), values, order, model)):
                errors[p][i] = np.maximum(errors[p][i], found)
    return values, errors


def windowed_elementary(
    u: Array, order: int, window: int, models: Sequence[RoundingModel]
) -> tuple[list[Array], list[Array]]:
    """e_1 … e_order of the newest `window` inputs."""
    values, errors = correlation.windowed_elementary(u, order, window, models)
    for i, model in enumerate(models):
        if model.correlations == "any":
            for p in range(1, order + 1):
                sequential, wanted = (
                    float(count(window + n, np.array(model.unit))) for n in (2 * p + 2, max(2 * p + 2, _merging(p)))
                )
                errors[p - 1][i] *= wanted / sequential if wanted > sequential else 1.0
    return values, errors


def _merging(p: int) -> int:
    """Roundings of a term of order p beside one addition for every input that is not in it.

    p - 1 products, and p(p + 1)/2 - 1 additions where two of its factors meet: up to m in a coefficient of order m.
    """
    return p * (p + 1) // 2 + p - 2


def _by_polynomials(u: Array, values: list[Array], order: int, model: RoundingModel) -> list[Array]:
    """Errors of the coefficients of Π (1 + u_j t), multiplied in any brackets in blocks, block after block.

    With e(b) the coefficients before a block, off by ε, and q, Q those of its inputs so far and of their moduli,

        error of e_p = Σ_i ε_i |q_{p-i}| + γ_n Σ_i (|e_i(b)| + ε_i) Q_{p-i},  n = T + p(p + 1)/2 + 2p.
    """
    length = u.shape[-1]
    block = max(1, model.correlation_chunk or length)
    found = [np.zeros(u.shape) for _ in range(order)]
    one, none = np.ones(u.shape[:-1]), np.zeros(u.shape[:-1])
    before, wrong = [one, *[none] * order], [none] * (order + 1)
    unit = np.array(model.unit)
    for start in range(0, length, block):
        part = slice(start, min(length, start + block))
        inputs = u[..., part]
        q, Q = (
            [np.ones(inputs.shape), *(np.abs(v) for v in correlation.elementary(inputs_of, order, ())[0])]
            for inputs_of in (inputs, np.abs(inputs))
        )
        sizes = [b + w for b, w in zip(before, wrong, strict=True)]
        # what an underflow may be multiplied by
        largest = (1 + np.max(Q, axis=0)) * (1 + np.max(sizes, axis=0))[..., None]
        for p in range(1, order + 1):
            carried = sum((wrong[i][..., None] * q[p - i] for i in range(p + 1)), np.zeros(inputs.shape))
            moduli = sum((sizes[i][..., None] * Q[p - i] for i in range(p + 1)), np.zeros(inputs.shape))
            gamma = count(block + _merging(p) + p + 2, unit)
            lost = 8 * block * (p + 1) ** 2 * model.tiny * largest
            found[p - 1][..., part] = (carried * (1 + length * 2.0**-50) + gamma * moduli + lost) * INFLATION**4
        before = [one, *(np.abs(np.asarray(v[..., part.stop - 1], float)) * INFLATION for v in values)]
        wrong = [none, *(error[..., part.stop - 1] for error in found)]
    return found
