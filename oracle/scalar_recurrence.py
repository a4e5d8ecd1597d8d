"""Recurrences of scalar modes (`diagonal` and `mimo`) with their running error bounds.

Values are computed in the dtype of the arguments; beside them runs, for each rounding model, a bound E on
the error of a backend that computes the same recurrence.  The derivation is in docs/bounds.md; the names
of the quantities are those used there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .rounding import COMPLEX_PRODUCT, INFLATION, RoundingModel

Array = npt.NDArray[Any]

_CHUNK_ELEMENTS = 1 << 15  # states per chunk of time steps: small enough to stay in cache


@dataclass(frozen=True)
class Drive:
    """What enters a recurrence at every step.

    Attributes:
        value: exact drive w = B̄ u (L, …, M) in the working dtype of the reference.
        error: for each model, |computed w − w| (K, L, …, M).
    """

    value: Array
    error: Array


def units(models: Sequence[RoundingModel], ndim: int) -> tuple[Array, Array]:
    """(u, tiny) of each model as arrays (K, 1, …, 1) with `ndim` trailing ones."""
    shape = (len(models),) + (1,) * ndim
    return (
        np.array([m.unit for m in models]).reshape(shape),
        np.array([m.tiny for m in models]).reshape(shape),
    )


def constants(models: Sequence[RoundingModel], ndim: int) -> tuple[Array, Array]:
    """(κ, α) of each model, `product` and `addend`, in the same shape."""
    shape = (len(models),) + (1,) * ndim
    return (
        np.array([m.product for m in models]).reshape(shape),
        np.array([m.addend for m in models]).reshape(shape),
    )


def conversions(models: Sequence[RoundingModel], ndim: int) -> Array:
    """c of each model, `conversion`, in the same shape."""
    return np.array([m.conversion for m in models]).reshape((len(models),) + (1,) * ndim)


def chunks(length: int, elements: int) -> Iterator[slice]:
    """Consecutive slices of the time axis such that a chunk of states fits into the cache."""
    size = max(1, _CHUNK_ELEMENTS // max(1, elements))
    for start in range(0, length, size):
        yield slice(start, min(length, start + size))


def liquid_states(
    A: Array, drive: Iterator[tuple[slice, Drive]], x0: Array, models: Sequence[RoundingModel]
) -> Iterator[tuple[slice, Array, Array]]:
    """x_k = (Ā + w_k) x_{k-1} + w_k chunk by chunk: (slice, x (T, …, M), E (K, T, …, M)).

    E_k = |a_k| E_{k-1} + u[(|a_k| + |w_k|)|x_{k-1}| + κ|a_k||x_{k-1}| + (1 + α)|w_k| + |x_k|] to first
    order; the second order is in the factors below.  Where states may be scaled, E_{k-1} + 2u|x_{k-1}| takes the
    place of E_{k-1}.
    """
    x, E = x0, np.zeros((len(models), *x0.shape))
    u, tiny = units(models, x0.ndim + 1)
    kappa, addend = constants(models, x0.ndim + 1)
    converted = conversions(models, x0.ndim + 1)
    for part, w in drive:
        a = A + w.value
        states = np.empty_like(a)
        before = np.empty_like(a)
        for t in range(len(a)):
            before[t] = x
            x = a[t] * x + w.value[t]
            states[t] = x
        alpha, beta, dw = size(a), size(w.value), w.error
        da = dw + u * (alpha + dw)
        product = kappa * u * (alpha + da)
        # of second order in u, so the largest κ serves all
        gain = (1 + 2 * u) * (alpha + 2 * (da + COMPLEX_PRODUCT * u * (alpha + da))) * INFLATION
        local = (1 + 2 * u) * ((da + product) * size(before) + dw + addend * u * (beta + dw))
        local = (local + u * size(states) + 8 * tiny) * INFLATION + gain * converted * size(before)
        gain = gain * (1 + converted)
        errors = np.empty_like(local)
        for t in range(len(a)):
            E = gain[:, t] * E + local[:, t]
            errors[:, t] = E
        yield part, states, errors


def cascade_states(
    A: Array,
    drive: Iterator[tuple[slice, Drive]],
    link: Array | None,
    order: int,
    x0: Array,
    models: Sequence[RoundingModel],
) -> Iterator[tuple[slice, Array, Array]]:
    """Orders 1 … `order`: x¹_k = Ā x¹_{k-1} + w_k, xᵖ_k = Ā xᵖ_{k-1} + l_k xᵖ⁻¹_{k-1}.

    Args:
        link: l = u (L, …, 1), the chains of `kb`; None for l = w, the orders of `truncated`.
        x0: x¹_{-1} (…, M); the higher orders start at rest.
        models: states may be scaled, x^p by B̄^p, but for chains.

    Yields:
        (slice, x (order, T, …, M), E (K, order, T, …, M)).
    """
    x = np.zeros((order, *x0.shape), x0.dtype)
    x[0] = x0
    E = np.zeros((len(models), order, *x0.shape))
    u, tiny = units(models, x0.ndim + 1)
    product, addend = constants(models, x0.ndim + 1)
    converted = conversions(models if link is None else [m.unscaled for m in models], x0.ndim + 1)
    alpha = size(A)
    # ā x: error inherited, κ u from the product, which acts on |x| + 2E; the largest κ serves all
    keep = (1 + 2 * u[:, 0]) * alpha * (1 + 2 * COMPLEX_PRODUCT * u[:, 0]) * INFLATION
    for part, w in drive:
        entry, dl, kappa = (w.value, w.error, product) if link is None else (link[part], 0 * u, np.ones_like(u))
        steps = w.value.shape[0]
        states = np.empty((order, *w.value.shape), x0.dtype)
        before = np.empty_like(states)
        for t in range(steps):
            before[:, t] = x
            fed = A * x
            fed[0] += w.value[t]
            fed[1:] += entry[t] * x[:-1]
            x = fed
            states[:, t] = x
        beta, dw = size(w.value), w.error
        lam, absx = size(entry), size(before)
        rounded_link = (1 + 2 * u) * (dl + kappa * u * (lam + dl))  # on |x| + 2E of the order below
        feed = (1 + 2 * u) * (lam + 2 * (dl + COMPLEX_PRODUCT * u * (lam + dl))) * INFLATION
        local = np.empty((len(models), order, *w.value.shape))
        own = (1 + 2 * u) * product * u * alpha
        for p in range(order):
            # what may be added to before the other product is: w, the chain's real product, or either of two
            if p == 0:
                entering, held = dw, beta + dw
            else:
                entering, held = rounded_link * absx[p - 1], lam * absx[p - 1]
                if link is None:
                    held = np.maximum(held, alpha * absx[p])
            entering = (1 + 2 * u) * (entering + addend * u * held)
            local[:, p] = own * absx[p] + entering + u * size(states[p]) + 16 * tiny
        local *= INFLATION
        errors = np.empty_like(local)
        for t in range(steps):
            # the states that the step begins with, maybe scaled and scaled back
            begun = E + converted * (absx[:, t] + E)
            grown = keep[:, None] * begun + local[:, :, t]
            grown[:, 1:] += feed[:, None, t] * begun[:, :-1]
            E = grown
            errors[:, :, t] = E
        yield part, states, errors


def read_out(
    C: Array, weight: int, x: Array, E: Array, models: Sequence[RoundingModel], additions: int = 0
) -> tuple[Array, Array]:
    """y = weight · Re Σ_n C_n x_n over the last axis, and its error bound for each model.

    Args:
        x, E: states (…, M) and their errors (K, …, M).
        additions: rounded additions that formed each x before the products (orders summed first).

    Returns:
        y (…) and errors (K, …).
    """
    y = weight * (C.real * x.real - C.imag * x.imag).sum(axis=-1)
    modulus = size(C)
    u, tiny = units(models, y.ndim)
    # C B̄, which acts on scaled states, is rounded as well
    rounded = np.array([2 + m.depth(C.shape[-1]) + additions + m.scaled_states for m in models]).reshape(u.shape) * u
    inherited = (modulus * E).sum(axis=-1)
    spread = (modulus * size(x)).sum(axis=-1)
    error = weight * (inherited * (1 + 2 * rounded) + rounded * (1 + rounded) * spread) + 4 * C.shape[-1] * tiny
    return y, error * INFLATION


def size(z: Array) -> Array:
    """|z| in float64, rounded up enough to be an upper bound of the value in any working dtype."""
    return np.asarray(np.abs(z), np.float64) * INFLATION
