"""Every backend, structure, mode and dtype against the oracle, within the derived bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liquid_ssm.apply import apply, problem_of, step
from liquid_ssm.oracle.enclosure import enclose
from liquid_ssm.oracle.metrics import absolute_error
from liquid_ssm.oracle.reference import reference
from liquid_ssm.problem import DTYPES, ModeSpec
from liquid_ssm.registry import backend_names, get_backend, rejection
from liquid_ssm.rounding_errors import realization_of, rounding_model
from liquid_ssm.testing.strategies import DISCRETE_STRUCTURES, inputs, mode_specs, random_system, systems


def options(spec: ModeSpec) -> dict:
    return {"order": spec.order, "correlations": spec.correlations, "window": spec.window}


def check_within_bound(system, u, spec, name, y, *, by_recurrence=False):
    """|y - exact| + radius <= bound, by T1; by_recurrence: no FFT was used, whatever the backend prefers."""
    problem = problem_of(system, u, spec)
    model = rounding_model(get_backend(name), problem)
    if by_recurrence:
        model = type(model)(model.unit, model.tiny, model.pairwise, False, model.kernel_unit)
    realization = realization_of(system)
    exact = enclose(realization, u, spec.mode, **options(spec))
    bound = reference(realization, u, spec.mode, models=[model], **options(spec)).bounds[0]
    assert np.isfinite(bound.componentwise).all(), "the bound says nothing"
    ratio = bound.units(absolute_error(y, exact.hi, exact.lo) + exact.radius)
    assert ratio <= 1, f"{name} {spec.label} {system.structure} {u.dtype}: error is {ratio:.3g} times the bound"


@pytest.mark.parametrize("name", backend_names())
@pytest.mark.parametrize("structure", DISCRETE_STRUCTURES)
@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None)
@given(data=st.data())
def test_output_is_within_the_bound_of_the_exact_value(name, structure, dtype, data):
    system = data.draw(systems((structure,))).astype(dtype)
    spec = data.draw(mode_specs(structure))
    u = data.draw(inputs(system.n_channels, dtype=dtype))
    if rejection(name, problem_of(system, u, spec)) is None:
        y = apply(system, u, mode=spec.mode, backend=name, **options(spec))
        assert y.dtype == u.dtype
        assert y.shape == u.shape
        check_within_bound(system, u, spec, name, y)


@pytest.mark.parametrize("name", backend_names())
@pytest.mark.parametrize("structure", DISCRETE_STRUCTURES)
@settings(deadline=None)
@given(data=st.data())
def test_steps_and_pieces_are_within_the_bound_too(name, structure, data):
    system = data.draw(systems((structure,)))
    spec = data.draw(mode_specs(structure))
    u = data.draw(inputs(system.n_channels, max_length=12))
    problem = problem_of(system, u, spec, state=True)
    if rejection(name, problem) is not None:
        return
    cut = data.draw(st.integers(0, u.shape[-1]))
    first, state = apply(system, u[..., :cut], mode=spec.mode, backend=name, return_state=True, **options(spec))
    outputs = [first]
    for k in range(cut, u.shape[-1]):
        y_k, state = step(system, u[..., k], state, mode=spec.mode, backend=name, **options(spec))
        outputs.append(y_k[..., None])
    # With a state in play only the finite kernels of windowed adjacent products go through an FFT.
    by_fft = spec.mode == "kb" and spec.correlations == "adjacent" and spec.window is not None
    y = np.concatenate(outputs, axis=-1)
    check_within_bound(system, u, spec, name, y, by_recurrence=name == "numpy" or not by_fft)


@pytest.mark.parametrize("name", backend_names())
@pytest.mark.parametrize("structure", DISCRETE_STRUCTURES)
@settings(deadline=None)
@given(data=st.data())
def test_the_future_does_not_reach_the_past(name, structure, data):
    system = data.draw(systems((structure,)))
    spec = data.draw(mode_specs(structure))
    u = data.draw(inputs(system.n_channels, max_length=20))
    if u.shape[-1] == 0 or rejection(name, problem_of(system, u, spec)) is not None:
        return
    j = data.draw(st.integers(0, u.shape[-1] - 1))
    changed = u.copy()
    changed[..., j:] += 1
    y = apply(system, u, mode=spec.mode, backend=name, **options(spec))
    z = apply(system, changed, mode=spec.mode, backend=name, **options(spec))
    if name == "numpy":  # computed in the order of time: bit for bit
        assert np.array_equal(y[..., :j], z[..., :j])
        return
    # an FFT mixes rounding errors: the past moves by no more than both bounds together
    model = rounding_model(get_backend(name), problem_of(system, u, spec))
    bounds = [
        reference(realization_of(system), v, spec.mode, models=[model], **options(spec)).bounds[0] for v in (u, changed)
    ]
    allowed = sum(np.linalg.norm(b.componentwise, axis=-1) + b.normwise for b in bounds)
    assert np.all(np.linalg.norm(y[..., :j] - z[..., :j], axis=-1) <= allowed)


@pytest.mark.parametrize("residue", range(128))
def test_every_length_modulo_128(residue):
    """Kernels break at the ends of their blocks: 1, Q-1, Q, Q+1, primes; here every residue once per mode."""
    system = random_system("diagonal", n_channels=1, n_modes=2, seed=residue)
    u = np.random.default_rng(residue).normal(size=(1, 1, 128 + residue))
    for spec in (
        ModeSpec("s4"),
        ModeSpec("liquid"),
        ModeSpec("truncated", 2),
        ModeSpec("kb", 2, "all", 1 + max(1, residue)),
        ModeSpec("kb", 2, "adjacent"),
        ModeSpec("pb", 2, "all", 1 + max(1, residue)),
        ModeSpec("pb", 2, "adjacent"),
    ):
        for name in backend_names():
            y = apply(system, u, mode=spec.mode, backend=name, **options(spec))
            bound = reference(
                realization_of(system),
                u,
                spec.mode,
                models=[rounding_model(get_backend(name), problem_of(system, u, spec))],
                **options(spec),
            )
            assert bound.bounds[0].units(absolute_error(y, bound.value) + bound.radius) <= 1, (spec.label, name)
