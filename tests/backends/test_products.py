from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from liquid_ssm.backends._products import (
    adjacent_products,
    adjacent_products_vjp,
    running_sums,
    running_sums_vjp,
    windowed_sums,
    windowed_sums_vjp,
)


def integers(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).integers(-5, 6, shape).astype(float)


def test_products_by_hand() -> None:
    v = np.array([2.0, 3, 5, 7])
    np.testing.assert_array_equal(adjacent_products(v, 3), [[0, 6, 15, 35], [0, 0, 30, 105]])
    assert adjacent_products(v, 1).shape == (0, 4)


def test_products_are_multiplied_from_the_newest_input_back() -> None:
    # 2^-100·2^-100 underflows to 0 in float32, (2^100·2^-100)·2^-100 does not: u_k comes first.
    v = np.array([2.0**-100, 2.0**-100, 2.0**100], np.float32)
    assert adjacent_products(v, 3)[1, 2] == np.float32(2.0**-100)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 8])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_products_vjp_is_exact(order: int, length: int) -> None:
    # c_p is linear in each single input, so moving one of them by 1 gives its derivative.
    v, g = integers(0, 2, length), integers(1, order - 1, 2, length)
    grad_v = adjacent_products_vjp(v, adjacent_products(v, order), g)
    for index in np.ndindex(v.shape):
        moved = v.copy()
        moved[index] += 1
        change = adjacent_products(moved, order) - adjacent_products(v, order)
        assert grad_v[index] == np.sum(g * change)
    assert grad_v.shape == v.shape


def test_running_sums_by_hand_and_in_time_order() -> None:
    products = np.array([[1.0, 2, 3]])
    np.testing.assert_array_equal(running_sums(products, None), [[1, 3, 6]])
    np.testing.assert_array_equal(running_sums(products, np.array([10.0])), [[11, 13, 16]])
    # One after the other each 1 is absorbed by 2^24.
    absorbed = running_sums(np.ones((1, 4), np.float32), np.array([2.0**24], np.float32))
    assert absorbed.dtype == np.float32
    np.testing.assert_array_equal(absorbed, np.full((1, 4), 2.0**24))


def test_running_sums_vjp_is_exact() -> None:
    products, sums, direction, sums_direction, g = (integers(s, 2, 3, 5) for s in range(5))
    sums, sums_direction, g_final = sums[..., 0], sums_direction[..., 0], integers(5, 2, 3)
    grad_products, grad_sums = running_sums_vjp(g, g_final)
    moved = running_sums(direction, sums_direction)
    assert np.sum(grad_products * direction) + np.sum(grad_sums * sums_direction) == np.sum(g * moved) + np.sum(
        g_final * moved[..., -1]
    )
    np.testing.assert_array_equal(running_sums_vjp(g, None)[0], running_sums_vjp(g, np.zeros_like(g_final))[0])
    nothing = np.empty((2, 3, 0))
    np.testing.assert_array_equal(running_sums_vjp(nothing, g_final)[1], g_final)
    np.testing.assert_array_equal(running_sums_vjp(nothing, None)[1], np.zeros((2, 3)))
    np.testing.assert_array_equal(running_sums(products, sums)[..., 0], products[..., 0] + sums)


@pytest.mark.parametrize("window", [3, 4, 7, 20])
def test_windowed_sums_hold_the_products_inside_the_window(window: int) -> None:
    products, direction, g = integers(0, 2, 9), integers(1, 2, 9), integers(2, 2, 9)
    expected = [[products[p - 2][max(0, k - (window - p + 1) + 1) : k + 1].sum() for k in range(9)] for p in (2, 3)]
    np.testing.assert_array_equal(windowed_sums(products, window), expected)
    assert np.sum(windowed_sums_vjp(g, window) * direction) == np.sum(g * windowed_sums(direction, window))
