"""Products of adjacent inputs in compiled code, piece by piece, on whole numbers: sums and products are exact."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends.compiled import adjacent
from liquid_ssm.backends.compiled.caching import compiled
from liquid_ssm.backends.compiled.simd import lanes, store

W = lanes(np.float64)


@compiled
def _read(u, offsets, start, steps, earlier, inputs):
    adjacent.read_with_earlier(u, offsets, start, steps, 1, earlier, inputs)


@compiled
def _multiply(inputs, products, steps, order):
    adjacent.multiply(inputs, products, steps, order)


@compiled
def _drive(powers, products, steps, order, real, imaginary):
    for t in range(steps):
        wr, wi = adjacent.drive(powers, 0, products, t, order)
        store(real, t * W, wr)
        store(imaginary, t * W, wi)


@compiled
def _power_sums(powers, products, steps, order, cotangents, of_products, of_powers):
    adjacent.power_sums(powers, 0, products, steps, order, cotangents, 0, 2 * W, of_products, of_powers)


@compiled
def _pull_back(inputs, products, of_products, steps, order, gradient):
    adjacent.pull_back(inputs, products, of_products, steps, order, gradient)


@compiled
def _hand_back(gradient, earlier, steps):
    adjacent.hand_back(gradient, earlier, steps)


def whole(seed, *shape):
    return np.random.default_rng(seed).integers(-3, 4, (*shape, W)).astype(float)


def products_of(inputs, order):
    """(steps, order, W) from inputs (order - 1 + steps, W)."""
    steps = len(inputs) - order + 1
    return np.array(
        [[inputs[t + order - p : t + order].prod(axis=0) for p in range(1, order + 1)] for t in range(steps)]
    )


@pytest.mark.parametrize(("start", "earlier"), [(0, 0), (0, 2), (1, 3), (5, 3), (20, 3)])
def test_inputs_before_the_first_are_zeros(start, earlier):
    length, steps = 20 + 2 * W + 3, 2 * W + 3
    u = np.random.default_rng(0).normal(size=(W, length))
    found = np.full((earlier + steps, W), np.nan)
    _read(u.reshape(-1), np.arange(W) * length, start, steps, earlier, found.reshape(-1))
    padded = np.concatenate([np.zeros((W, earlier)), u], axis=1)
    assert np.array_equal(found, padded[:, start : start + earlier + steps].T)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_products_are_of_the_newest_inputs(order):
    inputs = whole(1, order + 5)
    found = np.full((6, order, W), np.nan)
    _multiply(inputs.reshape(-1), found.reshape(-1), 6, order)
    assert np.array_equal(found, products_of(inputs, order))


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_drives_and_their_adjoint(order):
    products, powers, nu = whole(1, 6, order), whole(2, order, 2), whole(3, 6, 2)
    real, imaginary = np.empty((2, 6, W))
    _drive(powers.reshape(-1), products.reshape(-1), 6, order, real.reshape(-1), imaginary.reshape(-1))
    assert np.array_equal(real, (products * powers[:, 0]).sum(axis=1))
    assert np.array_equal(imaginary, (products * powers[:, 1]).sum(axis=1))
    of_products, of_powers = whole(4, 6, order), np.full((order, 2, W), np.nan)
    expected = of_products + (nu[:, None] * powers).sum(axis=2)
    given = products.reshape(-1), 6, order, nu.reshape(-1), of_products.reshape(-1), of_powers.reshape(-1)
    _power_sums(powers.reshape(-1), *given)
    assert np.array_equal(of_products, expected)
    assert np.array_equal(of_powers, (products[:, :, None] * nu[:, None]).sum(axis=0))


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_pulled_back_to_the_inputs(order):
    """Each input gets the cotangent of every product that it is in, times the product of the others."""
    inputs, of_products, gradient = whole(1, order + 5), whole(2, 6, order), whole(3, order + 5)
    expected = gradient.copy()
    for t in range(6):
        for p in range(1, order + 1):
            factors = list(range(t + order - p, t + order))
            for i in factors:
                others = inputs[[j for j in factors if j != i]].prod(axis=0)
                expected[i] += of_products[t, p - 1] * others
    products = products_of(inputs, order)
    _pull_back(inputs.reshape(-1), products.reshape(-1), of_products.reshape(-1), 6, order, gradient.reshape(-1))
    assert np.array_equal(gradient, expected)


@pytest.mark.parametrize("earlier", [0, 2, 9])
def test_what_belongs_to_earlier_blocks_is_handed_back(earlier):
    gradient = whole(1, earlier + 4)
    moved = np.concatenate([np.zeros((4, W)), gradient[:earlier]])
    _hand_back(gradient.reshape(-1), earlier, 4)
    assert np.array_equal(gradient, moved)
