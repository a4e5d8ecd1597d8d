from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import ceil, log2, prod
from typing import Any

import numpy as np
import pytest

from liquid_ssm.backends._elementary import (
    elementary,
    elementary_vjp,
    windowed_elementary,
    windowed_elementary_vjp,
)


def integers(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(float)


def by_combinations(u: Any, order: int, window: int) -> Any:
    """e_p as the sum of all products of p different inputs among the newest `window`."""
    e = np.zeros((order, *u.shape))
    for p, row, k in np.ndindex(e.shape):
        newest = u[row, max(0, k - window + 1) : k + 1].tolist()
        e[p, row, k] = sum(prod(chosen) for chosen in combinations(newest, p + 1))
    return e


def test_by_hand() -> None:
    # 2, 3, 5: e_2 = 6 + 10 + 15 = 31, e_3 = 30.
    e = elementary(np.array([2.0, 3, 5]), np.zeros(3))
    np.testing.assert_array_equal(e, [[2, 5, 10], [0, 6, 31], [0, 0, 30]])
    np.testing.assert_array_equal(windowed_elementary(np.array([2.0, 3, 5]), 2, 2), [[2, 5, 8], [0, 6, 15]])


def test_start_continues_a_signal() -> None:
    u = integers(0, 2, 9)
    whole = elementary(u, np.zeros((3, 2)))
    np.testing.assert_array_equal(elementary(u[:, 4:], whole[..., 3]), whole[..., 4:])


@pytest.mark.parametrize("length", [0, 1, 2, 7])
def test_vjp_is_exact(length: int) -> None:
    # e_p is linear in each single input and in the start.
    u, start = integers(0, 2, length), integers(1, 3, 2)
    g, g_final = integers(2, 3, 2, length), integers(3, 3, 2)
    e = elementary(u, start)
    grad_u, grad_start = elementary_vjp(u, start, e, g, g_final)

    def change(moved_u: Any, moved_start: Any) -> float:
        old, new = (
            np.concatenate([s[..., None], elementary(v, s)], -1) for v, s in ((u, start), (moved_u, moved_start))
        )
        return float(np.sum(g * (new - old)[..., 1:]) + np.sum(g_final * (new - old)[..., -1]))

    for index in np.ndindex(u.shape):
        moved = u.copy()
        moved[index] += 1
        assert grad_u[index] == change(moved, start)
    for index in np.ndindex(start.shape):
        moved = start.copy()
        moved[index] += 1
        assert grad_start[index] == change(u, moved)


@pytest.mark.parametrize("length", [0, 1, 2, 5, 6, 7, 13])
@pytest.mark.parametrize("window", [1, 2, 3, 5, 6, 40])
def test_windowed_values_and_gradients_are_exact(window: int, length: int) -> None:
    u, g = integers(0, 2, length), integers(1, 3, 2, length)
    expected = by_combinations(u, 3, window)
    np.testing.assert_array_equal(windowed_elementary(u, 3, window), expected)
    grad_u = windowed_elementary_vjp(u, 3, window, g)
    assert grad_u.shape == u.shape
    for index in np.ndindex(u.shape):
        moved = u.copy()
        moved[index] += 1
        assert grad_u[index] == np.sum(g * (by_combinations(moved, 3, window) - expected))


def test_windowed_forgets_what_has_left_the_window() -> None:
    # Dividing or subtracting the oldest input out would leave 1e30's rounding error, or divide by zero.
    u = np.ones(12)
    u[2:4] = 1e30, 0
    np.testing.assert_array_equal(windowed_elementary(u, 2, 3)[:, 6:], [[3.0] * 6, [3.0] * 6])


@pytest.mark.parametrize("window", [5, 12])
def test_error_is_within_the_stated_bound(window: int) -> None:
    # Positive inputs, so e_p(|u|) is the value itself; window 12 is the whole signal.
    u = np.random.default_rng(4).random(12).astype(np.float32)
    schemes = [windowed_elementary(u, 3, window)]
    if window == len(u):
        schemes.append(elementary(u, np.zeros(3, np.float32)))
    for scheme, computed in enumerate(schemes):
        for i, k in np.ndindex(computed.shape):
            p = i + 1
            newest = map(Fraction, u[max(0, k - window + 1) : k + 1].tolist())
            exact = sum((prod(chosen) for chosen in combinations(newest, p)), Fraction(0))
            roundings = window + p - 1 + (ceil(log2(p + 1)) if scheme == 0 else 0)
            bound = (1 + Fraction(1, 2**24)) ** roundings - 1
            assert abs(Fraction(computed[i, k].item()) - exact) <= bound * exact


def test_precision_is_kept() -> None:
    u = np.ones((2, 5), np.float32)
    start = np.zeros((2, 2), np.float32)
    e = elementary(u, start)
    results = [
        e,
        windowed_elementary(u, 2, 3),
        windowed_elementary_vjp(u, 2, 3, e),
        *elementary_vjp(u, start, e, e, start),
    ]
    assert {r.dtype for r in results} == {np.dtype(np.float32)}
