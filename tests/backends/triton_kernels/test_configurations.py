"""Layouts by shape."""

from __future__ import annotations

import pytest

from liquid_ssm.backends.triton_kernels import configurations
from liquid_ssm.backends.triton_kernels.configurations import (
    FEW,
    LONG,
    MOST_MODES,
    Configuration,
    adjoint_configurations,
    forward_configurations,
    pieces_for,
    power_of_two,
)

SHAPES = [(1, 1), (3, 5), (512, 32), (512, 33), (4096, 64), (100_000, 32), (7, 300)]


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize(("rows", "n_modes"), SHAPES)
@pytest.mark.parametrize("make", [forward_configurations, adjoint_configurations])
@pytest.mark.parametrize("order", [1, 4])
def test_tiles_are_powers_of_two_that_hold_all_modes(monkeypatch, make, rows, n_modes, order, on_cpu):
    monkeypatch.setattr(configurations, "interpreting", lambda: on_cpu)
    for coupled in (False, True):
        for found in make(rows, n_modes, order=order, coupled=coupled):
            assert all(n & (n - 1) == 0 and n > 0 for n in (found.rows, found.modes, found.warps))
            assert found.mode_blocks(n_modes) * found.modes >= n_modes
            # Every step of a coupled system sums over all of them.
            assert found.mode_blocks(n_modes) == 1 or (n_modes > MOST_MODES and not coupled)


def test_one_mode_per_thread_where_rows_are_few_and_four_where_they_are_many(monkeypatch):
    monkeypatch.setattr(configurations, "interpreting", lambda: False)
    few, many = forward_configurations(FEW // 32, 32)[0], forward_configurations(FEW // 32 + 1, 32)[0]
    assert few.rows * few.modes == 32 * few.warps
    assert many.rows * many.modes == 128 * many.warps


def test_interpreted_tiles_take_all_rows_at_once(monkeypatch):
    monkeypatch.setattr(configurations, "interpreting", lambda: True)
    assert forward_configurations(100, 5)[0].rows == 128
    assert forward_configurations(1 << 20, 32)[0].rows == 512


def test_nothing_is_contracted_where_modes_are_coupled():
    configuration = Configuration(1, 32, 4)
    assert configuration.options()["enable_fp_fusion"] is True
    assert configuration.options(coupled=True)["enable_fp_fusion"] is False


def test_only_few_rows_of_many_steps_are_cut():
    assert pieces_for(1, 32, LONG) == LONG // 256
    assert pieces_for(1, 32, LONG - 1) == 1
    assert pieces_for(512, 32, 1 << 20) == 1
    assert pieces_for(0, 3, 1 << 20) == 1
    assert pieces_for(1, 1, 1 << 20) == 64


@pytest.mark.parametrize(("n", "power"), [(0, 1), (1, 1), (2, 2), (3, 4), (64, 64), (65, 128)])
def test_powers_of_two(n, power):
    assert power_of_two(n) == power
