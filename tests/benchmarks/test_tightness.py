"""The program that measures how tight the bounds are: what it counts, what it objects to, what it writes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "tightness.py"


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("tightness", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


KEY = ("scipy", "dense", "s4", "float64", "normwise")


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense", "mimo"])
def test_every_backend_mode_and_dtype_is_a_case_and_none_exceeds_its_bound(program, structure):
    cases = program.compare(structure, 3)
    keys = {key for key, _, _ in cases}
    assert len(keys) == len(cases)
    forms = 3 if structure == "mimo" else 11
    assert sum(key[0] == "numpy" for key in keys) == 2 * forms
    assert {key[3] for key in keys} == {"float32", "float64"}
    assert any(key[4] == "normwise" for key in keys) == (structure != "mimo")
    assert all(0 < ratio <= 1 and not exceeds for _, ratio, exceeds in cases)


def test_what_is_drawn_depends_on_the_seed_alone(program):
    one, two, other = (program.draw("dplr", seed) for seed in (5, 5, 6))
    assert np.array_equal(one[1], two[1])
    assert one[1].shape != other[1].shape or not np.array_equal(one[1], other[1])


def test_rows_and_complaints(program):
    rows = program.table([(KEY, 1 / 100, False), (KEY, 1 / 250, False), (KEY, 1 / 400, False), (KEY, 0.0, False)])
    (row,) = rows
    assert (row["cases"], row["without_error"], row["median"], row["largest"]) == (4, 1, 250.0, 400.0)
    assert row["largest_observed_over_bound"] == 0.01
    assert program.complaints(rows) == []
    assert "250" in program.show(rows)

    loose = program.table([(KEY, 1 / 301, False)])
    assert "above 300" in program.complaints(loose)[0]
    stepwise = program.table([((*KEY[:4], "componentwise"), 1 / 101, False)])
    assert "above 100" in program.complaints(stepwise)[0]
    wrong = program.table([(KEY, 1.5, True), (KEY, 0.1, False)])
    assert "1 errors exceed" in program.complaints(wrong)[0]
    unbounded = program.table([(KEY, float("inf"), False)])
    assert "infinite" in program.complaints(unbounded)[0]
    assert program.complaints(program.table([(KEY, 0.0, False)])) == []


def test_a_wrong_backend_is_seen(program, monkeypatch):
    """One part in a thousand of every output: above every bound, in either kind."""
    apply = program.ls.apply
    monkeypatch.setattr(program.ls, "apply", lambda *args, **options: apply(*args, **options) * 1.001)
    cases = program.compare("diagonal", 3)
    assert all(exceeds and ratio > 1 for _, ratio, exceeds in cases)
    assert len(program.complaints(program.table(cases))) >= len({key for key, _, _ in cases})


def test_a_signal_that_overflows_is_no_case(program, monkeypatch):
    """Only in the modes where it does."""
    draw = program.draw
    # |ā + b̄ u| reaches 1e4: beyond float32 after a dozen steps, beyond float64 after a hundred
    monkeypatch.setattr(program, "draw", lambda *_: (draw("diagonal", 3)[0], np.full((1, 2, 150), 1e5), 2, 4))
    modes = {key[2] for key, _, _ in program.compare("diagonal", 3)}
    assert "liquid" not in modes
    assert "s4" in modes


def test_an_infinite_bound_is_no_statement(program):
    bound = program.Bound(np.full((1, 1, 2), np.inf), np.zeros((1, 1)))
    assert program._ratio(np.zeros((1, 1, 2)), bound) == float("inf")


def test_the_program_writes_its_table_and_says_when_a_limit_is_broken(program, tmp_path, monkeypatch, capsys):
    path = tmp_path / "t.json"
    command = [sys.executable, str(PROGRAM), "--cases", "60", "--processes", "1", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    written = json.loads(path.read_text())
    # so few cases may have a median above its limit by chance, never an error above its bound
    assert done.returncode in (0, 1)
    assert "exceed" not in done.stderr
    assert sum(row["cases"] for row in written["rows"]) >= 60
    assert "observed/bound" in done.stdout

    monkeypatch.setattr(program, "tightness", lambda *_: program.table([(KEY, 2.0, True)]))
    assert program.main([]) == 1
    assert "exceed" in capsys.readouterr().err
    monkeypatch.setattr(program, "tightness", lambda *_: program.table([(KEY, 0.01, False)]))
    assert program.main(["--cases", "1"]) == 0
    with pytest.raises(SystemExit):
        program.main(["--cases", "0"])
