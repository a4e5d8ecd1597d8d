"""The adjoint of recurrences of one state for all channels in compiled code against the plain one."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends.compiled import shared_state
from liquid_ssm.backends.compiled.shared_state import shared_vjp
from liquid_ssm.systems import MIMOSystem


def shared(drawn):
    """What `draw` gives for a diagonal system, for a `mimo` one, which has the first channel's poles and states."""
    system, u, states, grad_y, grad_states = drawn
    made = MIMOSystem(system.A_bar[0], system.B_bar.T / system.n_channels, system.C)
    return made, u, states[:, :, 0], grad_y, grad_states[:, :, 0]


def compare(found, expected, close, dtype="float64"):
    close(found.u, expected.u, dtype)
    close(found.state, expected.state, dtype)
    for name, gradient in expected.parameters.items():
        close(found.parameters[name], gradient, dtype)


@pytest.mark.parametrize("liquid", [True, False])
@pytest.mark.parametrize("length", [1, 2, 16, 127, 128, 129, 300])
def test_every_length(readable, draw, close, liquid, length):
    system, u, states, grad_y, grad_states = shared(draw(2, 3, 5, length))
    found = shared_vjp(system, u, states, grad_y, grad_states, order=1, liquid=liquid, threads=1)
    expected = readable.scan_vjp(system, u, states[:, 0], grad_y, grad_states[:, 0], liquid=liquid)
    compare(found._replace(state=found.state[:, 0]), expected, close)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 17, 16), (9, 4, 2), (1, 2, 33), (0, 3, 2)])
@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("length", [10, 140])
def test_every_shape(readable, draw, close, shape, dtype, real, length):
    system, u, states, grad_y, grad_states = shared(draw(*shape, length, dtype, order=3, real=real))
    given = system, u, states, grad_y, grad_states
    found = shared_vjp(*given, order=3, liquid=False, threads=2)
    compare(found, readable.cascade_vjp(*given, order=3, kind="truncated"), close, dtype)


def test_every_row_is_in_the_sums_over_the_batch(readable, draw, close, monkeypatch):
    """More sets of rows than sums: 5 sets, the last of them smaller, in 3 sums."""
    monkeypatch.setattr(shared_state, "SUMS", 3)
    system, u, states, grad_y, grad_states = shared(draw(13, 3, 5, 40))
    found = shared_vjp(system, u, states, grad_y, grad_states, order=1, liquid=True, threads=2)
    expected = readable.scan_vjp(system, u, states[:, 0], grad_y, grad_states[:, 0], liquid=True)
    compare(found._replace(state=found.state[:, 0]), expected, close)


def test_missing_cotangents_are_zeros(draw):
    system, u, _, grad_y, grad_states = shared(draw(2, 3, 5, 50))
    zero_y, zero_states = np.zeros_like(grad_y), np.zeros_like(grad_states)
    for given, same in (((grad_y, None), (grad_y, zero_states)), ((None, grad_states), (zero_y, grad_states))):
        a, b = (shared_vjp(system, u, None, *pair, order=1, liquid=True, threads=1) for pair in (given, same))
        assert np.array_equal(a.u, b.u)
        assert np.array_equal(a.parameters["A_bar"], b.parameters["A_bar"])


def test_no_bit_depends_on_the_threads(draw):
    system, u, _, grad_y, _ = shared(draw(9, 6, 9, 200, "float32"))
    one, three = (shared_vjp(system, u, None, grad_y, None, order=1, liquid=True, threads=n) for n in (1, 3))
    assert np.array_equal(one.u, three.u)
    for name, gradient in one.parameters.items():
        assert np.array_equal(gradient, three.parameters[name])


def test_arguments_are_left_alone(draw):
    given = shared(draw(2, 3, 5, 150))
    before = [a.copy() for a in given[1:]]
    shared_vjp(*given, order=1, liquid=True, threads=1)
    assert all(np.array_equal(a, b) for a, b in zip(given[1:], before, strict=True))
