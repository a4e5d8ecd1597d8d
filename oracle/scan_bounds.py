"""Error bounds of recurrences that are computed as scans: trees, chunks, or the order of time (docs/bounds.md).

A scan combines (a, w) and (a', w') to (a' a, a' w + w') in some bracketing.  Whatever the bracketing, the term
(Π a_i) w_j of x_k passes through k − j products, so errors are bounded by two recurrences in moduli.  Values and
the bounds of models that run in the order of time are those of `scalar_recurrence`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import tee
from math import ceil, log2
from typing import Any

import numpy as np
import numpy.typing as npt

from . import correlation, scalar_recurrence
from .rounding import INFLATION, RoundingModel
from .scalar_recurrence import Drive, constants, conversions, size, units

Array = npt.NDArray[Any]


def scanning(models: Sequence[RoundingModel]) -> list[int]:
    """Which models compute recurrences as scans."""
    return [i for i, model in enumerate(models) if model.scan == "any"]


def levels(length: int) -> int:
    """D: how often a partial result may be the newer of two that are combined, on its way into an output.

    Once per level of a tree over steps, ⌈log₂ L⌉, until it is part of a prefix; six more for the initial state, and
    for up to three trees inside one another (threads, blocks, grid): each joins a prefix once, and two divisions
    of L round up.  Sequential order needs 1, chunks in two passes 2.
    """
    return ceil(log2(max(1, length))) + 6


class ScanErrors:
    """E for each model, step by step, of x_k = a_k x_{k-1} + w_k in any bracketing.

    With the units of one combination, κ for the product, 1 for the sum and α for the addend,

        R_k = |a_k| R_{k-1} + |Δa_k||x_{k-1}| + |Δw_k|              what the elements bring along,
        S_k = |a_k| S_{k-1} + |w_k|,  T_k = |a_k|(T_{k-1} + S_{k-1})  terms, and terms times their products,
        E_k = R_k + u[(κ + 1) T_k + (1 + α) D S_k].

    Where a chunk begins, R starts again from E, S from |x| + E, and T from 0.  Where states may be scaled, what that
    changes is a term of its own, and E_k grows by

        V_k = g_k (V_{k-1} + 2u(|x_{k-1}| + E_{k-1})),  g_k = |a_k| e^{(κ+1)u}.

    Args:
        shape: of a state, (…, M).
        models: any number K.
        length: steps of the whole scan.
        accumulated: the newer element may itself be a product to which the older one's is added.
    """

    def __init__(
        self, shape: tuple[int, ...], models: Sequence[RoundingModel], length: int, *, accumulated: bool = False
    ) -> None:
        self.u, self.tiny = (v[:, 0] for v in units(models, len(shape) + 1))
        product, addend = (v[:, 0] for v in constants(models, len(shape) + 1))
        self.chunks = [max(1, length) if m.scan_chunk is None else m.scan_chunk for m in models]
        depth = np.array([levels(min(length, chunk)) for chunk in self.chunks]).reshape(product.shape)
        self.per_product = product + 1 + (addend if accumulated else 0.0)
        self.per_term = (1 + addend) * depth
        self.growth = np.exp(self.u * self.per_product) * INFLATION
        self.rounding = np.exp(self.u * self.per_term) * INFLATION * self.u
        self.conversion = conversions(models, len(shape))
        self.R, self.S, self.T, self.V, self.E = np.zeros((5, len(models), *shape))
        # for underflow: the largest product of newest factors, the largest S, and the steps, all in this chunk
        self.reach, self.largest, self.steps = np.ones_like(self.R), np.zeros_like(self.R), 0

    def advance(self, alpha: Array, da: Array, beta: Array, dw: Array, before: Array) -> Array:
        """E (K, T, …, M) of the next steps.

        Args:
            alpha, beta: |a| and |w|, (T, …, M).
            da, dw: by how much the computed ones may differ, (K, T, …, M).
            before: |x_{k-1}|, (T, …, M).
        """
        modulus = (alpha + da) * INFLATION
        brought = (da * before + dw) * INFLATION
        term = (beta + dw) * INFLATION
        errors = np.empty_like(term)
        with np.errstate(over="ignore", invalid="ignore"):  # an overflow becomes an infinite bound below
            for t in range(term.shape[1]):
                changed = self.conversion * (before[t] + self.E)
                self._begin_chunks(before[t])
                self.steps += 1
                self.R = modulus[:, t] * self.R + brought[:, t]
                g = modulus[:, t] * self.growth
                self.T = g * (self.T + self.S)
                self.S = g * self.S + term[:, t]
                self.V = g * (self.V + changed)
                self.reach = np.maximum(1.0, g * self.reach)
                self.largest = np.maximum(self.largest, self.S + self.V)
                lost = 4 * self.tiny * self.reach * self.steps * (1 + self.steps * self.largest)
                own = self.rounding * (self.per_product * self.T + self.per_term * self.S)
                self.E = errors[:, t] = (self.R + self.V + own + lost) * INFLATION
        errors[np.isnan(errors)] = np.inf
        return errors

    def _begin_chunks(self, before: Array) -> None:
        for i, chunk in enumerate(self.chunks):
            if self.steps % chunk == 0:
                self.R[i], self.T[i], self.V[i], self.reach[i] = self.E[i], 0, 0, 1
                self.S[i] = self.largest[i] = before + self.E[i]


def liquid_states(
    A: Array, drive: Iterator[tuple[slice, Drive]], x0: Array, models: Sequence[RoundingModel], length: int
) -> Iterator[tuple[slice, Array, Array]]:
    """`scalar_recurrence.liquid_states`, for models of both kinds; `length` is that of the whole scan."""
    scans = scanning(models)
    if not scans:
        yield from scalar_recurrence.liquid_states(A, drive, x0, models)
        return
    chosen = [models[i] for i in scans]
    u, _ = units(chosen, x0.ndim + 1)
    run = ScanErrors(x0.shape, chosen, length)
    first, second = tee(drive)
    last = x0
    pieces = scalar_recurrence.liquid_states(A, first, x0, models)
    for (part, states, errors), (_, w) in zip(pieces, second, strict=True):
        before = size(np.concatenate([last[None], states[:-1]]))
        alpha, dw = size(A + w.value), w.error[scans]
        errors[scans] = run.advance(alpha, dw + u * (alpha + dw), size(w.value), dw, before)
        last = states[-1]
        yield part, states, errors


def cascade_states(
    A: Array,
    drive: Iterator[tuple[slice, Drive]],
    link: Array | None,
    order: int,
    x0: Array,
    models: Sequence[RoundingModel],
    length: int,
) -> Iterator[tuple[slice, Array, Array]]:
    """`scalar_recurrence.cascade_states`, for models of both kinds.

    Each order is a scan of its own, driven by l_k times the computed state of the order below.
    """
    scans = scanning(models)
    if not scans:
        yield from scalar_recurrence.cascade_states(A, drive, link, order, x0, models)
        return
    chosen = [models[i] if order == 1 else models[i].unscaled for i in scans]
    u, tiny = units(chosen, x0.ndim + 1)
    kappa, _ = constants(chosen, x0.ndim + 1)
    start = np.zeros((order, *x0.shape), x0.dtype)
    start[0] = x0
    runs = [ScanErrors(x0.shape, chosen, length, accumulated=p > 0) for p in range(order)]
    last, last_E = start, np.zeros((order, len(chosen), *x0.shape))
    first, second = tee(drive)
    pieces = scalar_recurrence.cascade_states(A, first, link, order, x0, models)
    for (part, states, errors), (_, w) in zip(pieces, second, strict=True):
        before = size(np.concatenate([last[:, None], states[:, :-1]], axis=1))
        beta, dw = size(w.value), w.error[scans]
        if link is None:
            factor, off = beta, dw + kappa * u * (beta + dw)
        else:
            factor = size(link[part])
            off = u * factor
        alpha = np.broadcast_to(size(A), beta.shape)
        below = np.zeros(0)
        for p in range(order):
            if p > 0:
                # the drive l x of this order: its factor's error and its own rounding, then what x brings along
                dw = (off * before[p - 1] + (factor + off) * below) * INFLATION + 2 * tiny
                beta = factor * before[p - 1]
            E = runs[p].advance(alpha, np.zeros_like(dw), beta, dw, before[p])
            errors[scans, p] = E
            below = np.concatenate([last_E[p][:, None], E[:, :-1]], axis=1)
            last_E[p] = E[:, -1]
        last = states[:, -1]
        yield part, states, errors


def running_sums(
    terms: list[Array], errors: list[Array], models: Sequence[RoundingModel]
) -> tuple[list[Array], list[Array]]:
    """`correlation.running_sums`, for models of both kinds."""
    sums, bounds = correlation.running_sums(terms, errors, models)
    scans = scanning(models)
    for total, bound, error in zip(sums, bounds, errors, strict=True):
        bound[scans] = _sum_errors(total, error[scans], [models[i] for i in scans])
    return sums, bounds


def elementary(u: Array, order: int, models: Sequence[RoundingModel]) -> tuple[list[Array], list[Array]]:
    """`correlation.elementary`, for models of both kinds: each order is a running sum in any bracketing."""
    values, bounds = correlation.elementary(u, order, models)
    scans = scanning(models)
    chosen = [models[i] for i in scans]
    unit, tiny = units(chosen, u.ndim)
    inherited = np.zeros((len(scans), *u.shape))
    for value, bound in zip(values, bounds, strict=True):
        wrong = bound[scans] = _sum_errors(value, inherited, chosen)
        below = correlation.shifted(size(value), 1)
        wrong = correlation.shifted(wrong, 1)
        inherited = (size(u) * (wrong + unit * (below + wrong)) + tiny) * INFLATION
    return values, bounds


def _sum_errors(sums: Array, inherited: Array, models: Sequence[RoundingModel]) -> Array:
    """Errors (K, …, L) of running sums in any bracketing: k additions, each rounds a difference of two of the sums.

    E_k = Σ_{j≤k} Δ_j + 2 k u max_{j≤k} |s_j|, with Δ `inherited` by the terms.
    """
    u, _ = units(models, sums.ndim)
    steps = np.arange(sums.shape[-1])
    own = 2 * u * steps * np.maximum.accumulate(size(sums), axis=-1)
    return np.asarray((np.cumsum(inherited, axis=-1) + own) * np.exp(u * (steps + 1)) * INFLATION**2)
