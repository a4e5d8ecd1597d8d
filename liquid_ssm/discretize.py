"""From a continuous system to a discrete one: Euler, bilinear, and zero-order hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .errors import ParameterError, unknown_name
from .systems import Array, DenseSystem, DiagonalSystem, DPLRSystem, MIMOSystem, System

if TYPE_CHECKING:
    from .continuous import ContinuousSystem
    from .integrators import AdamsBashforth, BilinearExact

DISCRETIZATIONS = ("euler", "bilinear", "zoh", "adams-bashforth", "bilinear-exact")


def discretize(continuous: ContinuousSystem, method: str = "bilinear") -> System | AdamsBashforth | BilinearExact:
    """The discrete system, or the integrator, that a method makes of a continuous system.

    With z = δt A:

    * `euler`: Ā = I + z, B̄ = δt B.  Order 1.
    * `bilinear`: Ā = (I − z/2)⁻¹(I + z/2), B̄ = (I − z/2)⁻¹ δt B (Eq. 3).  Order 2.
    * `zoh`: Ā = e^z, B̄ = φ₁(z) δt B, exact for an input held over each step.
    * `adams-bashforth`, `bilinear-exact`: integrators of the liquid system, see `liquid_ssm.integrators`.

    Euler and bilinear keep the structure.  `zoh` of a `dplr` system is a `DenseSystem` on the full state
    [x; conj x], N × N per channel: the exponential of Λ − P P* is not diagonal plus low rank.  The liquid
    term acts elementwise on both halves alike, so outputs are those of the stored half.

    Args:
        continuous: the system.
        method: one of `DISCRETIZATIONS`.

    Returns:
        DiagonalSystem, DPLRSystem, MIMOSystem or DenseSystem in double precision, or an integrator.

    Raises:
        ParameterError: an unknown method, or a result that is not finite.

    Accuracy: to first order in u = 2⁻⁵³, against the exact value for the stored floats λ, B, P, δt, with exp,
        expm1, sin and cos within 2u (1 ulp).  docs/bounds-discretisation.md derives the bounds, and
        `liquid_ssm.oracle.discretisation_rounding` evaluates sharper ones for the parameters at hand.

        * `euler`: |ΔĀ| ≤ u(1 + 2|z|), |ΔB̄| ≤ u|B̄|; `dplr` factors: u relative, each entry.
        * `bilinear`, diagonal: |ΔĀ| ≤ 9.5u, |ΔB̄| ≤ 9.5u|B̄|.
        * `zoh`, diagonal: |ΔĀ| ≤ (|z| + 5)u|Ā|, |ΔB̄| ≤ |δt B|u(|e^z − φ₁| + 26|φ₁|).  The terms |z| and
          e^z − φ₁ = z φ₁' are the effect of rounding z = δt λ, the rest is `phi1` and two products.
        * `bilinear`, `dplr`: see `_bilinear_dplr`; `dense`: elimination with partial pivoting, N²·u times the
          condition number of I − z/2.
        * `zoh` of `dense` and `dplr`: scaling and squaring with a Padé approximant.  No bound is derived; N·u
          times the condition number of the exponential is what is seen.

    References: arXiv 2209.12951, Eq. 3 and Appendix D; Higham, Accuracy and Stability of Numerical Algorithms;
        Al-Mohy and Higham, SIAM J. Matrix Anal. Appl. 31 (2009) 970.
    """
    if method not in DISCRETIZATIONS:
        raise unknown_name("discretization", method, DISCRETIZATIONS)
    if method in ("adams-bashforth", "bilinear-exact"):
        from .integrators import AdamsBashforth, BilinearExact

        return AdamsBashforth(continuous) if method == "adams-bashforth" else BilinearExact(continuous)
    # Overflow of a parameter becomes inf here, and the system's constructor reports it.
    with np.errstate(over="ignore", invalid="ignore"):
        if continuous.Lambda is None or (continuous.P is not None and method == "zoh"):
            return _dense(continuous, method)
        if continuous.P is not None:
            build = _euler_dplr if method == "euler" else _bilinear_dplr
            return build(continuous, continuous.Lambda, continuous.P)
        return _diagonal(continuous, continuous.Lambda, method)


def phi1(z: Array) -> Array:
    """φ₁(z) = (e^z − 1)/z, with φ₁(0) = 1, elementwise and without cancellation.

    For z = a + ib the numerator is expm1(a) cos b − 2 sin²(b/2) + i e^a sin b.

    Args:
        z: real or complex array, Re z ≤ 0.

    Returns:
        Array of the same shape, float64 or complex128.

    Accuracy: |error| ≤ 22.5u|φ₁(z)| for Re z ≤ 0, u = 2⁻⁵³, elementary functions within 2u.
        Each of the three products is off by 5u.  The two terms of the real part have the same sign if
        cos b ≥ 0; else their sizes add up to at most 3 and differ by at least 1, so the real part is off
        by at most 16u.  The quotient adds 6.42u.  Where |z| ≤ u the value is 1, off by |z|/2: there the
        reciprocal of z may overflow.  Derived in docs/bounds-discretisation.md.
    """
    z = np.asarray(z)
    if z.dtype.kind != "c":
        numerator = np.expm1(z)
    else:
        a, b = z.real, z.imag
        numerator = np.empty_like(z)
        numerator.real = np.expm1(a) * np.cos(b) - 2 * np.sin(b / 2) ** 2
        numerator.imag = np.exp(a) * np.sin(b)
    near = np.abs(z) <= 2.0**-53
    return np.asarray(np.where(near, 1.0, numerator / np.where(near, 1.0, z)))


def _diagonal(continuous: ContinuousSystem, Lambda: Array, method: str) -> DiagonalSystem | MIMOSystem:
    # One step size per row of B: per channel, for `mimo` per mode.
    dt = continuous.dt[:, None]
    z = continuous.dt * Lambda if Lambda.ndim == 1 else dt * Lambda
    B = dt * continuous.B
    if method == "euler":
        A_bar, B_bar = 1 + z, B
    elif method == "bilinear":
        A_bar, B_bar = (1 + z / 2) / (1 - z / 2), B / _like_rows(1 - z / 2, B)
    else:
        A_bar, B_bar = np.exp(z), _like_rows(phi1(z), B) * B
    build = MIMOSystem if Lambda.ndim == 1 else DiagonalSystem
    return build(A_bar, B_bar, continuous.C, conjugate_pairs=continuous.conjugate_pairs)


def _like_rows(factor: Array, rows: Array) -> Array:
    """`factor` shaped to multiply `rows`: (M,) against (M, H), or (H, M) against (H, M)."""
    return factor if factor.ndim == rows.ndim else factor[:, None]


def _euler_dplr(continuous: ContinuousSystem, Lambda: Array, P: Array) -> DPLRSystem:
    dt = continuous.dt[:, None]
    return DPLRSystem(
        1 + dt * Lambda, dt * P, P, dt * continuous.B, continuous.C, conjugate_pairs=continuous.conjugate_pairs
    )


def _bilinear_dplr(continuous: ContinuousSystem, Lambda: Array, P: Array) -> DPLRSystem:
    """Ā = 2(I − hA)⁻¹ − I and B̄ = (I − hA)⁻¹ δt B for A = Λ − P P*, h = δt/2, by Woodbury.

    On the full state, with D = (I − hΛ)⁻¹, G = P* D P and W = (I + hG)⁻¹ (R × R),
    (I − hA)⁻¹ = D − h D P W P* D, hence Λ̄ = 2D − I = (1 + hΛ)/(1 − hΛ), P̄ = 2h D P W, Q̄ = D* P, and
    B̄ = δt D B − ½ P̄ (P* D δt B).

    With conjugate pairs every product P* (·) is a sum over both halves, 2 Re over the stored one, so G and W are
    real, and P̄ and Q̄ are closed under conjugation.  G is not symmetric for R > 1, but Re D > 0 makes its
    Hermitian part positive, so I + hG is never singular and ‖W‖₂ ≤ 1 for any δt.

    Accuracy: |ΔΛ̄| ≤ 9.5u and |ΔQ̄| ≤ 8.5u|Q̄|.  P̄ and B̄ inherit the errors of D P, D B and G, at most
        (2√2 M + 9)u h Σ_m |P_r||D P_s| in the entries of hG, and the backward error of the R × R solve, all of them
        through |W|.  docs/bounds-discretisation.md has the derivation.
    """
    pairs = continuous.conjugate_pairs

    def both(inner: Array) -> Array:
        return 2 * inner.real if pairs else inner

    dt = continuous.dt[:, None]
    h = dt / 2
    denominator = 1 - h * Lambda
    DP = P / denominator
    DB = dt * continuous.B / denominator
    G = both(np.einsum("rhm,shm->hrs", P.conj(), DP))
    core = np.eye(P.shape[0]) + h[..., None] * G
    # Rows are the factors, so P̄ = 2h D P W reads W transposed.
    DPW = np.linalg.solve(core.swapaxes(1, 2), DP.swapaxes(0, 1)).swapaxes(0, 1)
    P_bar = 2 * h * DPW
    B_bar = DB - h * np.einsum("rhm,rh->hm", DPW, both(np.einsum("rhm,hm->rh", P.conj(), DB)))
    return DPLRSystem(
        (1 + h * Lambda) / denominator, P_bar, P / denominator.conj(), B_bar, continuous.C, conjugate_pairs=pairs
    )


def _dense(continuous: ContinuousSystem, method: str) -> DenseSystem:
    A, B, C = continuous.full_matrices()
    z = continuous.dt[:, None, None] * A
    B = continuous.dt[:, None] * B
    if not (np.isfinite(z).all() and np.isfinite(B).all()):
        raise ParameterError("dt·A or dt·B leaves the range of float64; give smaller parameters or a smaller dt.")
    unit = np.eye(A.shape[-1])
    if method == "euler":
        return DenseSystem(unit + z, B, C)
    if method == "bilinear":
        right = np.concatenate([unit + z / 2, B[..., None]], axis=-1)
        both = np.linalg.solve(unit - z / 2, right)
    else:
        both = _exponentials(z, B)
    return DenseSystem(both[..., :-1], both[..., -1], C)


def require_accurate_exponential(size: float, n_state: int) -> None:
    """Raise a `ParameterError` where the exponential of an N × N matrix of this norm would be off by more than 2⁻²⁴.

    By the estimate 10 N (1 + ‖z‖) u (docs/bounds-discretisation.md): modes that decay fast make the others wrong.
    """
    limit = 2.0**29 / (10 * max(1, n_state))
    if size > limit:
        raise ParameterError(
            f"zoh of a full matrix: ‖dt·A‖ is {size:.3g}, and beyond {limit:.3g} float64 leaves its exponential fewer "
            "than 24 bits. Scale dt, rate or the fastest decay down, or use discretization='bilinear'."
        )


def _exponentials(z: Array, B: Array) -> Array:
    """[e^z, φ₁(z) B], (H, N, N+1): the first N rows of the exponential of [[z, B], [0, 0]]."""
    from scipy.linalg import expm

    H, N = B.shape
    require_accurate_exponential(float(np.abs(z).sum(axis=1).max(initial=0.0)), N)
    size, drive = np.abs(z).max(axis=(1, 2), initial=0.0), np.abs(B).max(axis=1, initial=0.0)
    # B enters linearly; a power of two brings it to the size of z, so that it costs no extra squarings.
    ratio = np.divide(drive, size, out=np.ones(H), where=(drive > 0) & (size > 0))
    scale = np.exp2(np.round(np.log2(ratio)))
    augmented = np.zeros((H, N + 1, N + 1), np.result_type(z, B))
    augmented[:, :N, :N] = z
    augmented[:, :N, N] = B / scale[:, None]
    both = np.asarray(expm(augmented))[:, :N]
    both[..., N] *= scale[:, None]
    return both
