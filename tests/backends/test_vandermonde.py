from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from mpmath import mp, mpc

from liquid_ssm.backends import _vandermonde
from liquid_ssm.backends._vandermonde import diagonal_kernel, power_table

Array = npt.NDArray[Any]
U = 2.0**-53


def system(n_channels: int, n_modes: int, seed: int) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    A = rng.uniform(0.9, 1.001, (n_channels, n_modes)) * np.exp(1j * rng.uniform(0, 3, (n_channels, n_modes)))
    B, C = rng.standard_normal((2, n_channels, n_modes)) + 1j * rng.standard_normal((2, n_channels, n_modes))
    return A, B, C


def exact(A: Array, B: Array, C: Array, length: int, weight: int) -> Array:
    """The kernel to 60 digits."""
    with mp.workdps(60):
        a, x, c = (np.vectorize(mpc, otypes=[object])(v) for v in (A, B, C))
        rows = []
        for _ in range(length):
            rows.append([weight * sum(row).real for row in c * x])
            x = x * a
        return np.array(rows, object).T.reshape(len(A), length)


def bound(A: Array, B: Array, C: Array, length: int, weight: int) -> Array:
    """The docstring's bound, γ_2M = 2M u / (1 - 2M u), and one unit more for evaluating it in floats."""
    i = np.arange(length)
    n = 2 * A.shape[1]
    growth = np.expm1((i + 1) * np.log1p(np.sqrt(5) * U) + np.log1p(n * U / (1 - n * U)))
    size = (np.abs(C * B)[:, :, None] * np.abs(A)[:, :, None] ** i).sum(axis=1)
    return np.asarray(weight * size * growth * (1 + 1e-10))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 31, 32, 33])
def test_powers_of_small_integers_are_exact(count: int) -> None:
    base = np.array([[1j, -1 + 0j, 1 + 1j, 0j]])
    expected = [[[1j**i, (-1) ** i, (1 + 1j) ** i, 0j**i] for i in range(count)]]
    assert np.array_equal(power_table(base, count), np.swapaxes(expected, 1, 2))


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5, 15, 16, 17, 37])
def test_exact_where_every_power_is(length: int) -> None:
    A, B, C = np.array([[0.5 + 0j, 1j], [-1, -0.5j]]), np.array([[1, 2j], [3j, 4]]), np.array([[3, 1], [1j, -1j]])
    i = np.arange(length)
    # Re of 3·0.5ⁱ + 2i·iⁱ, and of -3 (-1)ⁱ - 4i (-0.5i)ⁱ.
    expected = np.array(
        [
            3 * 0.5**i + 2 * np.array([0, -1, 0, 1])[i % 4],
            -3.0 * (-1) ** i - 4 * 0.5**i * np.array([0, 1, 0, -1])[i % 4],
        ]
    )
    assert np.array_equal(diagonal_kernel(A, B, C, length, 1), expected)
    assert np.array_equal(diagonal_kernel(A, B, C, length, 2), 2 * expected)


@pytest.mark.parametrize(("n_modes", "length"), [(1, 50), (3, 1), (4, 257), (16, 40)])
def test_within_the_bound(n_modes: int, length: int) -> None:
    A, B, C = system(2, n_modes, n_modes)
    error = np.abs((diagonal_kernel(A, B, C, length, 2) - exact(A, B, C, length, 2)).astype(float))
    assert (error <= bound(A, B, C, length, 2)).all()


def test_channels_are_independent_of_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    A, B, C = system(5, 3, 0)
    expected = diagonal_kernel(A, B, C, 30, 2)
    whole = _vandermonde.pieces
    monkeypatch.setattr(_vandermonde, "pieces", lambda sizes, item: whole(sizes, item, 2 * item))
    assert np.array_equal(diagonal_kernel(A, B, C, 30, 2), expected)
    assert np.array_equal(diagonal_kernel(A[3:4], B[3:4], C[3:4], 30, 2), expected[3:4])


def test_no_power_beyond_the_kernel_is_formed() -> None:
    # 2^1000 fits, the next square would not: overflow warnings are errors here.
    kernel = diagonal_kernel(np.array([[2.0 + 0j]]), np.ones((1, 1)) + 0j, np.ones((1, 1)) + 0j, 1001, 1)
    assert kernel[0, -1] == 2.0**1000
