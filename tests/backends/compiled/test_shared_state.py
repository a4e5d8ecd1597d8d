"""How systems and states of `mimo` are laid out, and when."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from liquid_ssm.backends.compiled import shared_state
from liquid_ssm.backends.compiled.shared_state import Rows
from liquid_ssm.systems import MIMOSystem


def system_of(n_channels=3, n_modes=5, seed=0):
    rng = np.random.default_rng(seed)
    shapes = ((n_modes,), (n_modes, n_channels), (n_channels, n_modes))
    A, B, C = (rng.normal(size=(*shape, 2)) @ [0.1, 0.1j] for shape in shapes)
    return MIMOSystem(A, B, C)


def rows_of(system, batch=2, length=4, order=1):
    return Rows(system, np.zeros((batch, system.n_channels, length)), order, None)


def test_packs_are_made_once_and_freed_with_the_system():
    gc.collect()
    before = len(shared_state._packs)
    system, other = system_of(), system_of(seed=1)
    first = rows_of(system).packs()
    assert rows_of(system, batch=7).packs() is first
    assert not np.array_equal(first[0], rows_of(other).packs()[0])
    assert len(shared_state._packs) == before + 2
    del system, other, first
    gc.collect()
    assert len(shared_state._packs) == before


@pytest.mark.parametrize("n_modes", [1, 8, 17])
def test_states_come_back_as_they_went_in(n_modes):
    rows = rows_of(system_of(n_modes=n_modes), order=2)
    states = np.random.default_rng(0).normal(size=(2, 2, n_modes, 2)) @ [1, 1j]
    assert np.array_equal(rows.states_out(rows.states_in(states)), states)
    assert np.array_equal(rows.states_out(rows.states_in(None)), np.zeros_like(states))


@pytest.mark.parametrize(
    ("batch", "length", "sets"), [(5, 1, 1), (300, 1, 3), (5, 60, 3), (5, 65, 5), (0, 4, 0), (3, 0, 1)]
)
def test_short_rows_fill_blocks_of_128_columns(batch, length, sets):
    assert rows_of(system_of(), batch, length).sets == sets
