from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from liquid_ssm.backends import _vandermonde as readable
from liquid_ssm.backends.compiled.simd import lanes
from liquid_ssm.backends.compiled.vandermonde import GROWTH, VECTORS, diagonal_kernel

Array = npt.NDArray[Any]
DTYPES = [np.float32, np.float64]
# Columns of a block of float32: kernels below and above one, several rows of it, and no whole number of them.
Q = VECTORS * lanes(np.float32)


def system(n_channels: int, n_modes: int, seed: int = 0) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    A = rng.uniform(0.9, 1.001, (n_channels, n_modes)) * np.exp(1j * rng.uniform(0, 3, (n_channels, n_modes)))
    B, C = rng.standard_normal((2, n_channels, n_modes)) + 1j * rng.standard_normal((2, n_channels, n_modes))
    return A, B, C


def bound(A: Array, B: Array, C: Array, length: int, power: int, weight: int, dtype: Any) -> Array:
    """The docstring's bound, and the same in float64 for the reference: i + 1 products and 2M terms.

    And underflow: in each of 2M terms half a subnormal of either table times the other one's entry, and of the sum.
    """
    i = np.arange(length)
    size = weight * (np.abs(C * B**power)[:, :, None] * np.abs(A)[:, :, None] ** i).sum(axis=1)
    terms, u = 2 * A.shape[1] + 2, np.finfo(dtype).eps / 2
    products = np.sqrt(5) * (i + power) + terms
    relative = (terms * u / (1 - terms * u) + 2 * products * 2.0**-53) * (1 + 1e-6)
    lost = A.shape[1] * np.finfo(dtype).smallest_subnormal * (2**GROWTH + 1 + weight * np.abs(C * B**power).max())
    return np.asarray(size * relative + lost)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n_channels", "n_modes", "length", "power", "weight"),
    [
        (2, 1, 2, 1, 2),
        (1, 5, 7, 3, 1),
        (3, 8, Q - 1, 2, 2),
        (2, 3, Q, 1, 1),
        (2, 7, Q + 1, 1, 2),
        (1, 33, 5 * Q + 3, 2, 2),
        (1, 2, 9 * Q * Q // 4 + 17, 1, 2),
    ],
)
def test_within_the_bound(dtype: Any, n_channels: int, n_modes: int, length: int, power: int, weight: int) -> None:
    A, B, C = system(n_channels, n_modes, length)
    kernel = diagonal_kernel(A, B, C, length, power, weight, dtype, 1)
    expected = readable.diagonal_kernel(A, B**power, C, length, weight)
    assert kernel.dtype == dtype
    assert (np.abs(kernel - expected) <= bound(A, B, C, length, power, weight, dtype)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [0, 1, 2, 3, 17, Q + 5])
def test_exact_where_every_power_is(dtype: Any, length: int) -> None:
    # Powers of i and of -1, and sums of small integers.
    A, B, C = np.array([[1j, -1, 1]]), np.array([[1, 2j, 1]]), np.array([[3, 1j, -1j]])
    i = np.arange(length)
    expected = 3.0 * np.array([1, 0, -1, 0])[i % 4] - 2.0 * (-1) ** i
    assert np.array_equal(diagonal_kernel(A, B, C, length, 1, 1, dtype, 1), [expected])
    assert np.array_equal(diagonal_kernel(A, B, C, length, 1, 2, dtype, 1), [2 * expected])


@pytest.mark.parametrize("dtype", DTYPES)
def test_real_parameters_and_many_channels_on_threads(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    A, B, C = (v.real.astype(dtype) for v in system(7, 3))
    monkeypatch.setattr("liquid_ssm.backends.compiled.vandermonde.PIECE_OPERATIONS", 1)
    alone = diagonal_kernel(A, B, C, 100, 1, 1, dtype, 1)
    expected = readable.diagonal_kernel(*(v.astype(complex) for v in (A, B, C)), 100, 1)
    assert (np.abs(alone - expected) <= bound(A, B, C, 100, 1, 1, dtype)).all()
    for threads in (2, 3):
        assert np.array_equal(diagonal_kernel(A, B, C, 100, 1, 1, dtype, threads), alone)
    assert np.array_equal(diagonal_kernel(A[3:4], B[3:4], C[3:4], 100, 1, 1, dtype, 1), alone[3:4])


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_entry_is_rounded_once(dtype: Any) -> None:
    # In float32 the products alone would lose the difference.
    e = 2.0**-20
    B, C = np.array([[1 + e, 1]]), np.array([[1 + e, -1 - 2 * e]])
    kernel = diagonal_kernel(np.ones((1, 2)), B.astype(dtype), C.astype(dtype), 1, 1, 1, dtype, 1)
    assert np.array_equal(kernel, [[e * e]])


def test_no_power_beyond_the_kernel_is_formed() -> None:
    # 2^1000 fits, the next square would not.
    one = np.ones((1, 1))
    kernel = diagonal_kernel(2 * one, one, one, 1001, 1, 1, np.float64, 1)
    assert np.array_equal(kernel, [2.0 ** np.arange(1001)])


def test_tables_beyond_the_range_of_float32() -> None:
    # 8^63 has no float32, nor has C B̄; their products have.
    A, B = np.full((1, 1), 8, np.float32), np.full((1, 1), 2.0**-75, np.float32)
    kernel = diagonal_kernel(A, B, B, 85, 1, 1, np.float32, 1)
    assert np.array_equal(kernel, [np.float32(2.0) ** (3 * np.arange(85) - 150).astype(np.float32)])


def test_unused_lanes_overflow_in_silence() -> None:
    A, one = np.full((1, 2), 1e100), np.ones((1, 2))
    assert np.array_equal(diagonal_kernel(A, one, one, 3, 1, 1, np.float64, 1), [[2, 2e100, 2 * 1e100**2]])
