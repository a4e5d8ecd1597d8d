from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from liquid_ssm.backends import _convolution as readable
from liquid_ssm.backends.compiled import convolution
from liquid_ssm.backends.compiled.convolution import BLOCK, GROUP, causal_convolution, causal_convolution_vjp, cut

Array = npt.NDArray[Any]
EDGES = (0, 1, 2, 3, 4, 5, GROUP - 1, GROUP, GROUP + 1, 37, BLOCK + 1)


def integers(seed: int, *shape: int) -> Array:
    """Integers of one digit, whose sums of products are exact in float32 as well."""
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(float)


@pytest.mark.parametrize("shape", [(0, 2), (1, 1), (2, 1), (1, 3), (3, 5), (2, 17)])
@pytest.mark.parametrize("length", EDGES)
def test_exact_for_integers(length: int, shape: tuple[int, int]) -> None:
    u, grad = integers(1, *shape, length), integers(2, *shape, length)
    for n in EDGES:
        kernel = integers(0, shape[1], n)
        y = causal_convolution(kernel, u, 1)
        np.testing.assert_array_equal(y, readable.causal_convolution(kernel, u))
        assert y.shape == u.shape
        expected = readable.causal_convolution_vjp(kernel, u, grad)
        for value, exact in zip(causal_convolution_vjp(kernel, u, grad, 1), expected, strict=True):
            np.testing.assert_array_equal(value, exact)


@pytest.mark.parametrize("shape", [(1, 1), (2, 17)])
def test_several_blocks_of_outputs_and_taps(shape: tuple[int, int]) -> None:
    length = 2 * BLOCK + 5
    u, grad = integers(1, *shape, length).astype(np.float32), integers(2, *shape, length).astype(np.float32)
    for n in (BLOCK, BLOCK + 3, length + 10):
        kernel = integers(0, shape[1], n).astype(np.float32)
        y = causal_convolution(kernel, u, 1)
        np.testing.assert_array_equal(y, readable.causal_convolution(kernel, u))
        expected = readable.causal_convolution_vjp(kernel, u, grad)
        for value, exact in zip(causal_convolution_vjp(kernel, u, grad, 1), expected, strict=True):
            assert value.dtype == np.float32
            np.testing.assert_array_equal(value, exact)


def test_few_rows_are_cut_and_many_are_not() -> None:
    assert cut((1, 1, 4096), 64, 16).pieces == 16
    assert cut((1, 3, 4096), 64, 16).pieces in (4, 16)
    assert cut((4, 32, 4096), 64, 16).pieces == 1
    # A whole row skips what lies before its beginning: where the kernel is as long, that is half of the work.
    assert cut((2, 8, 4096), 4096, 16).pieces == 1


def test_threads_and_layout_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    kernel, u, grad = rng.standard_normal((7, 40)), rng.standard_normal((5, 7, 600)), rng.standard_normal((5, 7, 600))
    for argument in (kernel, u, grad):
        argument.flags.writeable = False
    y, gradients = causal_convolution(kernel, u, 1), causal_convolution_vjp(kernel, u, grad, 1)
    strided = np.asfortranarray(u)
    for v, threads in ((u, 2), (u, 3), (strided, 2)):
        np.testing.assert_array_equal(causal_convolution(kernel, v, threads), y)
        for value, one in zip(causal_convolution_vjp(kernel, v, grad, threads), gradients, strict=True):
            np.testing.assert_array_equal(value, one)
    # Parts of the batch, one after the other, add up to the same numbers but for the order of float64 sums.
    monkeypatch.setattr(convolution, "KEPT_SUMS", 2 * 7 * 40)
    parts, _ = causal_convolution_vjp(kernel, u, grad, 1)
    size, _ = readable.causal_convolution_vjp(np.abs(kernel), np.abs(u), np.abs(grad))
    assert (np.abs(parts - gradients[0]) <= 10 * 2.0**-53 * size).all()


def test_rounding_stays_within_the_counted_operations() -> None:
    rng = np.random.default_rng(6)
    kernel, u = rng.standard_normal((3, 700)).astype(np.float32), rng.standard_normal((2, 3, 900)).astype(np.float32)
    grad = rng.standard_normal(u.shape).astype(np.float32)
    wide = [v.astype(float) for v in (kernel, u, grad)]
    size = [np.abs(v) for v in wide]
    # γ_n for float32; a tree of depth 10 and the product in float64 for the reference.
    n, reference = np.array([700, BLOCK + 1]) * 2.0**-24, 12 * 2.0**-53
    gamma = n / (1 - n) + reference
    error = np.abs(causal_convolution(kernel, u, 1) - readable.causal_convolution(*wide[:2]))
    assert (error <= gamma[0] * readable.causal_convolution(*size[:2])).all()
    exact, sizes = readable.causal_convolution_vjp(*wide), readable.causal_convolution_vjp(*size)
    for value, right, bound, g in zip(
        causal_convolution_vjp(kernel, u, grad, 1), exact, sizes, gamma[::-1], strict=True
    ):
        assert (np.abs(value - right) <= g * bound).all()
