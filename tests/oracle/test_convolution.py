"""FFT bounds hold for the library's FFT, at many lengths, and are of a useful size."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import fft

from liquid_ssm.oracle.convolution import (
    _worst_gain,
    direct_error,
    fft_bound,
    kernel_and_size,
    kernel_moduli,
    transform_error,
    twiddle_error,
)
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.rounding_errors import realization_of
from liquid_ssm.testing.strategies import random_system

MODEL = RoundingModel.of_dtype("float32")
DOUBLE = RoundingModel.of_dtype("float64")
EXTENDED = np.finfo(np.longdouble).eps < 2.0**-60


def convolve(kernel, source):
    """Causal convolution of small float32 numbers: exact enough in float64 to judge float32."""
    return np.array(
        [np.convolve(k.astype(float), s.astype(float))[: len(s)] for k, s in zip(kernel, source, strict=True)]
    )


def circle_in_double(size):
    """Roots of unity as pocketfft tabulates them: angles folded into an eighth, products of two short tables."""
    angle = 2 * math.pi / (8 * size)

    def entry(k):
        eighth, rest = divmod(8 * k, size)
        rest = size - rest if eighth % 2 else rest
        c, s = math.cos(rest * angle), math.sin(rest * angle)
        c, s = (s, c) if eighth in (1, 2) else (c, s)
        return complex(-c if eighth in (2, 3, 4) else c, s)

    shift = 1
    while 4**shift < (size + 2) // 2:
        shift += 1
    k = np.arange(size // 2 + 1)
    fine = np.array([entry(i) for i in range(1 << shift)])[k & ((1 << shift) - 1)]
    coarse = np.array([entry(i << shift) for i in range((size // 2 >> shift) + 1)])[k >> shift]
    return (fine.real * coarse.real - fine.imag * coarse.imag) + 1j * (
        fine.real * coarse.imag + fine.imag * coarse.real
    )


@pytest.mark.skipif(not EXTENDED, reason="needs a longdouble wider than float64")
@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("levels", [4, 9, 14])
def test_transforms_of_torch_are_within_the_error_of_one(kind, levels):
    """Unit impulses, whose transforms are products of the library's roots; torch's library is not pocketfft."""
    size = 1 << levels
    frequencies = np.arange(size // 2 + 1)
    for j in (1, 3, size // 2 - 1, size - 1):
        impulse = np.zeros(size, kind)
        impulse[j] = 1
        angle = 2 * np.longdouble("3.14159265358979323846264338327950288") * (frequencies * j % size) / size
        found = torch.fft.rfft(torch.from_numpy(impulse)).numpy()
        error = np.hypot(found.real - np.cos(angle), found.imag + np.sin(angle)).max()
        assert error <= transform_error(size, float(np.finfo(kind).eps) / 2)


@pytest.mark.skipif(not EXTENDED, reason="needs a longdouble wider than float64")
@pytest.mark.parametrize("levels", range(3, 17))
def test_every_root_of_unity_is_as_close_as_the_bound_says(levels):
    """The whole table, not a sample: a finite number of roots needs no theory of the mathematics library."""
    size = 1 << levels
    theta = np.arange(size // 2 + 1) * (8 * np.arctan(np.longdouble(1)) / size)
    roots = circle_in_double(size)
    error = np.hypot(roots.real - np.cos(theta), roots.imag - np.sin(theta)).max()
    assert error <= twiddle_error(size, DOUBLE.unit)
    # a fiftieth of the bound would be a sign that nothing was compared
    assert error >= 0.02 * twiddle_error(size, DOUBLE.unit)
    single = roots.astype(np.complex64).astype(complex)
    error = np.hypot(single.real - np.cos(theta), single.imag - np.sin(theta)).max()
    assert error <= twiddle_error(size, MODEL.unit)


@pytest.mark.parametrize("size", [2**t for t in range(0, 15)])
def test_one_transform_is_within_its_bounds(size):
    """In the 2-norm, and at each frequency relative to the sum of moduli."""
    rng = np.random.default_rng(size)
    for scale in (1, 1e-6):
        v = (scale * rng.normal(size=size)).astype(np.float32)
        exact = fft.rfft(v.astype(float))
        error = np.abs(fft.rfft(v).astype(complex) - exact)
        assert np.linalg.norm(error) <= transform_error(size, MODEL.unit) * np.linalg.norm(exact)
        assert error.max() <= transform_error(size, MODEL.unit) * np.abs(v).sum()


@pytest.mark.skipif(not EXTENDED, reason="needs a longdouble wider than float64")
@pytest.mark.parametrize("size", [2**t for t in range(0, 15)])
def test_one_transform_in_double_precision(size):
    v = np.random.default_rng(size).normal(size=size)
    for forward, back, start in ((fft.rfft, np.longdouble, v), (fft.ifft, np.clongdouble, v + 1j * v[::-1])):
        exact = forward(start.astype(back))
        error = np.abs(forward(start) - exact)
        assert np.linalg.norm(error.astype(float)) <= transform_error(size, DOUBLE.unit) * np.linalg.norm(
            exact.astype(complex)
        )


def test_the_count_of_a_transform():
    """log2(n) - 2 products with inexact roots and log2(n) + 1 additions, to first order."""
    u = MODEL.unit
    for levels, products in ((0, 0), (1, 0), (2, 0), (3, 1), (10, 8)):
        epsilon = transform_error(1 << levels, u)
        wanted = products * (math.sqrt(5) + 1) * u + (levels + 1) * u
        assert wanted <= epsilon <= wanted * (1 + 2.0**-15)
    # a table of double precision is 3 u from the roots up to 2^20 and 6 u beyond
    for levels, root in ((20, 3), (21, 6)):
        wanted = ((levels - 2) * (math.sqrt(5) + root) + levels + 1) * DOUBLE.unit
        assert wanted <= transform_error(1 << levels, DOUBLE.unit) <= wanted * (1 + 2.0**-40)
    assert transform_error(1 << 20, 0.01) == np.inf


@pytest.mark.parametrize("length", [1, 2, 3, 17, 64, 65, 500])
def test_convolutions_are_within_the_bound(length):
    rng = np.random.default_rng(length)
    kernel, source = rng.normal(size=(2, 3, length)).astype(np.float32)
    size = 1 << (2 * length - 2).bit_length()
    y = fft.irfft(fft.rfft(source, size) * fft.rfft(kernel, size), size)[:, :length]
    error = np.linalg.norm(y - convolve(kernel, source), axis=1)
    bound = fft_bound(kernel.astype(float), np.zeros(3), source[None].astype(float), np.zeros((1, 3)), MODEL)[0]
    assert np.all(error <= bound)
    assert np.all(bound <= 3e-4 * np.linalg.norm(kernel, axis=1) * np.linalg.norm(source, axis=1) * length**0.5)


@pytest.mark.parametrize("wrong", ["circular", "shifted", "single spectrum", "no conjugate"])
def test_wrong_convolutions_exceed_the_bound(wrong):
    """Seeded mistakes of float64 convolutions, one in the last three digits of single precision only."""
    rng = np.random.default_rng(1)
    kernel, source = rng.normal(size=(2, 1, 60))
    spectrum, other = fft.rfft(source, 128), fft.rfft(kernel, 128)
    if wrong == "circular":
        spectrum, other = fft.rfft(source, 64), fft.rfft(kernel, 64)
    elif wrong == "single spectrum":
        other = other.astype(np.complex64).astype(complex)
    elif wrong == "no conjugate":
        other = other.conj()
    y = fft.irfft(spectrum * other)[:, :60]
    if wrong == "shifted":
        y = np.roll(y, 1, axis=1)
    error = np.linalg.norm(y - convolve(kernel, source))
    assert error > fft_bound(kernel, np.zeros(1), source[None], np.zeros((1, 1)), DOUBLE).item()


@pytest.mark.parametrize("which", ["kernel", "input", "both"])
def test_errors_of_kernel_and_input_pass_through(which):
    """At the frequency where the other spectrum is largest, where they do the most."""
    rng = np.random.default_rng(0)
    kernel, source = rng.normal(size=(2, 1, 50))
    time = np.arange(50)

    def at_the_peak(values):
        return 1e-3 * np.cos(2 * np.pi * np.argmax(np.abs(fft.rfft(values[0], 128))) * time / 128)[None]

    dk = at_the_peak(source) * (which != "input")
    du = at_the_peak(kernel) * (which != "kernel")
    moved = np.linalg.norm(convolve(kernel + dk, source + du) - convolve(kernel, source), axis=1)
    bound = fft_bound(kernel, np.linalg.norm(dk, axis=1), source[None], np.linalg.norm(du, axis=1)[None], MODEL)[0]
    assert np.all(moved <= bound)
    assert np.all(moved >= 0.2 * bound)
    direct = direct_error(kernel, np.abs(dk), source[None], np.abs(du)[None], MODEL)[0]
    assert np.all(np.abs(convolve(kernel + dk, source + du) - convolve(kernel, source)) <= direct)


def test_empty_inputs_have_no_error():
    assert fft_bound(np.zeros((2, 0)), np.zeros(2), np.zeros((3, 2, 0)), np.zeros((3, 2)), MODEL).shape == (3, 2)
    zeros = fft_bound(np.zeros((2, 4)), np.zeros(2), np.zeros((3, 2, 4)), np.zeros((3, 2)), MODEL)
    assert np.all(zeros <= 100 * MODEL.tiny)


def test_an_unbounded_kernel_gives_an_unbounded_convolution():
    """Also where it meets a signal of zeros: infinity, never NaN."""
    source = np.stack([np.ones((1, 4)), np.zeros((1, 4))])
    bound = fft_bound(np.ones((1, 4)), np.array([np.inf]), source, np.zeros((2, 1)), MODEL)
    assert np.all(bound == np.inf)


@pytest.mark.parametrize("exponent", [-900, -300, 300, 480])
def test_bounds_scale_with_the_inputs(exponent):
    """Squares of such numbers are outside float64's range; up to what underflow may lose the bound is linear."""
    rng = np.random.default_rng(2)
    kernel, source = rng.normal(size=(2, 1, 30))
    error = np.array([1e-9])
    plain = fft_bound(kernel, error, source[None], error[None], DOUBLE)
    scale = 2.0**exponent
    for found in (
        fft_bound(kernel, error, scale * source[None], scale * error[None], DOUBLE),
        fft_bound(scale * kernel, scale * error, source[None], error[None], DOUBLE),
    ):
        assert np.allclose(found / scale, plain, rtol=1e-12, atol=0)


def test_every_transform_and_product_is_counted():
    """Two forward transforms, one product, one inverse: not less than the first-order sum of the derivation."""
    kernel, source = np.array([[3.0, 0.0]]), np.array([[[4.0, 0.0]]])
    bound = fft_bound(kernel, np.zeros(1), source, np.zeros((1, 1)), MODEL).item()
    epsilon = transform_error(4, MODEL.unit)  # L + K - 1 = 3 samples
    # spectra of impulses are flat: ‖K‖ max|Fu|, ‖u‖ max|FK| and ‖y‖ are all 12
    wanted = 3 * 4 * (2 * epsilon + 5**0.5 * MODEL.unit + epsilon)
    assert wanted <= bound <= wanted * (1 + 2.0**-14)


def test_the_worst_gain_is_that_of_the_largest_frequencies():
    """|D| <= 3 and ‖D‖₂ <= √4·3·1.25: room for 6.25 entries of size 3, so the six largest and a quarter."""
    spectrum = np.array([1.0, 16.0, 4.0, 9.0, 1.0, 9.0, 4.0, 16.0])
    size = len(spectrum)
    norm = 3 * math.sqrt(6.25 / size)
    found = _worst_gain(spectrum, np.array(norm), np.array(3.0))
    assert found == pytest.approx(3 * math.sqrt((58 + 0.25 * 1) / size), rel=1e-9)
    rng = np.random.default_rng(3)
    for _ in range(200):
        D = np.minimum(rng.exponential(size=size), 3.0)
        D *= min(1.0, norm * math.sqrt(size) / np.linalg.norm(D))
        assert np.linalg.norm(D * np.sqrt(spectrum)) / math.sqrt(size) <= found
    assert _worst_gain(spectrum, np.array(0.0), np.array(0.0)) == 0
    assert _worst_gain(spectrum, np.array(2.0), np.array(2.0)) == pytest.approx(2 * math.sqrt(spectrum.mean()))


def test_moduli_of_a_kernel_bound_what_an_error_of_the_input_vector_does():
    rng = np.random.default_rng(0)
    for structure in ("diagonal", "dplr", "dense"):
        system = realization_of(random_system(structure, n_channels=2, n_modes=3, drive=0.5))
        moduli = kernel_moduli(system, 30, 2)
        turned = 0.0
        for _ in range(20):
            # B̄² off by a relative 1e-6 in any direction
            wrong = 1 + 5e-7 * np.exp(2j * np.pi * rng.random(system.B.shape))
            wrong = wrong.real if structure == "dense" else wrong
            found = kernel_and_size(replace(system, B=system.B * wrong), 30, 2)[0]
            turned = np.maximum(turned, np.abs(found - kernel_and_size(system, 30, 2)[0]))
        assert np.all(turned <= 1e-6 * moduli * (1 + 1e-5))
        assert np.median(turned / (1e-6 * moduli)) > 0.1


def test_a_direct_sum_with_an_error_known_by_its_norm():
    """The error of a kernel that has a norm only may sit anywhere: at the entries that meet the largest inputs."""
    kernel, none = np.array([[1.0, -0.5, 0.25]]), np.zeros((1, 3))
    source = np.array([[[3.0, 0.0, 4.0, 1e-200, 2e-200]]])
    model = RoundingModel(2.0**-24, 0.0)
    with_norm = direct_error(kernel, none, source, np.zeros_like(source), model, np.array([1e-3]))
    without = direct_error(kernel, none, source, np.zeros_like(source), model)
    seen = np.array([3, 3, 5, 4, 4])
    assert np.all(with_norm[0, 0] - without[0, 0] >= 1e-3 * seen * (1 - 1e-6))
    assert np.all(with_norm[0, 0] - without[0, 0] <= 1e-3 * seen * (1 + 1e-6))
