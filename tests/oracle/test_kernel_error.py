"""Kernels of the SciPy backend are within their bounds, which are of a useful size."""

from __future__ import annotations

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.oracle.convolution import kernel_and_size
from liquid_ssm.oracle.enclosure import enclose_kernel
from liquid_ssm.oracle.kernel_error import kernel_error
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.registry import get_backend
from liquid_ssm.rounding_errors import realization_of
from liquid_ssm.testing.strategies import random_system


def model(dtype):
    return RoundingModel.of_dtype(dtype, pairwise=True, fft=True, kernel_dtype="float64")


def ratio(system, length, power=1):
    kernel = get_backend("scipy").kernel(system, length, power=power)
    exact = enclose_kernel(realization_of(system), length, power)
    error = np.linalg.norm((kernel - exact.hi) - exact.lo, axis=1) + np.linalg.norm(exact.radius, axis=1)
    bound = np.linalg.norm(kernel_error(realization_of(system), length, power, model(system.dtype)), axis=1)
    return error / bound, bound / np.linalg.norm(exact.hi, axis=1)


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", [1, 2, 33, 64, 65])
def test_random_kernels_are_within_their_bounds(structure, dtype, length):
    for seed in range(4):
        system = random_system(structure, n_channels=2, n_modes=3, seed=seed, drive=0.5).astype(dtype)
        for power in (1, 2, 3):
            errors, relative = ratio(system, length, power)
            assert errors.max() <= 1
            # a bound above a hundredth would let whole wrong terms pass
            assert relative.max() < 1e-2


@pytest.mark.parametrize("init", ["legs", "fout", "s4d-inv", "s4d-lin"])
@pytest.mark.parametrize("n_state", [4, 64])
def test_kernels_of_initialisations_are_within_their_bounds(init, n_state):
    system = ls.initialize(init, n_channels=2, n_state=n_state, seed=1).discretize("bilinear")
    errors, relative = ratio(system, 200)
    assert errors.max() <= 1
    assert relative.max() < 1e-6


def test_kernel_values_and_sizes():
    system = random_system("diagonal", n_channels=1, n_modes=2)
    values, sizes = kernel_and_size(realization_of(system), 700)
    exact = enclose_kernel(realization_of(system), 700)
    # 700 complex products in float64 behind each of the last entries
    assert np.all(np.abs(values - exact.hi) <= 700 * 8 * 2.0**-53 * sizes)
    assert np.all(np.abs(values) <= sizes * (1 + 1e-12))
