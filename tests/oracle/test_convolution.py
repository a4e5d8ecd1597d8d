"""FFT bounds hold for the library's FFT, at many lengths, and are of a useful size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import fft

from liquid_ssm.oracle.convolution import direct_error, fft_bound, transform_error
from liquid_ssm.oracle.rounding import RoundingModel

MODEL = RoundingModel.of_dtype("float32")


def convolve(kernel, source):
    """Causal convolution of small float32 numbers: exact enough in float64 to judge float32."""
    return np.array(
        [np.convolve(k.astype(float), s.astype(float))[: len(s)] for k, s in zip(kernel, source, strict=True)]
    )


@pytest.mark.parametrize("size", [2**t for t in range(0, 15)])
def test_one_transform_is_within_its_bound(size):
    rng = np.random.default_rng(size)
    for scale in (1, 1e-6):
        v = (scale * rng.normal(size=size)).astype(np.float32)
        exact = fft.rfft(v.astype(float))
        error = np.linalg.norm(fft.rfft(v).astype(complex) - exact)
        assert error <= transform_error(size, MODEL.unit) * np.linalg.norm(exact)


@pytest.mark.parametrize("length", [1, 2, 3, 17, 64, 65, 500])
def test_convolutions_are_within_the_bound(length):
    rng = np.random.default_rng(length)
    kernel, source = rng.normal(size=(2, 3, length)).astype(np.float32)
    size = 1 << (2 * length - 2).bit_length()
    y = fft.irfft(fft.rfft(source, size) * fft.rfft(kernel, size), size)[:, :length]
    error = np.linalg.norm(y - convolve(kernel, source), axis=1)
    bound = fft_bound(kernel.astype(float), np.zeros(3), source[None].astype(float), np.zeros((1, 3)), MODEL)[0]
    assert np.all(error <= bound)
    assert np.all(bound <= 1e-3 * np.linalg.norm(kernel, axis=1) * np.linalg.norm(source, axis=1) * length**0.5)


def test_errors_of_kernel_and_input_pass_through():
    rng = np.random.default_rng(0)
    kernel, source = rng.normal(size=(2, 1, 50))
    dk, du = 1e-3 * rng.normal(size=(2, 1, 50))
    moved = np.linalg.norm(convolve(kernel + dk, source + du) - convolve(kernel, source), axis=1)
    bound = fft_bound(kernel, np.linalg.norm(dk, axis=1), source[None], np.linalg.norm(du, axis=1)[None], MODEL)[0]
    assert np.all(moved <= bound)
    direct = direct_error(kernel, np.abs(dk), source[None], np.abs(du)[None], MODEL)[0]
    assert np.all(np.abs(convolve(kernel + dk, source + du) - convolve(kernel, source)) <= direct)


def test_empty_inputs_have_no_error():
    assert fft_bound(np.zeros((2, 0)), np.zeros(2), np.zeros((3, 2, 0)), np.zeros((3, 2)), MODEL).shape == (3, 2)


def test_every_transform_and_product_is_counted():
    """Two forward transforms, one product, one inverse: not less than the first-order sum of the derivation."""
    kernel, source = np.array([[3.0, 0.0]]), np.array([[[4.0, 0.0]]])
    bound = fft_bound(kernel, np.zeros(1), source, np.zeros((1, 1)), MODEL).item()
    epsilon = transform_error(4, MODEL.unit)  # L + K - 1 = 3 samples
    wanted = 3 * 4 * (2 * epsilon + 5**0.5 * MODEL.unit + epsilon)  # ‖K‖ max|Fu| and ‖u‖ max|FK| are both 12
    assert wanted <= bound <= wanted * (1 + 2.0**-14)
    eta = 2 * MODEL.unit + 4 * MODEL.unit * 2**0.5
    assert 2 * eta <= epsilon <= 2 * eta * (1 + 2.0**-14)
