"""Bounds on the rounding errors of Ā and B̄ as computed from continuous parameters (docs/bounds-discretisation.md).

The parameters are floats and count as exact.  Every formula below is first order in the unit roundoff u; the
factor `_SECOND_ORDER` covers the rest inside the domain, outside of which a bound is infinite.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import numpy as np

from .realization import Array
from .rounding import COMPLEX_PRODUCT, RoundingModel

METHODS = ("euler", "bilinear", "zoh")

# Smith's complex quotient with one reciprocal: 5u from the sums, the reciprocal and the last product, √2u from
# the ratio of the parts of the denominator.
COMPLEX_QUOTIENT = 5 + sqrt(2.0)

# exp, expm1, sin and cos are within one unit in the last place, which is at most two unit roundoffs.
ELEMENTARY = 2.0

# Room for terms of second order inside the domain (docs/bounds-discretisation.md, "Hypotheses").
_SECOND_ORDER = 1 + 2.0**-6
_COARSEST = 2.0**-20
_SMALL = 2.0**-9


@dataclass(frozen=True)
class DiscretisationBounds:
    """Bounds on |computed − exact|, entry by entry; infinite outside the domain.

    Attributes:
        A: of Ā in the shape of A: (H, M), `mimo` (M,), `dense` (H, N, N); for `dplr` of Λ̄.
        B: of B̄ in the shape of B.
        P, Q: of P̄ and Q̄ (R, H, M), Ā = Λ̄ − P̄ Q̄*; None but for `dplr`.
        transition: of Ā on the full state, (H, N, N); None where it is diagonal.
    """

    A: Array
    B: Array
    P: Array | None = None
    Q: Array | None = None
    transition: Array | None = None


def discretisation_bounds(
    A: Any,
    B: Any,
    dt: Any,
    method: str,
    *,
    P: Any = None,
    conjugate_pairs: bool = True,
    model: RoundingModel | None = None,
    stored: RoundingModel | None = None,
    elementary: float = ELEMENTARY,
) -> DiscretisationBounds:
    """How far computed Ā and B̄ may be from the exact ones, for the formulas of `liquid_ssm.discretize`.

        euler:    Ā = 1 + z, B̄ = δt B,  z = δt A
        bilinear: Ā = (1 + z/2)/(1 − z/2), B̄ = δt B/(1 − z/2); A = Λ − P P* by Woodbury; full A by elimination
        zoh:      Ā = e^z, B̄ = φ₁(z) δt B with φ₁(z) = (expm1(a) cos b − 2 sin²(b/2) + i e^a sin b)/z, z = a + ib

    Args:
        A: eigenvalues (H, M), for `mimo` (M,), or full matrices (H, N, N) [1/time].
        B: (H, M), (M, H) or (H, N).
        dt: (H,), for `mimo` (M,), greater than 0 [time].
        method: `euler`, `bilinear` or `zoh` (the last one for eigenvalues only).
        P: low-rank part of A = Λ − P P*, (R, H, M).
        conjugate_pairs: one of each conjugate pair is stored; matters only with P.
        model: arithmetic of the computation; None for float64.
        stored: the precision that the results are rounded to afterwards; None for none.
        elementary: largest relative error of exp, expm1, sin and cos in units of u.

    Returns:
        DiscretisationBounds.

    Raises:
        ValueError: an unknown method, shapes that do not fit, values that are not finite, dt <= 0, `zoh` of a
            matrix or of Λ − P P*, for which no bound is derived, or a matrix with a model finer than float64.

    Accuracy: a theorem for round to nearest with gradual underflow, u ≤ 2^-20, and no overflow; `zoh` needs
        |z| u ≤ 2^-9, a full matrix a condition number with N² u κ well below 1.  Elsewhere the bound is infinite.

    References: docs/bounds-discretisation.md; Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed.,
        sections 3.6 and 9.3; Eq. 3 of arXiv 2209.12951.
    """
    A, B, dt = (_finite(name, value) for name, value in (("A", A), ("B", B), ("dt", dt)))
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; allowed: {', '.join(METHODS)}.")
    if B.ndim != 2 or dt.shape != B.shape[:1] or A.shape not in (B.shape[:1], B.shape, (*B.shape, B.shape[1])):
        raise ValueError(
            f"A has shape {A.shape}, B {B.shape}, dt {dt.shape}; they must be (H, M), (H, M) and (H,), or (H, N, N), "
            "(H, N) and (H,), or for one shared state (M,), (M, H) and (M,)."
        )
    if dt.dtype.kind == "c" or not (dt > 0).all():
        raise ValueError(f"dt is {dt}; every step size must be real and greater than 0.")
    if P is not None:
        P = _finite("P", P)
        if A.shape != B.shape or P.ndim != 3 or P.shape[1:] != B.shape:
            raise ValueError(f"P has shape {P.shape} and A {A.shape}; with B {B.shape} they must be (R, H, M), (H, M).")
    full = A.ndim == 3
    if method == "zoh" and (full or P is not None):
        raise ValueError("zoh of a matrix or of Λ − P P* has no derived bound; use euler or bilinear, or compare.")
    model = model or RoundingModel.of_dtype(np.float64)
    if (full or P is not None) and model.unit < 2.0**-53:
        raise ValueError(f"the model's unit roundoff is {model.unit}; a matrix has bounds for float64 and coarser.")
    # Outside the domain the formulas may divide by zero or overflow.
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        if full:
            bounds, values = _dense(A, B, dt, method, model)
        elif P is not None:
            bounds, values = _low_rank(A, B, dt, P, method, model, conjugate_pairs)
        else:
            bounds, values = _diagonal(A, B, dt, method, model, elementary)
        if stored is not None:
            bounds = _rounded(bounds, values, stored)
        if P is not None:
            bounds = replace(bounds, transition=_of_factors(bounds, values, conjugate_pairs))
    coarse = max(model.unit, 0.0 if stored is None else stored.unit) > _COARSEST
    finished = {
        name: np.where(np.isnan(part) | coarse, np.inf, part.astype(float) * _SECOND_ORDER)
        for name in ("A", "B", "P", "Q", "transition")
        if (part := getattr(bounds, name)) is not None
    }
    bounds = DiscretisationBounds(**finished)
    return replace(bounds, transition=bounds.A) if full else bounds


def phi1_bound(z: Any, *, unit: float = 2.0**-53, elementary: float = ELEMENTARY) -> Array:
    """Bound on |computed φ₁(z) − φ₁(z)| for an exact float z.

        u (hypot(t (|expm1(a) cos b| + 2 sin²(b/2)) + |Re(e^z − 1)|, t e^a |sin b|)/|z| + (5 + √2)|φ₁|), t = 2ε + 1

    Args:
        z: any shape, real or complex; its floats are exact.
        unit: unit roundoff u.
        elementary: ε, as in `discretisation_bounds`.

    Returns:
        Array of z's shape.  For Re z ≤ 0 it is at most (3t + 1 + 5 + √2) u |φ₁(z)|: 22.5u with ε = 2.

    Accuracy: a theorem inside the domain of `discretisation_bounds`; for |z| ≤ u the value 1 is within it as well.

    References: docs/bounds-discretisation.md, section "φ₁".
    """
    z = _wide(np.asarray(z))
    a, b = z.real, z.imag
    first, second, turn = np.expm1(a) * np.cos(b), 2 * np.sin(b / 2) ** 2, np.exp(a) * np.sin(b)
    each = 2 * elementary + 1
    numerator = np.hypot(each * (np.abs(first) + second) + np.abs(first - second), each * np.abs(turn))
    bound = _over(numerator, np.abs(z)) + COMPLEX_QUOTIENT * np.abs(_phi1(z))
    return np.asarray(unit * bound * _SECOND_ORDER, float)


def _finite(name: str, value: Any) -> Array:
    array = np.asarray(value)
    if array.dtype.kind not in "fciu" or not np.isfinite(array).all():
        raise ValueError(f"{name} has dtype {array.dtype} and may hold NaN or inf; only finite numbers are allowed.")
    return array


def _wide(array: Array) -> Array:
    """The same numbers in extended precision, in which the bound is evaluated."""
    return np.asarray(array, dtype=np.result_type(array, np.longdouble))


def _over(numerator: Array, denominator: Array) -> Array:
    """The quotient, and 0 where the denominator is 0."""
    zero = denominator == 0
    return np.asarray(np.where(zero, 0, numerator / np.where(zero, 1, denominator)))


def _phi1(z: Array) -> Array:
    a, b = z.real, z.imag
    numerator = np.expm1(a) * np.cos(b) - 2 * np.sin(b / 2) ** 2 + 1j * np.exp(a) * np.sin(b)
    return np.asarray(np.where(z == 0, 1, _over(numerator, z)))


def _rounded(bounds: DiscretisationBounds, values: dict[str, Array], stored: RoundingModel) -> DiscretisationBounds:
    """With the rounding of the results to another precision: each part of a number once."""
    rounded = {
        name: bound + stored.unit * (np.abs(values[name]) + bound) + stored.tiny
        for name in values
        if (bound := getattr(bounds, name)) is not None
    }
    return DiscretisationBounds(**rounded)


@dataclass(frozen=True)
class _HalfStep:
    """m = z/2, 1 + m and 1 − m with the relative errors (in u) of computed quotients by 1 − m."""

    m: Array
    plus: Array
    minus: Array
    # |Re(1 ± m)|: the sums 1 ± m round their real parts only
    plus_rounding: Array
    minus_rounding: Array

    @classmethod
    def of(cls, z: Array) -> _HalfStep:
        m = z / 2
        return cls(m, 1 + m, 1 - m, np.abs((1 + m).real), np.abs((1 - m).real))

    @property
    def quotient(self) -> Array:
        """|computed v/(1 − m) − v/(1 − m)| in units of u |v/(1 − m)|, for an exact v."""
        return np.asarray((np.abs(self.m) + self.minus_rounding) / np.abs(self.minus) + COMPLEX_QUOTIENT)

    def transition(self) -> Array:
        """|computed Ā − Ā| in units of u, Ā = (1 + m)/(1 − m).

        Both sums see the same rounded m, whose error δm moves the quotient by 2 δm/(1 − m)².
        """
        size = np.abs(self.minus)
        own = self.minus_rounding / size + COMPLEX_QUOTIENT
        return np.asarray(
            2 * np.abs(self.m) / size**2 + self.plus_rounding / size + own * np.abs(self.plus / self.minus)
        )

    def outside(self, unit: float) -> Array:
        """Where 1 − m is so small that its relative error is not."""
        return np.asarray(unit * self.quotient > _SMALL)


def _diagonal(
    A: Array, B: Array, dt: Array, method: str, model: RoundingModel, elementary: float
) -> tuple[DiscretisationBounds, dict[str, Array]]:
    A, B, dt = _wide(A), _wide(B), _wide(dt)
    u, tiny = model.unit, model.tiny
    shared = A.ndim == 1
    z = dt * A if shared else dt[:, None] * A
    drive = dt[:, None] * B
    size = np.abs(drive)

    def rows(factor: Array) -> Array:
        """A number per mode against the rows of B: (M,) against (M, H)."""
        return factor[:, None] if shared else factor

    if method == "euler":
        A_bar, B_bar = 1 + z, drive
        bound_A, bound_B = u * np.hypot(np.abs(z.real) + np.abs(A_bar.real), np.abs(z.imag)), u * size
        outside = np.zeros(z.shape, bool)
    elif method == "bilinear":
        half = _HalfStep.of(z)
        A_bar, B_bar = half.plus / half.minus, drive / rows(half.minus)
        bound_A, bound_B = u * half.transition(), u * rows(half.quotient + 1) * np.abs(B_bar)
        outside = half.outside(u)
    else:
        A_bar, factor = np.exp(z), _phi1(z)
        B_bar = rows(factor) * drive
        moved, phi = _moved_by_rounding(z, A_bar, factor, u), phi1_bound(z, unit=u, elementary=elementary)
        bound_A = u * (np.abs(z) + 2 * elementary + 1) * np.abs(A_bar)
        bound_B = rows(moved + phi) * size + u * (1 + COMPLEX_PRODUCT) * np.abs(B_bar)
        outside = u * np.abs(z) > _SMALL
    bound_A, bound_B = bound_A + 8 * tiny, bound_B + 8 * tiny
    bound_A[outside] = np.inf
    bound_B[np.broadcast_to(rows(outside), bound_B.shape)] = np.inf
    return DiscretisationBounds(bound_A, bound_B), {"A": A_bar, "B": B_bar}


def _moved_by_rounding(z: Array, exponential: Array, factor: Array, unit: float) -> Array:
    """|φ₁(z + δ) − φ₁(z)| for |δ| ≤ u|z|: u|e^z − φ₁(z)| and the second derivative, ∫ s² e^{sz} ds."""
    step = unit * np.abs(z)
    decay = np.maximum(-z.real, 0)
    curvature = np.minimum(1 / 3, 2 / np.maximum(decay, 1) ** 3)
    return np.asarray(unit * np.abs(exponential - factor) + step**2 / 2 * curvature * np.exp(step))


def _low_rank(
    A: Array, B: Array, dt: Array, P: Array, method: str, model: RoundingModel, pairs: bool
) -> tuple[DiscretisationBounds, dict[str, Array]]:
    """Factors of Ā = Λ̄ − P̄ Q̄* and B̄; for `bilinear` by Woodbury with the capacitance W⁻¹ = I + hG, G = P* D P."""
    u, tiny = model.unit, model.tiny
    step = dt[:, None].astype(float)
    drive = step * B
    if method == "euler":
        diagonal, values = _diagonal(A, B, dt, method, model, ELEMENTARY)
        bounds = DiscretisationBounds(diagonal.A, diagonal.B, u * np.abs(step * P) + tiny, np.zeros(P.shape))
        return bounds, {**values, "P": step * P, "Q": P}
    h, R, M = step / 2, len(P), B.shape[1]
    weight = 2 if pairs else 1
    half = _HalfStep.of(step * A)
    DP, DB, absP = P / half.minus, drive / half.minus, np.abs(P)

    def both(inner: Array) -> Array:
        return 2 * inner.real if pairs else inner

    def inner(left: Array, right: Array) -> Array:
        """Σ_m left_rm right_sm for every channel, (H, R, S)."""
        return np.asarray((left[:, None] * right[None]).sum(axis=-1).transpose(2, 0, 1))

    # A sum of M complex products in any order, fused or not: 2M real ones behind each part.
    sums = (1.0 if pairs else sqrt(2.0)) * 2 * M
    G, G_size = both(inner(P.conj(), DP)), weight * inner(absP, np.abs(DP))
    capacitance = np.eye(R) + h[..., None] * G
    mode_error = half.quotient
    G_error = weight * inner(absP, mode_error * np.abs(DP)) + sums * G_size
    # G's error, the product by h, the sum with 1 on the diagonal, and the backward error of the solve.
    K_error = h[..., None] * (G_error + np.abs(G)) + np.eye(R) * np.abs(capacitance)
    size_DP, size_DB = np.abs(DP), np.abs(DB)
    X, X_error = np.empty(DP.shape, complex), np.empty(DP.shape)
    for c in range(B.shape[0]):
        K, right = capacitance[c].T, DP[:, c]
        X[:, c] = _solve(K, right)
        wrong = u * (K_error[c].T + _solve_error(K, u, complex_steps=np.iscomplexobj(DP)))
        X_error[:, c] = _solution_error(K, wrong, u * mode_error[c] * size_DP[:, c] + 4 * tiny, np.abs(X[:, c]))
    P_bar = 2 * h * X
    P_error = 2 * h * X_error + u * np.abs(P_bar) + tiny
    # B̄ = DB − h Σ_r X_r s_r with s_r = P_r* DB
    s = both((P.conj() * DB).sum(axis=-1))[..., None]
    s_size = weight * (absP * size_DB).sum(axis=-1)[..., None]
    s_error = u * (weight * (absP * (mode_error + 1) * size_DB).sum(axis=-1)[..., None] + sums * s_size)
    X_size = np.abs(X) + X_error
    products = (X_size * np.abs(s)).sum(axis=0)
    rounded = (X_error * np.abs(s) + X_size * s_error).sum(axis=0) + u * (2 * sqrt(2.0) * R + 1) * products
    B_bar = DB - h * (X * s).sum(axis=0)
    B_error = u * (mode_error + 1) * size_DB + h * rounded + u * np.abs(B_bar) + 8 * (M + R) * tiny
    Lambda_bar = half.plus / half.minus
    bounds = DiscretisationBounds(
        u * half.transition() + 8 * tiny, B_error, P_error, u * mode_error * size_DP + 8 * tiny
    )
    outside = half.outside(u)
    for part in (bounds.A, bounds.B, bounds.P, bounds.Q):
        assert part is not None
        part[..., outside.any(axis=-1), :] = np.inf
    return bounds, {"A": Lambda_bar, "B": B_bar, "P": P_bar, "Q": P / half.minus.conj()}


def _of_factors(bounds: DiscretisationBounds, values: dict[str, Array], pairs: bool) -> Array:
    """Bound on Ā = diag(Λ̄) − Σ_r P̄_r Q̄_r* on the full state from those on its factors."""

    def both(v: Any) -> Array:
        v = np.asarray(v)
        return np.concatenate([v, v], axis=-1) if pairs else v

    assert bounds.P is not None
    assert bounds.Q is not None
    E_P, E_Q, size_P, size_Q = both(bounds.P), both(bounds.Q), both(np.abs(values["P"])), both(np.abs(values["Q"]))
    outer = E_P[..., :, None] * (size_Q + E_Q)[..., None, :] + size_P[..., :, None] * E_Q[..., None, :]
    diagonal = both(bounds.A)
    return np.asarray(outer.sum(axis=0) + diagonal[..., None] * np.eye(diagonal.shape[-1]))


def _dense(
    A: Array, B: Array, dt: Array, method: str, model: RoundingModel
) -> tuple[DiscretisationBounds, dict[str, Array]]:
    u, tiny, N = model.unit, model.tiny, B.shape[1]
    z, drive = dt[:, None, None].astype(float) * A, dt[:, None].astype(float) * B
    unit = np.eye(N)
    if method == "euler":
        bounds = DiscretisationBounds(
            u * (np.abs(z) + unit * np.abs((1 + z).real)) + 2 * tiny, u * np.abs(drive) + 2 * tiny
        )
        return bounds, {"A": unit + z, "B": drive}
    m = z / 2
    S = unit - m
    A_bar, B_bar = np.empty(z.shape, z.dtype), np.empty(drive.shape, np.result_type(z, drive))
    A_error, B_error = np.empty(z.shape), np.empty(drive.shape)
    for c in range(len(S)):
        solved = _solve(S[c], np.concatenate([unit + m[c], drive[c][:, None]], axis=1))
        A_bar[c], B_bar[c] = solved[:, :-1] if np.iscomplexobj(z) else solved[:, :-1].real, solved[:, -1]
        sizes = np.abs(solved)
        diagonal = np.abs(np.diagonal(S[c]).real)
        # δm enters both sides: S⁻¹ δm (I + Ā).  B̄ sees it on the left only.
        right = np.abs(m[c]) @ np.concatenate([np.abs(unit + A_bar[c]), np.abs(B_bar[c])[:, None]], axis=1)
        right += diagonal[:, None] * sizes
        right[:, :-1] += unit * np.abs((unit + m[c]).real)
        right[:, -1] += np.abs(drive[c])
        wrong = u * _solve_error(S[c], u, complex_steps=np.iscomplexobj(solved))
        error = _solution_error(S[c], wrong, u * right + 4 * tiny, sizes)
        A_error[c], B_error[c] = error[:, :-1] + tiny, error[:, -1] + tiny
    return DiscretisationBounds(A_error, B_error), {"A": A_bar, "B": B_bar}


def _solve(K: Array, right: Array) -> Array:
    """K⁻¹ b in float64; 0, which no bound is read from, where K is singular."""
    try:
        return np.asarray(np.linalg.solve(K, right))
    except np.linalg.LinAlgError:
        return np.zeros(right.shape, np.result_type(K, right))


def _solution_error(K: Array, K_error: Array, right_error: Array, size: Array) -> Array:
    """Bound on |x̂ − x| where (K + ΔK) x̂ = b + Δb: x̂ − x = K⁻¹(Δb − ΔK x̂), column by column.

    Args:
        K_error, right_error: bounds on |ΔK| and |Δb|, not below what float64 does to this system.
        size: |x| as computed in float64.
    """
    try:
        approximate = np.linalg.inv(K)
    except np.linalg.LinAlgError:
        return np.full(size.shape, np.inf)
    inverse = np.abs(approximate)
    # K⁻¹ = (I − R)⁻¹ X for the computed inverse X with the residual R = I − X K.
    residual = _norm(np.abs(np.eye(len(K)) - approximate @ K))
    residual += 2 * len(K) * 2.0**-52 * _norm(inverse @ np.abs(K))
    inverse = inverse + 2 * residual * inverse.max(axis=0, initial=0)
    spread = inverse @ K_error
    growth = _norm(spread)
    if not (growth <= _SMALL and residual <= _SMALL):
        return np.full(size.shape, np.inf)
    size = size + 2 * growth * size.max(axis=0, initial=0)
    first = inverse @ (right_error + K_error @ size)
    # |x̂ − x| ≤ first + spread |x̂ − x|
    return np.asarray(first + (1 + 2 * growth) * growth * first.max(axis=0, initial=0))


def _solve_error(K: Array, unit: float, *, complex_steps: bool) -> Array:
    """Backward error, in units of u, of solving K x = b by elimination with partial pivoting.

    |ΔK| ≤ c |L̂||Û| (Higham, Theorem 9.4), c = 3N + 2 for real numbers.  A complex inner product of N − 1 terms and
    the number it is subtracted from cost √2(2N − 1), a quotient, perhaps by way of the reciprocal, less than 9.
    |L̂||Û| is taken from an elimination of K where rounding cannot change the choice of pivots or move the factors
    much, else from the growth that partial pivoting guarantees.
    """
    N = len(K)
    real, complex_ = (2.0, 9.0) if N < 2 else (3 * N + 2.0, 3 * sqrt(2.0) * (2 * N - 1) + 18)
    count = complex_ if complex_steps else real
    # LAPACK compares |Re| + |Im|, so a complex multiplier may be as large as √2.
    largest = sqrt(2.0) if np.iscomplexobj(K) or complex_steps else 1.0
    guaranteed = np.full((N, N), count * N * largest * (1 + largest) ** (N - 1) * np.abs(K).max(initial=0))
    U, L, order = np.array(K), np.eye(N, dtype=K.dtype), np.arange(N)
    for j in range(N - 1):
        candidates = np.abs(U[j:, j].real) + np.abs(U[j:, j].imag)
        pivot = j + int(np.argmax(candidates))
        rivals = np.delete(candidates, pivot - j)
        if not candidates.max() - rivals.max() > 4 * unit * count * np.abs(K).max() * (1 + largest) ** j * N:
            return guaranteed
        U[[j, pivot]], order[[j, pivot]] = U[[pivot, j]], order[[pivot, j]]
        L[[j, pivot], :j] = L[[pivot, j], :j]
        L[j + 1 :, j] = U[j + 1 :, j] / U[j, j]
        U[j + 1 :] = U[j + 1 :] - L[j + 1 :, j, None] * U[j]
        U[j + 1 :, j] = 0
    if not np.abs(np.diagonal(U)).min(initial=1) > 0:
        return guaranteed
    # Rounding moves the factors to L (I + S), (I + T) U with |S|, |T| ≤ c u |L⁻¹||L| |U||U⁻¹|.
    sizes_L, sizes_U = np.abs(L), np.abs(U)
    moved = count * unit * _norm(np.abs(np.linalg.inv(L)) @ sizes_L) * _norm(sizes_U @ np.abs(np.linalg.inv(U)))
    if not moved <= _SMALL:
        return guaranteed
    product = np.empty((N, N))
    extra = 3 * moved * np.outer(sizes_L.sum(axis=1), sizes_U.max(axis=0, initial=0))
    product[order] = sizes_L @ sizes_U + extra
    return np.asarray(np.minimum(count * product, guaranteed))


def _norm(sizes: Array) -> float:
    """The largest row sum."""
    return float(sizes.sum(axis=1).max(initial=0))
