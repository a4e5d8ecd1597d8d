from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from liquid_ssm.backends import _products as readable
from liquid_ssm.backends.compiled.elementary_step import STEPS
from liquid_ssm.backends.compiled.product_adjoint import product_vjp

Array = npt.NDArray[Any]
WINDOWS: list[tuple[bool, int | None]] = [(False, None), (True, None), (True, 6), (True, STEPS + 5), (True, 1000)]


def expected(
    v: Array, silent: int, terms: Array, last: Array | None, order: int, summed: bool, window: int | None
) -> tuple[Array, Array | None]:
    grad, start = np.concatenate([np.zeros((*terms.shape[:-1], silent)), terms], axis=-1), None
    if summed and window is None:
        grad[..., silent:], start = readable.running_sums_vjp(terms, last)
    elif summed and window is not None:
        grad = readable.windowed_sums_vjp(grad, window)
    return readable.adjacent_products_vjp(v, readable.adjacent_products(v, order), grad), start


@pytest.mark.parametrize(("summed", "window"), WINDOWS)
def test_exact_for_integers(summed: bool, window: int | None) -> None:
    rng = np.random.default_rng(0)
    # Signs only where the order exceeds a block, so that products stay small.
    for order, largest in ((1, 2), (2, 2), (4, 2), (6, 1), (STEPS + 3, 1)):
        if window is not None and window < order:
            continue
        for length in (1, 2, STEPS - 1, STEPS, STEPS + 1, 3 * STEPS + 7):
            for silent in {0, min(order - 1, length - 1)}:
                v = rng.integers(-largest, largest + 1, (3, 3, length)).astype(float)
                terms = rng.integers(-2, 3, (order - 1, 3, 3, length - silent)).astype(float)
                last = rng.integers(-2, 3, (order - 1, 3, 3)).astype(float) if summed and window is None else None
                arguments: dict[str, Any] = {"order": order, "summed": summed, "window": window}
                grad_v, start = product_vjp(v, silent, terms, last, threads=1, **arguments)
                exact, exact_start = expected(v, silent, terms, last, **arguments)
                np.testing.assert_array_equal(grad_v, exact)
                if exact_start is not None:
                    np.testing.assert_array_equal(start, exact_start)


@pytest.mark.parametrize(("summed", "window"), WINDOWS[:3])
def test_rounding_stays_within_the_counted_operations(summed: bool, window: int | None) -> None:
    rng = np.random.default_rng(1)
    order, length = 4, 150
    v, terms = (rng.standard_normal(s).astype(np.float32) for s in ((2, 9, length), (order - 1, 2, 9, length)))
    arguments: dict[str, Any] = {"order": order, "summed": summed, "window": window}
    exact, _ = expected(v.astype(float), 0, terms.astype(float), None, **arguments)
    size, _ = expected(np.abs(v).astype(float), 0, np.abs(terms).astype(float), None, **arguments)
    found, _ = product_vjp(v, 0, terms, None, threads=1, **arguments)
    assert found.dtype == np.float32
    # Sums over time; then per order an addition, a product and an addition to the gradient.
    n = ((length if window is None else window) * summed + 3 * order) * 2.0**-24
    assert (np.abs(found - exact) <= (n / (1 - n) + 2 * 170 * 2.0**-53) * size).all()
