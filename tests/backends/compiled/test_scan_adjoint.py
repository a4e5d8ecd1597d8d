"""The adjoint of scans in compiled code against the plain one."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends.compiled.diagonal import scan_vjp


def compare(found, expected, close, dtype="float64"):
    close(found.u, expected.u, dtype)
    close(found.state, expected.state, dtype)
    for name, gradient in expected.parameters.items():
        close(found.parameters[name], gradient, dtype)


@pytest.mark.parametrize("liquid", [True, False])
@pytest.mark.parametrize("length", [1, 2, 16, 127, 128, 129, 300])
def test_every_length(readable, draw, close, liquid, length):
    system, u, state, grad_y, grad_state = draw(2, 3, 5, length)
    given = system, u, state[:, 0], grad_y, grad_state[:, 0]
    compare(scan_vjp(*given, liquid=liquid, threads=1), readable.scan_vjp(*given, liquid=liquid), close)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 17, 3), (2, 40, 2), (1, 2, 33), (0, 3, 2)])
@pytest.mark.parametrize("real", [True, False])
def test_every_shape(readable, draw, close, shape, dtype, real):
    system, u, state, grad_y, grad_state = draw(*shape, 70, dtype, real=real)
    given = system, u, state[:, 0], grad_y, grad_state[:, 0]
    compare(scan_vjp(*given, liquid=True, threads=2), readable.scan_vjp(*given, liquid=True), close, dtype)


def test_missing_cotangents_are_zeros(draw):
    system, u, _, grad_y, grad_state = draw(2, 3, 5, 50)
    zero_y, zero_state = np.zeros_like(grad_y), np.zeros_like(grad_state[:, 0])
    for given, same in (((grad_y, None), (grad_y, zero_state)), ((None, grad_state[:, 0]), (zero_y, grad_state[:, 0]))):
        a, b = (scan_vjp(system, u, None, *pair, liquid=True, threads=1) for pair in (given, same))
        assert np.array_equal(a.u, b.u)
        assert np.array_equal(a.parameters["A_bar"], b.parameters["A_bar"])


def test_no_bit_depends_on_the_threads(draw):
    system, u, _, grad_y, _ = draw(5, 20, 9, 200, "float32")
    one, three = (scan_vjp(system, u, None, grad_y, None, liquid=True, threads=n) for n in (1, 3))
    assert np.array_equal(one.u, three.u)
    for name, gradient in one.parameters.items():
        assert np.array_equal(gradient, three.parameters[name])
