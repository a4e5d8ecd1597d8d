from __future__ import annotations

import numpy as np
import pytest
import torch

from liquid_ssm.backends import _products as readable
from liquid_ssm.backends.eager import products

LENGTHS = [0, 1, 2, 3, 5, 8, 9]


def integers(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(-3, 4, shape).astype(float))


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("length", LENGTHS)
def test_products_and_their_gradients_are_exact(length: int, order: int) -> None:
    v, grad = integers(0, 2, 3, length), integers(1, order - 1, 2, 3, length)
    c = products.adjacent_products(v, order)
    expected = readable.adjacent_products(v.numpy(), order)
    assert np.array_equal(c.numpy(), expected)
    gradient = products.adjacent_products_vjp(v, c, grad)
    assert np.array_equal(gradient.numpy(), readable.adjacent_products_vjp(v.numpy(), expected, grad.numpy()))


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("length", LENGTHS)
def test_running_sums_continue_and_so_do_their_gradients(length: int, given: bool) -> None:
    c, grad = integers(2, 3, 2, length), integers(3, 3, 2, length)
    sums, grad_sums = (integers(4, 3, 2), integers(5, 3, 2)) if given else (None, None)
    as_numpy = (None, None) if sums is None or grad_sums is None else (sums.numpy(), grad_sums.numpy())
    assert np.array_equal(products.running_sums(c, sums).numpy(), readable.running_sums(c.numpy(), as_numpy[0]))
    found = products.running_sums_vjp(grad, grad_sums)
    for x, y in zip(found, readable.running_sums_vjp(grad.numpy(), as_numpy[1]), strict=True):
        assert np.array_equal(x.numpy(), y)


@pytest.mark.parametrize("window", [4, 5, 8, 30])
@pytest.mark.parametrize("length", LENGTHS)
def test_windowed_sums_and_their_gradients_are_exact(length: int, window: int) -> None:
    c = integers(6, 3, 2, length)
    assert np.array_equal(products.windowed_sums(c, window).numpy(), readable.windowed_sums(c.numpy(), window))
    expected = readable.windowed_sums_vjp(c.numpy(), window)
    assert np.array_equal(products.windowed_sums_vjp(c, window).numpy(), expected)


def test_a_product_rounds_once_per_factor_after_the_first() -> None:
    v = np.random.default_rng(7).standard_normal((4, 200)).astype(np.float32)
    found = products.adjacent_products(torch.from_numpy(v), 5).numpy()
    exact = readable.adjacent_products(v.astype(np.longdouble), 5)
    for p in range(2, 6):
        error = np.abs(found[p - 2] - exact[p - 2])
        assert (error <= np.expm1((p - 1) * np.log1p(2.0**-24)) * np.abs(exact[p - 2]) * (1 + 2.0**-30)).all()
