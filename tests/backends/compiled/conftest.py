"""Systems and signals for the tests of compiled kernels, and the readable backend as what they are compared with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.oracle.adjoint_bounds import gradient_bounds
from liquid_ssm.oracle.reference import reference
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.rounding_errors import realization_of
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


class JointCase:
    """`kb` over adjacent tuples, all orders as one recurrence, against one recurrence per order in float64.

    The differences are held to the oracle's bounds on both: of outputs as the recurrences run, of gradients by moduli.
    """

    def __init__(self, system, batch, length, order, seed=0):
        rng = np.random.default_rng(seed)
        self.system, self.order = system, order
        shape = (2, batch, system.n_channels, length)
        self.u, self.grad_y = rng.normal(size=shape).astype(system.dtype)
        self.realization = realization_of(system)
        self.options = {"mode": "kb", "order": order, "correlations": "adjacent"}

    def models(self, state_dtype=None):
        joint = RoundingModel.of_dtype(self.system.dtype, fused=True, joint_adjacent=True, state_dtype=state_dtype)
        return joint, RoundingModel.of_dtype("float64", pairwise=True)

    def require_outputs(self, y, state_dtype=None):
        assert (y.shape, y.dtype) == (self.u.shape, self.u.dtype)
        found = reference(self.realization, self.u, models=self.models(state_dtype)[:1], **self.options)
        assert np.all(np.abs(y - found.value) <= found.bounds[0].componentwise + found.radius)

    def require_gradients(self, found, state_dtype=None):
        wide = self.system.astype("float64")
        u, grad_y = self.u.astype(float), self.grad_y.astype(float)
        expected = ls.vjp(wide, u, grad_y, backend="numpy", **self.options)
        bounds = {}
        for model in self.models(state_dtype):
            given = {"grad_y": self.grad_y, "model": replace(model, scan="any"), **self.options}
            for name, bound in gradient_bounds(self.realization, self.u, **given).items():
                bounds[name] = bounds.get(name, 0) + bound
        names = {"A_bar": "A", "Lambda_bar": "A", "B_bar": "B", "C": "C", "P_bar": "P", "Q_bar": "Q"}
        pairs = [(found.u, expected.u, self.u, "u")]
        for name, parameter in self.system.parameters.items():
            pairs.append((found.parameters[name], expected.parameters[name], parameter, names[name]))
        for gradient, wanted, given, name in pairs:
            assert (gradient.shape, gradient.dtype) == (given.shape, given.dtype)
            assert np.all(np.isfinite(bounds[name]))
            assert np.all(np.abs(gradient - wanted) <= bounds[name]), name
        self.require_gradients_of_states(found.state, expected.state)

    def require_gradients_of_states(self, found, expected):
        """The oracle has no bound for the states of `kb`; a wrong index or factor is far from close."""
        x, earlier = found
        for p in range(self.order):
            assert_close(x.astype(expected.x.dtype), expected.x[:, p], self.system.dtype)
        if self.order > 1:
            assert_close(earlier, expected.inputs.astype(earlier.dtype), self.system.dtype)
        else:
            assert earlier.shape == (*self.u.shape[:2], 0)


@pytest.fixture(scope="session")
def joint_case():
    return JointCase
