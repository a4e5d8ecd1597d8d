"""Errors of gradients of a diagonal kernel that are computed as explicit sums over its entries.

With K_l = weight · Re Σ_n C_n B̄_n^p ā_n^l and a real cotangent g the gradients of Σ_l g_l K_l are

    ∂C = w Σ_l g_l conj(B̄^p ā^l),  ∂B̄ = w Σ_l g_l conj(p B̄^{p-1} C ā^l),  ∂Ā = w Σ_l g_l conj(l C B̄^p ā^{l-1}).

Derivation: docs/bounds-gradients.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .correlation import count
from .exponential_powers import EXP_ULPS, LOG_ULPS
from .kernel_error import kernel_unit
from .realization import Realization
from .rounding import COMPLEX_PRODUCT, INFLATION, RoundingModel

Array = npt.NDArray[Any]

# A complex quotient by Smith's algorithm, by which ā^{l-1} may come from ā^l.
_DIVISION = 10.0


def kernel_gradients(realization: Realization, grad: Array, power: int = 1) -> dict[str, Array]:
    """Gradients of Σ_l grad_l K_l with respect to `A`, `B` and `C`, (H, M), in NumPy's longdouble.

    Args:
        realization: `diagonal`.
        grad: real, (H, length).
        power: p, of B̄.
    """
    r = realization
    a, b, c = (v.astype(np.clongdouble) for v in (r.A, r.B, r.C))
    length = grad.shape[-1]
    powers = np.ones((length, *a.shape), np.clongdouble)
    for i in range(1, length):
        powers[i] = powers[i - 1] * a
    g = r.weight * grad.T[..., None].astype(np.longdouble)  # (length, H, 1)
    whole = (g * powers).sum(axis=0)
    steps = np.arange(1, max(1, length))[:, None, None]
    slope = (g[1:] * steps * powers[:-1]).sum(axis=0) if length > 1 else np.zeros_like(a)
    found = {"A": c * b**power * slope, "B": power * b ** (power - 1) * c * whole, "C": b**power * whole}
    return {name: np.conj(value) for name, value in found.items()}


def kernel_gradient_bounds(
    realization: Realization,
    grad: Array,
    power: int,
    model: RoundingModel,
    *,
    grad_error: Array | None = None,
    log_ulps: float = LOG_ULPS,
    exp_ulps: float = EXP_ULPS,
    reduction: float = 0.0,
) -> dict[str, Array]:
    """How far computed gradients of Σ_l grad_l K_l may be from the exact ones, `A`, `B` and `C`, float64 (H, M).

    Args:
        realization: `diagonal`; its floats count as exact.
        grad: exact cotangent of the kernel, (H, length), real.
        power: p, of B̄.
        model: `powers` says whether ā^l are products or exponentials, `kernel_unit` in which precision all is computed
            before the gradients are rounded to the working one.
        grad_error: 2-norm over l of the computed cotangent's error, (H,); None for an exact one.
        log_ulps, exp_ulps, reduction: as in `exponential_powers.from_exponentials`.

    Returns:
        Infinity where the count of roundings reaches 1/(2u).
    """
    r = realization
    if r.structure != "diagonal":
        raise ValueError(f"gradients of kernels are bounded for diagonal realizations, not for {r.structure!r}")
    unit, length = kernel_unit(r, model), grad.shape[-1]
    alpha, beta, gamma = (np.abs(v).astype(float) for v in (r.A, r.B, r.C))
    g = np.abs(grad).astype(float).T[..., None]  # (length, H, 1)
    wrong = np.zeros(len(alpha)) if grad_error is None else np.asarray(grad_error, float)
    steps = np.arange(length, dtype=float)[:, None, None]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        powers = alpha**steps
        sizes = {
            "A": gamma * beta**power * steps * alpha ** np.maximum(steps - 1, 0),
            "B": power * beta ** (power - 1) * gamma * powers,
            "C": beta**power * powers,
        }
        relative = _roundings(r, length, power, model, log_ulps, exp_ulps, reduction)
        exact = kernel_gradients(r, grad, power)
        # what an underflow may be multiplied by
        largest = np.maximum(1, alpha) ** length * np.maximum(1, beta) ** power * np.maximum(1, gamma) * max(1, length)
        lost = 8 * r.weight * (length + power) * model.tiny * largest * (1 + g.sum(axis=0) + wrong[:, None])
        bounds = {}
        for name, size in sizes.items():
            term = r.weight * size * (1 + (length + 16) * 2.0**-50)
            off = count(relative + (3 + _DIVISION if name == "A" else 0.0), np.array(unit))
            own = (g * off * term).sum(axis=0)
            # by Cauchy's inequality for the sum over l
            inherited = wrong[:, None] * _norm((1 + off) * term)
            sizes_sum = (g * term).sum(axis=0) + inherited
            bounds[name] = _rounded(own + inherited, np.abs(exact[name]).astype(float), sizes_sum, power, model, unit)
            bounds[name] = np.where(np.isnan(bounds[name]), np.inf, bounds[name] + lost)
    return bounds


def _roundings(
    r: Realization, length: int, power: int, model: RoundingModel, log_ulps: float, exp_ulps: float, reduction: float
) -> Array:
    """Units that a term of the sums over l passes, (length, H, M) or (length, 1, 1)."""
    steps = np.arange(length, dtype=float)[:, None, None]
    # p - 1 products for a power of B̄, one each by C and ā^l, two by the real numbers g and p; a sum over l in any order
    fixed = COMPLEX_PRODUCT * (power + 1) + 2 + 2 * length
    if model.powers == "products":
        # tables backwards: the derivative of ā^l is a sum of l equal terms
        return np.asarray(fixed + (COMPLEX_PRODUCT + 2) * steps)
    a = r.A.astype(complex)
    # a mode with ā = 0 has no logarithm; its powers must be 1 and 0, 0, …, however that is arranged
    zero = a == 0
    size_log = np.where(zero, 0.0, np.hypot(np.log(np.where(zero, 1.0, np.abs(a))), np.angle(a)) + 2.0**-51)
    per_step = 2 * log_ulps + 1 + reduction + (1 if length * kernel_unit(r, model) > 0.5 else 0)
    return np.asarray(fixed + 4 * exp_ulps + 1 + per_step * steps * size_log)


def _rounded(bound: Array, exact: Array, sizes: Array, power: int, model: RoundingModel, unit: float) -> Array:
    """With one rounding to the working precision where that is coarser; powers of B̄ are kept in it as well."""
    if not unit < model.unit:
        return bound * INFLATION**4
    if power > 1:
        bound = bound + count(2 * power * COMPLEX_PRODUCT + 1, np.array(model.unit)) * (sizes + bound)
    return np.asarray((bound + model.unit * (exact + bound)) * INFLATION**4)


def _norm(values: Array) -> Array:
    """2-norm over the first axis, rounded up; infinite where an entry is."""
    largest = values.max(axis=0, initial=0.0)
    scale = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
    return np.asarray(np.sqrt(((values / scale) ** 2).sum(axis=0)) * scale * INFLATION)
