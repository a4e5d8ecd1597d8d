"""The benchmark of selection: its rows have what is said of them, on problems that take no time."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from liquid_ssm.selection import auto

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "selection.py"


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("selection_benchmark", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_overhead_is_the_difference_of_two_calls(program):
    auto.forget()
    row = program.overhead((1, 2, 4, 16), "float64", strict=False, pairs=5)
    low, high = row["overhead_quartiles"]
    assert low <= row["overhead_seconds"] <= high < 1
    assert row["call_seconds"] > 0
    assert row["chosen"] in ("numba", "scipy", "numpy")


def test_a_selection_is_timed_by_itself(program):
    row = program.selection((1, 2, 4, 16), "liquid", "diagonal", state=True)
    assert 0 < row["seconds"] < 60
    assert row["candidates"][row["backend"]] == "chosen"
    assert row["state"] is True
