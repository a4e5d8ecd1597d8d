"""What a window adds to one step is the sum over its index tuples, as exact fractions have it, but for rounding."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import prod

import numpy as np
import pytest

from liquid_ssm.backends.compiled.windowed_step import windowed_rows

# Rows that fill vectors and rows that do not.
ROWS, CHANNELS = 78, 39


def tuples(order, window, elementary):
    """The lags of every product of `order` inputs of a window."""
    if elementary:
        return list(combinations(range(window), order))
    return [tuple(range(i, i + order)) for i in range(window - order + 1)]


@pytest.mark.parametrize(("order", "window"), [(1, 2), (2, 2), (2, 3), (3, 3), (3, 8), (4, 9), (5, 5)])
@pytest.mark.parametrize(("elementary", "heads"), [(True, False), (False, False), (False, True), (True, True)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_adds_the_products_over_all_index_tuples_of_the_window(dtype, elementary, heads, order, window):
    rng = np.random.default_rng([order, window])
    newest_last = rng.normal(size=(ROWS, window)).astype(dtype)
    y = rng.normal(size=ROWS).astype(dtype)
    shape = (order - 1, window - 1, CHANNELS) if heads else (order - 1, CHANNELS)
    factors = rng.normal(size=shape).astype(dtype)
    found = y.copy()
    u, earlier = newest_last[:, -1].copy(), newest_last[:, :-1].copy().reshape(-1)
    windowed_rows(factors.reshape(-1), u, earlier, found, CHANNELS, order, window, elementary, heads, 0, 20)
    assert np.array_equal(found[20:], y[20:])
    windowed_rows(factors.reshape(-1), u, earlier, found, CHANNELS, order, window, elementary, heads, 20, ROWS)

    unit = Fraction(float(np.finfo(dtype).eps)) / 2
    for row in (0, 7, 19, 20, 38, 39, 54, 55, 71, 77):
        line = [Fraction(float(value)) for value in newest_last[row, ::-1]]
        exact = size = Fraction(float(y[row]))
        size = abs(size)
        for p in range(2, order + 1):
            for lags in tuples(p, window, elementary):
                # Lags count from the newest; what decays begins at the lag of the oldest of the inputs.
                place = (p - 2, max(lags) - p + 1, row % CHANNELS) if heads else (p - 2, row % CHANNELS)
                term = Fraction(float(factors[place])) * prod(line[lag] for lag in lags)
                exact, size = exact + term, size + abs(term)
        # Products of inputs, additions within the window, the factor, and one addition for every order.
        additions = 2 * window if elementary and heads else window
        roundings = (order - 1) + additions + 1 + (order - 1)
        gamma = roundings * unit / (1 - roundings * unit)
        assert abs(Fraction(float(found[row])) - exact) <= gamma * size
