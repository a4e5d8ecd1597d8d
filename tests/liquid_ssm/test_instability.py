from __future__ import annotations

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.instability import safe_input_bound
from liquid_ssm.testing.strategies import random_system


def test_an_overflow_inside_an_fft_is_not_blamed_on_the_recurrence():
    """‖u‖ near the end of float32: sums over the transform overflow, a decaying recurrence does not."""
    system = ls.DiagonalSystem([[0.1]], [[0.1]], [[0.1]])
    u = np.full((1, 1, 100), 3e37, np.float32)
    assert np.isfinite(ls.apply(system, u, mode="s4", backend="numpy")).all()
    with pytest.raises(ls.UnstableRecurrence, match=r"FFT of backend 'scipy'.*use backend='numpy'"):
        ls.apply(system, u, mode="s4", backend="scipy")


def test_the_bound_of_the_error_is_that_of_the_tightest_channel():
    system = ls.DiagonalSystem([[0.5], [0.75]], [[2.0], [0.5]], [[1.0], [1.0]])
    u = np.full((1, 2, 3000), 10.0)
    with pytest.raises(ls.UnstableRecurrence, match=r"\|u\| < 0.25") as caught:
        ls.apply(system, u, mode="liquid")
    assert caught.value.input_bound == 0.25  # 0.5/2, against 0.25/0.5


def test_below_the_safe_bound_the_state_stays_bounded():
    system = ls.DiagonalSystem([[0.5, -0.75]], [[0.25, 0.125]], [[1.0, 1.0]])
    bound = safe_input_bound(system, 0)
    assert bound == 2.0  # min(0.5/0.25, 0.25/0.125)
    u = np.full((1, 1, 5000), 0.999 * bound) * np.sign(np.random.default_rng(0).normal(size=5000))
    assert np.isfinite(ls.apply(system, u, mode="liquid")).all()


@pytest.mark.parametrize("structure", ["dplr", "dense", "mimo"])
def test_safe_bounds_of_coupled_systems_hold(structure):
    system = random_system(structure, n_channels=2, n_modes=3, decay=2.0, drive=0.1, seed=4)
    bound = min(safe_input_bound(system, h) for h in range(2))
    assert bound > 0
    u = np.full((1, 2, 3000), 0.999 * bound)
    assert np.abs(ls.apply(system, u, mode="liquid")).max() < 1e3
