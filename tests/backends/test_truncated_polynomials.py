from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends._truncated_polynomials import add, coefficient, multiply

A, B = [2, 3, 5], [7, 11]


@pytest.mark.parametrize("order", [1, 2, 3, 4, 9])
def test_multiply_is_the_truncated_product(order: int) -> None:
    assert multiply(A, B, order) == list(np.convolve(A, B))[:order]
    assert multiply(B, A, order) == list(np.convolve(A, B))[:order]


def test_coefficient() -> None:
    assert [coefficient(A, B, k) for k in range(5)] == [14, 43, 68, 55, None]
    assert coefficient([], B, 0) is None


def test_add() -> None:
    assert add(A, B) == add(B, A) == [9, 14, 5]
    assert add([], A) == add(A, []) == A
    assert A == [2, 3, 5]


def test_zero_and_one() -> None:
    assert multiply([], A, 3) == multiply(A, [], 3) == []
    assert multiply([1], A, 3) == multiply(A, [1], 3) == A


def test_arrays_broadcast() -> None:
    product = multiply([np.ones((2, 1)), 2.0], [np.arange(3.0)], 2)
    assert np.array_equal(product[0], np.broadcast_to([0, 1, 2], (2, 3)))
    assert np.array_equal(product[1], [0, 2, 4])
