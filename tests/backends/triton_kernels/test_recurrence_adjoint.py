"""Adjoints of the recurrences against the readable backend's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from liquid_ssm.backends.triton_kernels.configurations import Configuration

KINDS = [("linear", 1), ("liquid", 1), ("truncated", 3), ("chain", 3)]


@pytest.fixture
def vjp():
    from liquid_ssm.backends.triton_kernels.recurrences import recurrence_vjp

    return recurrence_vjp


def assert_same(found, expected, close, dtype="float64"):
    close(found.u.cpu(), expected.u, dtype)
    close(found.state.cpu(), expected.state, dtype)
    assert found.parameters.keys() == expected.parameters.keys()
    for name, gradient in expected.parameters.items():
        close(found.parameters[name].cpu(), gradient, dtype)


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("rank", [None, 1, 2])
@pytest.mark.parametrize(("kind", "order"), KINDS)
def test_every_kind(case, expected_vjp, vjp, poisoned, close, kind, order, rank, pairs):
    structure = "diagonal" if rank is None else "dplr"
    options = {} if rank is None else {"rank": rank}
    arrays, tensors = case(structure, order=order, length=5, conjugate_pairs=pairs, **options)
    t = tensors
    found = vjp(t.system, t.u, t.states, t.grad_y, t.grad_states, kind=kind, order=order, interval=4, empty=poisoned)
    assert_same(found, expected_vjp(arrays, kind, order), close)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 9, 16, 17, 23])
@pytest.mark.parametrize("interval", [1, 8, 64])
def test_every_length_and_interval(case, expected_vjp, vjp, poisoned, close, length, interval):
    arrays, t = case(length=length, batch=1, n_channels=2, n_modes=3)
    configuration = Configuration(2, 4, 2)
    found = vjp(
        t.system,
        t.u,
        t.states,
        t.grad_y,
        t.grad_states,
        kind="liquid",
        interval=interval,
        configuration=configuration,
        empty=poisoned,
    )
    assert_same(found, expected_vjp(arrays, "liquid"), close)


@pytest.mark.parametrize("n_modes", [1, 2, 31, 33])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_number_of_modes(case, expected_vjp, vjp, poisoned, close, n_modes, dtype):
    arrays, t = case(n_modes=n_modes, length=6, dtype=dtype)
    found = vjp(t.system, t.u, t.states, t.grad_y, t.grad_states, kind="liquid", empty=poisoned)
    assert_same(found, expected_vjp(arrays, "liquid"), close, dtype)


@pytest.mark.parametrize(("rows", "modes"), [(1, 8), (4, 8), (8, 4), (8, 1)])
@pytest.mark.parametrize(("kind", "order"), [("liquid", 1), ("chain", 2)])
def test_rows_and_modes_in_several_programs(case, expected_vjp, vjp, poisoned, close, rows, modes, kind, order):
    arrays, t = case(n_modes=7, length=5, order=order)
    found = vjp(
        t.system,
        t.u,
        t.states,
        t.grad_y,
        t.grad_states,
        kind=kind,
        order=order,
        configuration=Configuration(rows, modes, 1),
        empty=poisoned,
    )
    assert_same(found, expected_vjp(arrays, kind, order), close)


def test_cotangents_that_are_not_given_are_zero(case, vjp):
    _, t = case(length=5)
    of_y = vjp(t.system, t.u, t.states, t.grad_y, t.grad_states * 0, kind="liquid")
    assert vjp(t.system, t.u, t.states, t.grad_y, None, kind="liquid").u.equal(of_y.u)
    of_state = vjp(t.system, t.u, t.states, t.grad_y * 0, t.grad_states, kind="liquid")
    found = vjp(t.system, t.u, t.states, None, t.grad_states, kind="liquid")
    assert found.u.equal(of_state.u)
    assert not found.parameters["C"].any()


def test_a_transition_of_zero_is_no_obstacle(case, expected_vjp, vjp, close):
    arrays, t = case(length=9)
    A_bar = arrays.system.A_bar.copy()
    A_bar[:, 0] = 0
    A_bar[:, 1] = 1.25
    arrays.system = replace(arrays.system, A_bar=A_bar)
    t.system = arrays.system.to_torch(t.u.device)
    found = vjp(t.system, t.u, t.states, t.grad_y, t.grad_states, kind="linear", interval=4)
    assert_same(found, expected_vjp(arrays, "linear"), close)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 3, 0)])
def test_empty_batches_and_sequences(case, vjp, close, shape):
    batch, n_channels, length = shape
    arrays, t = case(batch=batch, n_channels=n_channels, length=length)
    found = vjp(t.system, t.u, t.states, t.grad_y, t.grad_states, kind="liquid")
    assert tuple(found.u.shape) == shape
    close(found.state.cpu(), arrays.grad_states)
    assert not any(gradient.any() for gradient in found.parameters.values())


def test_gradients_of_real_things_are_real(case, expected_vjp, vjp, close):
    arrays, t = case(length=6)
    arrays.system = replace(arrays.system, B_bar=arrays.system.B_bar.real, C=arrays.system.C.real)
    arrays.states = arrays.states.real.copy()
    t.system, t.states = arrays.system.to_torch(t.u.device), t.states.real
    found = vjp(t.system, t.u, t.states, t.grad_y, t.grad_states, kind="liquid")
    assert_same(found, expected_vjp(arrays, "liquid"), close)


def test_two_runs_give_the_same_bits(case, vjp):
    _, t = case(length=20)
    one, two = (vjp(t.system, t.u, t.states, t.grad_y, t.grad_states, kind="liquid") for _ in range(2))
    assert one.u.equal(two.u)
    assert all(np.array_equal(one.parameters[n].cpu(), two.parameters[n].cpu()) for n in one.parameters)
