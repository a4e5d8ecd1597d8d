"""The grids cover what they promise, once."""

from __future__ import annotations

import pytest

from liquid_ssm.bench.shapes import GRIDS, TARGETS, WORK, Shape, grid
from liquid_ssm.errors import ParameterError


@pytest.mark.parametrize("name", GRIDS)
def test_a_shape_is_in_a_grid_once(name):
    assert len(set(grid(name))) == len(grid(name))
    assert WORK in grid(name)


def test_full_covers_the_ranges():
    full = grid("full")
    for values, low, high in (
        ([s.length for s in full], 2**10, 2**20),
        ([s.n_state for s in full], 4, 256),
        ([s.rows for s in full], 1, 4096),
    ):
        assert (min(values), max(values)) == (low, high)
    assert set(TARGETS) <= set(full)


def test_sizes():
    shape = Shape(4, 128, 64, 4096)
    assert (shape.n_modes, shape.rows, shape.elements) == (32, 512, 512 * 4096)
    assert Shape(1, 1, 1, 1).n_modes == 1


def test_an_unknown_grid_names_those_that_exist():
    with pytest.raises(
        ParameterError, match=r"unknown grid 'ful'; allowed: quick, targets, full, operators. Did you mean 'full'"
    ):
        grid("ful")
