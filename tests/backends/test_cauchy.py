from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from mpmath import mp, mpc

from liquid_ssm.backends import _cauchy
from liquid_ssm.backends._cauchy import dplr_kernel, real_matrix

Array = npt.NDArray[Any]
U = 2.0**-53
GOLDEN = Path(__file__).parents[1] / "data" / "s4_kernels.npz"


def by_steps(system: tuple[Array, ...], length: int, paired: bool) -> Array:
    """weight · Re(C Āⁱ B̄), one application of Ā after the other, to 60 digits."""
    Lambda, P, Q, B, C = system
    with mp.workdps(60):
        a, p, q, x, c = (np.vectorize(mpc, otypes=[object])(v) for v in (Lambda, P, Q.conj(), B, C))
        kernel = np.empty((len(C), length), object)
        for i in range(length):
            for h, row in enumerate(c * x):
                kernel[h, i] = (1 + paired) * sum(row).real
            inner = (q * x).sum(axis=-1)
            if paired:
                inner = np.vectorize(lambda v: 2 * v.real, otypes=[object])(inner)
            x = a * x - (p * inner[..., None]).sum(axis=0)
        return kernel


def stable(n_channels: int, n_modes: int, rank: int, dt: float, seed: int) -> tuple[Array, ...]:
    """Bilinear discretisation of diag(Λ) - P P* on the stored half, by its definition as a dense solve."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    Lambda = -rng.uniform(0.1, 1, (n_channels, n_modes)) + 1j * rng.uniform(0, 10, (n_channels, n_modes))
    P, B, C = normal(rank, n_channels, n_modes), normal(n_channels, n_modes), normal(n_channels, n_modes)
    g = dt / 2
    E = 1 / (1 - g * Lambda)
    full_P, full_E = np.concatenate([P, P.conj()], axis=-1), np.concatenate([E, E.conj()], axis=-1)
    inner = np.einsum("rhn,hn,shn->hrs", full_P.conj(), full_E, full_P)
    capacitance = np.linalg.inv(np.eye(rank) + g * inner)
    P_bar = 2 * g * np.einsum("hn,shn,hsr->rhn", E, P, capacitance)
    return 2 * E - 1, P_bar, E.conj() * P, dt * E * B, C


def bounds(system: tuple[Array, ...], length: int, paired: bool) -> Array:
    """`bound` for every channel."""
    Lambda, P, Q, B, C = system
    return np.array([bound(Lambda[h], P[:, h], Q[:, h], B[h], C[h], length, paired) for h in range(len(C))])


def bound(Lambda: Array, P: Array, Q: Array, B: Array, C: Array, length: int, paired: bool) -> Array:
    """First-order error bound of one channel of rank R, doubled for the higher orders.

    (a) Āⁿ - I by log2 n steps X -> 2X + X²: e <- 2 ‖I + X‖ e + γ ‖X‖_F² + u ‖2X + X²‖_F with γ = γ_2M
        (Higham, section 3.5), from e = (R + 3) u ‖|Λ̄ - 1| + 2 |P̄||Q̄|‖_F.  An error δ of C̃ adds
        δ (I - rⁿĀⁿ)⁻¹ (rĀ)ⁱ B̄ <= 2 |δ| max_i ‖(rĀ)ⁱ B̄‖ to K_i rⁱ.
    (b) Each 1/(1 - zλ) has relative error <= (24 (|1-z| + |z (1-λ)|)/|1-zλ| + 5) u: angle 4 u, its exponentials
        4 u, radius and products the rest; a sum of N terms adds √5 u and √2 γ_(N+2); then first-order
        perturbation of S_CB - z S_CP X S_QB with X = (I + z S_QP)⁻¹, where 8 (R + 1) u cover the products
        and Gaussian elimination changes I + z S_QP by at most √2 γ_(3R+2) R² 2^(R-1) max|I + z S_QP|
        (Higham, theorem 9.5 with the largest growth that partial pivoting allows).
    (c) The inverse transform: relative 8 log2 n units in the 2-norm, so at most that times ‖K̂‖₂/√n.
    """
    n = 1 << (length - 1).bit_length()
    A, change = real_matrix(Lambda, P, Q, paired), real_matrix(Lambda - 1, P, Q, paired)
    entries = real_matrix(np.abs(Lambda - 1), np.abs(P), -np.abs(Q), paired)
    error, size = (len(P) + 3) * U * np.linalg.norm(entries), len(A)
    for _ in range(n.bit_length() - 1):
        error = 2 * np.linalg.norm(change + np.eye(size), 2) * error + size * U * np.linalg.norm(change) ** 2
        change = 2 * change + change @ change
        error += U * np.linalg.norm(change)
    power = change + np.eye(size)
    norm = np.sqrt(np.linalg.norm(power, 1) * np.linalg.norm(power, np.inf))
    damping = np.log(max(1, 2 * norm))
    row = np.concatenate([C.real, -C.imag]) * (1 + paired)
    delta = np.exp(-damping) * np.linalg.norm(row) * (error + (size + 4) * U * np.linalg.norm(change, 2))
    delta += 4 * U * np.linalg.norm(row)
    x, largest = np.concatenate([B.real, B.imag]), np.float64(0)
    for i in range(n):
        largest = max(largest, np.exp(-damping * i / n) * np.linalg.norm(x))
        x = A @ x
    row = -np.expm1(-damping) * row - np.exp(-damping) * row @ change
    half = len(C)
    C_tilde = (row[:half] - 1j * row[half:]) / (1 + paired)
    z = np.exp((-damping - 2j * np.pi * np.arange(n)) / n)[:, None]
    rows, columns, poles = np.array([C_tilde, *Q.conj()]), np.array([B, *P]), Lambda
    if paired:
        rows, columns, poles = (np.concatenate([v, v.conj()], axis=-1) for v in (rows, columns, poles))
    gap = np.abs(1 - z * poles)
    n_terms, rank = len(poles), len(P)
    relative = 24 * (np.abs(1 - z) + np.abs(z * (1 - poles))) / gap + 5 + np.sqrt(5) + np.sqrt(2) * (n_terms + 2)
    weights = rows[:, None] * columns[None]
    S = np.einsum("abn,fn->fab", weights, 1 / (1 - z * poles))
    D = np.einsum("abn,fn->fab", np.abs(weights), relative / gap) * U
    capacitance = np.eye(rank) + z[..., None] * S[:, 1:, 1:]
    growth = np.sqrt(2) * (3 * rank + 2) * rank**2 * 2.0 ** max(rank - 1, 0) * U
    D[:, 1:, 1:] += growth * np.abs(capacitance).max(axis=(1, 2), initial=1, keepdims=True)
    X, S = np.abs(np.linalg.inv(capacitance)), np.abs(S)
    left, right = np.einsum("fa,fab->fb", S[:, 0, 1:], X), np.einsum("fab,fb->fa", X, S[:, 1:, 0])
    product = np.einsum("fa,fa->f", S[:, 0, 1:], right)
    values = D[:, 0, 0] + np.einsum("fa,fa->f", D[:, 0, 1:], right) + np.einsum("fa,fa->f", left, D[:, 1:, 0])
    values += np.einsum("fa,fab,fb->f", left, D[:, 1:, 1:], right)
    values += 8 * (rank + 1) * U * (S[:, 0, 0] + product + np.einsum("fa,fab,fb->f", left, S[:, 1:, 1:], right))
    spectrum = np.sqrt(((S[:, 0, 0] + product) ** 2).sum() / n)
    total = 2 * delta * largest + values.sum() / n + 8 * np.log2(n) * U * spectrum
    return np.asarray(2 * total * np.exp(damping * np.arange(length) / n))


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("paired", [True, False])
def test_real_matrix_acts_like_the_complex_one(paired: bool, rank: int) -> None:
    rng = np.random.default_rng(rank)
    integers = rng.integers(-3, 4, (2, 2 * rank + 2, 3))
    Lambda, x, *factors = integers[0] + 1j * integers[1]
    P, Q = np.array(factors[:rank]).reshape(rank, 3), np.array(factors[rank:]).reshape(rank, 3)
    inner = Q.conj() @ x
    expected = Lambda * x - (2 * inner.real if paired else inner) @ P
    got = real_matrix(Lambda, P, Q, paired) @ np.concatenate([x.real, x.imag])
    assert np.array_equal(got, np.concatenate([expected.real, expected.imag]))


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("dt", [1e-6, 1e-3, 0.1, 1.0])
@pytest.mark.parametrize(("n_modes", "length"), [(1, 2), (3, 3), (2, 16), (2, 17), (4, 100), (1, 1000)])
def test_within_the_bound(n_modes: int, length: int, dt: float, paired: bool) -> None:
    system = stable(1, n_modes, 1, dt, length)
    exact, limit = by_steps(system, length, paired), bounds(system, length, paired)
    assert (np.abs(dplr_kernel(*system, length, conjugate_pairs=paired) - exact).astype(float) <= limit).all()
    # A bound that no bug can exceed would test nothing.
    assert limit.max() <= 1e-10 * np.abs(system[3] * system[4]).sum()


def test_slow_modes_near_the_circle_keep_their_digits() -> None:
    """1/(1 - zλ) for 1 - λ = 2⁻⁴⁰ and a 1 - z that z itself cannot hold."""
    gap = 2.0**-41 * (1 + 2.0**-20)
    z = np.array([1 - gap + 0j])
    value = _cauchy._resolvent(np.ones((1, 1, 1), complex), np.array([1 - 2.0**-40 + 0j]), z, np.array([gap + 0j]))
    exact = 1 / (gap + (1 - gap) * 2.0**-40)
    # Ten operations on positive numbers, one unit each.
    assert abs(value[0] - exact) <= 10 * U * exact


@pytest.mark.parametrize("rank", [0, 2, 3])
@pytest.mark.parametrize("paired", [True, False])
def test_other_ranks_and_several_channels(paired: bool, rank: int) -> None:
    system = stable(3, 4, rank, 0.2, rank)
    exact, limit = by_steps(system, 37, paired), bounds(system, 37, paired)
    assert (np.abs(dplr_kernel(*system, 37, conjugate_pairs=paired) - exact).astype(float) <= limit).all()
    assert limit.max() <= 1e-10 * np.abs(system[3] * system[4]).sum()


@pytest.mark.parametrize("length", [0, 1])
def test_shortest_kernels_are_products_of_b_and_c(length: int) -> None:
    Lambda, P, Q, B, C = stable(2, 3, 1, 0.1, 0)
    B, C = np.rint(3 * B / np.abs(B).max()), np.rint(3 * C)
    kernel = dplr_kernel(Lambda, P, Q, B, C, length, conjugate_pairs=True)
    assert np.array_equal(kernel, 2 * (C * B).sum(axis=1).real[:, None][:, :length])


def test_poles_on_and_beyond_the_unit_circle() -> None:
    """An integrator, an undamped oscillation and slow growth: r = 1 would divide by zero or lose all digits."""
    Lambda = np.array([[1, 1j, 1.01]], complex)
    B, C = np.array([[1, 2, 1]], complex), np.array([[1, 1, 3]], complex)
    none = np.zeros((0, 1, 3), complex)
    i = np.arange(64)
    exact = 2 * (1 + 2 * np.array([1, 0, -1, 0])[i % 4] + 3 * 1.01**i)
    kernel = dplr_kernel(Lambda, none, none, B, C, 64, conjugate_pairs=True)
    limit = bounds((Lambda, none, none, B, C), 64, True)
    # 64 u for the reference's own 1.01ⁱ.
    assert (np.abs(kernel - exact) <= limit + 64 * U * np.abs(exact)).all()
    assert limit.max() <= 1e-9


@pytest.mark.parametrize("pole", [3.0, 1e300])
def test_a_power_beyond_the_range_is_nan_in_its_channel_only(pole: float) -> None:
    Lambda, one = np.array([[pole], [0.5]], complex), np.ones((2, 1), complex)
    P = 0.25 * np.ones((1, 2, 1), complex)
    with np.errstate(over="ignore", invalid="ignore"):
        kernel = dplr_kernel(Lambda, P, P, one, one, 2000, conjugate_pairs=True)
    assert np.isnan(kernel[0]).all()
    assert np.isfinite(kernel[1]).all()


def test_low_rank_part_acts_on_the_conjugate_closed_state() -> None:
    """One mode, half-integer arithmetic: K_1 = 2 Re(C (Λ̄ B̄ - P̄ 2 Re(Q̄* B̄)))."""
    Lambda, P, Q, B, C = 0.5j, 0.25 + 0.5j, 0.5 - 0.25j, 1 + 1j, 1 - 2j
    inner = 2 * (np.conj(Q) * B).real
    system = (*(np.array(v).reshape((1, 1) if v in (Lambda, B, C) else (1, 1, 1)) for v in (Lambda, P, Q, B, C)),)
    kernel = dplr_kernel(*system, 2, conjugate_pairs=True)[0]
    expected = [2 * (C * B).real, 2 * (C * (Lambda * B - P * inner)).real]
    assert (np.abs(kernel - expected) <= bounds(system, 2, True)).all()


@pytest.mark.parametrize("kind", ["legs", "fout"])
@pytest.mark.parametrize("size", ["N4/L16", "N8/L64", "N64/L255"])
def test_golden_kernels(kind: str, size: str) -> None:
    with np.load(GOLDEN) as data:
        w, P, B, C, dt, K = (data[f"dplr-{kind}/{size}/{name}"] for name in ("w", "P", "B", "C", "dt", "K"))
    g = dt[:, None] / 2
    E = 1 / (1 - g * w)
    P = P[0]
    capacitance = 1 + g * 2 * (np.abs(P) ** 2 * E).real.sum(axis=1, keepdims=True)
    B_bar = 2 * g * (E * B - g * E * P / capacitance * 2 * (P.conj() * E * B).real.sum(axis=1, keepdims=True))
    P_bar, Q_bar = (2 * g * E * P / capacitance)[None], (E.conj() * P)[None]
    kernel = dplr_kernel(2 * E - 1, P_bar, Q_bar, B_bar, C, K.shape[1], conjugate_pairs=True)
    # Agreement stated with the golden values.
    assert (np.abs(kernel - K) <= 1e-12 * np.abs(K).max(axis=1, keepdims=True)).all()


def test_frequency_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks per channel: BLAS may sum in another order, so equal only within twice the bound."""
    system = stable(2, 4, 1, 0.1, 3)
    whole = dplr_kernel(*system, 100, conjugate_pairs=True)
    monkeypatch.setattr(_cauchy, "BLOCK_PRODUCTS", 5 * 4 * 8)
    assert (np.abs(dplr_kernel(*system, 100, conjugate_pairs=True) - whole) <= 2 * bounds(system, 100, True)).all()
