"""`kb` over adjacent tuples as one recurrence against one recurrence per order."""

from __future__ import annotations

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.backends.compiled.joint import joint_scan


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [1, 2, 16, 64, 65, 130])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_orders_at_once(draw, close, order, length, dtype):
    system, u, _, _, _ = draw(2, 3, 5, length, dtype)
    y = joint_scan(system, u, order=order, threads=1)
    close(y, ls.apply(system, u, mode="kb", order=order, correlations="adjacent", backend="numpy"), dtype)


def test_no_bit_depends_on_the_threads(draw):
    system, u, _, _, _ = draw(5, 20, 9, 100, "float32")
    one, three = (joint_scan(system, u, order=3, threads=n) for n in (1, 3))
    assert np.array_equal(one, three)
