"""The adjoint of `kb` over adjacent tuples as one recurrence on diagonal systems."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import liquid_ssm as ls
from liquid_ssm.backends.compiled.joint_adjoint import joint_vjp
from liquid_ssm.backends.compiled.scan_adjoint import STEPS
from liquid_ssm.oracle.adjoint import gradients_by_duals
from liquid_ssm.oracle.adjoint_bounds import gradient_bounds
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.rounding_errors import realization_of
from liquid_ssm.systems import DiagonalSystem

NAMES = {"A_bar": "A", "B_bar": "B", "C": "C"}


def system(n_channels, n_modes, dtype="float64", *, real=False, paired=True, seed=0):
    """Damped, so that gradients of the system of moduli stay of moderate size."""
    rng = np.random.default_rng(seed)

    def numbers(size):
        modulus = size * rng.uniform(0.3, 1, (n_channels, n_modes))
        return modulus * (rng.choice([-1, 1], modulus.shape) if real else np.exp(6.3j * rng.random(modulus.shape)))

    dtype = np.dtype(dtype) if real else np.result_type(dtype, np.complex64)
    parts = (numbers(size).astype(dtype) for size in (0.8, 0.4, 1.0))
    return DiagonalSystem(*parts, conjugate_pairs=paired)


def check(case, **options):
    found = joint_vjp(case.system, case.u, case.grad_y, order=case.order, **{"threads": 1, **options})
    case.require_gradients(found, options.get("state_dtype"))
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [0, 1, 2, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS + 3])
def test_lengths_around_blocks(joint_case, dtype, order, length):
    check(joint_case(system(3, 5, dtype), 2, length, order))


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(1, 20)),
    length=st.sampled_from([0, 1, 2, 3, 7, 13, 31, 61, 127, 128, 131, 197]),
    order=st.integers(1, 4),
    real=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 1000),
)
def test_every_shape(joint_case, shape, length, order, real, dtype, seed):
    batch, n_channels, n_modes = shape
    drawn = system(n_channels, n_modes, dtype, real=real, paired=not real, seed=seed)
    check(joint_case(drawn, batch, length, order, seed))


@pytest.mark.parametrize("paired", [True, False])
def test_more_orders_than_steps_in_a_block(paired):
    """Inputs and parameters of modulus 1, so that every order counts and all numbers are whole: no rounding at all."""
    rng = np.random.default_rng(0)
    s = DiagonalSystem(*(1j ** rng.integers(0, 4, (3, 2, 3))), conjugate_pairs=paired)
    u, grad_y = rng.choice([-1.0, 1.0], (2, 1, 2, 2 * STEPS + 10))
    order = STEPS + 3
    found = joint_vjp(s, u, grad_y, order=order, threads=1)
    expected = ls.vjp(s, u, grad_y, backend="numpy", mode="kb", order=order, correlations="adjacent")
    assert np.array_equal(found.u, expected.u)
    assert np.array_equal(found.state[0], expected.state.x[:, -1])
    assert np.array_equal(found.state[1], expected.state.inputs)
    for name, gradient in expected.parameters.items():
        assert np.array_equal(found.parameters[name], gradient)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("paired", [True, False])
def test_gradients_are_within_the_running_bound(dtype, order, paired):
    for seed in range(3):
        s = system(2, 2, dtype, paired=paired, seed=seed)
        u, grad_y = np.random.default_rng(seed).normal(size=(2, 2, 2, 6)).astype(dtype)
        options = {"order": order, "correlations": "adjacent"}
        model = RoundingModel.of_dtype(dtype, fused=True, joint_adjacent=True)
        bounds = gradient_bounds(realization_of(s), u, mode="kb", grad_y=grad_y, model=model, **options)
        exact = gradients_by_duals(realization_of(s), u, "kb", grad_y, **options)
        found = joint_vjp(s, u, grad_y, order=order, threads=1)
        for gradient, name in [(found.u, "u"), *((found.parameters[ours], theirs) for ours, theirs in NAMES.items())]:
            expected = np.array([complex(z.real, z.imag) for z in exact[name].ravel()]).reshape(gradient.shape)
            # The conversion of the exact value rounds once more.
            assert np.all(np.abs(gradient - expected) <= bounds[name] + 2.0**-52 * np.abs(expected)), name


def test_wide_states_under_narrow_data(joint_case):
    found = check(joint_case(system(3, 5, "float32"), 2, 140, 3), state_dtype="float64")
    assert found.state[0].dtype == np.complex128


def test_a_missing_cotangent_is_zero(joint_case):
    case = joint_case(system(2, 3), 2, 140, 3)
    found = joint_vjp(case.system, case.u, None, order=3, threads=1)
    assert not any(gradient.any() for gradient in (found.u, *found.state, *found.parameters.values()))


def test_no_bit_depends_on_the_threads(joint_case):
    case = joint_case(system(20, 9, "float32"), 5, 200, 3)
    one, three = (joint_vjp(case.system, case.u, case.grad_y, order=3, threads=n) for n in (1, 3))
    assert one.u.tobytes() == three.u.tobytes()
    for name, gradient in one.parameters.items():
        assert gradient.tobytes() == three.parameters[name].tobytes()
