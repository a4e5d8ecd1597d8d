"""Recurrences in float64 for data in float32: outputs within their sharper bounds, states in float32 not."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backend import Backend
from liquid_ssm.modes import run
from liquid_ssm.oracle.metrics import absolute_error
from liquid_ssm.oracle.reference import _Run, reference
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.problem import ModeSpec
from liquid_ssm.registry import get_backend
from liquid_ssm.rounding_errors import options, realization_of
from liquid_ssm.testing.strategies import DISCRETE_STRUCTURES, random_system

NUMPY = get_backend("numpy")


class Finer(Backend):
    """The numpy backend with scans and cascades in float64, y rounded once, and states as float64 finds them.

    Args:
        forgetful: states are rounded to float32 after every step.
    """

    name = "finer"
    capabilities = NUMPY.capabilities

    def __init__(self, forgetful=False):
        self.forgetful = forgetful

    def _wide(self, method, system, u, state, **more):
        wide, inputs = system.astype("float64"), u.astype(float)
        if not self.forgetful:
            y, final = method(wide, inputs, state, **more)
            return y.astype(u.dtype), final
        y = np.empty_like(u)
        for k in range(u.shape[-1]):
            part, state = method(wide, inputs[..., k : k + 1], state, **more)
            y[..., k] = part[..., 0]
            state = state.astype(np.complex64).astype(complex)
        return y, state

    def scan(self, system, u, state=None, *, liquid):
        return self._wide(NUMPY.scan, system, u, state, liquid=liquid)

    def cascade(self, system, u, state=None, *, order, kind, window=None):
        if window is not None:
            return NUMPY.cascade(system, u, state, order=order, kind=kind, window=window)
        return self._wide(NUMPY.cascade, system, u, state, order=order, kind=kind)

    def kernel(self, system, length, power=1):
        impulse = np.zeros((1, system.n_channels, length), np.float32)
        impulse[..., :1] = 1
        return self.scan(system.with_input_power(power), impulse, liquid=False)[0][0]

    def convolve(self, kernel, u):
        return NUMPY.convolve(kernel, u)

    def correlate(self, u, **more):
        return NUMPY.correlate(u, **more)


FORMS = [ModeSpec("s4"), ModeSpec("liquid"), ModeSpec("truncated", 3)]
FORMS += [ModeSpec(m, 3, c, w) for m in ("kb", "pb") for c in ("all", "adjacent") for w in (None, 5)]
RECURRENT = ("s4", "liquid", "truncated")


def case(structure, seed, length, *, decay=0.05, drive=0.2):
    system = random_system(structure, n_channels=2, n_modes=3, seed=seed, decay=decay, drive=drive).astype("float32")
    return system, np.random.default_rng(seed).normal(size=(2, 2, length)).astype(np.float32)


def compare(system, u, spec, y):
    """The largest error in units of the bound with finer states, and of the bound without."""
    models = [RoundingModel.of_dtype("float32", pairwise=True, state_dtype=d) for d in ("float64", None)]
    found = reference(realization_of(system), u, spec.mode, models=models, **options(spec))
    error = absolute_error(y, found.value) - found.radius
    return [bound.units(np.maximum(error, 0)) for bound in found.bounds], found


@pytest.mark.parametrize("structure", DISCRETE_STRUCTURES)
@pytest.mark.parametrize("spec", FORMS, ids=lambda s: s.label)
def test_every_mode_is_within_its_bound(structure, spec):
    if structure == "mimo" and spec.mode in ("kb", "pb"):
        pytest.skip("a mode that mimo does not have")
    for seed, length in enumerate((1, 2, 33, 80)):
        system, u = case(structure, seed, length, decay=(0.0, 0.05, 1.0)[seed % 3], drive=(0.5, 0.1)[seed % 2])
        y, _ = run(Finer(), system, u, spec)
        (finer, plain), found = compare(system, u, spec, y)
        assert finer <= 1
        assert plain <= 1
        sharp, wide = (b.componentwise for b in found.bounds)
        assert np.all(sharp <= wide * (1 + 1e-6))
        if spec.mode in RECURRENT and length > 2:
            # one rounding of y is most of what is left
            assert np.median(sharp / (2.0**-24 * np.abs(np.asarray(found.value, float)))) < 1.01


@pytest.mark.parametrize("structure", DISCRETE_STRUCTURES)
@pytest.mark.parametrize("spec", FORMS[:3], ids=lambda s: s.label)
def test_states_in_float32_exceed_the_bound(structure, spec):
    system, u = case(structure, 1, 120, decay=0.0, drive=0.1)
    (units, plain), _ = compare(system, u, spec, run(Finer(forgetful=True), system, u, spec)[0])
    assert units > 3
    assert plain <= 1


def test_powers_of_the_input_vector_are_rounded_with_the_parameters():
    """`kb` multiplies float32 powers of B̄: a bound that took them for float64 ones would be exceeded."""
    spec = ModeSpec("kb", 3, "adjacent")
    system, u = case("diagonal", 3, 60, drive=1.0)
    y, _ = run(Finer(), system, u, spec)
    (units, _), found = compare(system, u, spec, y)
    assert 1e-2 < units <= 1
    only_rounded = 2.0**-24 * np.abs(np.asarray(found.value, float))
    assert np.any(absolute_error(y, found.value) > 3 * only_rounded)


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense"])
def test_windowed_chains_keep_the_working_precision(structure):
    system, u = case(structure, 3, 20)
    models = [RoundingModel.of_dtype("float32", state_dtype=d) for d in (None, None, "float64")]
    found = _Run(realization_of(system), u.astype(float), models, None)._windowed_chain(2, 5)[1]
    assert np.array_equal(found[1], found[2])


def test_an_initial_state_enters_exactly():
    system, u = case("diagonal", 2, 40)
    state = np.random.default_rng(5).normal(size=(2, 2, 3)) * (1 + 1j) / 3
    y, _ = Finer().scan(system, u, state, liquid=True)
    model = RoundingModel.of_dtype("float32", pairwise=True, state_dtype="float64")
    for start, fits in ((state, True), (state.astype(np.complex64), False)):
        found = reference(realization_of(system), u, "liquid", state=start, models=[model])
        assert (found.bounds[0].units(absolute_error(y, found.value)) <= 1) == fits


def test_a_reference_in_float64_bounds_states_in_float64():
    system, u = case("diagonal", 4, 50)
    model = RoundingModel.of_dtype("float32", state_dtype="float64")
    coarse, fine = (
        reference(realization_of(system), u, "liquid", models=[model], dtype=d) for d in (np.float64, np.longdouble)
    )
    assert np.allclose(coarse.bounds[0].componentwise, fine.bounds[0].componentwise, rtol=1e-6)
    with pytest.raises(ValueError, match="finer than the reference's float32"):
        reference(realization_of(system), u, "liquid", models=[model], dtype=np.float32)
