from __future__ import annotations

from fractions import Fraction
from math import ceil, log2
from typing import Any

import numpy as np
import pytest

from liquid_ssm.backends import _convolution
from liquid_ssm.backends._convolution import causal_convolution, causal_convolution_vjp


def integers(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(float)


def direct(kernel: Any, u: Any) -> Any:
    y = np.zeros(u.shape)
    for b, h, k in np.ndindex(u.shape):
        y[b, h, k] = sum(kernel[h, j] * u[b, h, k - j] for j in range(min(k + 1, kernel.shape[-1])))
    return y


def test_by_hand_and_in_a_balanced_tree() -> None:
    np.testing.assert_array_equal(causal_convolution(np.array([[1.0, 10]]), np.array([[[1.0, 2, 3]]])), [[[1, 12, 23]]])
    # In the last step 2^24 + 1 is absorbed and 1 + 1 = 2 is not.
    kernel = np.array([[2.0**24, 1, 1, 1]], np.float32)
    y = causal_convolution(kernel, np.ones((1, 1, 4), np.float32))
    assert y.dtype == np.float32
    assert y[0, 0, 3] == 2.0**24 + 2


@pytest.mark.parametrize(("n", "length"), [(0, 5), (1, 5), (3, 5), (5, 5), (9, 5), (4, 1), (4, 0), (7, 33)])
def test_is_the_direct_sum_and_its_gradients_are_exact(n: int, length: int) -> None:
    kernel, u, g = integers(0, 3, n), integers(1, 2, 3, length), integers(2, 2, 3, length)
    y = causal_convolution(kernel, u)
    np.testing.assert_array_equal(y, direct(kernel, u))
    # y is linear in the kernel and in u.
    grad_kernel, grad_u = causal_convolution_vjp(kernel, u, g)
    kernel_direction, u_direction = integers(3, *kernel.shape), integers(4, *u.shape)
    assert np.sum(grad_kernel * kernel_direction) == np.sum(g * direct(kernel_direction, u))
    assert np.sum(grad_u * u_direction) == np.sum(g * direct(kernel, u_direction))


def test_blocks_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    kernel, u = rng.standard_normal((2, 40)), rng.standard_normal((3, 2, 37))
    y = causal_convolution(kernel, u)
    for elements in (1, 1000):
        monkeypatch.setattr(_convolution, "BLOCK_ELEMENTS", elements)
        np.testing.assert_array_equal(causal_convolution(kernel, u), y)


def test_error_is_within_the_stated_bound() -> None:
    rng = np.random.default_rng(6)
    kernel, u = rng.random((1, 300)).astype(np.float32), rng.random((1, 1, 300)).astype(np.float32)
    K, v = [Fraction(x) for x in kernel[0].tolist()], [Fraction(x) for x in u[0, 0].tolist()]
    bound = (1 + Fraction(1, 2**24)) ** (1 + ceil(log2(300))) - 1
    y = causal_convolution(kernel, u)[0, 0]
    for k in (0, 1, 150, 299):
        exact = sum((K[j] * v[k - j] for j in range(k + 1)), Fraction(0))
        # All terms are positive, so Σ|K_j u_{k-j}| is the exact value itself.
        assert abs(Fraction(y[k].item()) - exact) <= bound * exact
