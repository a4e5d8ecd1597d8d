"""HiPPO matrices and their normal-plus-low-rank form.

LegS projects the past onto Legendre polynomials, FouT onto Fourier modes; both matrices become normal when
a rank-one term is added.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import ParameterError, unknown_name

Array = npt.NDArray[Any]

MEASURES = ("legs", "fout")


class NormalPlusLowRank(NamedTuple):
    """A = V (Λ − (V* P)(V* P)*) V* with one of each conjugate pair stored.

    Attributes:
        Lambda: eigenvalues of the normal part, (M,) complex, Im ≤ 0, ascending [1/time].
        P: V* P of the low-rank part, (M,) complex.
        B: V* B, (M,) complex.
        V: the eigenvectors as columns, (N, M) complex.
    """

    Lambda: Array
    P: Array
    B: Array
    V: Array


def hippo(measure: str, n_state: int) -> tuple[Array, Array]:
    """The HiPPO matrix A (N, N) and input vector B (N,) in their own real basis.

    `legs`: A_nk = −(2n+1)^½ (2k+1)^½ below the diagonal, −(n+1) on it, 0 above; B_n = (2n+1)^½ (Eq. 7).
    `fout`: coordinates 2m and 2m+1 rotate with frequency πm; B = (1, 0, √2, 0, √2, …) and A is that
    rotation minus B Bᵀ.

    Args:
        measure: `legs` or `fout`.
        n_state: N ≥ 1; `fout` consists of pairs, so it needs an even N.

    Raises:
        ParameterError: unknown measure, N below 1, or an odd N for `fout`.

    Accuracy: each entry is within 2 ulp of its formula.

    References: arXiv 2209.12951, Eq. 7; Gu et al., arXiv 2206.12037 (FouT).
    """
    if measure not in MEASURES:
        raise unknown_name("measure", measure, MEASURES)
    if n_state < 1:
        raise ParameterError(f"n_state is {n_state}; a HiPPO matrix needs at least one state.")
    if measure == "legs":
        n = np.arange(n_state)
        B = np.sqrt(2.0 * n + 1)
        return -(np.tril(np.outer(B, B), -1) + np.diag(n + 1.0)), B
    if n_state % 2:
        raise ParameterError(f"n_state is {n_state}; fout consists of pairs and needs an even number of states.")
    rotation = np.zeros((n_state, n_state))
    even = np.arange(0, n_state, 2)
    rotation[even + 1, even] = np.pi * (even // 2)
    rotation[even, even + 1] = -rotation[even + 1, even]
    B = np.zeros(n_state)
    B[even] = np.sqrt(2.0)
    B[0] = 1.0
    return rotation - np.outer(B, B), B


def low_rank(measure: str, n_state: int) -> Array:
    """The vector P (N,) for which A + P Pᵀ is normal: (n+½)^½ for `legs`, B for `fout`.

    For `fout` it is rounded to float32 because the published initialiser does that (see `diagonalise`).
    """
    if measure not in MEASURES:
        raise unknown_name("measure", measure, MEASURES)
    if measure == "legs":
        return np.asarray(np.sqrt(np.arange(n_state) + 0.5))
    return hippo(measure, n_state)[1].astype(np.float32).astype(np.float64)


def diagonalise(measure: str, n_state: int) -> NormalPlusLowRank:
    """Diagonal-plus-low-rank form of a HiPPO matrix, A = V (Λ − (V* P)(V* P)*) V* (Eq. 8 with Q = P).

    The normal part is a multiple of the identity plus a skew-symmetric S, so Re Λ is the mean of its
    diagonal and Im Λ comes from the Hermitian eigenproblem −iS.  One of each conjugate pair is kept,
    the one with negative frequency, ascending.

    *Odd N*: `legs` has one unpaired real mode, which is dropped as the published code does; `fout` is built
    from the N − 1 states that form pairs.

    *FouT*: P = √2 is rounded to float32 and P Pᵀ formed in float32, as in the published initialiser.
    (√2 in float32)² rounds to 2 − 2⁻²³, so Re Λ = −2⁻²³ (N/2 − 1)/N, about −3e-8 to −6e-8, instead of 0.  That
    is reproduced: it gives the published numbers, and it keeps Re λ < 0.  The price is that A = VΛV* − PP* holds
    to 2e-7 only.  Coordinates 0 and 1 carry the pair of zero frequency, whose eigenvectors are not unique;
    as published it gets (e₀ + i e₁)/√2, and its frequency is set to 0 exactly.

    *Phase*: an eigenvector is unique up to a unit phase, and the liquid term is not invariant under it.
    Fixed here: V_0n > 0 for `legs`; B_n/i > 0 for `fout` (its pair of zero frequency keeps B_n > 0).
    The published values have the same phases up to sign.

    Args:
        measure: `legs` or `fout`.
        n_state: N ≥ 2; `fout` needs N ≥ 4, since below that its only pair has Re λ = 0.

    Returns:
        NormalPlusLowRank with M = N // 2 modes.

    Raises:
        ParameterError: unknown measure, or N too small.

    Accuracy: the Hermitian eigensolver is backward stable: |ΔΛ| ≤ N·u·‖S‖₂ and an eigenvector is off by
        N·u·‖S‖₂ over its distance to the next eigenvalue (Davis–Kahan); ‖S‖₂ is about N²/π for `legs` and πN/2
        for `fout`, u = 2⁻⁵³.

    References: arXiv 2209.12951, Eq. 7 and 8; Gu et al., arXiv 2111.00396, 2206.12037.
    """
    smallest = 4 if measure == "fout" else 2
    if measure in MEASURES and n_state < smallest:
        reason = "below that its only pair has Re λ = 0" if measure == "fout" else "that is one conjugate pair"
        raise ParameterError(f"n_state is {n_state}; {measure} needs at least {smallest}: {reason}.")
    size = n_state - n_state % 2 if measure == "fout" else n_state
    A, B = hippo(measure, size)
    P = low_rank(measure, size)
    if measure == "legs":
        real, skew = -0.5, A + np.outer(P, P)
    else:
        single = P.astype(np.float32)
        normal = A + np.outer(single, single).astype(np.float64)
        # The 1e-8 that float32 leaves off the diagonal stays in: eigh reads the lower triangle only, and so
        # reproduces the published eigenvectors.
        real, skew = float(np.mean(np.diagonal(normal))), normal
    frequencies, vectors = np.linalg.eigh(-1j * np.tril(skew, -1))
    M = size // 2
    frequencies, V = frequencies[:M].copy(), vectors[:, :M].copy()
    anchor = V[0] if measure == "legs" else 1j * (B @ V)
    if measure == "fout":
        frequencies[-1] = 0.0
        V[:, -1] = 0.0
        V[:2, -1] = np.sqrt(0.5), 1j * np.sqrt(0.5)
        anchor[-1] = 1.0
    V *= np.conj(anchor) / np.abs(anchor)
    adjoint = V.conj().T
    return NormalPlusLowRank(real + 1j * frequencies, adjoint @ P, adjoint @ B, V)
