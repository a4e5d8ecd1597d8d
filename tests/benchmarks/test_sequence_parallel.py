"""The benchmark of slices on several processes runs on one, and its rows say what was measured."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from torch import distributed

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sequence_parallel.py"


@pytest.fixture
def script(tmp_path):
    names = runpy.run_path(str(SCRIPT))
    small = {"SIZES": ((2, 3, 4),), "LENGTHS": (8, 16), "TIMED": (1, 2, 4, 16)}
    names["sizes"].__globals__.update(small)
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield names
    distributed.destroy_process_group()


def test_bytes_are_those_that_are_given_to_collectives(script):
    rows = script["sizes"]("torch")
    assert [(row["mode"], row["length"]) for row in rows] == [
        ("liquid", 8), ("liquid", 16), ("truncated", 8), ("truncated", 16),
    ]  # fmt: skip
    # A single rank has no states to exchange.
    assert all((row["header"], row["closing"]) == (1024, 1024) and "states" not in row for row in rows)


def test_ways_of_computing_take_turns(script):
    rows = script["timings"](2, "torch")
    assert {row["what"] for row in rows} == {"forward", "training"}
    assert all(0 < row["seconds_low"] <= row["seconds"] <= row["seconds_high"] for row in rows)
