"""Kernels of the SciPy backend are within their bounds, which are of a useful size and which wrong kernels exceed."""

from __future__ import annotations

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.backends import _cauchy, _vandermonde, scipy_backend
from liquid_ssm.oracle.convolution import kernel_and_size
from liquid_ssm.oracle.enclosure import enclose_kernel
from liquid_ssm.oracle.kernel_error import kernel_error
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.registry import get_backend
from liquid_ssm.rounding_errors import realization_of
from liquid_ssm.testing.strategies import random_system

STRUCTURES = ["diagonal", "dplr", "dense"]


def model(dtype):
    return RoundingModel.of_dtype(dtype, pairwise=True, fft=True, kernel_dtype="float64")


def ratio(system, length, power=1, kernel=None):
    """‖error‖₂/‖bound‖₂ and ‖bound‖₂/‖K‖₂ of every channel."""
    if kernel is None:
        kernel = get_backend("scipy").kernel(system, length, power=power)
    exact = enclose_kernel(realization_of(system), length, power)
    error = np.linalg.norm((kernel - exact.hi) - exact.lo, axis=1) + np.linalg.norm(exact.radius, axis=1)
    bound = np.linalg.norm(kernel_error(realization_of(system), length, power, model(system.dtype)), axis=1)
    return error / bound, bound / np.linalg.norm(exact.hi, axis=1)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", [1, 2, 33, 64, 65])
def test_random_kernels_are_within_their_bounds(structure, dtype, length):
    for seed in range(4):
        system = random_system(structure, n_channels=2, n_modes=3, seed=seed, drive=0.5).astype(dtype)
        for power in (1, 2, 3):
            errors, relative = ratio(system, length, power)
            assert errors.max() <= 1
            # a bound above this would let whole wrong digits pass
            assert relative.max() < (1e-6 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("init", ["legs", "fout", "s4d-inv", "s4d-lin"])
@pytest.mark.parametrize("n_state", [4, 64])
def test_kernels_of_initialisations_are_within_their_bounds(init, n_state):
    system = ls.initialize(init, n_channels=2, n_state=n_state, seed=1).discretize("bilinear")
    errors, relative = ratio(system, 200)
    assert errors.max() <= 1
    assert relative.max() < 1e-11


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_kernel_of_the_wrong_power_exceeds_the_bound(structure, dtype):
    system = random_system(structure, n_modes=3, seed=5).astype(dtype)
    for power in (2, 3):
        wrong = get_backend("scipy").kernel(system, 40, power=power - 1)
        assert ratio(system, 40, power, wrong)[0].min() > 1e4


@pytest.mark.parametrize(("structure", "name"), [("diagonal", "C"), ("dplr", "Q_bar"), ("dense", "C")])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_dropped_conjugate_exceeds_the_bound(structure, name, dtype):
    system = random_system(structure, n_modes=3, seed=6).astype(dtype)
    parameters = dict(system.parameters)
    parameters[name] = parameters[name].conj()
    options = {} if structure == "dense" else {"conjugate_pairs": system.conjugate_pairs}
    wrong = get_backend("scipy").kernel(type(system)(**parameters, **options), 40)
    assert ratio(system, 40, 1, wrong)[0].min() > 1e3


@pytest.mark.parametrize("structure", STRUCTURES)
def test_one_table_in_single_precision_exceeds_the_bound(structure, monkeypatch):
    """Rounding that a float64 kernel must not have, in one of its tables only."""

    def single(values):
        return values.astype(np.complex64 if np.iscomplexobj(values) else np.float32).astype(values.dtype)

    system = random_system(structure, n_modes=3, seed=7)
    power_table, resolvent, dense = _vandermonde.power_table, _cauchy._resolvent, scipy_backend.dense_kernel
    monkeypatch.setattr(_vandermonde, "power_table", lambda a, count: single(power_table(a, count)))
    monkeypatch.setattr(_cauchy, "_resolvent", lambda weights, *rest: resolvent(single(weights), *rest))
    monkeypatch.setattr(scipy_backend, "dense_kernel", lambda A_bar, **rest: dense(A_bar=single(A_bar), **rest))
    assert ratio(system, 40)[0].min() > 1e3


@pytest.mark.parametrize("structure", STRUCTURES)
def test_kernels_without_entries_and_of_one_entry(structure):
    system = realization_of(random_system(structure, n_channels=2, n_modes=2))
    assert kernel_error(system, 0, 1, model("float64")).shape == (2, 0)
    for power in (1, 3):
        bound = kernel_error(system, 1, power, model("float64"))
        size = system.weight * (np.abs(system.C) * np.abs(system.B) ** power).sum(axis=1)
        assert np.all((bound[:, 0] > 0) & (bound[:, 0] <= 20 * 2.0**-53 * size))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_tiny_and_huge_systems_have_bounds_of_their_size(structure):
    """Scaling C by a power of two scales the kernel exactly; squares of these numbers are out of range."""
    system = random_system(structure, n_modes=2, seed=8)
    plain = kernel_error(realization_of(system), 20, 1, model("float64"))
    options = {} if structure == "dense" else {"conjugate_pairs": system.conjugate_pairs}
    for scale in (2.0**-700, 2.0**700):
        moved = type(system)(**{**system.parameters, "C": scale * system.C}, **options)
        assert np.allclose(
            kernel_error(realization_of(moved), 20, 1, model("float64")) / scale, plain, rtol=1e-9, atol=0
        )


def test_diagonal_counts():
    """Entry i of one mode: i + p complex products, two real terms; then the rounding to the working precision."""
    system = random_system("diagonal", n_channels=1, n_modes=1, decay=0.0)
    u = 2.0**-53
    for power in (1, 2):
        found = kernel_error(realization_of(system), 5, power, model("float64"))[0]
        size = (
            2
            * np.abs(system.C[0, 0])
            * np.abs(system.B_bar[0, 0]) ** power
            * np.abs(system.A_bar[0, 0]) ** np.arange(5)
        )
        assert np.allclose(found, (5**0.5 * (np.arange(5) + power) + 2) * u * size, rtol=1e-9, atol=0)
    single = system.astype("float32")
    found = kernel_error(realization_of(single), 5, 1, model("float32"))[0]
    values, _ = kernel_and_size(realization_of(single), 5)
    assert np.allclose(found, 2.0**-24 * np.abs(values[0]), rtol=1e-6, atol=0)


def test_kernel_values_and_sizes():
    system = random_system("diagonal", n_channels=1, n_modes=2)
    values, sizes = kernel_and_size(realization_of(system), 700)
    exact = enclose_kernel(realization_of(system), 700)
    # 700 complex products in float64 behind each of the last entries
    assert np.all(np.abs(values - exact.hi) <= 700 * 8 * 2.0**-53 * sizes)
    assert np.all(np.abs(values) <= sizes * (1 + 1e-12))
