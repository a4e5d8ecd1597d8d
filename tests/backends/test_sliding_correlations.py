from __future__ import annotations

from itertools import combinations
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from liquid_ssm.backends._sliding_correlations import (
    adjacent_products,
    elementary,
    moving_elementary,
    moving_products,
    running_products,
)

Array = npt.NDArray[Any]


def inputs(length: int, n_previous: int = 0, dtype: str = "float64") -> tuple[Array, Array]:
    """Small integers, whose products and sums are exact in float32: previous inputs and u, batch 2, H 3."""
    both = np.random.default_rng(length).integers(-2, 4, (2, 3, n_previous + length)).astype(dtype)
    return both[..., :n_previous], both[..., n_previous:]


def adjacent(v: Array, p: int, k: int) -> Any:
    return prod(v[k - p + 1 : k + 1]) if k >= p - 1 else 0


def by_definition(term: Any, previous: Array, u: Array, order: int) -> Array:
    """term(inputs up to and including k, order) at every k of u."""
    both = np.concatenate([previous, u], axis=-1)
    held = previous.shape[-1]
    terms = [
        [[[term(row[: held + k + 1], p) for k in range(u.shape[-1])] for row in rows] for rows in both]
        for p in range(2, order + 1)
    ]
    return np.array(terms, u.dtype).reshape(order - 1, *u.shape)


def product_term(v: Array, p: int) -> Any:
    return adjacent(v, p, len(v) - 1)


def sum_term(v: Array, p: int) -> Any:
    return sum(adjacent(v, p, k) for k in range(len(v)))


def elementary_term(v: Array, p: int) -> Any:
    return sum(prod(c) for c in combinations(v, p))


def test_worked_example() -> None:
    u = np.array([[[1.0, 2, 3, 4]]])
    assert np.array_equal(adjacent_products(u, 3, None)[:, 0, 0], [[0, 2, 6, 12], [0, 0, 6, 24]])
    terms, sums = running_products(u, 3, None, None)
    assert np.array_equal(terms[:, 0, 0], [[0, 2, 8, 20], [0, 0, 6, 30]])
    assert np.array_equal(sums[:, 0, 0], [20, 30])
    # Newest three inputs: two products of two, one of three.
    assert np.array_equal(moving_products(u, 3, 3, None)[:, 0, 0], [[0, 2, 8, 18], [0, 0, 6, 24]])
    terms, sums = elementary(u, 3, None)
    assert np.array_equal(terms[:, 0, 0], [[0, 2, 11, 35], [0, 0, 6, 50]])
    assert np.array_equal(sums[:, 0, 0], [10, 35, 50])
    # e_2 and e_3 of {2, 3, 4} are 26 and 24.
    assert np.array_equal(moving_elementary(u, 3, 3, None)[:, 0, 0], [[0, 2, 11, 26], [0, 0, 6, 24]])


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 8])
@pytest.mark.parametrize("n_previous", [0, 1, 3, 6])
def test_products_and_their_sums(n_previous: int, length: int, order: int) -> None:
    previous, u = inputs(length, n_previous)
    given = previous if n_previous else None
    products = by_definition(product_term, previous, u, order)
    assert np.array_equal(adjacent_products(u, order, given), products)
    start = np.arange(6.0 * (order - 1)).reshape(order - 1, 2, 3)
    terms, sums = running_products(u, order, start, given)
    assert np.array_equal(terms, start[..., None] + np.cumsum(products, axis=-1))
    assert np.array_equal(sums, start + products.sum(axis=-1))


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 8])
def test_elementary_of_all_inputs(length: int, order: int) -> None:
    _, u = inputs(length)
    terms, sums = elementary(u, order, None)
    assert np.array_equal(terms, by_definition(elementary_term, u[..., :0], u, order))
    assert np.array_equal(
        sums, [[[elementary_term(row, p) for row in rows] for rows in u] for p in range(1, order + 1)]
    )


@pytest.mark.parametrize(("order", "window"), [(1, 1), (1, 3), (2, 2), (2, 3), (3, 5), (4, 4), (3, 8), (2, 40)])
@pytest.mark.parametrize("length", [0, 1, 3, 8, 9])
@pytest.mark.parametrize("n_previous", [0, 1, 2, 4, 12])
def test_windows(n_previous: int, length: int, order: int, window: int) -> None:
    previous, u = inputs(length, n_previous)
    given = previous if n_previous else None

    def windowed(term: Any) -> Array:
        return by_definition(lambda v, p: term(v[-window:], p), previous, u, order)

    assert np.array_equal(moving_products(u, order, window, given), windowed(sum_term))
    assert np.array_equal(moving_elementary(u, order, window, given), windowed(elementary_term))


def test_a_huge_window_costs_no_more_than_the_inputs() -> None:
    u = np.ones((1, 1, 3))
    assert moving_elementary(u, 2, 10**12, None)[0, 0, 0, -1] == 3
    assert moving_products(u, 2, 10**12, None)[0, 0, 0, -1] == 2


@pytest.mark.parametrize("cut", [0, 1, 5, 40])
def test_sums_carried_over_a_cut_change_no_bit(cut: int) -> None:
    u = np.random.default_rng(0).standard_normal((2, 3, 40)).astype("f")
    whole, final = elementary(u, 4, None)
    first, sums = elementary(u[..., :cut], 4, None)
    rest, last = elementary(u[..., cut:], 4, sums)
    assert np.array_equal(np.concatenate([first, rest], axis=-1), whole)
    assert np.array_equal(last, final)
    whole, final = running_products(u, 4, None, None)
    first, sums = running_products(u[..., :cut], 4, None, None)
    rest, last = running_products(u[..., cut:], 4, sums, u[..., :cut])
    assert np.array_equal(np.concatenate([first, rest], axis=-1), whole)
    assert np.array_equal(last, final)


def test_window_removes_old_inputs_without_a_trace() -> None:
    """After one huge input has left the window, the results are those without it, bit for bit."""
    u = np.random.default_rng(0).standard_normal((1, 1, 20))
    spoiled = u.copy()
    spoiled[..., 2] = 1e200
    for function in (moving_elementary, moving_products):
        assert np.array_equal(function(spoiled, 3, 5, None)[..., 7:], function(u, 3, 5, None)[..., 7:])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept_and_arguments_are_not_written_to(dtype: str) -> None:
    previous, u = inputs(9, 4, dtype)
    sums = np.zeros((3, 2, 3), dtype)
    for argument in (previous, u, sums):
        argument.flags.writeable = False
    results = [
        adjacent_products(u, 3, previous),
        *running_products(u, 3, sums[1:], previous),
        moving_products(u, 3, 4, previous),
        *elementary(u, 3, sums),
        moving_elementary(u, 3, 4, previous),
    ]
    assert {result.dtype.name for result in results} == {dtype}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rounding_stays_within_the_counted_operations(dtype: str) -> None:
    """Per monomial p - 1 products and at most n = k, w - p or w + p - 2 additions (docstrings).

    So the error is at most ((1 + u)^(p - 1 + n) - 1) times the same sum for |u|; one more operation covers
    evaluating that in float64.
    """
    u = np.random.default_rng(3).standard_normal((1, 1, 40)).astype(dtype)
    exact, size = u.astype(np.longdouble), np.abs(u).astype(np.longdouble)
    unit, order, window, none = np.finfo(dtype).eps / 2, 3, 16, u[..., :0]

    def check(got: Array, term: Any, additions: Any) -> None:
        error = np.abs(got - by_definition(term, none.astype(np.longdouble), exact, order))
        total = by_definition(term, none.astype(np.longdouble), size, order)
        for p in range(2, order + 1):
            assert (error[p - 2] <= np.expm1((p + additions(p)) * np.log1p(unit)) * total[p - 2]).all()

    k = np.arange(40)
    check(running_products(u, order, None, None)[0], sum_term, lambda p: k)
    check(elementary(u, order, None)[0], elementary_term, lambda p: k)
    check(moving_products(u, order, window, None), lambda v, p: sum_term(v[-window:], p), lambda p: window - p)
    check(
        moving_elementary(u, order, window, None),
        lambda v, p: elementary_term(v[-window:], p),
        lambda p: window + p - 2,
    )
