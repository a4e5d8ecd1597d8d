"""Reference values and error bounds of the two integrators on diagonal systems (docs/bounds.md).

`bilinear-exact` is a scalar recurrence whose coefficients change with the input; `adams-bashforth` a
two-component one per mode, whose errors are carried through exact products of 2×2 matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .reference import Bound, Reference
from .rounding import COMPLEX_PRODUCT, RoundingModel
from .scalar_recurrence import read_out, units

Array = npt.NDArray[Any]

_ROOM = 1 + 2.0**-8  # second-order terms: relative errors per step are far below 2^-9 inside the domain
_BLOCK = 64
_DIVISION = 10.0  # unit roundoffs of one complex division by Smith's algorithm


def integrator_reference(
    method: str,
    Lambda: Array,
    B: Array,
    C: Array,
    dt: Array,
    u: Array,
    *,
    conjugate_pairs: bool = True,
    models: Sequence[RoundingModel] = (),
    dtype: npt.DTypeLike = np.longdouble,
) -> Reference:
    """Outputs (batch, H, L) of `bilinear-exact` or `adams-bashforth` from rest, with bounds.

    Args:
        Lambda, B, C: (H, M); dt: (H,); their floats count as exact.
        u: (batch, H, L).
        models: rounding models to bound; none finer than `dtype`.
    """
    if method not in ("bilinear-exact", "adams-bashforth"):
        raise ValueError(f"unknown integrator {method!r}; allowed: bilinear-exact, adams-bashforth")
    everything = (RoundingModel.of_dtype(dtype), *models)
    u = np.asarray(u, dtype)
    kind = np.result_type(u.dtype, np.complex64)
    lam, b, c = (np.asarray(v).astype(kind) for v in (Lambda, B, C))
    step = np.asarray(dt).astype(u.dtype)[:, None]
    w = b * np.moveaxis(u, -1, 0)[..., None]  # (L, batch, H, M)
    run = _bilinear_exact if method == "bilinear-exact" else _adams_bashforth
    states, errors = run(lam, step, w, everything)
    y, error = read_out(c, 2 if conjugate_pairs else 1, states, errors, everything)
    values, bounds = np.moveaxis(y, 0, -1), np.moveaxis(error, 1, -1) * _ROOM
    nothing = np.zeros(u.shape[:2])
    return Reference(values, bounds[0], tuple(Bound(e, nothing) for e in bounds[1:]))


def _bilinear_exact(lam: Array, dt: Array, w: Array, models: Sequence[RoundingModel]) -> tuple[Array, Array]:
    """x_k = ((1 + m) x_{k-1} + δt w)/(1 − m), m = δt/2 (λ + w): states (L, …) and E (K, L, …)."""
    h = dt / 2
    m = h * (lam + w)
    states, before = np.empty_like(w), np.empty_like(w)
    x = np.zeros(w.shape[1:], w.dtype)
    for k in range(len(w)):
        before[k] = x
        x = ((1 + m[k]) * x + dt * w[k]) / (1 - m[k])
        states[k] = x
    u, tiny = units(models, w.ndim)
    down, up = _abs(1 - m), _abs(1 + m)
    mu = h.astype(float) * (2 * _abs(lam) + 3 * _abs(w))
    gain = up / down
    relative = (mu + (2 + COMPLEX_PRODUCT) * up) / down  # of |x_{k-1}|, in units
    local = relative * _abs(before) + 3 * _abs(dt * w) / down + (mu / down + 1 + _DIVISION) * _abs(states)
    errors = np.empty((len(models), *w.shape))
    E = np.zeros((len(models), *w.shape[1:]))
    u1, tiny1 = u[:, 0], tiny[:, 0]
    for k in range(len(w)):
        # the local error acts on computed states, |x| + E
        reach = (relative[k] + (mu[k] / down[k] + 1 + _DIVISION) * gain[k]) * E
        E = (gain[k] * E + u1 * (local[k] + 2 * reach) + 32 * tiny1 * (1 + 1 / down[k])) * (1 + 2.0**-40)
        errors[:, k] = E
    return states, errors * _ROOM


def _adams_bashforth(lam: Array, dt: Array, w: Array, models: Sequence[RoundingModel]) -> tuple[Array, Array]:
    """x_k = x_{k-1} + δt (3/2 f_k − 1/2 f_{k-1}), f_k = λ x_{k-1} + w x_{k-1} + w."""
    size = len(w)
    states, before = np.empty_like(w), np.empty_like(w)
    slopes = np.empty_like(w)
    x = np.zeros(w.shape[1:], w.dtype)
    last: Array | None = None
    for k in range(size):
        before[k] = x
        f = lam * x + w[k] * x + w[k]
        x = x + dt * (f if last is None else 1.5 * f - 0.5 * last)
        last = slopes[k] = f
        states[k] = x
    u, tiny = units(models, w.ndim)
    h = dt.astype(float)
    # What one step adds to δt f and to x; the computed state may be larger than the exact one by its error,
    # which _GUESS covers and the end of this function checks.
    cap = _abs(before) + 2.0**-6 * np.maximum.accumulate(_abs(before).max(axis=-1, keepdims=True), axis=0)
    force = (_abs(lam) + _abs(w)) * cap + _abs(w)
    previous = np.concatenate([np.zeros_like(force[:1]), force[:-1]])
    local_f = u * 6 * h * force + 16 * tiny
    # 3/2 f, 1/2 f, their difference, δt times it: one rounding each; then the sum
    local_x = u * (h * (5 * force + previous) + _abs(states)) + 16 * tiny
    z = dt * (lam + w)
    M = np.zeros((*w.shape, 2, 2), complex)
    M[..., 0, 0], M[..., 0, 1] = 1 + 1.5 * z, -0.5
    M[..., 1, 0] = z
    if size:
        M[0, ..., 0, 0], M[0, ..., 0, 1] = 1 + z[0], 0
    # the new slope enters x with weight 3/2, in the first step 1
    entering = np.full((size, *(1,) * (w.ndim - 1)), 1.5)
    entering[:1] = 1.0
    local = np.stack([local_x + entering * local_f, local_f], axis=-1)  # (K, L, …, 2)
    errors = np.empty((len(models), *w.shape))
    norm = np.zeros((len(models), *w.shape[1:]))
    for start in range(0, size, _BLOCK):
        part = slice(start, min(size, start + _BLOCK))
        errors[:, part], norm = _carry(M[part], local[:, part], norm)
    errors *= _ROOM
    errors[errors > (cap - _abs(before))[None] + 2.0**-6 * _abs(states) + 2.0**40 * tiny] = np.inf
    return states, errors


def _carry(M: Array, local: Array, norm: Array) -> tuple[Array, Array]:
    """Errors of x inside one block, and the norm of (e, δt φ) at its end, from 2×2 transitions (T, …, 2, 2)."""
    steps = len(M)
    products = np.broadcast_to(np.eye(2, dtype=complex), M.shape).copy()
    E = np.zeros(local.shape)
    first_rows = np.empty((steps, *M.shape[1:-2]))
    end = 1.0
    for d in range(steps):
        live = products[d:]
        E[:, d:] += (np.abs(live) @ local[:, : steps - d, ..., None])[..., 0]
        live = live @ M[: steps - d]
        products[d:] = live
        first_rows[d] = np.linalg.norm(live[0][..., 0, :], axis=-1)
        if d == steps - 1:
            end = np.linalg.norm(live[0], axis=(-2, -1))
    after = np.linalg.norm(E[:, -1], axis=-1) + end * norm
    return E[..., 0] + first_rows * norm[:, None], after


def _abs(z: Array) -> Array:
    return np.asarray(np.abs(z), float) * (1 + 2.0**-40)
