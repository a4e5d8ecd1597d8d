"""The numbers of a selection: those of a problem without any, and which of them are looked at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import liquid_ssm as ls
from liquid_ssm.problem import ModeSpec, Problem
from liquid_ssm.selection.data import HEAD_STEPS, Data, canonical, to_numpy

PROBLEM = Problem(ModeSpec("liquid"), "diagonal", 3, 4, 4, 50, "float64")


@pytest.mark.parametrize("arrays", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense", "mimo"])
def test_standard_numbers_fit_the_problem_and_are_the_same_again(structure, dtype, arrays):
    problem = replace(PROBLEM, structure=structure, dtype=dtype, arrays=arrays)
    one, again, other = canonical(problem), canonical(problem), canonical(problem, seed=1)
    assert tuple(one.u.shape) == (3, 4, 50)
    assert isinstance(one.u, torch.Tensor) == (arrays == "torch")
    assert str(one.u.dtype).removeprefix("torch.") == dtype
    assert (one.system.structure, one.system.n_channels, one.system.n_modes) == (structure, 4, 4)
    assert np.array_equal(to_numpy(one.u), to_numpy(again.u))
    assert not np.array_equal(to_numpy(one.u), to_numpy(other.u))
    assert 1e-3 <= np.min(one.dt) <= np.max(one.dt) <= 1e-1
    for array in one.system.to_numpy().parameters.values():
        assert np.array_equal(array, array.astype(np.complex64))  # float32 numbers in every dtype


def test_the_loudest_row_and_the_longest_memory_are_looked_at():
    system = ls.DiagonalSystem(
        np.array([[0.5], [0.999], [0.5], [0.4]]), np.array([[0.1], [0.1], [7.0], [0.1]]), np.ones((4, 1)),
        conjugate_pairs=False,
    )  # fmt: skip
    u = np.random.default_rng(0).normal(size=(5, 4, 8))
    u[3] *= 100
    data = Data(replace(PROBLEM, batch=5, n_modes=1, length=8), system, u, "given")
    assert 3 in data.rows
    assert len(data.rows) <= 2
    assert {1, 2} & set(data.channels)
    assert len(data.channels) <= 2
    few, rows = data.few("float64")
    assert np.array_equal(rows, u[data.rows][:, data.channels])
    assert np.array_equal(few.A_bar, system.A_bar[data.channels])


def test_the_first_steps_of_all_rows_and_channels_are_looked_at():
    data = canonical(PROBLEM)
    system, u = data.heads("float32")
    assert u.shape == (3, 4, HEAD_STEPS)
    assert u.dtype == np.float32
    assert np.array_equal(u, data.u[..., :HEAD_STEPS].astype(np.float32))
    assert system.n_channels == 4
    assert np.array_equal(data.picked_heads(data.u), data.u[..., :HEAD_STEPS])


def test_of_many_rows_those_that_are_affordable_the_first_and_last_among_them():
    data = canonical(replace(PROBLEM, structure="dense", batch=40, n_channels=40, n_modes=16, length=4))
    _, u = data.heads("float64")
    rows, channels = u.shape[:2]
    assert 1 <= rows * channels * 16 * 16 <= 2**14
    assert channels > 1


def test_what_several_need_is_made_once():
    data, made = canonical(PROBLEM), []
    for _ in range(2):
        assert data.shared(("numbers", "float64"), lambda: made.append(1) or len(made)) == 1
    assert data.shared(("numbers", "float32"), lambda: "another") == "another"
