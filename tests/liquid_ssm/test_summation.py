from __future__ import annotations

from fractions import Fraction
from math import ceil, log2
from typing import Any

import numpy as np
import pytest

from liquid_ssm.summation import TreeSum, delayed, moving_sum, pairwise_sum, sum_leading

LENGTHS = [1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 100, 127, 128, 129]


class Depth:
    """A number that knows how many additions it has passed through."""

    def __init__(self, value: int, depth: int = 0) -> None:
        self.value, self.depth = value, depth

    def __add__(self, other: Depth) -> Depth:
        return Depth(self.value + other.value, 1 + max(self.depth, other.depth))


def depths(n: int) -> Any:
    return np.array([Depth(i + 1) for i in range(n)], dtype=object)


def test_pairwise_sum_adds_the_second_half_to_the_first() -> None:
    # (2^24 + 1) rounds to 2^24, 1 + 1 = 2: the order of the additions can be read from the result.
    terms = np.array([2.0**24, 1, 1, 1], np.float32)
    assert pairwise_sum(terms) == 2.0**24 + 2
    # The first term meets the third: (2^24 + 1) + (1 + 0), each 1 absorbed; with the fourth it would be 2^24 + 2.
    assert pairwise_sum(np.array([2.0**24, 1, 1, 0], np.float32)) == 2.0**24
    # With three terms the middle one waits: (2^24 + 1) + 1, each absorbed.
    assert pairwise_sum(np.array([2.0**24, 1, 1], np.float32)) == 2.0**24
    assert pairwise_sum(np.array([1, 2.0**24, 1], np.float32)) == 2.0**24 + 2


@pytest.mark.parametrize("n", LENGTHS)
def test_pairwise_sum_is_ceil_log2_n_additions_deep(n: int) -> None:
    total = pairwise_sum(depths(n)).item()
    assert total.value == n * (n + 1) // 2
    assert total.depth == ceil(log2(n))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_pairwise_sum_along_any_axis_in_the_dtype_of_the_terms(dtype: Any) -> None:
    terms = np.arange(2 * 5 * 3).reshape(2, 5, 3).astype(dtype)
    for axis in (0, 1, 2, -1, -2):
        total = pairwise_sum(terms, axis=axis)
        assert total.dtype == dtype
        np.testing.assert_array_equal(total, terms.sum(axis=axis))


def test_pairwise_sum_of_nothing_is_zero_and_of_one_term_a_copy() -> None:
    nothing = pairwise_sum(np.empty((2, 0, 3), np.complex64), axis=1)
    assert nothing.dtype == np.complex64
    np.testing.assert_array_equal(nothing, np.zeros((2, 3)))
    terms = np.ones((2, 1))
    pairwise_sum(terms)[:] = 7
    np.testing.assert_array_equal(terms, np.ones((2, 1)))


def test_sum_leading_keeps_the_last_axes() -> None:
    terms = np.arange(24.0).reshape(2, 3, 2, 2)
    np.testing.assert_array_equal(sum_leading(terms, 2), [[60, 66], [72, 78]])
    np.testing.assert_array_equal(sum_leading(terms, 4), terms)
    np.testing.assert_array_equal(sum_leading(np.empty((0, 2, 3)), 2), np.zeros((2, 3)))
    np.testing.assert_array_equal(sum_leading(np.empty((2, 0, 3)), 2), np.empty((0, 3)))


@pytest.mark.parametrize("window", [1, 2, 3, 4, 5, 6, 7, 8, 11, 40])
@pytest.mark.parametrize("length", [0, 1, 7, 20])
def test_moving_sum_of_integers_is_exact(window: int, length: int) -> None:
    terms = np.random.default_rng(window).integers(-9, 9, (2, length)).astype(float)
    expected = [[row[max(0, k - window + 1) : k + 1].sum() for k in range(length)] for row in terms]
    np.testing.assert_array_equal(moving_sum(terms, window), np.reshape(expected, (2, length)))


@pytest.mark.parametrize("window", LENGTHS)
def test_moving_sum_is_as_deep_as_a_balanced_tree(window: int) -> None:
    # A term passes through at most d rounded additions, so positive terms have relative error <= (1 + u)^d - 1.
    terms = np.random.default_rng(window).random(300).astype(np.float32)
    depth = ceil(log2(window))
    for k, computed in enumerate(moving_sum(terms, window)):
        exact = sum(map(Fraction, terms[max(0, k - window + 1) : k + 1].tolist()))
        error = abs(Fraction(computed.item()) - exact)
        assert error <= ((1 + Fraction(1, 2**24)) ** depth - 1) * exact


def test_moving_sum_forgets_what_has_left_the_window() -> None:
    # Subtracting the oldest term would leave the rounding error of 1e20 behind for ever.
    terms = np.ones(10)
    terms[2] = 1e20
    np.testing.assert_array_equal(moving_sum(terms, 3)[5:], np.full(5, 3.0))


def test_delayed_shifts_zeros_in() -> None:
    np.testing.assert_array_equal(delayed(np.array([1.0, 2.0, 3.0]), 1), [0, 1, 2])
    np.testing.assert_array_equal(delayed(np.array([1.0, 2.0]), 5), [0, 0])


@pytest.mark.parametrize("n", LENGTHS)
def test_tree_sum_is_ceil_log2_n_additions_deep(n: int) -> None:
    tree = TreeSum()
    for term in depths(n):
        tree.add(term)
    total: Any = tree.total()
    assert total.value == n * (n + 1) // 2
    assert total.depth == ceil(log2(n))


def test_tree_sum_of_nothing_is_none() -> None:
    assert TreeSum().total() is None
