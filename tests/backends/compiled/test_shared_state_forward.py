"""Recurrences of one state for all channels in compiled code against the plain ones."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends.compiled.shared_state import shared_run
from liquid_ssm.systems import MIMOSystem

# Blocks have 128 steps.
LENGTHS = (1, 2, 16, 63, 64, 65, 127, 128, 129, 300)


def shared(drawn):
    """What `draw` gives for a diagonal system, for a `mimo` one, which has the first channel's poles and states."""
    system, u, states, grad_y, grad_states = drawn
    made = MIMOSystem(system.A_bar[0], system.B_bar.T / system.n_channels, system.C)
    return made, u, states[:, :, 0], grad_y, grad_states[:, :, 0]


@pytest.mark.parametrize("liquid", [True, False])
@pytest.mark.parametrize("length", LENGTHS)
def test_every_length(readable, draw, close, liquid, length):
    system, u, states, _, _ = shared(draw(2, 3, 5, length))
    y, final = shared_run(system, u, states, order=1, liquid=liquid, threads=1)
    expected_y, expected = readable.scan(system, u, states[:, 0], liquid=liquid)
    close(y, expected_y)
    close(final[:, 0], expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 17, 16), (9, 4, 2), (1, 2, 33), (0, 3, 2)])
@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("length", [10, 140])
def test_every_shape(readable, draw, close, shape, dtype, real, length):
    system, u, states, _, _ = shared(draw(*shape, length, dtype, order=3, real=real))
    y, final = shared_run(system, u, states, order=3, liquid=False, threads=2)
    expected_y, expected = readable.cascade(system, u, states, order=3, kind="truncated")
    close(y, expected_y, dtype)
    close(final, expected, dtype)


@pytest.mark.parametrize("shape", [(0, 2, 5), (2, 0, 5), (2, 3, 0)])
def test_without_rows_modes_or_steps(shape):
    batch, n_modes, length = shape
    system = MIMOSystem(np.full(n_modes, 0.5), np.ones((n_modes, 3)), np.ones((3, n_modes)))
    states = np.full((batch, 1, n_modes), 2.0)
    y, final = shared_run(system, np.ones((batch, 3, length)), states, order=1, liquid=True, threads=1)
    assert np.array_equal(y, np.zeros((batch, 3, length)))
    assert np.array_equal(final, states)


@pytest.mark.parametrize(("order", "liquid"), [(1, True), (1, False), (3, False)])
@pytest.mark.parametrize("length", [9, 200])
def test_no_bit_depends_on_the_other_rows_or_on_where_a_sequence_is_cut(draw, order, liquid, length):
    """Short rows fill a block together; sums over channels and modes run in one order all the same."""
    system, u, states, _, _ = shared(draw(7, 5, 9, length, "float32", order=order))
    given = {"order": order, "liquid": liquid, "threads": 1}
    y, final = shared_run(system, u, states, **given)
    for b in range(len(u)):
        alone = shared_run(system, u[b : b + 1], states[b : b + 1], **given)
        assert np.array_equal(alone[0][0], y[b])
        assert np.array_equal(alone[1][0], final[b])
    for cut in (1, 5):
        first, carried = shared_run(system, u[..., :cut], states, **given)
        rest, last = shared_run(system, u[..., cut:], carried, **given)
        assert np.array_equal(np.concatenate([first, rest], axis=-1), y)
        assert np.array_equal(last, final)


def test_no_bit_depends_on_the_threads(draw):
    system, u, states, _, _ = shared(draw(9, 5, 9, 150))
    one, three = (shared_run(system, u, states, order=1, liquid=True, threads=n) for n in (1, 3))
    assert all(np.array_equal(a, b) for a, b in zip(one, three, strict=True))


def test_wide_states_under_narrow_data(draw):
    system, u, states, _, _ = shared(draw(2, 3, 5, 200, "float32"))
    given = {"order": 1, "liquid": True, "threads": 1}
    y, final = shared_run(system, u, states, **given, state_dtype="float64")
    wide_y, wide = shared_run(system.astype("float64"), u.astype("float64"), states.astype(complex), **given)
    assert final.dtype == np.complex128
    assert np.array_equal(final, wide)
    assert np.array_equal(y, wide_y.astype("float32"))


def test_what_overflows_in_one_row_stays_there(draw):
    system, u, states, _, _ = shared(draw(3, 4, 5, 20))
    clean = shared_run(system, u, states, order=1, liquid=True, threads=1)
    wild = u.copy()
    wild[1, 2, 3] = np.inf
    y, final = shared_run(system, wild, states, order=1, liquid=True, threads=1)
    assert not np.isfinite(y[1, :, 3:]).any()
    assert np.array_equal(y[1, :, :3], clean[0][1, :, :3])
    for b in (0, 2):
        assert np.array_equal(y[b], clean[0][b])
        assert np.array_equal(final[b], clean[1][b])
