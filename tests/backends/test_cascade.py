from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from liquid_ssm.backends._cascade import Chain, Truncated
from liquid_ssm.backends._recurrence import run, run_vjp
from liquid_ssm.backends._scan import Scan
from liquid_ssm.systems import DenseSystem, DiagonalSystem

H, M, LENGTH = 2, 2, 4


def integers(rng: np.random.Generator, *shape: int) -> Any:
    """Small whole numbers, so that every sum and product below is exact."""
    return rng.integers(-2, 3, shape) + 1j * rng.integers(-2, 3, shape)


def diagonal(seed: int) -> DiagonalSystem:
    rng = np.random.default_rng(seed)
    return DiagonalSystem(integers(rng, H, M), integers(rng, H, M), integers(rng, H, M))


def dense(seed: int) -> DenseSystem:
    rng = np.random.default_rng(seed)
    return DenseSystem(integers(rng, H, M, M), integers(rng, H, M), integers(rng, H, M))


def inputs(seed: int) -> Any:
    return np.random.default_rng(seed).integers(-2, 3, (1, H, LENGTH)).astype(float)


def rest(recurrence: Any, u: Any) -> Any:
    return np.zeros(recurrence.state_shape(u.shape[:-1]), complex)


def test_truncated_by_hand() -> None:
    # b = 2, a = ½, u = 1, 3: x¹ = 2, 7; x² = 0, 0 + 6·2 = 12; order 2 adds them, y = 2·3·(x¹ + x²).
    system = DiagonalSystem(*np.array([[[0.5]], [[2.0]], [[3.0]]]))
    y, final = run(Truncated(system, order=2), np.array([[[1.0, 3.0]]]), np.zeros((2, 1, 1, 1)))
    np.testing.assert_array_equal(y, [[[12, 114]]])
    np.testing.assert_array_equal(final[:, 0, 0, 0], [7, 12])


def test_chain_by_hand() -> None:
    # v¹ = 2, 7; v² = 0, 3·2 = 6 (no b at the second input); only v² is read: y = 2·3·v².
    system = DiagonalSystem(*np.array([[[0.5]], [[2.0]], [[3.0]]]))
    y, final = run(Chain(system, order=2), np.array([[[1.0, 3.0]]]), np.zeros((2, 1, 1, 1)))
    np.testing.assert_array_equal(y, [[[0, 36]]])
    np.testing.assert_array_equal(final[:, 0, 0, 0], [7, 6])


@pytest.mark.parametrize("make", [diagonal, dense])
def test_all_orders_make_the_liquid_recurrence(make: Any) -> None:
    # At rest, order p needs p inputs: P = L orders are all there are.
    system, u = make(0), inputs(1)
    truncated = Truncated(system, order=LENGTH)
    y, final = run(truncated, u, rest(truncated, u))
    liquid = Scan(system, liquid=True)
    expected, expected_final = run(liquid, u, rest(liquid, u))
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(final.sum(axis=0), expected_final)


def test_chain_with_input_power_is_truncated_for_diagonal_systems() -> None:
    system, u = diagonal(2), inputs(3)
    total: Any = 0
    for p in (1, 2, 3):
        chain = Chain(system.with_input_power(p), order=p)
        total = total + run(chain, u, rest(chain, u))[0]
    truncated = Truncated(system, order=3)
    np.testing.assert_array_equal(total, run(truncated, u, rest(truncated, u))[0])


def test_chain_is_not_truncated_for_dense_systems() -> None:
    system, u = dense(2), inputs(3)
    chain, truncated = Chain(system.with_input_power(2), order=2), Truncated(system, order=2)
    first = run(Scan(system, liquid=False), u, np.zeros((1, H, M), complex))[0]
    assert np.any(first + run(chain, u, rest(chain, u))[0] != run(truncated, u, rest(truncated, u))[0])


@pytest.mark.parametrize("kind", [Truncated, Chain])
def test_order_one_is_the_linear_scan(kind: Any) -> None:
    system, u = diagonal(4), inputs(5)
    cascade, scan = kind(system, order=1), Scan(system, liquid=False)
    state = integers(np.random.default_rng(6), 1, H, M)
    y, final = run(cascade, u, state[np.newaxis])
    expected, expected_final = run(scan, u, state)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(final[0], expected_final)
    whole = run_vjp(cascade, u, state[np.newaxis], u, state[np.newaxis])
    expected_vjp = run_vjp(scan, u, state, u, state)
    np.testing.assert_array_equal(whole[1], expected_vjp[1])
    np.testing.assert_array_equal(whole[2][0], expected_vjp[2])
    for name, gradient in expected_vjp[0].items():
        np.testing.assert_array_equal(whole[0][name], gradient)


@pytest.mark.parametrize("kind", [Truncated, Chain])
def test_adjoint_of_the_initial_states_is_exact(kind: Any) -> None:
    # For fixed inputs the states and outputs are affine in the initial states.
    rng = np.random.default_rng(7)
    system, u = dense(8), inputs(9)
    cascade = kind(system, order=3)
    start = integers(rng, *cascade.state_shape(u.shape[:-1]))
    grad_y, grad_state = inputs(10), integers(rng, *start.shape)
    _, _, grad_start = run_vjp(cascade, u, start, grad_y, grad_state)
    direction = integers(rng, *start.shape)
    (y, final), (y_moved, final_moved) = run(cascade, u, start), run(cascade, u, start + direction)
    change = np.sum(grad_y * (y_moved - y)) + np.sum(np.conj(grad_state) * (final_moved - final)).real
    assert np.sum(np.conj(grad_start) * direction).real == change
