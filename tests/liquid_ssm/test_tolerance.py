"""A tolerance takes float64 states exactly where float32 ones cannot promise it, and the promise is kept."""

from __future__ import annotations

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.errors import ParameterError
from liquid_ssm.problem import ModeSpec, Problem
from liquid_ssm.testing.strategies import random_system
from liquid_ssm.tolerance import WIDE_STATE, backend_for, state_error


def system(dt, dtype="float32"):
    continuous = ls.initialize("s4d-lin", n_channels=2, n_state=16, dt_min=dt, dt_max=dt, seed=0)
    return continuous.discretize("bilinear").astype(dtype)


def problem(length=4000, mode="liquid", dtype="float32", structure="diagonal", **options):
    return Problem(ModeSpec(mode, **options), structure, 1, 2, 8, length, dtype)


def test_long_memories_need_more_digits():
    quick, slow = system(0.1), system(1e-4)
    assert backend_for(quick, problem(mode="s4"), 1.0, 1e-4) is None
    assert backend_for(slow, problem(mode="s4"), 1.0, 1e-4) == WIDE_STATE
    assert backend_for(slow, problem(length=10, mode="s4"), 1.0, 1e-4) is None


def test_inputs_of_the_liquid_term_count():
    quick = system(0.1)
    assert state_error(quick, problem(), 0.0) == state_error(quick, problem(mode="s4"), 9.0)
    assert state_error(quick, problem(), 0.2) > state_error(quick, problem(), 0.1)


@pytest.mark.parametrize("mode", ["s4", "liquid"])
@pytest.mark.parametrize("dt", [0.1, 1e-3])
def test_states_keep_the_bound(mode, dt):
    narrow = system(dt)
    u = np.random.default_rng(0).normal(size=(1, 2, 2000)).astype("float32")
    _, found = ls.apply(narrow, u, mode=mode, backend="numpy", return_state=True)
    exact = narrow.astype("float64")
    states = [np.zeros((1, 2, 8), complex)]
    for k in range(2000):
        _, x = ls.step(exact, u[..., k].astype("float64"), states[-1], mode=mode, backend="numpy")
        states.append(x)
    largest = np.abs(states).max(axis=0)
    bound = state_error(narrow, problem(2000, mode), float(np.abs(u).max()))
    assert (np.abs(found - states[-1]) <= bound * largest).all()


def test_apply_takes_the_backend(caplog):
    slow, u = system(1e-4), np.random.default_rng(0).normal(size=(1, 2, 4000)).astype("float32")
    _, state = ls.apply(slow, u, mode="liquid", tolerance=1e-5, return_state=True)
    assert state.dtype == np.complex128
    _, state = ls.apply(slow, u, mode="liquid", tolerance=1.0, return_state=True)
    assert state.dtype == np.complex64


@pytest.mark.parametrize("tolerance", [0.0, -1.0, np.nan])
def test_a_tolerance_is_positive(tolerance):
    with pytest.raises(ParameterError, match="must be a positive"):
        backend_for(system(0.1), problem(), 1.0, tolerance)


def test_what_cannot_be_promised_is_refused():
    with pytest.raises(ParameterError, match=r"Give u in float64"):
        backend_for(system(0.1), problem(), 1.0, 1e-9)
    with pytest.raises(ParameterError, match=r"Ask for a larger one"):
        backend_for(system(1e-4, "float64"), problem(dtype="float64"), 1.0, 1e-15)
    with pytest.raises(ParameterError, match=r"products of inputs"):
        backend_for(system(0.1), problem(mode="pb", order=3), 1.0, 1e-3)
    assert backend_for(system(0.1), problem(mode="kb", order=3), 0.01, 1e-3) is None
    with pytest.raises(ParameterError, match=r"give tolerance or backend"):
        ls.apply(system(0.1), np.zeros((1, 2, 3), "float32"), mode="s4", tolerance=1e-3, backend="numpy")


def test_other_structures_count_their_steps():
    coupled = random_system("dplr")
    assert state_error(coupled, problem(1000, structure="dplr"), 1.0) == 10 * state_error(
        coupled, problem(100, structure="dplr"), 1.0
    )
