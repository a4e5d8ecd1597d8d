"""The benchmark of layers runs, and its rows say what was measured."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "layers.py"


@pytest.fixture
def script():
    names = runpy.run_path(str(SCRIPT))
    small = {"BATCH": 1, "LENGTH": 16, "CHANNELS": 4, "STATES": 4, "LAYERS": 1}
    names["training_step"].__globals__.update(small)
    return names


def test_ways_of_training_take_turns(script):
    rows = script["training"]("s4d_lin", 2, baseline="torch")
    assert [(row["model"], row["backend"]) for row in rows] == [
        ("s4d_lin", "auto"),
        ("s4d_lin", "torch"),
        ("linear_ltc", "auto"),
        ("without layers", ""),
    ]
    assert all(0 < row["seconds_low"] <= row["seconds"] <= row["seconds_high"] for row in rows)


def test_a_step_is_timed(script):
    row = script["stepping"]("liquid_s4", "first", 4, 3)
    assert (row["model"], row["backend"], row["n_channels"], row["calls"]) == ("liquid_s4", "first", 4, 3)
    assert 0 < row["seconds"] < 1
