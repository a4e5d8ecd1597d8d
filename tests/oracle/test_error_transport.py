"""Transported errors against brute force on the augmented system, and blocks against one long block."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.oracle.error_transport import SECOND_ORDER, Arrivals, ConstantBlocks, varying_block

T, N = 20, 3


def problem(order, seed=0, changing=False):
    rng = np.random.default_rng(seed)
    M = rng.normal(size=(T, N, N)) + 1j * rng.normal(size=(T, N, N))
    M = 0.9 * M / np.linalg.norm(M, 2, axis=(1, 2))[:, None, None]
    M = M if changing else M[0]
    D = 0.3 * (rng.normal(size=(T, N)) + 1j * rng.normal(size=(T, N)))
    C = rng.normal(size=N) + 1j * rng.normal(size=N)
    return M, (D if order > 1 else None), C, rng.random((order, T, N))


def augmented(M, D, order, k):
    """The transition of step k on all orders as one matrix: M on the diagonal, D below it."""
    each = M if M.ndim == 2 else M[k]
    whole = np.kron(np.eye(order), each).astype(complex)
    if D is not None:
        whole += np.kron(np.eye(order, k=-1), np.diag(D[k]))
    return whole


def brute(M, D, C, local, summed):
    """Σ_j |C M_k … M_{j+1}| λ_j and ‖Σ_j |M_k … M_{j+1}| λ_j‖ per order, from explicit products."""
    order = len(local)
    read = np.kron(np.ones(order) if summed else np.eye(order)[-1], C)
    y, norm = np.zeros(T), np.zeros((order, T))
    for k in range(T):
        product, total = np.eye(order * N, dtype=complex), np.zeros(order * N)
        for j in range(k, -1, -1):
            y[k] += np.abs(read @ product) @ local[:, j].ravel()
            total += np.abs(product) @ local[:, j].ravel()
            product = product @ augmented(M, D, order, j)
        norm[:, k] = np.linalg.norm(total.reshape(order, N), axis=1)
    return y, norm


def run(M, D, C, local, start, part, summed):
    norms = np.full(len(local[0, part]), 0.9 * SECOND_ORDER)
    each = M if M.ndim == 2 else M[part]
    return varying_block(each, None if D is None else D[part], norms, C, local[:, part], start, summed=summed)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("changing", [False, True])
@pytest.mark.parametrize("summed", [False, True])
def test_outputs_are_the_exact_sensitivities(order, changing, summed):
    M, D, C, local = problem(order, changing=changing)
    wanted, _ = brute(M, D, C, local, summed)
    y, _ = run(M, D, C, local, Arrivals.none(order), slice(0, T), summed)
    # the same sums of products in another order: far below the room that the bound takes
    assert np.all(y >= wanted)
    assert np.all(y <= wanted * SECOND_ORDER * (1 + 2.0**-30))


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("cuts", [(7,), (3, 4, 12), tuple(range(1, T))])
def test_blocks_join_as_if_they_were_one(order, cuts):
    """Products since earlier blocks are exact, so cutting costs only that a block's own terms are gathered first."""
    M, D, C, local = problem(order)
    wanted, _ = brute(M, D, C, local, True)
    start, pieces = Arrivals.none(order), []
    for first, last in zip((0, *cuts), (*cuts, T), strict=True):
        y, _ = run(M, D, C, local, start, slice(first, last), True)
        pieces.append(y)
    joined = np.concatenate(pieces)
    assert np.all(joined >= wanted)
    assert np.all(joined <= 4 * wanted)


def test_actual_errors_stay_below(monkeypatch):
    """Random errors within λ, propagated exactly, never exceed either bound, also beyond the remembered blocks."""
    monkeypatch.setattr("liquid_ssm.oracle.error_transport._REMEMBERED", 2)
    for seed in range(20):
        M, D, C, local = problem(2, seed, changing=True)
        rng = np.random.default_rng(seed)
        e, start = np.zeros((2, N), complex), Arrivals.none(2)
        for first in range(0, T, 4):
            y, norm = run(M, D, C, local, start, slice(first, first + 4), False)
            for k in range(4):
                own = local[:, first + k] * np.exp(2j * np.pi * rng.random((2, N)))
                e = np.array([M[first + k] @ e[0], M[first + k] @ e[1] + D[first + k] * e[0]]) + own
                assert abs(C @ e[1]) <= y[k]
                assert np.all(np.linalg.norm(e, axis=1) <= norm[:, k])
    assert np.any(start.rest > 0)


def test_constant_blocks_agree_with_the_general_ones():
    M, _, C, local = problem(1)
    powers = ConstantBlocks(M, C)
    y, norm = powers.advance(local, np.zeros((1, T)), np.zeros(1))
    wanted, sizes = brute(M, None, C, local, False)
    assert np.all(y[0] >= wanted)
    assert np.all(y[0] <= wanted * SECOND_ORDER * (1 + 2.0**-30))
    assert norm.shape == sizes.shape
    # what arrives by its norm alone, and what was there before
    more, _ = powers.advance(local, np.ones((1, T)), np.ones(1))
    assert np.all(more > y)


def test_what_is_only_known_by_its_norm_is_carried_by_norms():
    product = np.array([[[0.5, 0], [0, 0.25]], [[3.0, 0], [0, 0]]], complex)
    start = Arrivals([], np.array([1.0, 10.0]))
    start.advance(product, np.zeros((2, 2)))
    # order 1 through the first coefficient alone, order 2 from itself and from order 1
    assert np.all(start.rest >= [0.5, 5 + 3])
    assert np.all(start.rest <= np.array([0.5, 8]) * SECOND_ORDER)
