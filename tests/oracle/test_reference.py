"""T3 lies within its own error bound of T1, and its bounds catch small mistakes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liquid_ssm.oracle import reference as reference_module
from liquid_ssm.oracle.enclosure import enclose
from liquid_ssm.oracle.metrics import absolute_error
from liquid_ssm.oracle.realization import Realization
from liquid_ssm.oracle.reference import reference
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.rounding_errors import realization_of
from liquid_ssm.testing.strategies import DISCRETE_STRUCTURES, inputs, mode_specs, random_system, systems


def options(spec):
    return {"order": spec.order, "correlations": spec.correlations, "window": spec.window}


@pytest.mark.parametrize("structure", DISCRETE_STRUCTURES)
@pytest.mark.parametrize("dtype", [np.float64, np.longdouble])
@settings(deadline=None)
@given(data=st.data())
def test_reference_is_within_its_radius_of_the_enclosure(structure, dtype, data):
    system = data.draw(systems((structure,)))
    spec = data.draw(mode_specs(structure))
    u = data.draw(inputs(system.n_channels, max_length=30))
    realization = realization_of(system)
    state = None
    if spec.mode in ("s4", "liquid", "truncated") and data.draw(st.booleans()):
        shape = (len(u), system.n_modes) if structure == "mimo" else (len(u), *system.C.shape)
        state = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=shape) + 0j
    exact = enclose(realization, u, spec.mode, state=state, **options(spec))
    found = reference(realization, u, spec.mode, state=state, dtype=dtype, **options(spec))
    assert found.value.dtype == dtype
    assert np.all(absolute_error(found.value, exact.hi, exact.lo) <= found.radius + exact.radius)


@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated", "kb", "pb"])
@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense"])
def test_bound_of_float32_is_below_a_thousandth_of_the_output(structure, mode):
    """A bound that no bug can exceed is a defect: here it stays far below the output itself."""
    system = random_system(structure, n_channels=2, n_modes=4, decay=0.3, drive=0.2)
    u = np.random.default_rng(1).normal(size=(1, 2, 100))
    model = RoundingModel.of_dtype("float32", pairwise=True)
    found = reference(realization_of(system), u, mode, models=[model])
    ratio = found.bounds[0].componentwise / np.abs(found.value).max(axis=-1, keepdims=True)
    assert ratio.max() < 1e-3


@pytest.mark.parametrize("parameter", ["A", "B", "C"])
def test_bound_catches_a_wrong_digit(parameter):
    """One parameter off in the fifth digit is far outside the float32 bound, in every mode."""
    system = random_system("diagonal", n_channels=1, n_modes=3, decay=0.3, drive=0.2)
    right = realization_of(system)
    arrays = {"A": right.A.copy(), "B": right.B.copy(), "C": right.C.copy()}
    arrays[parameter][0, 1] *= 1 + 1e-4
    wrong = Realization("diagonal", **arrays)
    u = np.random.default_rng(1).normal(size=(1, 1, 60))
    model = RoundingModel.of_dtype("float32", pairwise=True)
    for mode in ("s4", "liquid", "truncated", "kb", "pb"):
        y = reference(wrong, u, mode).value
        found = reference(right, u, mode, models=[model])
        assert found.bounds[0].units(absolute_error(y, found.value)) > 1, mode


def test_states_are_carried_across_chunks_and_blocks():
    """Longer than any internal chunk: still within the radius of T1."""
    for structure, length in (("diagonal", 9000), ("dplr", 200)):
        system = random_system(structure, n_channels=1, n_modes=4, decay=0.01, drive=0.01)
        u = np.random.default_rng(2).normal(size=(1, 1, length))
        for mode in ("liquid", "truncated"):
            exact = enclose(realization_of(system), u, mode, order=2)
            found = reference(realization_of(system), u, mode, order=2)
            assert np.all(absolute_error(found.value, exact.hi, exact.lo) <= found.radius + exact.radius)


def test_bad_arguments_are_named():
    system = realization_of(random_system("diagonal"))
    u = np.zeros((1, 2, 3))
    with pytest.raises(ValueError, match="unknown mode 'lquid'"):
        reference(system, u, "lquid")
    with pytest.raises(ValueError, match="finer"):
        reference(system, u, "s4", models=[RoundingModel.of_dtype("float64")], dtype=np.float32)
    with pytest.raises(ValueError, match="mimo"):
        reference(realization_of(random_system("mimo")), u, "pb")
    with pytest.raises(ValueError, match="initial state"):
        reference(system, u, "pb", state=np.zeros((1, 2, 3)))


def test_an_fft_bound_is_normwise_and_the_others_are_not():
    system = realization_of(random_system("diagonal"))
    u = np.random.default_rng(0).normal(size=(1, 2, 30))
    models = [
        RoundingModel.of_dtype("float64", pairwise=True),
        RoundingModel.of_dtype("float64", pairwise=True, fft=True, kernel_dtype="float64"),
    ]
    direct, fft = reference(system, u, "s4", models=models).bounds
    assert direct.is_componentwise
    assert not fft.is_componentwise
    assert fft.units(np.zeros_like(u)) == 0


@pytest.mark.parametrize("structure", ["diagonal", "mimo", "dplr", "dense"])
@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated", "kb", "pb"])
def test_what_is_known_of_contraction_only_tightens_a_bound(structure, mode):
    if structure == "mimo" and mode in ("kb", "pb"):
        pytest.skip("a mode that mimo does not have")
    system = realization_of(random_system(structure, decay=0.1, drive=0.2))
    u = np.random.default_rng(0).normal(size=(1, 2, 40))
    models = [RoundingModel.of_dtype("float32", pairwise=True, fused=fused) for fused in (None, False, True)]
    found = reference(system, u, mode, models=models, dtype=np.float64)
    unknown, separate, fused = (bound.componentwise for bound in found.bounds)
    assert np.all(separate <= unknown)
    # from rest, the first step multiplies nothing
    assert np.all(fused <= unknown)
    assert np.all(fused[..., 1:] < unknown[..., 1:])


def test_a_window_as_long_as_the_signal_has_the_bound_of_the_chain():
    """The bounds of `kb` with a window belong to its last step; norms make them somewhat wider."""
    system = realization_of(random_system("dplr", n_channels=2, decay=0.1, drive=0.2))
    u = np.random.default_rng(0).normal(size=(1, 2, 40))
    options = {"models": [RoundingModel.of_dtype("float32", pairwise=True)]}
    whole, window = (reference(system, u, "kb", window=window, **options) for window in (None, 40))
    assert np.abs(whole.value - window.value).max() <= (whole.radius + window.radius).max()
    ratio = window.bounds[0].componentwise / whole.bounds[0].componentwise
    assert ratio.min() >= 1 - 2.0**-6
    assert ratio.max() < 3


def test_windows_that_are_run_in_pieces_are_those_run_together(monkeypatch):
    system = realization_of(random_system("dplr", n_channels=2))
    u = np.random.default_rng(0).normal(size=(2, 2, 40))
    options = {"window": 5, "models": [RoundingModel.of_dtype("float32", pairwise=True)]}
    whole = reference(system, u, "kb", **options)
    monkeypatch.setattr(reference_module, "_WINDOW_ELEMENTS", 7 * u[0, :, :5].size * system.n_modes)
    pieces = reference(system, u, "kb", **options)
    assert np.array_equal(whole.value, pieces.value)
    assert np.allclose(whole.bounds[0].componentwise, pieces.bounds[0].componentwise, rtol=2.0**-40)


def test_a_shared_linear_term_changes_nothing():
    """The dict is handed from mode to mode with the models in any number; every result is as if computed alone."""
    system = realization_of(random_system("diagonal"))
    u = np.random.default_rng(0).normal(size=(1, 2, 20))
    shared: dict = {}
    for models in ([], [RoundingModel.of_dtype("float64", pairwise=True)]):
        for mode in ("s4", "pb", "kb", "s4"):
            alone = reference(system, u, mode, correlations="adjacent", models=models)
            together = reference(system, u, mode, correlations="adjacent", models=models, shared=shared)
            assert np.array_equal(alone.value, together.value)
            assert np.array_equal(alone.radius, together.radius)
            for a, b in zip(alone.bounds, together.bounds, strict=True):
                assert np.array_equal(a.componentwise, b.componentwise)
    assert len(shared) == 2
