"""The run: every backend, mode and direction has a row, with a time or with a reason."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from liquid_ssm.bench import run
from liquid_ssm.bench import shapes as shapes_module
from liquid_ssm.bench.limits import Limits, measure_limits
from liquid_ssm.bench.result import Result
from liquid_ssm.bench.rivals import CONVOLUTIONS
from liquid_ssm.bench.shapes import GRIDS, Shape
from liquid_ssm.bench.work import BACKWARD, BOTH, DIRECTIONS, FORWARD
from liquid_ssm.errors import ParameterError
from liquid_ssm.registry import backend_names, get_backend

SMALL, LONGER = Shape(1, 2, 4, 8), Shape(1, 2, 4, 64)


def _shapes(grid):
    return (SMALL, LONGER) if grid in GRIDS else shapes_module.grid(grid)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Two tiny shapes, few steps for the oracle, and no rivals that take long."""
    monkeypatch.setattr(run, "shapes_of", _shapes)
    monkeypatch.setattr(run, "QUICK_OTHERS", ())
    monkeypatch.setattr(run, "SLOW", ())
    monkeypatch.setattr(run, "measure_limits", lambda threads: Limits(1, 1e11, 5e10, 1e10))
    monkeypatch.setattr(run, "accuracy", lambda names, spec, dtype: [])
    monkeypatch.setattr(run, "step_latency", lambda *arguments: run.Latency(*arguments[:1], "", "", "", SMALL))


def rows_of(result: Result, subject: str):
    return {(r.mode, r.direction, r.shape): r for r in result.rows if r.subject == subject}


def test_rows_next_to_the_limits_and_the_convolution(compiled):
    result = run.bench(backends=["numba"], modes=["liquid", "pb"])
    rows = rows_of(result, "numba")
    modes = {"liquid", "pb(3, all)", "pb(3, adjacent)"}
    assert set(rows) == {(m, d, s) for m in modes for d in DIRECTIONS for s in (SMALL, LONGER)}
    one = rows["liquid", FORWARD, SMALL]
    assert one.fma_fraction == pytest.approx(10 * 2 * 2 * 8 / 1e11 / one.seconds.median)
    assert one.convolution_ratio > 0
    both, back = rows["liquid", BOTH, SMALL], rows["liquid", BACKWARD, SMALL]
    assert both.seconds.median == one.seconds.median + back.seconds.median
    # At the start, before each shape, at the end.
    assert len(result.limits_measured) == 4
    fastest = min(r.seconds.median for c in CONVOLUTIONS for r in rows_of(result, c.name).values() if r.shape == SMALL)
    assert one.convolution_ratio == pytest.approx(one.seconds.median / fastest)


@pytest.mark.usefixtures("no_compiled")
def test_without_the_compiled_backend_there_are_times_but_no_fractions(monkeypatch):
    monkeypatch.setattr(run, "measure_limits", measure_limits)
    result = run.bench(backends=["numpy"], modes=["s4"])
    row = rows_of(result, "numpy")["s4", FORWARD, SMALL]
    assert row.seconds is not None
    assert row.fma_fraction is None
    assert "pip install" in result.limits.reason


def test_a_rejection_is_a_row_with_the_reason():
    result = run.bench(backends=["scipy"], modes=["liquid"])
    row = rows_of(result, "scipy")["liquid", BACKWARD, SMALL]
    assert row.seconds is None
    assert "gradient" in row.reason
    assert rows_of(result, "scipy")["liquid", BOTH, SMALL].reason == f"backward: {row.reason}"


def test_accuracy_stands_in_the_row(monkeypatch):
    def accuracy(names, spec, dtype):
        return [run.Accuracy(name, spec.label, dtype, "pass", 0.25) for name in names]

    monkeypatch.setattr(run, "accuracy", accuracy)
    result = run.bench(backends=["numpy"], modes=["s4"])
    assert rows_of(result, "numpy")["s4", FORWARD, SMALL].error_over_bound == 0.25
    # Both dtypes, whichever is timed.
    assert {a.dtype for a in result.accuracy} == {"float32", "float64"}


@pytest.mark.parametrize("seen_by_apply", [True, False])
def test_a_nan_is_an_error_of_its_row(compiled, monkeypatch, seen_by_apply):
    def scan(system, u, state=None, *, liquid):
        y, final = get_backend("numpy").scan(system, u, state, liquid=liquid)
        y[0, 0, 3] = np.nan
        return y, final

    if not seen_by_apply:
        # The benchmark does not depend on the check that `compute` makes.
        monkeypatch.setattr(sys.modules["liquid_ssm.compute"], "_check_finite", lambda *arguments: None)
    monkeypatch.setattr(type(compiled), "scan", staticmethod(scan), raising=False)
    result = run.bench(backends=["numba"], modes=["liquid"])
    row = rows_of(result, "numba")["liquid", FORWARD, SMALL]
    assert row.seconds is None
    assert row.reason.startswith("error: ")
    assert ("step 3" if seen_by_apply else "holds 1 NaN") in row.reason
    # Forward at both shapes; what is derived from them has no time and is no error of its own.
    assert len(result.errors) == 2
    assert rows_of(result, "numba")["liquid", BOTH, SMALL].seconds is None


def test_a_slow_backend_is_given_up_and_larger_shapes_are_not_tried(monkeypatch):
    monkeypatch.setattr(run, "CALL_LIMIT", {"quick": 1e-9})
    rows = rows_of(run.bench(backends=["numpy"], modes=["liquid"]), "numpy")
    assert "one call took" in rows["liquid", FORWARD, SMALL].reason
    assert rows["liquid", FORWARD, LONGER].reason.startswith("not measured: slower than")
    assert SMALL.label in rows["liquid", FORWARD, LONGER].reason


def test_a_longer_signal_is_not_tried_where_a_short_one_tells(monkeypatch):
    monkeypatch.setattr(run, "shapes_of", lambda grid: (SMALL, replace(SMALL, length=2**20)))
    monkeypatch.setattr(run, "CONVOLUTIONS", ())
    rows = rows_of(run.bench(backends=["numpy"], modes=["liquid"]), "numpy")
    assert rows["liquid", FORWARD, SMALL].seconds is not None
    assert "s a call, by what it takes at" in rows["liquid", FORWARD, replace(SMALL, length=2**20)].reason


def test_a_spent_budget_is_said_in_every_row_that_it_cut(monkeypatch):
    # One shape's rows, and what else asks before them, are within the budget.
    now = [0.0]
    monkeypatch.setattr(run, "monotonic", lambda: now[0])
    seen = []

    def progress(done, total, what):
        seen.append(what)
        now[0] = 99.0 if LONGER.label in what else 0.5

    result = run.bench(backends=["numpy"], modes=["liquid"], budget=1.0, progress=progress)
    cut = [r for r in result.rows if "the budget of 1 s was spent" in r.reason]
    assert {r.subject for r in cut} >= {"numpy", *(c.name for c in CONVOLUTIONS)}
    assert {r.shape for r in cut} == {LONGER}
    assert all(r.seconds is None for r in cut)
    assert all(r.seconds or r.reason for r in result.rows)


def test_rivals_run_or_say_why(monkeypatch):
    absent = replace(CONVOLUTIONS[0], name="absent", package="surely_not_installed")
    large = replace(CONVOLUTIONS[0], name="large", largest=1)
    monkeypatch.setattr(run, "QUICK_OTHERS", (absent,))
    monkeypatch.setattr(run, "SLOW", (large,))
    result = run.bench(backends=["numpy"], modes=["s4"])
    assert rows_of(result, "absent")["s4", FORWARD, SMALL].reason.startswith("needs surely_not_installed: pip install")
    assert "many seconds" in rows_of(result, "large")["s4", FORWARD, SMALL].reason


def test_progress_and_settings():
    seen = []
    result = run.bench(backends=["numpy"], modes=["s4"], threads=1, progress=lambda *step: seen.append(step))
    assert seen[0] == (0, seen[0][1], "limits of the machine")
    assert seen[-1] == (seen[-1][1], seen[-1][1], "done")
    assert [done for done, _, _ in seen] == list(range(len(seen)))
    assert result.settings["backends"] == ("numpy",)
    assert any("no effect on numpy" in note for note in result.notes)
    assert "cpu" in result.environment


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"grid": "huge"}, "unknown grid 'huge'; allowed: quick, targets, full"),
        ({"backends": ["nunpy"]}, "Did you mean 'numpy'"),
        ({"modes": ["lquid"]}, "unknown mode 'lquid'; allowed: s4, liquid"),
        ({"dtype": "float16"}, "unknown dtype 'float16'; allowed: float32, float64"),
        ({"threads": 0}, "threads is 0; at least 1"),
        ({"budget": 0}, "budget is 0 s; give a positive number"),
        ({"budget": float("nan")}, "budget is nan s"),
    ],
)
def test_bad_input(given, message):
    with pytest.raises(ParameterError, match=message):
        run.bench(**given)


def test_the_grid_of_the_targets_has_them_all(compiled, monkeypatch):
    tiny = (Shape(1, 2, 4, 16),)
    monkeypatch.setattr(run, "shapes_of", lambda grid: tiny)
    for name in ("TARGETS", "LENGTHS", "ROWS"):
        monkeypatch.setattr(run, name, tiny)
    for name in ("MEMORY", "KERNEL_MEMORY"):
        monkeypatch.setattr(run, name, ())
    for name in ("VANDERMONDE", "CAUCHY"):
        monkeypatch.setattr(run, name, tiny[0])
    monkeypatch.setattr(run, "start_up", lambda: None)
    result = run.bench("targets", backends=["numba"], modes=["liquid"])
    assert [t.id for t in result.targets][:3] == ["1a", "1b", "1c"]
    assert result.kernels
    # Each row once, though both the targets and the linearity ask for it.
    assert len([r for r in result.rows if r.subject == "numba"]) == len(DIRECTIONS)


def test_the_quick_grid_leaves_out_what_others_are_for(monkeypatch):
    asked = []

    class Recorded:
        def __init__(self, grid, names, *others):
            asked.append((names, others[-1]))

        def result(self):
            return None

    monkeypatch.setattr(run, "_Run", Recorded)
    run.bench("quick")
    run.bench("quick", backends=["torch"])
    run.bench("targets")
    (quick, notes), (named, none), (targets, _) = asked
    assert quick == ("numba", "scipy", "numpy")
    left = "numba-wide-state, triton, torch, torch-split-real, keops"
    assert notes == [f"left out of the quick grid: {left}; --backend NAME measures it."]
    assert (named, none) == (("torch",), [])
    assert targets == backend_names()
