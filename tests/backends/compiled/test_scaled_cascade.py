"""`truncated` with scaled states against the plain cascade."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends.compiled.diagonal import can_scale, cascade
from liquid_ssm.backends.compiled.scaled_cascade import ORDERS, scaled_cascade


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("length", [16, 63, 65, 130])
@pytest.mark.parametrize("shape", [(2, 3, 5), (3, 17, 1), (1, 2, 33), (0, 2, 3)])
@pytest.mark.parametrize("real", [True, False])
def test_the_same_as_plain_states(draw, close, order, length, shape, real):
    system, u, states, _, _ = draw(*shape, length, "float32", order=order, real=real)
    if real:
        system = type(system)(system.A_bar, 0.1 + np.abs(system.B_bar), system.C)
    assert can_scale(system, u, None)
    found = scaled_cascade(system, u, states, order=order, threads=2)
    assert found is not None
    exact = system.astype("float64"), u.astype("float64"), states.astype(np.result_type(states, "float64"))
    y, final = cascade(*exact, order=order, chain=False, threads=1)
    close(found[0], y.astype("float32"), "float32")
    close(found[1], final.astype(states.dtype), "float32")


def test_states_that_leave_the_range_are_left_to_the_plain_form(draw):
    system, u, states, _, _ = draw(1, 2, 2, 40, "float32", order=3)
    small = type(system)(system.A_bar, np.full_like(system.B_bar, 2.0**-29), system.C)
    assert can_scale(small, u, None)
    # x_3 / B̄^3 is 2^87 times x_3.
    assert scaled_cascade(small, u, np.float32(2.0**45) * states, order=3, threads=1) is None


def test_no_bit_depends_on_the_threads(draw):
    system, u, _, _, _ = draw(5, 20, 9, 100, "float32")
    one, three = (scaled_cascade(system, u, None, order=3, threads=n) for n in (1, 3))
    assert np.array_equal(one[0], three[0])
    assert np.array_equal(one[1], three[1])
