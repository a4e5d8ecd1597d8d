"""Errors of convolution kernels that are computed without a recurrence.

Derivations: docs/bounds.md.  All norms are evaluated in float64 and rounded up by a small factor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .convolution import kernel_and_size, transform_error
from .realization import Realization
from .rounding import COMPLEX_PRODUCT, INFLATION, RoundingModel

Array = npt.NDArray[Any]

_ROOM = 1 + 2.0**-10  # second-order terms and the rounding of the norms
_ROOTS = 20.0  # z, 1 - z and 1 - λ̄, each from at most 20 roundings (angle, exp, expm1, radius)


def kernel_error(realization: Realization, length: int, power: int, model: RoundingModel) -> Array:
    """A vector (H, length) whose 2-norm bounds that of the kernel's error, rounded to the working precision.

    Diagonal kernels: componentwise, from tables of powers (baby step, giant step).  `dplr`: from the
    generating function and an inverse FFT.  `dense`: from tables of matrix powers.
    """
    inner = model.kernel_unit or model.unit
    if realization.structure == "diagonal":
        values, sizes = kernel_and_size(realization, length, power)
        error = _from_powers(sizes, power, realization.n_modes, inner)
    else:
        values, sizes = kernel_and_size(realization, length, power)
        channels = range(realization.n_channels)
        if realization.structure == "dplr":
            norms = np.array([_of_dplr(realization, h, length, power, inner, sizes[h]) for h in channels])
        else:
            norms = np.array([_of_dense(realization, h, length, power, inner) for h in channels])
        error = np.broadcast_to((norms / np.sqrt(max(1, length)))[:, None], values.shape)
    outer = model.unit if inner != model.unit else 0.0
    return np.asarray(error * (1 + outer) * _ROOM + outer * np.abs(values) + 4 * model.tiny)


def _from_powers(sizes: Array, power: int, modes: int, unit: float) -> Array:
    """Entry i: at most i + power + 1 complex products, then a dot product of 2M real terms in any order."""
    roundings = COMPLEX_PRODUCT * (np.arange(sizes.shape[-1]) + power + 1) + 2 * modes
    product = roundings * unit
    return np.asarray(np.where(product < 0.5, product / (1 - np.minimum(product, 0.5)) * sizes, np.inf) * INFLATION)


def _squared_change(A: Array, exponent: int, start_error: float, unit: float, spread: float) -> tuple[Array, float]:
    """A^(2^exponent) − I by X -> 2X + X² from X = A − I, and a bound on the spectral norm of the computed one's error.

    Args:
        spread: what the Frobenius norm gains where the computation runs on [Re x; Im x].
    """
    gamma, identity = 2 * len(A) * unit, np.eye(len(A))
    change, error = A - identity, start_error
    for _ in range(exponent):
        rounded = gamma * (spread * float(np.linalg.norm(change)) + error) ** 2
        error = (2 * float(np.linalg.norm(change + identity, 2)) * error + error**2 + rounded) * _ROOM
        change = 2 * change + change @ change
        error += unit * spread * float(np.linalg.norm(change))
    return change, error


def _of_dplr(realization: Realization, h: int, length: int, power: int, unit: float, sizes: Array) -> float:
    """2-norm of the error of one `dplr` kernel: every value of the generating function, then the inverse FFT.

    Args:
        sizes: ‖C‖₂ ‖Āⁱ B̄‖₂, (length,).
    """
    if length <= 1:
        return _from_c_times_b(realization, h, power, unit)
    P, Q = realization.P, realization.Q
    assert P is not None
    assert Q is not None
    one = Realization(
        "dplr",
        realization.A[h : h + 1],
        realization.B[h : h + 1],
        realization.C[h : h + 1],
        P[:, h : h + 1],
        Q[:, h : h + 1],
        conjugate_pairs=realization.conjugate_pairs,
    ).astype(np.complex128)
    A, B, C = (v[0] for v in one.full_matrices())
    B = B**power
    P, Q = P[:, h].astype(complex), Q[:, h].astype(complex)
    if realization.conjugate_pairs:
        P, Q = np.concatenate([P, P.conj()], axis=-1), np.concatenate([Q, Q.conj()], axis=-1)
    poles = np.diag(A) + (P * Q.conj()).sum(axis=0)
    size = 1 << (length - 1).bit_length()

    spread = 1.0 if realization.conjugate_pairs else 2**0.5
    moduli = np.diag(np.abs(poles - 1)) + np.abs(P).T @ np.abs(Q)
    forming = (len(P) + 3) * unit * spread * float(np.linalg.norm(moduli))
    change, wrong_power = _squared_change(A, size.bit_length() - 1, forming, unit, spread)
    high = np.abs(change + np.eye(len(A)))
    # The backend estimates ‖Āⁿ‖ on [Re x; Im x], whose row and column sums may be √2 times these.
    damping = np.log(max(1.0, 2 * 2**0.5 * float(np.sqrt(high.sum(axis=0).max() * high.sum(axis=1).max()))))
    norm_c = float(np.linalg.norm(C))
    reach = sizes / norm_c if norm_c else np.zeros_like(sizes)
    C_tilde = -np.expm1(-damping) * C - np.exp(-damping) * (C @ change)
    gamma = 2 * len(A) * unit
    wrong_c = norm_c * (wrong_power + (gamma + 6 * unit) * spread * float(np.linalg.norm(change))) + 6 * unit * norm_c

    z = np.exp(-damping / size - 2j * np.pi / size * np.arange(size))
    d = (1 - z) + (1 - poles)[:, None] * z  # (N, F)
    wrong_d = _ROOTS * unit * (np.abs(1 - z) + np.abs(1 - poles)[:, None] * np.abs(z))
    with np.errstate(divide="ignore"):
        g = 1 / d
        relative = wrong_d / np.abs(d)
    if not np.all(relative < 0.25):
        return float("inf")  # a pole too close to the circle for this precision
    wrong_g = np.abs(g) * (2 * relative + 8 * unit)
    rows, columns = np.concatenate([C_tilde[None], Q.conj()]), np.concatenate([B[None], P])
    weights = rows[:, None] * columns[None]  # (1 + R, 1 + R, N)
    sums = weights @ g
    per_term = (COMPLEX_PRODUCT * (power + 2) + 2 * len(poles)) * unit
    wrong_sums = np.abs(weights) @ wrong_g + per_term * (np.abs(weights) @ np.abs(g))
    rank = len(P)
    capacitance = np.eye(rank) + np.moveaxis(z * sums[1:, 1:], -1, 0)
    right = np.moveaxis(sums[1:, 0], -1, 0)  # (F, R)
    solved = np.linalg.solve(capacitance, right[..., None])[..., 0]
    inverse = 1 / np.linalg.svd(capacitance, compute_uv=False)[:, -1]
    wrong_cap = np.linalg.norm(np.moveaxis(wrong_sums[1:, 1:], -1, 0), axis=(1, 2)) + 8 * rank**2 * unit * (
        np.linalg.norm(capacitance, axis=(1, 2))
    )
    wrong_right = np.linalg.norm(np.moveaxis(wrong_sums[1:, 0], -1, 0), axis=1)
    size_s = np.linalg.norm(solved, axis=1)
    if not np.all(inverse * wrong_cap < 0.25):
        return float("inf")
    wrong_s = inverse * (wrong_cap * size_s + wrong_right) * 4 / 3
    left, wrong_left = np.linalg.norm(sums[0, 1:], axis=0), np.linalg.norm(wrong_sums[0, 1:], axis=0)
    radius = np.abs(z)
    wrong = wrong_sums[0, 0] + radius * (wrong_left * (size_s + wrong_s) + left * wrong_s)
    wrong = wrong + (2 * rank + 6) * unit * (np.abs(sums[0, 0]) + radius * left * size_s)

    values = np.abs(sums[0, 0] - z * (sums[0, 1:] * solved.T).sum(axis=0))
    # Parseval: the damped kernel has 2-norm ‖values‖/√n
    damped = (np.linalg.norm(wrong) + transform_error(size, unit) * np.linalg.norm(values)) / np.sqrt(size)
    undo = float(np.exp(damping * (length - 1) / size))
    kernel_norm = float(np.linalg.norm(values)) / np.sqrt(size) * undo
    # An error δ of C̃ adds δ (I − rⁿĀⁿ)⁻¹ Āⁱ B̄ to K_i, and ‖rⁿĀⁿ‖ <= 1/2.
    from_c = 2 * wrong_c * float(np.linalg.norm(reach))
    return float((damped * undo + from_c + (damping + 4) * unit * kernel_norm) * _ROOM)


def _of_dense(realization: Realization, h: int, length: int, power: int, unit: float) -> float:
    """2-norm of the error of one `dense` kernel: entry i has i + 1 products, each between powers of Ā."""
    A, B, C = (v[h].astype(complex) for v in (realization.A, realization.B, realization.C))
    step = 1 << max(0, (max(1, length) - 1).bit_length() // 2 + 1)
    spectral, frobenius = [], []
    last = np.eye(len(A), dtype=complex)
    for base, count in ((A, step), (np.linalg.matrix_power(A, step), -(-length // step) + 1)):
        norms_2, norms_f = [], []
        last = np.eye(len(A), dtype=complex)
        for _ in range(count + 1):
            norms_2.append(float(np.linalg.norm(last, 2)))
            norms_f.append(float(np.linalg.norm(last)))
            last = last @ base
        spectral.append(max(norms_2))
        frobenius.append(max(norms_f))
    reach, size = spectral[0] * spectral[1], min(frobenius[0] * spectral[1], spectral[0] * frobenius[1])
    gamma = 2 * len(A) * unit * 1.5
    entries = np.arange(length) + 1 + COMPLEX_PRODUCT * power
    worst = gamma * max(1.0, size) ** 2 * max(1.0, reach) ** 2
    ends = float(np.linalg.norm(C) * np.linalg.norm(np.abs(B) ** power))
    first_order = float(np.linalg.norm(entries)) * worst
    return first_order * ends * _ROOM if entries[-1:].max(initial=0) * worst < 0.01 else float("inf")


def _from_c_times_b(realization: Realization, h: int, power: int, unit: float) -> float:
    size = float((np.abs(realization.C[h]) * np.abs(realization.B[h]) ** power).sum()) * realization.weight
    return ((power + 1) * COMPLEX_PRODUCT + 3 + len(realization.C[h])) * unit * size
