"""Cascades in compiled code against the plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends.compiled.diagonal import cascade


@pytest.mark.parametrize("kind", ["truncated", "chain"])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("length", [1, 16, 63, 65, 130])
def test_every_order(readable, draw, close, kind, order, length):
    system, u, states, _, _ = draw(2, 3, 5, length, order=order)
    y, final = cascade(system, u, states, order=order, chain=kind == "chain", threads=1)
    expected_y, expected = readable.cascade(system, u, states, order=order, kind=kind)
    close(y, expected_y)
    close(final, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 17, 3), (1, 2, 33), (0, 2, 3)])
def test_every_shape(readable, draw, close, shape, dtype):
    system, u, states, _, _ = draw(*shape, 70, dtype, order=3)
    y, final = cascade(system, u, states, order=3, chain=False, threads=2)
    expected_y, expected = readable.cascade(system, u, states, order=3, kind="truncated")
    close(y, expected_y, dtype)
    close(final, expected, dtype)


def test_no_bit_depends_on_the_threads(draw):
    system, u, _, _, _ = draw(5, 20, 9, 100, "float32")
    one, three = (cascade(system, u, None, order=3, chain=False, threads=n) for n in (1, 3))
    assert np.array_equal(one[0], three[0])
    assert np.array_equal(one[1], three[1])
