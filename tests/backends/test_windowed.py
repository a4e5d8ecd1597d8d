from __future__ import annotations

import tracemalloc
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from liquid_ssm.backends import _recurrence, _windowed
from liquid_ssm.backends._cascade import Chain
from liquid_ssm.backends._recurrence import run, run_vjp
from liquid_ssm.backends._windowed import run_windowed, run_windowed_vjp
from liquid_ssm.systems import DenseSystem, DiagonalSystem

BATCH, H, M, LENGTH = 2, 2, 2, 6


def integers(rng: np.random.Generator, *shape: int) -> Any:
    """Small whole numbers, so that every sum and product below is exact."""
    return rng.integers(-2, 3, shape) + 1j * rng.integers(-2, 3, shape)


def system_of(seed: int) -> DenseSystem:
    rng = np.random.default_rng(seed)
    return DenseSystem(integers(rng, H, M, M), integers(rng, H, M), integers(rng, H, M))


def inputs(seed: int, length: int = LENGTH) -> Any:
    return np.random.default_rng(seed).integers(-2, 3, (BATCH, H, length)).astype(float)


def test_by_hand() -> None:
    # a = ½, b = 2, c = 3, window 2: only the pair (u_{k-1}, u_k) is left of order 2: y = 2·3·2·u_{k-1} u_k.
    chain = Chain(DiagonalSystem(*np.array([[[0.5]], [[2.0]], [[3.0]]])), order=2)
    np.testing.assert_array_equal(run_windowed(chain, np.array([[[1.0, 3.0, 5.0]]]), 2), [[[0, 36, 180]]])


@pytest.mark.parametrize("window", [3, 4, 5, 6, 9])
def test_is_the_sum_over_index_tuples_in_the_window(window: int) -> None:
    # Eq. 14: Σ_{k-window < i1 < … < ip <= k} C Ā^{k+1-p-i1} B̄ u_i1 … u_ip.
    system, u, order = system_of(0), inputs(1), 3
    expected = np.zeros_like(u)
    for b, h, k in np.ndindex(u.shape):
        for chosen in combinations(range(max(0, k - window + 1), k + 1), order):
            power = np.linalg.matrix_power(system.A_bar[h], k + 1 - order - chosen[0])
            expected[b, h, k] += (system.C[h] @ power @ system.B_bar[h]).real * np.prod(u[b, h, list(chosen)])
    assert np.count_nonzero(expected) > 5
    np.testing.assert_array_equal(run_windowed(Chain(system, order=order), u, window), expected)


@pytest.mark.parametrize("window", [2, 4, 6, 9])
def test_gradients_are_those_of_one_run_per_step(window: int) -> None:
    system, u, g = system_of(2), inputs(3), inputs(4)
    chain = Chain(system, order=2)
    expected: dict[str, Any] = {name: 0 for name in system.parameters}
    expected_u = np.zeros_like(u)
    for k in range(LENGTH):
        newest = slice(max(0, k - window + 1), k + 1)
        part = u[..., newest]
        only_last = np.zeros_like(part)
        only_last[..., -1] = g[..., k]
        rest = np.zeros(chain.state_shape(u.shape[:-1]), complex)
        gradients, grad_part, _ = run_vjp(chain, part, rest, only_last, None)
        expected_u[..., newest] += grad_part
        expected = {name: value + gradients[name] for name, value in expected.items()}
    gradients, grad_u = run_windowed_vjp(chain, u, window, g)
    np.testing.assert_array_equal(grad_u, expected_u)
    for name, value in expected.items():
        np.testing.assert_array_equal(gradients[name], value)


def test_blocks_do_not_change_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    chain, u, g = Chain(system_of(5), order=2), inputs(6), inputs(7)
    y, (gradients, grad_u) = run_windowed(chain, u, 4), run_windowed_vjp(chain, u, 4, g)
    for elements in (1, 100):
        monkeypatch.setattr(_windowed, "CHUNK_ELEMENTS", elements)
        monkeypatch.setattr(_recurrence, "CHUNK_ELEMENTS", elements)
        np.testing.assert_array_equal(run_windowed(chain, u, 4), y)
        again, grad_again = run_windowed_vjp(chain, u, 4, g)
        np.testing.assert_array_equal(grad_again, grad_u)
        for name, gradient in gradients.items():
            np.testing.assert_array_equal(again[name], gradient)


def test_no_window_is_longer_than_the_signal() -> None:
    chain, u = Chain(system_of(8), order=2), inputs(9)
    expected, _ = run(chain, u, np.zeros(chain.state_shape(u.shape[:-1]), complex))
    np.testing.assert_array_equal(run_windowed(chain, u, 10**9), expected)


def test_empty_and_no_cotangent() -> None:
    chain, u = Chain(system_of(8), order=2), inputs(9)
    assert run_windowed(chain, u[..., :0], 3).shape == (BATCH, H, 0)
    for signal, grad in ((u[..., :0], u[..., :0]), (u, None)):
        gradients, grad_u = run_windowed_vjp(chain, signal, 3, grad)
        for value in (*gradients.values(), grad_u):
            np.testing.assert_array_equal(value, np.zeros_like(value))
        assert grad_u.shape == signal.shape


def test_temporary_memory_stays_below_64_mib() -> None:
    # All windows at once would be 2048 steps × 3 orders × 512 modes × 16 bytes = 48 MiB a copy.
    rng = np.random.default_rng(10)
    chain = Chain(DiagonalSystem(*(rng.standard_normal((3, 8, 64)) * 0.5)), order=3)
    u = rng.standard_normal((1, 8, 2048))
    tracemalloc.start()
    run_windowed(chain, u, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    run_windowed_vjp(chain, u, 3, u)
    peak_vjp = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(peak, peak_vjp) < 64 * 2**20
