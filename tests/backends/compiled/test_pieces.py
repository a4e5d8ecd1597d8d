"""Scans in pieces against scans in one."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends.compiled.diagonal import scan
from liquid_ssm.backends.compiled.pieces import LONG, SHORTEST, pieces_for, scan_in_pieces


@pytest.mark.parametrize("liquid", [True, False])
@pytest.mark.parametrize(("length", "pieces"), [(64, 2), (100, 7), (200, 64), (9, 9), (77, 3)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pieces_give_the_same(draw, close, liquid, length, pieces, dtype):
    system, u, state, _, _ = draw(2, 3, 5, length, dtype)
    y, final = scan_in_pieces(system, u, state[:, 0], liquid=liquid, pieces=pieces, threads=2)
    expected_y, expected = scan(system, u, state[:, 0], liquid=liquid, threads=1)
    close(y, expected_y, dtype)
    close(final, expected, dtype)


def test_no_bit_depends_on_the_threads(draw):
    system, u, _, _, _ = draw(1, 1, 3, 1000, "float32")
    one, three = (scan_in_pieces(system, u, None, liquid=True, pieces=16, threads=n) for n in (1, 3))
    assert np.array_equal(one[0], three[0])
    assert np.array_equal(one[1], three[1])


def test_only_few_rows_of_many_steps_are_cut():
    assert pieces_for(1, 3, LONG, "float32") > 1
    assert pieces_for(1, 3, LONG - 1, "float32") == 1
    assert pieces_for(512, 3, 1 << 20, "float32") == 1
    assert pieces_for(0, 3, 1 << 20, "float32") == 1
    assert LONG // pieces_for(1, 3, LONG, "float32") >= SHORTEST
