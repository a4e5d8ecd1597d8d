"""Systems and signals for the tests of compiled kernels, and the readable backend as what they are compared with."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.systems import DiagonalSystem

# Blocks have 64 or 128 steps, vectors 16 numbers at most.
LENGTHS = (1, 2, 15, 16, 17, 63, 64, 65, 127, 129, 200)


@pytest.fixture(scope="session")
def readable():
    return NumPyBackend()


@pytest.fixture
def draw():
    """A diagonal system, inputs, a state of some orders, and cotangents, all of moderate size."""

    def make(batch, n_channels, n_modes, length, dtype="float64", order=1, real=False, seed=0):
        rng = np.random.default_rng(seed)

        def numbers(*shape):
            return rng.normal(size=shape) + (0 if real else 1j * rng.normal(size=shape))

        modulus = rng.uniform(0.8, 1, (n_channels, n_modes))
        A_bar = modulus * (1 if real else np.exp(1j * rng.uniform(-3, 3, modulus.shape)))
        system = DiagonalSystem(A_bar, 0.1 * numbers(n_channels, n_modes), numbers(n_channels, n_modes)).astype(dtype)
        kind = np.result_type(*system.parameters.values())
        u, grad_y = rng.normal(size=(2, batch, n_channels, length)).astype(dtype)
        states = numbers(2, batch, order, n_channels, n_modes).astype(kind)
        return system, u, states[0], grad_y, states[1]

    return make


def assert_close(found, expected, dtype="float64"):
    """Equal but for rounding: sums of some thousand terms of which each passes some hundred roundings of moderate size.

    A wrong index, sign or factor changes results by far more; what bounds allow is judged by the property suite.
    """
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    scale = float(np.abs(expected).max(initial=0.0))
    assert np.abs(found - expected).max(initial=0.0) <= 2000 * np.finfo(dtype).eps * max(scale, 1e-30)


@pytest.fixture
def close():
    return assert_close
