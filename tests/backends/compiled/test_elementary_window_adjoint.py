from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from liquid_ssm.backends import _elementary as readable
from liquid_ssm.backends.compiled.elementary_window_adjoint import elementary_window_vjp

Array = npt.NDArray[Any]


def integers(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(float)


def expected(v: Array, terms: Array, order: int, window: int) -> Array:
    grad = np.zeros((order, *v.shape))
    grad[1:, ..., v.shape[-1] - terms.shape[-1] :] = terms
    return readable.windowed_elementary_vjp(v, order, window, grad)


@pytest.mark.parametrize(("order", "window"), [(2, 2), (2, 5), (3, 3), (3, 8), (5, 16)])
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_exact_for_integers(order: int, window: int, blocks: int) -> None:
    for length in {blocks * window + 1, (blocks + 1) * window - 1, (blocks + 1) * window} - {window}:
        for silent in (0, 1, window - 1):
            v, terms = integers(length, 3, 3, length), integers(1, order - 1, 3, 3, length - silent)
            found = elementary_window_vjp(v, terms, order=order, window=window, threads=1)
            np.testing.assert_array_equal(found, expected(v, terms, order, window))


def test_rounding_stays_within_the_counted_operations() -> None:
    rng = np.random.default_rng(4)
    order, window = 3, 16
    v, terms = (rng.standard_normal(s).astype(np.float32) for s in ((2, 9, 100), (2, 2, 9, 100)))
    exact = expected(v.astype(float), terms.astype(float), order, window)
    size = expected(np.abs(v).astype(float), np.abs(terms).astype(float), order, window)
    found = elementary_window_vjp(v, terms, order=order, window=window, threads=1)
    assert found.dtype == np.float32
    # An input lies in `window` windows whose gradients are added up on their way, which the count contains.
    n = (3 * window + 2 * order + 1) * 2.0**-24
    assert (np.abs(found - exact) <= (n / (1 - n) + 2 * 60 * 2.0**-53) * size).all()


def test_threads_change_no_bit() -> None:
    rng = np.random.default_rng(1)
    v, terms = rng.standard_normal((5, 7, 50)), rng.standard_normal((2, 5, 7, 48))
    one = elementary_window_vjp(v, terms, order=3, window=6, threads=1)
    for threads in (2, 3):
        np.testing.assert_array_equal(elementary_window_vjp(v, terms, order=3, window=6, threads=threads), one)
