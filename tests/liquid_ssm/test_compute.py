"""Computing by a named backend: in another dtype, and in which words it is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import liquid_ssm as ls
from liquid_ssm.compute import compute, compute_vjp, problem_of
from liquid_ssm.problem import ModeSpec
from liquid_ssm.testing.strategies import random_system

SYSTEM = random_system("diagonal", n_channels=2, n_modes=3)
U = np.random.default_rng(0).normal(size=(2, 2, 12))
LIQUID = ModeSpec("liquid")


@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated", "kb", "pb"])
def test_another_dtype_is_that_of_converted_data(mode):
    spec = ModeSpec(mode)
    narrow = compute(SYSTEM.astype("float32"), U.astype("float32"), spec, backend="numpy")
    y = compute(SYSTEM, U, spec, backend="numpy:float32")
    assert y.dtype == np.float64
    assert np.array_equal(y, narrow)
    wide = compute(SYSTEM, U.astype("float32"), spec, backend="numpy:float64")
    assert wide.dtype == np.float32
    exact = compute(SYSTEM, U.astype("float32").astype("float64"), spec, backend="numpy")
    assert np.array_equal(wide, exact.astype("float32"))
    assert not np.array_equal(wide, compute(SYSTEM, U.astype("float32"), spec, backend="numpy"))


def test_tensors_in_another_dtype_stay_tensors():
    u = torch.from_numpy(U)
    y = compute(SYSTEM, u, LIQUID, backend="torch:float32")
    assert y.dtype == torch.float64
    assert torch.equal(y.float(), compute(SYSTEM, u.float(), LIQUID, backend="torch"))


def test_a_state_is_handed_on_in_another_dtype():
    whole = compute(SYSTEM, U, LIQUID, backend="numpy:float32")
    first, state = compute(SYSTEM, U[..., :5], LIQUID, backend="numpy:float32", return_state=True)
    rest, _ = compute(SYSTEM, U[..., 5:], LIQUID, backend="numpy:float32", state=state, return_state=True)
    assert first.dtype == rest.dtype == np.float64
    # The recurrence runs in the order of time, so the halves are the whole bit for bit.
    assert (np.concatenate([first, rest], axis=-1) == whole).all()


def test_gradients_in_another_dtype():
    found = compute_vjp(SYSTEM, U, LIQUID, U, backend="numpy:float32")
    narrow = compute_vjp(SYSTEM.astype("float32"), U.astype("float32"), LIQUID, U.astype("float32"), backend="numpy")
    assert found.u.dtype == np.float64
    assert np.array_equal(found.u, narrow.u)


@pytest.mark.parametrize(
    ("backend", "u", "error", "words"),
    [
        ("numpy:float16", U, ls.ParameterError, "'float16'; allowed: float32, float64"),
        ("numpy:", U, ls.ParameterError, "allowed: float32, float64"),
        ("nunpy:float32", U, ls.ParameterError, "'numpy'"),
        ("numpy:float32", 1e300 * U, ls.ParameterError, "beyond the range of float32"),
        ("numpy:float32", U[0], ls.ShapeError, "three dimensions"),
        ("numba-wide-state:float64", U, ls.BackendRejected, "needs float32, got float64"),
        ("numba-wide-state", U, ls.BackendRejected, "needs float32, got float64"),
    ],
)
def test_what_a_dtype_cannot_do_is_said(backend, u, error, words):
    with pytest.raises(error, match=words):
        compute(SYSTEM, u, LIQUID, backend=backend)


def test_results_beyond_the_range_of_the_data_are_an_error():
    grows = ls.DiagonalSystem([[1.0 + 0j]], [[1.0]], [[1e30]])
    u = np.full((1, 1, 4), 1e10, np.float32)
    with pytest.raises(ls.ParameterError, match=r"numpy:float64 computes values up to .* beyond the range of float32"):
        compute(grows, u, ModeSpec("s4"), backend="numpy:float64")


def test_integrators_have_no_other_dtype():
    integrator = ls.initialize("s4d-lin", n_channels=2, n_state=4).discretize("bilinear-exact")
    with pytest.raises(ls.BackendRejected, match="own dtype"):
        compute(integrator, U, LIQUID, backend="numpy:float32")


def test_the_problem_of_arrays():
    problem = problem_of(SYSTEM, U, ModeSpec("pb", 2), gradient=True)
    assert (problem.batch, problem.n_channels, problem.n_modes, problem.length) == (2, 2, 3, 12)
    assert (problem.dtype, problem.arrays, problem.device, problem.gradient, problem.state) == (
        "float64", "numpy", "cpu", True, False,
    )  # fmt: skip
