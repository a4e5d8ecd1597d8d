"""Vector-Jacobian products of every mode against the oracle's exact derivatives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import liquid_ssm as ls
from liquid_ssm.modes import state_shapes
from liquid_ssm.oracle.adjoint import gradients, gradients_by_duals
from liquid_ssm.problem import ModeSpec
from liquid_ssm.rounding_errors import realization_of
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


def of_moduli(realization):
    """The realization whose gradients are those of the original with every product taken by modulus."""
    moduli = {name: np.abs(v) for name in ("A", "B", "C", "Q") if (v := getattr(realization, name)) is not None}
    if realization.P is not None:
        moduli["P"] = -np.abs(realization.P)  # Ā = Λ̄ − P Q*: the minus sign must not cancel either
    return replace(realization, **moduli)


def allowed(length, spec, dtype):
    """Roundings on the longest path of a gradient, times √2 for complex parts, in units of the moduli's gradient.

    Forward and backward together: at most 12 per step and order (three complex products of √5, sums over up to
    4 modes and ranks), plus 12 for powers of B̄, the read-out and the sum over steps and orders.
    """
    n = np.sqrt(2) * (2 * 12 * (length + 2) * spec.order + 12)
    unit = np.finfo(dtype).eps / 2
    return n * unit / (1 - n * unit)


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
    size = gradients_by_duals(of_moduli(realization), np.abs(u), spec.mode, np.abs(grad_y), **options(spec))
    tolerance = allowed(4, spec, dtype)
    pairs = [(found.u, "u")] + [(found.parameters[name], NAMES[name]) for name in system.parameters]
    for gradient, name in pairs:
        assert gradient.dtype.name in (dtype, "complex64" if dtype == "float32" else "complex128")
        error = np.abs(gradient - to_float(exact[name]))
        assert np.all(error <= tolerance * np.abs(to_float(size[name]))), name


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
    size = gradients(
        of_moduli(realization), np.abs(u), mode, np.abs(grad_y), np.abs(grad_state), order=2, state=np.abs(state)
    )
    tolerance = allowed(length, spec, np.float64)
    pairs = [(found.u, "u"), (found.state, "state")]
    pairs += [(found.parameters[name], NAMES[name]) for name in system.parameters]
    for gradient, name in pairs:
        error = np.abs(gradient - to_float(exact[name]))
        assert np.all(error <= tolerance * np.abs(to_float(size[name]))), name


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
    size = ls.vjp(
        type(system)(**{n: np.abs(a) if n != "P_bar" else -np.abs(a) for n, a in system.parameters.items()},
                     conjugate_pairs=system.conjugate_pairs),
        np.abs(u), np.abs(grad_y), mode=spec.mode, **options(spec),
    )  # fmt: skip
    tolerance = 2 * allowed(9, spec, np.float64)
    joined = np.concatenate([first.u, second.u], axis=-1)
    assert np.all(np.abs(joined - whole.u) <= tolerance * np.abs(size.u))
    for name, gradient in whole.parameters.items():
        both = first.parameters[name] + second.parameters[name]
        assert np.all(np.abs(both - gradient) <= tolerance * np.abs(size.parameters[name])), name
