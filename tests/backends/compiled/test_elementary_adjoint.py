from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from liquid_ssm.backends import _elementary as readable
from liquid_ssm.backends.compiled.elementary_adjoint import BLOCK, elementary_vjp

Array = npt.NDArray[Any]


def integers(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).integers(-1, 2, shape).astype(float)


def expected(u: Array, grad_terms: Array, grad_sums: Array, sums: Array) -> tuple[Array, Array]:
    grad = np.concatenate([np.zeros((1, *u.shape)), grad_terms])
    return readable.elementary_vjp(u, sums, readable.elementary(u, sums), grad, grad_sums)


@pytest.mark.parametrize("length", [0, 1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 3])
@pytest.mark.parametrize("order", [1, 2, 4])
def test_exact_for_integers(order: int, length: int) -> None:
    u, terms = integers(0, 2, 5, length), integers(1, order - 1, 2, 5, length)
    last, sums = integers(2, order, 2, 5), integers(3, order, 2, 5)
    nothing = np.zeros_like(sums)
    for given in ((terms, last, sums), (terms, None, None), (None, last, sums)):
        filled = [zero if g is None else g for g, zero in zip(given, (0 * terms, nothing, nothing), strict=True)]
        for value, exact in zip(elementary_vjp(u, *given, order=order, threads=1), expected(u, *filled), strict=True):
            np.testing.assert_array_equal(value, exact)


def test_an_empty_batch() -> None:
    grad_u, grad_sums = elementary_vjp(np.empty((0, 3, 5)), None, None, None, order=3, threads=2)
    assert (grad_u.shape, grad_sums.shape) == ((0, 3, 5), (3, 0, 3))


def test_rounding_stays_within_the_counted_operations() -> None:
    """γ_n of the same gradient in absolute values: per step at most two roundings, `order` for the sum."""
    rng = np.random.default_rng(4)
    u, terms = rng.standard_normal((1, 17, 150)), rng.standard_normal((2, 1, 17, 150))
    u, terms = (v.astype(np.float32) for v in (u, terms))
    nothing = np.zeros((3, 1, 17))
    exact, _ = expected(u.astype(float), terms.astype(float), nothing, nothing)
    size, _ = expected(np.abs(u).astype(float), np.abs(terms).astype(float), nothing, nothing)
    grad_u, _ = elementary_vjp(u, terms, None, None, order=3, threads=1)
    assert grad_u.dtype == np.float32
    n = (2 * 150 + 3) * 2.0**-24
    # As much again in float64 for the reference.
    assert (np.abs(grad_u - exact) <= (n / (1 - n) + 2 * 303 * 2.0**-53) * size).all()
