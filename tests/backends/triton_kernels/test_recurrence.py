"""Recurrences forwards at the edges of tiles: rows, modes, steps."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends.triton_kernels.configurations import Configuration


@pytest.fixture
def recurrence():
    from liquid_ssm.backends.triton_kernels.recurrences import recurrence

    return recurrence


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 31, 61])
@pytest.mark.parametrize("kind", ["linear", "liquid"])
def test_every_length(case, expected, recurrence, poisoned, close, kind, length):
    arrays, tensors = case(length=length)
    y, final = recurrence(tensors.system, tensors.u, tensors.states, kind=kind, empty=poisoned)
    expected_y, expected_final = expected(arrays, kind)
    close(y.cpu(), expected_y)
    close(final.cpu(), expected_final)


@pytest.mark.parametrize("n_modes", [1, 2, 31, 32, 33, 64])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_number_of_modes(case, expected, recurrence, poisoned, close, n_modes, dtype):
    arrays, tensors = case(n_modes=n_modes, length=17, dtype=dtype)
    y, final = recurrence(tensors.system, tensors.u, tensors.states, kind="liquid", empty=poisoned)
    expected_y, expected_final = expected(arrays, "liquid")
    close(y.cpu(), expected_y, dtype)
    close(final.cpu(), expected_final, dtype)


@pytest.mark.parametrize(("batch", "n_channels"), [(1, 1), (1, 7), (3, 5), (8, 1), (9, 1)])
@pytest.mark.parametrize("rows", [1, 4, 8])
def test_rows_that_fill_no_block(case, expected, recurrence, poisoned, close, batch, n_channels, rows):
    arrays, tensors = case(batch=batch, n_channels=n_channels, length=9)
    configuration = Configuration(rows, 8, 3)
    y, final = recurrence(
        tensors.system, tensors.u, tensors.states, kind="liquid", configuration=configuration, empty=poisoned
    )
    expected_y, expected_final = expected(arrays, "liquid")
    close(y.cpu(), expected_y)
    close(final.cpu(), expected_final)


@pytest.mark.parametrize(("kind", "order"), [("liquid", 1), ("truncated", 3), ("chain", 2)])
@pytest.mark.parametrize("modes", [1, 2, 8])
def test_modes_shared_out_to_several_programs(case, expected, recurrence, poisoned, close, kind, order, modes):
    arrays, tensors = case(n_modes=11, length=10, order=order)
    configuration = Configuration(8, modes, 3)
    y, final = recurrence(
        tensors.system,
        tensors.u,
        tensors.states,
        kind=kind,
        order=order,
        configuration=configuration,
        empty=poisoned,
    )
    expected_y, expected_final = expected(arrays, kind, order)
    close(y.cpu(), expected_y)
    close(final.cpu(), expected_final)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 3, 0), (0, 3, 0)])
def test_empty_batches_and_sequences(case, recurrence, close, shape):
    batch, n_channels, length = shape
    arrays, tensors = case(batch=batch, n_channels=n_channels, length=length)
    y, final = recurrence(tensors.system, tensors.u, tensors.states, kind="liquid")
    assert tuple(y.shape) == shape
    close(final.cpu(), arrays.states)


def test_a_state_is_that_of_any_split(case, recurrence):
    _, tensors = case(length=30)
    _, whole = recurrence(tensors.system, tensors.u, tensors.states, kind="liquid")
    for cut in (1, 8, 13):
        _, middle = recurrence(tensors.system, tensors.u[..., :cut], tensors.states, kind="liquid")
        _, final = recurrence(tensors.system, tensors.u[..., cut:], middle, kind="liquid")
        if tensors.u.device.type == "cpu":
            assert np.array_equal(final, whole)
        else:
            # Blocks and single steps may be contracted in different ways.
            assert (final - whole).abs().max() <= 30 * 8 * 2.0**-53 * whole.abs().max()


def test_inputs_in_any_memory_layout(case, recurrence):
    _, tensors = case(length=20)
    y, _ = recurrence(tensors.system, tensors.u, None, kind="liquid")
    strided = tensors.u.repeat_interleave(2, -1)[..., ::2]
    assert not strided.is_contiguous()
    assert recurrence(tensors.system, strided, None, kind="liquid")[0].equal(y)
    one = tensors.u[:1]
    expanded = one.expand(2, -1, -1)
    assert recurrence(tensors.system, expanded, None, kind="liquid")[0][1].equal(y[0])


def test_rest_is_a_state_of_zeros(case, recurrence):
    _, tensors = case()
    y, final = recurrence(tensors.system, tensors.u, None, kind="liquid")
    zeros = recurrence(tensors.system, tensors.u, tensors.states * 0, kind="liquid")
    assert y.equal(zeros[0])
    assert final.equal(zeros[1])


def test_nothing_that_is_given_is_written_to(case, recurrence):
    _, tensors = case()
    before = [t.clone() for t in (tensors.u, tensors.states, *tensors.system.parameters.values())]
    recurrence(tensors.system, tensors.u, tensors.states, kind="liquid")
    after = [tensors.u, tensors.states, *tensors.system.parameters.values()]
    assert all(a.equal(b) for a, b in zip(after, before, strict=True))
