"""Vector-Jacobian products of every mode against the oracle's exact derivatives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import liquid_ssm as ls
from liquid_ssm.compute import problem_of
from liquid_ssm.modes import State, state_shapes
from liquid_ssm.oracle.adjoint import gradients, gradients_by_duals
from liquid_ssm.oracle.adjoint_bounds import gradient_bounds
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.problem import ModeSpec
from liquid_ssm.registry import get_backend
from liquid_ssm.rounding_errors import realization_of, rounding_model
from liquid_ssm.testing.strategies import DISCRETE_STRUCTURES, random_system

NAMES = {"A_bar": "A", "Lambda_bar": "A", "B_bar": "B", "C": "C", "P_bar": "P", "Q_bar": "Q"}

SPECS = [
    ModeSpec("s4"),
    ModeSpec("liquid"),
    ModeSpec("truncated", 3),
    ModeSpec("kb", 3),
    ModeSpec("kb", 2, "all", 3),
    ModeSpec("kb", 3, "adjacent"),
    ModeSpec("kb", 2, "adjacent", 3),
    ModeSpec("pb", 3),
    ModeSpec("pb", 3, "all", 4),
    ModeSpec("pb", 3, "adjacent"),
    ModeSpec("pb", 2, "adjacent", 3),
]


def options(spec):
    return {"order": spec.order, "correlations": spec.correlations, "window": spec.window}


def to_float(array):
    return np.array([complex(z.real, z.imag) for z in array.ravel()]).reshape(array.shape)


def within(gradient, exact, bound):
    """Whether a gradient is within its bound of the exact one, whose conversion to complex128 rounds once more."""
    expected = to_float(exact)
    return np.all(np.abs(gradient - expected) <= bound + 2.0**-53 * np.abs(expected))


def model(dtype):
    """How the numpy backend computes: sums are balanced trees."""
    return RoundingModel.of_dtype(dtype, pairwise=True)


CASES = [(s, spec) for s in DISCRETE_STRUCTURES for spec in SPECS if not (s == "mimo" and spec.mode in ("kb", "pb"))]


@pytest.mark.parametrize(("structure", "spec"), CASES, ids=lambda v: v if isinstance(v, str) else v.label)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_outputs_are_those_of_the_exact_mode(structure, spec, dtype):
    system = random_system(structure, n_channels=1 if structure != "mimo" else 2, n_modes=2, seed=3).astype(dtype)
    rng = np.random.default_rng(5)
    u, grad_y = rng.normal(size=(2, 1, system.n_channels, 4)).astype(dtype)
    found = ls.vjp(system, u, grad_y, mode=spec.mode, **options(spec))
    realization = realization_of(system)
    exact = gradients_by_duals(realization, u, spec.mode, grad_y, **options(spec))
    bounds = gradient_bounds(realization, u, mode=spec.mode, grad_y=grad_y, model=model(dtype), **options(spec))
    pairs = [(found.u, "u")] + [(found.parameters[name], NAMES[name]) for name in system.parameters]
    for gradient, name in pairs:
        assert gradient.dtype.name in (dtype, "complex64" if dtype == "float32" else "complex128")
        assert within(gradient, exact[name], bounds[name]), name


@pytest.mark.parametrize("structure", DISCRETE_STRUCTURES)
@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated"])
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(0, 5))
def test_gradients_through_initial_and_final_state(structure, mode, seed, length):
    rng = np.random.default_rng(seed)
    spec = ModeSpec(mode, 2)
    system = random_system(structure, n_channels=2, n_modes=2, seed=seed)
    u, grad_y = rng.normal(size=(2, 1, 2, length))
    shape = state_shapes(system, spec, 1)["x"]
    state, grad_state = rng.normal(size=(2, *shape)) + 1j * rng.normal(size=(2, *shape))
    found = ls.vjp(system, u, grad_y, mode=mode, order=2, state=state, grad_state=grad_state)
    realization = realization_of(system)
    exact = gradients(realization, u, mode, grad_y, grad_state, order=2, state=state)
    bounds = gradient_bounds(
        realization,
        u,
        mode=mode,
        grad_y=grad_y,
        grad_state=grad_state,
        order=2,
        state=state,
        model=model(np.float64),
    )
    pairs = [(found.u, "u"), (found.state, "state")]
    pairs += [(found.parameters[name], NAMES[name]) for name in system.parameters]
    for gradient, name in pairs:
        assert within(gradient, exact[name], bounds[name]), name


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense"])
@pytest.mark.parametrize("spec", SPECS[3:], ids=lambda s: s.label)
def test_gradients_of_carried_states_join_two_halves(structure, spec):
    """Chain rule: the gradient of one call equals that of two calls joined by their state."""
    system = random_system(structure, n_channels=2, n_modes=2, seed=1)
    rng = np.random.default_rng(2)
    u, grad_y = rng.normal(size=(2, 1, 2, 9))
    whole = ls.vjp(system, u, grad_y, mode=spec.mode, **options(spec))
    cut = 4
    _, state = ls.apply(system, u[..., :cut], mode=spec.mode, return_state=True, backend="numpy", **options(spec))
    second = ls.vjp(system, u[..., cut:], grad_y[..., cut:], mode=spec.mode, state=state, **options(spec))
    first = ls.vjp(system, u[..., :cut], grad_y[..., :cut], mode=spec.mode, grad_state=second.state, **options(spec))
    # Two computations, each within γ_n of the moduli: cut in two, the same terms pass a few additions more, for which
    # a model that sums in unknown order leaves room.
    bounds = gradient_bounds(
        realization_of(system),
        u,
        mode=spec.mode,
        grad_y=grad_y,
        model=RoundingModel.of_dtype(np.float64, scan="any"),
        **options(spec),
    )
    joined = np.concatenate([first.u, second.u], axis=-1)
    assert np.all(np.abs(joined - whole.u) <= 2 * bounds["u"])
    for name, gradient in whole.parameters.items():
        both = first.parameters[name] + second.parameters[name]
        assert np.all(np.abs(both - gradient) <= 2 * bounds[NAMES[name]]), name


@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_orders_that_are_joined(structure, dtype):
    """One adjoint recurrence without states, one per order with them: each within its bound of the same gradients."""
    rng = np.random.default_rng(0)
    system = random_system(structure, n_channels=1, n_modes=2).astype(dtype)
    u, grad_y = rng.normal(size=(2, 2, 1, 6)).astype(dtype)
    spec = ModeSpec("kb", 3, "adjacent")
    joint = ls.vjp(system, u, grad_y, mode="kb", backend="numba", **options(spec))
    rest = State(np.zeros_like(joint.state.x), None, np.zeros_like(joint.state.inputs))
    apart = ls.vjp(system, u, grad_y, mode="kb", backend="numba", state=rest, **options(spec))
    exact = gradients_by_duals(realization_of(system), u, "kb", grad_y, **options(spec))
    for found, together in ((joint, True), (apart, False)):
        rounding = RoundingModel.of_dtype(dtype, kernels="tables", joint_adjacent=together)
        bounds = gradient_bounds(realization_of(system), u, mode="kb", grad_y=grad_y, model=rounding, **options(spec))
        assert within(found.u, exact["u"], bounds["u"])
        for name, gradient in found.parameters.items():
            assert within(gradient, exact[NAMES[name]], bounds[NAMES[name]]), name
    assert joint.state.x.shape == apart.state.x.shape == state_shapes(system, spec, 2)["x"]
    # That of a linear state depends on neither the drive nor the order: it is that of `s4`.
    given = {"mode": "s4", "grad_y": grad_y, "state": rest.x[:, 0]}
    bound = gradient_bounds(realization_of(system), u, **given, model=RoundingModel.of_dtype(dtype))["state"]
    wanted = gradients_by_duals(realization_of(system), u, **given)["state"]
    for found in (joint, apart):
        assert all(within(found.state.x[:, p], wanted, bound) for p in range(3))
    # That of earlier inputs is one of a signal with as many zeros in front, which come after the state.
    longer, seed = (np.concatenate([np.zeros((2, 1, 2), dtype), v], axis=-1) for v in (u, grad_y))
    bound = gradient_bounds(
        realization_of(system),
        longer,
        mode="kb",
        grad_y=seed,
        model=RoundingModel.of_dtype(dtype, joint_adjacent=True),
        **options(spec),
    )
    exact = gradients_by_duals(realization_of(system), longer, "kb", seed, **options(spec))
    # Without the linear response, which is the state's.
    linear = gradients_by_duals(realization_of(system), longer, "s4", seed)
    assert within(joint.state.inputs, exact["u"][..., :2] - linear["u"][..., :2], bound["u"][..., :2])


@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
@pytest.mark.parametrize(
    ("backend", "dtype"), [("numba", "float32"), ("numba", "float64"), ("numba-wide-state", "float32")]
)
@pytest.mark.parametrize("correlations", ["all", "adjacent"])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_gradients_of_correlations_added_in_one_pass(structure, backend, dtype, correlations, order):
    """`pb` in one pass, forwards and backwards, against the exact gradients; then in two halves, joined by a state."""
    rng = np.random.default_rng(1)
    system = random_system(structure, n_channels=1, n_modes=2).astype(dtype)
    u, grad_y = rng.normal(size=(2, 2, 1, 6)).astype(dtype)
    given = {"mode": "pb", "order": order, "correlations": correlations}
    problem = problem_of(system, u, ModeSpec(**given), gradient=True)
    bounds = gradient_bounds(
        realization_of(system), u, grad_y=grad_y, model=rounding_model(get_backend(backend), problem), **given
    )
    exact = gradients_by_duals(realization_of(system), u, "pb", grad_y, order=order, correlations=correlations)
    found = ls.vjp(system, u, grad_y, backend=backend, **given)
    assert within(found.u, exact["u"], bounds["u"])
    for name, gradient in found.parameters.items():
        assert within(gradient, exact[NAMES[name]], bounds[NAMES[name]]), name
    _, state = ls.apply(system, u[..., :3], backend=backend, return_state=True, **given)
    second = ls.vjp(system, u[..., 3:], grad_y[..., 3:], backend=backend, state=state, **given)
    first = ls.vjp(system, u[..., :3], grad_y[..., :3], backend=backend, grad_state=second.state, **given)
    # The same terms pass a few additions more than in one run, for which sums in unknown order leave room.
    assert within(np.concatenate([first.u, second.u], axis=-1), exact["u"], bounds["u"])
    for name, gradient in first.parameters.items():
        assert within(gradient + second.parameters[name], exact[NAMES[name]], bounds[NAMES[name]]), name
