"""`kb` over adjacent index tuples as one recurrence, x_k = Ā x_{k-1} + Σ_p B̄^{∘p} c_p(k) (docs/bounds.md).

By linearity its outputs are the sum over p of those of one recurrence per order (Eq. 14, adjacent tuples).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .correlation import count
from .rounding import COMPLEX_PRODUCT, INFLATION, RoundingModel
from .scalar_recurrence import Drive, chunks, size, units

Array = npt.NDArray[Any]

# Structures for which the bound is derived.
STRUCTURES = ("diagonal", "dplr")


def joint_drives(
    B: Array, terms: Sequence[Array], errors: Sequence[Array], models: Sequence[RoundingModel], elements: int
) -> Iterator[tuple[slice, Drive]]:
    """The drives of consecutive steps.

    Args:
        elements: of a state.
        others: as in `joint_drive`.
    """
    for part in chunks(terms[0].shape[-1], elements):
        yield part, joint_drive(B, terms, errors, models, part)


def joint_drive(
    B: Array, terms: Sequence[Array], errors: Sequence[Array], models: Sequence[RoundingModel], part: slice
) -> Drive:
    """d_k = Σ_p B̄^{∘p} c_p(k), p = 1 … P, and how far a computed one may be from it, for some steps.

        |d̂ − d| ≤ γ_P Σ_p |b̂_p||ĉ_p| + Σ_p (|b̂_p − b̄^p||ĉ_p| + |b̄|^p|ĉ_p − c_p|)

    Args:
        B: (H, M) in the working dtype of the reference.
        terms, errors: c_p (batch, H, L) and, for each model, the errors of the computed ones (K, batch, H, L).
        models: powers are rounded to `unit`, sums to `state_unit` where that is finer.
    """
    order = len(terms)
    inner = [model.in_states for model in models]
    power, value = np.ones_like(B), np.zeros(1, B.dtype)
    spread, wrong = np.zeros(1), np.zeros(1)
    for p, (term, error) in enumerate(zip(terms, errors, strict=True), start=1):
        power = power * B if p > 1 else B
        c = np.moveaxis(term[..., part], -1, 0)[..., None]  # (T, batch, H, 1)
        dc = np.moveaxis(error[..., part], -1, 1)[..., None]  # (K, T, batch, H, 1)
        unit, tiny = units(models, c.ndim)
        relative = count(np.array((p - 1) * COMPLEX_PRODUCT), unit)
        beta, computed = size(power), size(c) + dc
        value = value + power * c
        # A power that underflows is off by more than its share.
        wrong = wrong + beta * (relative * computed + dc) + (p - 1) * tiny * computed
        spread = spread + beta * (1 + relative) * computed
    fine, tiny = units(inner, value.ndim)
    total = count(np.array(order), fine) * spread + wrong + 2 * order * tiny
    return Drive(value, np.asarray(total * INFLATION**8, float))
