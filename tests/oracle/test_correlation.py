"""Products, running sums and elementary symmetric polynomials of inputs, against their definitions."""

from __future__ import annotations

from itertools import combinations
from math import prod

import numpy as np
import pytest

from liquid_ssm.oracle import correlation as c
from liquid_ssm.oracle.rounding import RoundingModel

U = np.array([[[1.0, -2.0, 3.0, 0.5, -1.0, 2.0, 4.0]]])
NONE: tuple[RoundingModel, ...] = ()


def e_p(values, p):
    return sum(prod(chosen) for chosen in combinations(values, p))


@pytest.mark.parametrize("p", [1, 2, 3, 4])
def test_elementary_polynomials_are_sums_over_subsets(p):
    found = c.elementary(U, 4, NONE)[0][p - 1][0, 0]
    assert found.tolist() == [e_p(U[0, 0, : k + 1], p) for k in range(7)]


@pytest.mark.parametrize("window", [2, 3, 5, 7, 20])
def test_windowed_elementary_polynomials_use_the_newest_inputs_only(window):
    found = c.windowed_elementary(U, 2, window, NONE)[0]
    for p in (1, 2):
        wanted = [e_p(U[0, 0, max(0, k + 1 - window) : k + 1], p) for k in range(7)]
        assert found[p - 1][0, 0].tolist() == wanted


def test_adjacent_products():
    found = c.adjacent_products(U, 3, NONE)[0]
    assert found[1][0, 0].tolist() == [0, -2, -6, 1.5, -0.5, -2, 8]
    assert found[2][0, 0].tolist() == [0, 0, -6, -3, -1.5, -1, -8]


@pytest.mark.parametrize("window", [3, 4, 7, 30])
def test_windowed_sums_of_products(window):
    products, errors = c.adjacent_products(U, 3, NONE)
    found = c.windowed_sums(products, errors, window, NONE)[0]
    for p in (1, 2, 3):
        width = window - p + 1
        wanted = [sum(products[p - 1][0, 0, max(0, k + 1 - width) : k + 1]) for k in range(7)]
        assert found[p - 1][0, 0].tolist() == wanted


@pytest.mark.parametrize("length", [0, 1, 5, 6, 7, 12])
@pytest.mark.parametrize("window", [1, 2, 3, 6, 50])
def test_sliding_joins_in_order(length, window):
    """With an operation that does not commute: keep the oldest and the newest element of the window."""
    elements = (np.arange(length) * 100.0, np.arange(length) * 1.0)
    first = c.sliding(elements, window, lambda old, new: (old[0] + 0 * new[0], new[1]))
    assert first.tolist() == [100.0 * max(0, k + 1 - window) for k in range(length)]


def test_counts_of_roundings():
    assert c.count(3, np.array(0.01)) == pytest.approx(0.03 / 0.97, rel=1e-15)  # a quotient of two floats
    assert c.count(100, np.array(0.01)) == np.inf
