"""Errors of a `dplr` kernel from its generating function on a circle: Cauchy sums, Woodbury, an inverse FFT.

Derivation, step by step and with the names used here: docs/bounds-kernels.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp, expm1, inf, isfinite, log, pi, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from .convolution import transform_error
from .matrix_power_error import spectral_bound
from .rounding import COMPLEX_PRODUCT
from .scaling import normalised

Array = npt.NDArray[Any]

_ROOM = 1 + 2.0**-10  # the float64 evaluation of these formulas
_ELEMENTARY = 2.0  # units of the value that an ulp of sin, cos, exp or expm1 may be
_ANGLE = 1.5  # of 2πk/n, n a power of two: half a unit from π, one from the product
_LARGEST = 1 / 8  # of what would make the resolvent singular: perturbations beyond have no finite bound
_TIE = 2.0**-20  # norms so close that the computation may have decided either way
_BLOCK_ENTRIES = 1 << 18  # of arrays over modes and frequencies


@dataclass(frozen=True)
class Channel:
    """Ā = diag(Λ̄) - Σ_r P_r Q_r* on the stored half of the state: Λ̄, B, C (M,), P, Q (R, M).

    With conjugate pairs Q_r* x runs over both halves, 2 Re(Q_r* x).
    """

    Lambda: Array
    P: Array
    Q: Array
    B: Array
    C: Array
    conjugate_pairs: bool

    def real_form(self, shift: float) -> tuple[Array, Array]:
        """Ā - shift·I on [Re x; Im x], (2M, 2M), and the sum of the moduli of the terms of each entry."""
        diagonal = self.Lambda - shift
        re, im = np.diag(diagonal.real), np.diag(diagonal.imag)
        blocks = np.block([[re, -im], [im, re]])
        P, Q = (np.concatenate([v.real, v.imag], axis=-1) for v in (self.P, self.Q))
        if self.conjugate_pairs:
            return blocks - 2 * P.T @ Q, np.abs(blocks) + 2 * np.abs(P).T @ np.abs(Q)
        turned_P, turned_Q = (np.concatenate([-v.imag, v.real], axis=-1) for v in (self.P, self.Q))
        moduli = np.abs(blocks) + np.abs(P).T @ np.abs(Q) + np.abs(turned_P).T @ np.abs(turned_Q)
        return blocks - P.T @ Q - turned_P.T @ turned_Q, moduli


def cauchy_error(channel: Channel, length: int, power: int, unit: float) -> float:
    """2-norm over time of the error of a `dplr` kernel of `length` >= 2 entries, K_i = weight · Re(C Āⁱ B̄^{∘power}).

    Args:
        channel: with B̄ itself; its power is formed here.
        unit: unit roundoff of the precision in which the kernel is computed.

    Returns:
        Infinity where a perturbation reaches an eighth of what would make the resolvent singular, or where Āⁿ
        overflows.
    """
    n = 1 << (length - 1).bit_length()
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        # the bound is linear in both vectors; squares of tiny entries would underflow
        (B, scale_B), (C, scale_C) = normalised(channel.B**power), normalised(channel.C)
        channel = replace(channel, B=B, C=C)
        truncation = _truncate(channel, n, length, unit)
        if not isfinite(truncation.inherited):
            return inf
        error, values = _generating_function(channel, truncation, n, power, unit)
    # Parseval: a 2-norm over the frequencies is √n times one over time
    epsilon = transform_error(n, unit)
    damped, size = (error * (1 + epsilon) + epsilon * values) / sqrt(n), values / sqrt(n)
    undo = exp(truncation.damping * (length - 1) / n)
    undoing = (truncation.damping + _ELEMENTARY + 1) * unit if truncation.damped else 0.0
    bound = (undo * (damped * (1 + undoing) + undoing * size) + truncation.inherited) * _ROOM
    return float(np.ldexp(bound, int(scale_B + scale_C)))


@dataclass(frozen=True)
class _Truncation:
    """C̃ = C (I - rⁿĀⁿ) and what its error does to the kernel.

    Attributes:
        damping: -n log r.
        damped: r may differ from 1.
        C_tilde: (M,).
        inherited: 2-norm over the kernel of what the error of the computed C̃ adds to it.
    """

    damping: float
    damped: bool
    C_tilde: Array
    inherited: float


@dataclass(frozen=True)
class _Power:
    """Āⁿ in real form as it is computed, and where its error comes from.

    Attributes:
        S: Āⁿ.
        factor: what is multiplied, S or X = S - I.
        is_power: whether that is S.
        local: entry s bounds what the computation adds to the entries of Ā^(2^s), to first order.
        error: bound on the spectral norm of Āⁿ's error, to first order.
        rest: the same of all terms of higher order.
        tied: the choice between S and X was close.
    """

    S: Array
    factor: Array
    is_power: bool
    local: list[Array]
    error: float
    rest: float
    tied: bool


def _to_the(n: int, channel: Channel, unit: float, tie: float) -> _Power:
    """Āⁿ by X -> 2X + X² from X = Ā - I, and by S -> S² from the level on where ‖S‖_F < tie·‖X‖_F."""
    X, moduli = channel.real_form(1.0)
    identity, gamma = np.eye(len(X)), len(X) * unit / (1 - len(X) * unit)
    S, is_power, tied = X + identity, False, False
    # 1 - λ̄ once, then R products and additions and two subtractions
    local = [(len(channel.P) + 3) * unit * moduli]
    # NumPy's floats become infinite where Python's raise
    error, rest = np.float64(spectral_bound(local[0])), np.float64(0.0)
    for _ in range(n.bit_length() - 1):
        if not is_power:
            size_S, size_X = float(np.linalg.norm(S)), float(np.linalg.norm(X))
            is_power = size_S < tie * size_X
            tied = tied or abs(size_S - size_X) <= 2 * _TIE * size_X
            if is_power:  # the sum S = I + X
                local[-1] = local[-1] + unit * np.abs(S)
                error += unit * size_S
                rest += unit * error
        factor = np.abs(S if is_power else X)
        added = gamma * (factor @ factor)
        # (S + E)² - S² and 2(X + E) + (X + E)² - 2X - X² are the same: SE + ES + E²
        spread = sqrt(len(X)) * (error + rest)  # the Frobenius norm of a matrix of that spectral norm
        second = (error + rest) ** 2 + gamma * (2 * float(np.linalg.norm(factor)) * spread + spread**2)
        growth = 2 * _norm2(S)
        error, rest = growth * error, growth * rest + second
        if is_power:
            S = S @ S
        else:
            X = 2 * X + X @ X
            S = X + identity
            added = added + unit * np.abs(X)
            rest += unit * sqrt(len(X)) * (error + rest)
        error = (error + spectral_bound(added)) * _ROOM
        local.append(added)
    return _Power(S, S if is_power else X, is_power, local, float(error), float(rest * _ROOM), tied)


def _truncate(channel: Channel, n: int, length: int, unit: float) -> _Truncation:
    found = [_to_the(n, channel, unit, 1 - _TIE)]
    if found[0].tied:
        found.append(_to_the(n, channel, unit, 1 + _TIE))
    S, size = found[0].S, 2 * len(channel.C)
    gamma = size * unit / (1 - size * unit)
    norm = sqrt(float(np.abs(S).sum(axis=0).max(initial=0.0)) * float(np.abs(S).sum(axis=1).max(initial=0.0)))
    if not isfinite(norm):
        return _Truncation(inf, True, channel.C, inf)
    damping, damped = log(max(1.0, 2 * norm)), 2 * norm > 1 - _TIE
    shrink = exp(-damping)

    A, _ = channel.real_form(0.0)
    row = np.concatenate([channel.C.real, -channel.C.imag])
    # an error δ of C̃ adds δ (I - rⁿĀⁿ)⁻¹ Āⁱ B̄ to entry i
    start = np.linalg.solve(np.eye(size) - shrink * S, np.concatenate([channel.B.real, channel.B.imag]))
    rows, columns = _orbit(A.T, row, n), np.abs(_orbit(A, start, n + length - 1))
    error = np.zeros(length)
    for p in found:
        # exp and a product on one side; expm1 and a product on the other unless it is C itself; a subtraction
        kept = row if p.is_power else -expm1(-damping) * row
        truncated = kept - shrink * (row @ p.factor)
        sizes = shrink * (np.abs(row) @ np.abs(p.factor))
        wrong = unit * np.abs(truncated) + (gamma + (_ELEMENTARY + 1) * unit) * (1 + gamma) * sizes
        if not p.is_power:
            wrong = wrong + (_ELEMENTARY + 1) * unit * np.abs(kept)
        # γ |row| |Āⁿ| was taken with the exact power
        rest = shrink * float(np.linalg.norm(row)) * (p.rest + sqrt(size) * gamma * (p.error + p.rest))
        entering = shrink * _transported(np.abs(rows), columns, p.local, length)
        direct = columns[:length] @ wrong + rest * np.linalg.norm(columns[:length], axis=1)
        error = np.maximum(error, entering + direct)
    half = len(channel.C)
    C_tilde = truncated[:half] - 1j * truncated[half:]
    weight = 2 if channel.conjugate_pairs else 1
    return _Truncation(damping, damped, C_tilde, weight * float(np.linalg.norm(error)) * _ROOM)


def _orbit(matrix: Array, start: Array, count: int) -> Array:
    """start, A start, A² start, …, (count, S)."""
    orbit = np.empty((count, len(start)))
    for i in range(count):
        orbit[i] = start
        # not a BLAS: its threads cost a hundred times as much as such a product on a busy machine
        start = np.einsum("nm,m->n", matrix, start)
    return orbit


def _transported(rows: Array, columns: Array, local: list[Array], length: int) -> Array:
    """What errors |E_s| <= local_s of Ā^(2^s) do to C Āⁿ (I - rⁿĀⁿ)⁻¹ Āⁱ B̄, i = 0 … length - 1.

    To first order E_s enters Āⁿ as Σ_k Ā^(2^s k) E_s Ā^(n - 2^s (k + 1)).

    Args:
        rows: |C Āᵖ|, (n, S).
        columns: |(I - rⁿĀⁿ)⁻¹ Ā^q B̄|, (n + length - 1, S).
    """
    n, size = rows.shape
    entering = np.zeros((n, size))  # by the power q behind the error
    for s, bound in enumerate(local):
        step = 1 << s
        entering[n - step :: -step] += rows[::step] @ bound
    # Σ_q entering_q · columns_{q+i}: a correlation per coordinate, wrapped around only where it is not read
    points = 1 << (n + length - 2).bit_length()
    total = np.zeros(length)
    step = max(1, _BLOCK_ENTRIES // points)
    for first in range(0, size, step):
        part = slice(first, first + step)
        spectrum = np.fft.rfft(entering[::-1, part], points, axis=0) * np.fft.rfft(columns[:, part], points, axis=0)
        total += np.fft.irfft(spectrum, points, axis=0)[n - 1 : n - 1 + length].sum(axis=1)
    # the rounding of these transforms
    return np.asarray(np.maximum(total, 0.0) + 2.0**-42 * np.linalg.norm(entering) * np.linalg.norm(columns))


def _generating_function(
    channel: Channel, truncation: _Truncation, n: int, power: int, unit: float
) -> tuple[float, float]:
    """2-norms over all n frequencies of the error and of the value of C̃ (I - zĀ)⁻¹ B̄."""
    vectors = channel.Lambda, channel.P, channel.Q, channel.B, truncation.C_tilde
    points = n
    if channel.conjugate_pairs:
        # the other half of the frequencies has the same moduli
        points = n // 2 + 1
        vectors = tuple(np.concatenate([v, v.conj()], axis=-1) for v in vectors)  # type: ignore[assignment]
    poles, P, Q, B, C = vectors
    errors = values = 0.0
    step = max(1, _BLOCK_ENTRIES // max(1, len(poles)))
    for start in range(0, points, step):
        k = np.arange(start, min(points, start + step))
        copies = np.where((k == 0) | (2 * k == n), 1.0, 2.0) if channel.conjugate_pairs else np.ones(len(k))
        point = _point(np.where(2 * k > n, k - n, k), n, truncation, poles, unit)
        error, value = _resolvent_error(point, P, Q, B, C, power, unit)
        errors += float(copies @ error**2)
        values += float(copies @ value**2)
    return (sqrt(errors) if isfinite(errors) else inf), sqrt(values)


@dataclass(frozen=True)
class _Point:
    """Points z of the circle: z (F,), its relative error, d = 1 - zλ̄ (N, F) and what the computed 1/d is off by.

    Attributes:
        wrong_d: the computed inverse is that of a number this close to d.
    """

    z: Array
    wrong_z: Array
    d: Array
    wrong_d: Array


def _point(k: Array, n: int, truncation: _Truncation, poles: Array, u: float) -> _Point:
    """z = r e^(-2πik/n) for |k| <= n/2, and d = (1 - z) + (1 - λ̄) z."""
    theta = 2 * pi / n * np.abs(k)
    root, root_gap = np.exp(-2j * pi / n * k), -np.expm1(-2j * pi / n * k)
    radius, radius_gap = exp(-truncation.damping / n), -expm1(-truncation.damping / n)
    z, gap = radius * root, radius * root_gap + radius_gap
    # the radius and the product with it, where it is not 1
    scaled = (_ELEMENTARY + 1) * u if truncation.damped else 0.0
    # sine and cosine are below 1, where an ulp is at most u
    wrong_z = (_ANGLE * theta + sqrt(2)) * u + scaled
    # 1 - e^{-iθ} = 2 sin²(θ/2) + i sin θ
    real = (2 * (_ANGLE + _ELEMENTARY) + 1) * u * np.abs(root_gap.real)
    imaginary = (_ANGLE * theta * np.abs(root.real) + _ELEMENTARY * np.abs(root.imag)) * u
    wrong_gap = np.hypot(real, imaginary)
    if truncation.damped:
        wrong_gap = radius * (wrong_gap + scaled * np.abs(root_gap)) + _ELEMENTARY * u * radius_gap + u * np.abs(gap)
    rest = np.abs(1 - poles)[:, None] * np.abs(z)
    d = gap + (1 - poles)[:, None] * z
    # 1 - λ̄, the product, the sum; the inverse as conj(d)/|d|², four real operations on each path
    wrong_d = wrong_gap + rest * (wrong_z + (1 + COMPLEX_PRODUCT) * u) + 5 * u * np.abs(d)
    return _Point(z, wrong_z, d, wrong_d * (1 + 32 * u))


def _resolvent_error(
    point: _Point, P: Array, Q: Array, B: Array, C: Array, power: int, u: float
) -> tuple[Array, Array]:
    """|error| and |value| of C (I - zĀ)⁻¹ B by Woodbury, both (F,)."""
    rank, terms = P.shape
    z, wrong_d, g = point.z, point.wrong_d, 1 / point.d
    radius, size_g = np.abs(z), np.abs(g)
    rows, columns = np.concatenate([C[None], Q.conj()]), np.concatenate([B[None], P])
    weights = rows[:, None] * columns[None]
    # sums, and sums of moduli; einsum because threads of a BLAS do not pay here
    S, T = np.einsum("abn,nf->fab", weights, g), np.einsum("abn,nf->fab", np.abs(weights), size_g)
    cap = np.eye(rank) + z[:, None, None] * S[:, 1:, 1:]
    X = np.linalg.inv(cap)
    # the value is [1, l] S [1; 0] = S_00 + S_0Q r; first-order changes of S enter as [1, l] dS [1; r]
    l = -z[:, None] * (S[:, :1, 1:] @ X)[:, 0]  # noqa: E741
    r = -z[:, None] * (X @ S[:, 1:, :1])[:, :, 0]
    value = np.abs(S[:, 0, 0] + (S[:, 0, 1:] * r).sum(axis=1))

    # 1. changes of d: the resolvent R = (D + zPQ*)⁻¹ becomes R - R dD R + …
    row, column = C[:, None] + np.zeros_like(g), B[:, None] + np.zeros_like(g)
    for p in range(rank):
        row += Q[p, :, None].conj() * l[:, p]
        column += P[p, :, None] * r[:, p]
    left, right = np.abs(row) * size_g * wrong_d, np.abs(column) * size_g  # |C R| dD, |R B|
    P_g, Q_g = (np.sqrt((np.abs(v[:, :, None] * g) ** 2).sum(axis=1)).T for v in (P, Q))  # ‖P_r ∘ g‖, (F, R)
    size_X = np.linalg.norm(X, axis=(1, 2))
    size_R = size_g.max(axis=0) + radius * size_X * np.linalg.norm(P_g, axis=1) * np.linalg.norm(Q_g, axis=1)
    rho = wrong_d.max(axis=0) * size_R
    behind = size_R / (1 - rho)
    norm_l, norm_r = np.linalg.norm(left, axis=0), np.linalg.norm(wrong_d * right, axis=0)
    error = (left * right).sum(axis=0) + norm_l * behind * norm_r
    # B̄^{∘power}, shared by all sums
    powers = (power - 1) * COMPLEX_PRODUCT * u
    if powers:
        size_B = np.abs(B)
        error = error + powers * (size_B @ (left / wrong_d) + norm_l * behind * np.linalg.norm(B))

    # 2. changes of the sums S, around the resolvent that belongs to the changed d
    l = np.abs(l) + (radius * norm_l * behind)[:, None] * np.linalg.norm(P, axis=1)  # noqa: E741
    r = np.abs(r) + (radius * norm_r * behind)[:, None] * np.linalg.norm(Q, axis=1)
    drift = (rho / (1 - rho))[:, None, None]
    size_X = size_X + radius * np.linalg.norm(P) * np.linalg.norm(Q) * size_R * drift[:, 0, 0]
    size_S, size_cap = np.abs(S) + drift * T, np.abs(cap) + radius[:, None, None] * drift * T[:, 1:, 1:]
    # one product of two vectors, then a product and a sum of 2N real terms in any order, for each part
    gamma = 2 * terms * u / (1 - 2 * terms * u)
    dS = (COMPLEX_PRODUCT * u + sqrt(2) * gamma) * (1 + COMPLEX_PRODUCT * u) * (1 + drift) * T
    # the system (I + z S_QP) s = S_Q0, divided by z: z itself, the product, the addition, the elimination
    scaled_cap = size_cap / radius[:, None, None]
    solving = _elimination(rank) * u * np.linalg.norm(scaled_cap, axis=(1, 2))
    dS[:, 1:, 1:] += COMPLEX_PRODUCT * u * size_S[:, 1:, 1:] + u * scaled_cap + solving[:, None, None]
    dS[:, 1:, 1:] += (point.wrong_z / radius)[:, None, None] * np.eye(rank)
    rho_S = radius * size_X * np.linalg.norm(dS[:, 1:, 1:], axis=(1, 2))
    l_dS = dS[:, 0] + (l[:, None] @ dS[:, 1:])[:, 0]
    dS_r = dS[:, :, 0] + (dS[:, :, 1:] @ r[:, :, None])[:, :, 0]
    solved = radius * size_X * np.linalg.norm(dS_r[:, 1:], axis=1) / (1 - rho_S)  # change of z s
    error = error + l_dS[:, 0] + (l_dS[:, 1:] * r).sum(axis=1) + np.linalg.norm(l_dS[:, 1:], axis=1) * solved

    # 3. S_00 - z Σ_r S_0P s
    terms_size = ((size_S[:, 0, 1:] + dS[:, 0, 1:]) * (r + solved[:, None])).sum(axis=1)
    error = error + (2 * COMPLEX_PRODUCT + rank) * u * terms_size + u * (value + error)
    inside = (rho < _LARGEST) & (rho_S < _LARGEST)
    return np.where(inside, error, inf), value


def _elimination(rank: int) -> float:
    """c such that a computed solution of an R×R system is exact for a matrix changed by c u ‖matrix‖_F at most.

    Higham, theorem 9.4, with complex operations: products and sums thrice, two divisions; pivots are chosen by
    |Re| + |Im|, so multipliers reach √2 and entries grow by 1 + √2 per column.
    """
    if rank == 1:
        return 10.0
    return (20 + 3 * (rank - 1) * (1 + COMPLEX_PRODUCT)) * sqrt(2) * rank**2 * (1 + sqrt(2)) ** (rank - 1)


def _norm2(matrix: Array) -> float:
    return float(np.linalg.norm(matrix, 2)) if np.isfinite(matrix).all() else inf
