"""Errors carried through true transitions: above every possible error, below the bound by moduli."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liquid_ssm.oracle import adjoint_transport
from liquid_ssm.oracle.adjoint_transport import BLOCK, Transport


def run(transitions: Any, own: Any, *, coupled: bool, later: float = 0.0) -> list[Any]:
    """Bounds after each step for one batch row, one channel: transitions (L, d, d), own (L, order, M)."""
    order, modes = own.shape[1:]
    transport = Transport((order, 1, 1, modes), coupled=coupled, weight=1)
    bounds = []
    for M, local in zip(transitions, own, strict=True):
        local = local[:, None, None]
        moduli = transport.moduli
        if coupled:
            spread = (np.abs(M) @ moduli.reshape(-1)).reshape(moduli.shape)
            norm = np.full((order, 1, 1), np.linalg.norm(M, 2) * np.linalg.norm(transport.norm))
            transport.advance(M[None, None], spread, local, norm)
        else:
            spread = (np.abs(M) @ np.moveaxis(moduli, 0, -1)[..., None])[..., 0]
            transport.advance(M[None, None, None], np.moveaxis(spread, -1, 0), local, np.zeros((order, 1, 1)))
        transport.add(later * local)
        bounds.append(transport.error[:, 0, 0])
    return bounds


def turned(rng: Any, transitions: Any, own: Any) -> Any:
    """|e_k| for local errors of the size `own`, less what float64 rounds here, and random phases."""
    flat = own.reshape(len(own), -1) * (1 - 1e-12)
    e, found = np.zeros(flat.shape[1], complex), []
    for M, local in zip(transitions, flat, strict=True):
        e = M @ e + local * np.exp(2j * np.pi * rng.random(local.shape))
        found.append(np.abs(e).reshape(own.shape[1:]))
    return found


def rotations(rng: Any, length: int, size: int) -> Any:
    """Random unitary matrices: their moduli have norms above 1, their products do not."""
    matrices = rng.normal(size=(length, size, size)) + 1j * rng.normal(size=(length, size, size))
    return np.linalg.qr(matrices)[0]


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 80), st.integers(1, 3), st.integers(1, 3))
def test_coupled_errors_are_within(seed: int, length: int, order: int, modes: int) -> None:
    rng = np.random.default_rng(seed)
    # One order: the norm of the whole is the norm of the order.
    transitions, own = rotations(rng, length, modes), rng.random((length, 1, modes))
    bounds = run(transitions, own, coupled=True)
    for _ in range(5):
        for error, bound in zip(turned(rng, transitions, own), bounds, strict=True):
            assert np.all(error <= bound)
    orders = 0.9 * np.eye(order) + np.diag(np.ones(order - 1), -1) * np.exp(2j * np.pi * rng.random())
    cascade, own = np.broadcast_to(orders, (length, order, order)), rng.random((length, order, 1))
    bounds = run(cascade, own, coupled=False)
    for _ in range(5):
        for error, bound in zip(turned(rng, cascade, own), bounds, strict=True):
            assert np.all(error <= bound)


def test_inside_a_block_the_bound_is_the_largest_error_possible() -> None:
    rng = np.random.default_rng(0)
    transitions, own = rotations(rng, BLOCK, 4), rng.random((BLOCK, 1, 4))
    bound = run(transitions, own, coupled=True)[-1][0]
    total, product = np.zeros(4), np.eye(4)
    for M, local in zip(transitions[::-1], own[::-1, 0], strict=True):
        total += np.abs(product) @ local
        product = product @ M
    # 2^-40 of the bound by moduli and of the result stand for the rounding of the products.
    largest = np.minimum(total, np.linalg.norm(own[:, 0], axis=-1).sum())
    np.testing.assert_allclose(bound, largest, rtol=1e-4)


def test_moduli_would_grow_and_the_bound_does_not() -> None:
    rng = np.random.default_rng(1)
    transitions, own = rotations(rng, 200, 4), np.ones((200, 1, 4))
    by_moduli = np.zeros(4)
    for M in transitions:
        by_moduli = np.abs(M) @ by_moduli + 1
    bound = run(transitions, own, coupled=True)[-1]
    # Norms of at most 1: 200 errors of norm 2.
    assert bound.max() <= 400 * (1 + 1e-12)
    assert by_moduli.min() > 1e30


@pytest.mark.parametrize("coupled", [True, False])
def test_errors_added_later_count(coupled: bool) -> None:
    rng = np.random.default_rng(2)
    size = (1, 3) if coupled else (3, 1)
    transitions, own = rotations(rng, 70, 3), rng.random((70, *size))
    bounds = run(transitions, own, coupled=coupled, later=2.0)
    at_once = run(transitions, 3 * own, coupled=coupled)
    for error, bound, other in zip(turned(rng, transitions, 3 * own), bounds, at_once, strict=True):
        assert np.all(error <= bound)
        # Cut by the norm at other moments, but of the same size.
        np.testing.assert_allclose(bound, other, rtol=0.05)


def test_large_transitions_are_left_to_moduli_and_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    transitions, own = rotations(rng, 50, 4), rng.random((50, 1, 4))
    exact = run(transitions, own, coupled=True)
    monkeypatch.setattr(adjoint_transport, "LARGEST", 3)
    coarse = run(transitions, own, coupled=True)
    assert all(np.all(a <= b * (1 + 1e-9)) for a, b in zip(exact, coarse, strict=True))
    for error, bound in zip(turned(rng, transitions, own), coarse, strict=True):
        assert np.all(error <= bound)
