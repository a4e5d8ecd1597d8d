from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from mpmath import mp, mpc

from liquid_ssm.backends import _matrix_powers
from liquid_ssm.backends._matrix_powers import dense_kernel

Array = npt.NDArray[Any]
U = 2.0**-53


def step_by_step(A: Array, B: Array, C: Array, length: int) -> Array:
    """C Āⁱ B̄ one matrix-vector product after the other, in the arithmetic of the entries."""
    kernel: list[list[Any]] = [[] for _ in A]
    for h, x in enumerate(B):
        for _ in range(length):
            kernel[h].append((C[h] * x).sum().real)
            x = (A[h] * x).sum(axis=1)
    return np.array(kernel).reshape(len(A), length)


@pytest.mark.parametrize("kind", [np.float64, np.complex128])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5, 8, 9, 16, 17, 23])
def test_exact_for_small_integers(length: int, kind: Any) -> None:
    rng = np.random.default_rng(length)
    A = rng.integers(-1, 2, (2, 3, 3)).astype(kind)
    B, C = rng.integers(-3, 4, (2, 2, 3)).astype(kind)
    if kind is np.complex128:
        A[:, 0] *= 1j
        C[:, 1] *= 1j
    # Row sums are at most 3: entries up to 9·3·3^23 < 2^53 stay exact.
    assert np.array_equal(dense_kernel(A, B, C, length), step_by_step(A, B, C, length))


@pytest.mark.parametrize("kind", [np.float64, np.complex128])
@pytest.mark.parametrize(("n_state", "length"), [(1, 40), (2, 7), (5, 130)])
def test_within_the_bound(n_state: int, length: int, kind: Any) -> None:
    rng = np.random.default_rng(n_state)
    A: Array = rng.standard_normal((2, n_state, n_state)) / n_state
    B, C = rng.standard_normal((2, 2, n_state))
    if kind is np.complex128:
        A, B, C = (v + 1j * rng.permuted(v, axis=-1) for v in (A, B, C))
    with mp.workdps(60):
        lift = np.vectorize(mpc, otypes=[object])
        error = np.abs((dense_kernel(A, B, C, length) - step_by_step(lift(A), lift(B), lift(C), length)).astype(float))
    # The docstring's bound; one part in 1e10 for evaluating it in floats.
    n = n_state if kind is np.float64 else n_state + 2
    gamma = n * U / (1 - n * U) * (1 if kind is np.float64 else np.sqrt(2))
    size = step_by_step(np.abs(A), np.abs(B), np.abs(C), length)
    assert (error <= np.expm1(np.arange(1, length + 1) * np.log1p(gamma)) * size * (1 + 1e-10)).all()


def test_channels_are_independent_of_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    A, B, C = rng.standard_normal((5, 3, 3)) / 2, rng.standard_normal((5, 3)), rng.standard_normal((5, 3))
    expected = dense_kernel(A, B, C, 20)
    whole = _matrix_powers.pieces
    monkeypatch.setattr(_matrix_powers, "pieces", lambda sizes, item: whole(sizes, item, 2 * item))
    assert np.array_equal(dense_kernel(A, B, C, 20), expected)


def test_no_power_beyond_the_kernel_is_formed() -> None:
    # 2^1000 fits, the next square would not: overflow warnings are errors here.
    assert dense_kernel(np.array([[[2.0]]]), np.ones((1, 1)), np.ones((1, 1)), 1001)[0, -1] == 2.0**1000
