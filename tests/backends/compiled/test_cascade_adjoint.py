"""The adjoint of cascades in compiled code against the plain one."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends.compiled.diagonal import cascade_vjp


@pytest.mark.parametrize("kind", ["truncated", "chain"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [1, 17, 129])
def test_every_order(readable, draw, close, kind, order, length):
    system, u, states, grad_y, grad_states = draw(2, 3, 5, length, order=order)
    given = system, u, states, grad_y, grad_states
    found = cascade_vjp(*given, order=order, chain=kind == "chain", threads=1)
    expected = readable.cascade_vjp(*given, order=order, kind=kind)
    close(found.u, expected.u)
    close(found.state, expected.state)
    for name, gradient in expected.parameters.items():
        close(found.parameters[name], gradient)


def test_no_bit_depends_on_the_threads(draw):
    system, u, _, grad_y, _ = draw(5, 20, 9, 200, "float32")
    one, three = (cascade_vjp(system, u, None, grad_y, None, order=3, chain=False, threads=n) for n in (1, 3))
    assert np.array_equal(one.u, three.u)
    for name, gradient in one.parameters.items():
        assert np.array_equal(gradient, three.parameters[name])
