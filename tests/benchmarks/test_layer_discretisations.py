"""The benchmark of discretisations runs, and its rows say what was measured."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "layer_discretisations.py"


@pytest.mark.parametrize("init", ["s4d-lin", "legs", "s5"])
def test_ways_take_turns(init):
    script = runpy.run_path(str(SCRIPT))
    script["rows"].__globals__.update({"BATCH": 1, "LENGTH": 16, "CHANNELS": 4, "STATES": 4})
    rows = script["rows"](init, 2)
    assert [row["way"] for row in rows] == list(script["WAYS"])
    assert rows[0]["ratio"] == 1
    assert all(row["seconds"] > 0 and row["ratio"] > 0 for row in rows)
