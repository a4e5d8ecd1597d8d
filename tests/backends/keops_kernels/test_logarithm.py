"""Logarithms: as accurate as the bounds of exponentials ask, where a rounded modulus would not be."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch

from liquid_ssm.backends.keops_kernels.logarithm import LOG_OF_ZERO, log_parts
from liquid_ssm.oracle.exponential_powers import LOG_ULPS


def worst_ulps(z):
    """The largest error of a part, in ulps counted as 2u of the part."""
    found = [part.numpy() for part in log_parts(torch.tensor(z))]
    worst = 0.0
    with mpmath.workprec(400):
        for number, *parts in zip(z, *found, strict=True):
            exact = mpmath.log(mpmath.mpc(number.real, number.imag))
            for part, value in zip(parts, (exact.real, exact.imag), strict=True):
                error = abs(mpmath.mpf(float(part)) - value)
                worst = max(worst, float(error / abs(value)) / 2.0**-52 if value else float(error))
    return worst


@pytest.mark.parametrize("distance", [2.0**-k for k in range(0, 53, 4)])
def test_moduli_near_one_lose_no_digits(distance):
    rng = np.random.default_rng(0)
    moduli = 1 + distance * rng.uniform(-1, 1, 40)
    assert worst_ulps(np.append(moduli * np.exp(1j * rng.uniform(-np.pi, np.pi, 40)), [1 - 2.0**-53, 1j])) <= LOG_ULPS


def test_other_moduli_are_as_accurate():
    z = np.array(
        [5e-324, 1e-300 + 1e-200j, 1e200 - 1e200j, -1, 0.5, 2j, 0.5 + 1e-17j, 1.99 + 0.01j, 1e-3 - 7j], complex
    )
    assert worst_ulps(z) <= LOG_ULPS


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_logarithm_of_zero_makes_powers_of_zero(dtype):
    re, im = (part.to(dtype) for part in log_parts(torch.zeros(1, dtype=torch.complex128)))
    assert (re, im) == (LOG_OF_ZERO, 0)
    assert torch.exp(torch.arange(3) * re).tolist() == [1, 0, 0]
