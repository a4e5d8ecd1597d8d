from __future__ import annotations

from math import log2
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from liquid_ssm.backends import _fft_convolution
from liquid_ssm.backends._fft_convolution import causal_convolution, power_of_two

Array = npt.NDArray[Any]


def direct(kernel: Array, u: Array) -> Array:
    """Σ K_i u_{k-i} term by term in twice the precision or better."""
    y = np.zeros(u.shape, np.longdouble)
    for i in range(min(kernel.shape[1], u.shape[-1])):
        y[..., i:] += kernel[:, i, None].astype(np.longdouble) * u[..., : u.shape[-1] - i]
    return y


def bound(kernel: Array, u: Array) -> Array:
    """2-norm error bound per row.

    Higham, theorem 24.2: a transform of length n = 2^t has relative error t·η/(1 - t·η) with
    η = μ + γ_4 (√2 + μ) <= 8 unit roundoffs for twiddles accurate to μ <= 2 units.  Two transforms, a product
    (√5 units) and an inverse transform: 3·t·8 + 3 units, applied to |K|·|u| in the frequency domain,
    where max|K̂| <= ‖K‖₁.
    """
    n = power_of_two(u.shape[-1] + kernel.shape[1] - 1)
    units = 3 * log2(n) * 8 + 3
    # K̂'s own error is spread over all frequencies: √n ‖K‖₂ bounds it in the maximum.
    size = np.abs(kernel).sum(axis=1) + np.sqrt(n) * np.sqrt((kernel.astype(float) ** 2).sum(axis=1))
    return np.asarray(units * np.finfo(u.dtype).eps / 2 * size * np.sqrt((u.astype(float) ** 2).sum(axis=-1)))


@pytest.mark.parametrize(("least", "expected"), [(0, 1), (1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (1025, 2048)])
def test_power_of_two(least: int, expected: int) -> None:
    assert power_of_two(least) == expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_example(dtype: str) -> None:
    kernel = np.array([[1, 2], [0, -3]], dtype)
    u = np.array([[[1, 10, 100], [2, 5, 7]]], dtype)
    y = causal_convolution(kernel, u, 1)
    expected = [[[1, 12, 120], [0, -6, -15]]]
    assert y.dtype == dtype
    assert (np.linalg.norm(y - expected, axis=-1) <= bound(kernel, u)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("n_kernel", "length"), [(1, 1), (1, 5), (5, 1), (3, 7), (7, 3), (64, 64), (65, 64), (63, 66), (200, 129)]
)
def test_agrees_with_the_direct_sum(n_kernel: int, length: int, dtype: str) -> None:
    rng = np.random.default_rng(n_kernel * 1000 + length)
    kernel, u = rng.standard_normal((2, n_kernel)).astype(dtype), rng.standard_normal((3, 2, length)).astype(dtype)
    error = np.linalg.norm((causal_convolution(kernel, u, 1) - direct(kernel, u)).astype(float), axis=-1)
    assert (error <= bound(kernel[:, :length], u)).all()


@pytest.mark.parametrize("shape", [(0, 2, 5), (3, 2, 0), (0, 2, 0)])
def test_nothing_in_nothing_out(shape: tuple[int, ...]) -> None:
    y = causal_convolution(np.ones((2, 4), "f"), np.zeros(shape, "f"), 1)
    assert y.shape == shape
    assert y.dtype == np.float32


def test_empty_kernel_gives_zeros() -> None:
    u = np.ones((1, 2, 3))
    assert not causal_convolution(np.ones((2, 0)), u, 1).any()


def test_length_is_a_power_of_two_and_holds_the_whole_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy import fft

    lengths, rfft = [], fft.rfft

    def recorded(x: Array, n: int, **options: Any) -> Array:
        lengths.append((n, x.dtype.name))
        return np.asarray(rfft(x, n, **options))

    monkeypatch.setattr(fft, "rfft", recorded)
    causal_convolution(np.ones((1, 50), "f"), np.ones((1, 1, 15), "f"), 1)
    # The kernel is cut to 15 entries first: 15 + 15 - 1 = 29.
    assert lengths == [(32, "float32"), (32, "float32")]


def test_workers_pieces_and_memory_order_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    kernel, u = rng.standard_normal((7, 90)), rng.standard_normal((5, 7, 100))
    expected = causal_convolution(kernel, u, 1)
    assert np.array_equal(causal_convolution(kernel, u, 4), expected)
    assert np.array_equal(causal_convolution(kernel, np.asfortranarray(u), 2), expected)
    strided = np.zeros((5, 7, 200))[..., ::2]
    strided[...] = u
    assert np.array_equal(causal_convolution(kernel, strided, 2), expected)
    whole = _fft_convolution.pieces
    monkeypatch.setattr(_fft_convolution, "pieces", lambda sizes, item: whole(sizes, item, 2 * item))
    assert np.array_equal(causal_convolution(kernel, u, 2), expected)


def test_arguments_are_not_written_to() -> None:
    kernel, u = np.ones((1, 4)), np.ones((2, 1, 8))
    kernel.flags.writeable = u.flags.writeable = False
    assert np.array_equal(np.rint(causal_convolution(kernel, u, 1)[0, 0]), [1, 2, 3, 4, 4, 4, 4, 4])
