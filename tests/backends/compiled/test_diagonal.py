"""Packed parameters are made once for a system and a layout, and go with the system."""

from __future__ import annotations

import gc

import numpy as np

from liquid_ssm.backends.compiled import diagonal
from liquid_ssm.backends.compiled.tiles import Layout


def test_packs_are_made_once_and_freed_with_the_system(draw):
    gc.collect()
    before = len(diagonal._packs)
    system, _, _, _, _ = draw(1, 3, 5, 1)
    layout = Layout(3, 3, 5, 8, 1)
    first = diagonal.packed(system, layout, "float64")
    assert diagonal.packed(system, Layout(3, 3, 5, 8, 1), "float64") is first
    assert diagonal.packed(system, Layout(6, 3, 5, 8, 1), "float64") is not first
    assert len(diagonal._packs) == before + 1
    del system, first
    gc.collect()
    assert len(diagonal._packs) == before


def test_two_systems_of_one_shape_are_kept_apart(draw):
    systems = [draw(1, 3, 5, 1, seed=seed)[0] for seed in (0, 1)]
    layout = Layout(3, 3, 5, 8, 1)
    packs = [diagonal.packed(system, layout, "float64") for system in systems]
    assert not np.array_equal(*packs)


def test_no_more_than_a_few_layouts_are_kept(draw):
    system, _, _, _, _ = draw(1, 3, 5, 1)
    for batch in range(1, 12):
        diagonal.packed(system, Layout(3 * batch, 3, 5, 8, 1), "float64")
    assert len(diagonal._packs[system]) == diagonal._KEPT
