"""The integrators' reference against exact rationals, and the integrators against its bound."""

from __future__ import annotations

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.oracle.discretisation import adams_bashforth, bilinear_exact
from liquid_ssm.oracle.integrator_reference import integrator_reference
from liquid_ssm.oracle.metrics import absolute_error
from liquid_ssm.oracle.rounding import RoundingModel

METHODS = {"adams-bashforth": adams_bashforth, "bilinear-exact": bilinear_exact}


def continuous(dt_max=0.02, n_state=6, seed=0):
    return ls.initialize("s4d-lin", n_channels=2, n_state=n_state, dt_min=1e-3, dt_max=dt_max, seed=seed)


def arguments(system):
    return [system.parameters[name] for name in ("Lambda", "B", "C", "dt")]


@pytest.mark.parametrize("method", METHODS)
def test_values_are_within_the_radius_of_exact_ones(method):
    system = continuous().discretize(method)
    u = np.random.default_rng(0).normal(size=(1, 2, 6))
    exact = METHODS[method](*arguments(system), u, precision="exact")
    found = integrator_reference(method, *arguments(system), u)
    # rationals to double-double: the error is far below any radius
    hi = exact.astype(float)
    lo = np.array([float(x - y) for x, y in zip(exact.ravel(), map(type(exact.flat[0]), hi.ravel()), strict=True)])
    assert np.all(absolute_error(found.value, hi, lo.reshape(hi.shape)) <= found.radius)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_integrators_are_within_the_bound(method, dtype):
    ratios = []
    for seed in range(8):
        system = continuous(seed=seed).discretize(method).astype(dtype)
        u = np.random.default_rng(seed).normal(size=(2, 2, 200)).astype(dtype)
        y, _ = system.scan(u)
        model = RoundingModel.of_dtype(dtype, pairwise=True)
        found = integrator_reference(method, *arguments(system), u, models=[model])
        ratios.append(found.bounds[0].units(absolute_error(y, found.value) + found.radius))
    assert max(ratios) <= 1
    # tight enough to mean something: an error of a few hundred roundings would show
    assert max(ratios) >= 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_half_is_caught(method):
    """3/2 against 1, or h against δt: the other integrator is far outside the bound."""
    system = continuous().discretize(method).astype("float32")
    other = continuous().discretize(next(m for m in METHODS if m != method)).astype("float32")
    u = np.random.default_rng(0).normal(size=(1, 2, 50)).astype(np.float32)
    model = RoundingModel.of_dtype("float32", pairwise=True)
    found = integrator_reference(method, *arguments(system), u, models=[model])
    assert found.bounds[0].units(absolute_error(other.scan(u)[0], found.value)) > 10


def test_unknown_integrators_are_named():
    with pytest.raises(ValueError, match="bilinear-exact"):
        integrator_reference("trapezoid", *arguments(continuous().discretize("bilinear-exact")), np.zeros((1, 2, 3)))
