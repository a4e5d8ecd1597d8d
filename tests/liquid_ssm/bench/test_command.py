"""The command: tables or JSON, never both on standard output, and bad input refused before anything is measured."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec

import pytest

from liquid_ssm.bench import run as run_module
from liquid_ssm.cli import main


@pytest.fixture
def measured(monkeypatch, result):
    """What the command asked to be measured; the result is made up."""
    asked = {}

    def bench(grid, **options):
        asked.update(options, grid=grid)
        if options["progress"]:
            options["progress"](1, 1, "done")
        return result

    monkeypatch.setattr(run_module, "bench", bench)
    return asked


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        main(["bench", *map(str, arguments)])
    captured = capsys.readouterr()
    return left.value.code or 0, captured.out, captured.err


def test_tables_on_standard_output_progress_on_standard_error(measured, capsys):
    code, out, err = call(capsys)
    assert code == 0
    assert "Targets" in out
    assert "[1/1]" in err
    assert "[1/1]" not in out
    assert measured.pop("progress") is not None
    assert measured == {
        "grid": "quick",
        "backends": None,
        "modes": None,
        "dtype": "float32",
        "threads": None,
        "budget": None,
    }


def test_json_to_standard_output_is_alone_there(measured, capsys, result):
    code, out, err = call(capsys, "--json", "-")
    assert code == 0
    assert json.loads(out) == json.loads(result.to_json())
    assert "[1/1]" in err


def test_options_reach_the_run(measured, capsys, tmp_path):
    options = ["--grid", "full", "--backend", "numpy", "--backend", "scipy", "--mode", "s4", "--dtype", "float64"]
    options += ["--threads", 1, "--budget", 2.5, "--quiet", "--json", tmp_path / "speed.json"]
    code, out, err = call(capsys, *options)
    assert (code, out, err) == (0, "", "")
    assert measured == {
        "grid": "full",
        "backends": ["numpy", "scipy"],
        "modes": ["s4"],
        "dtype": "float64",
        "threads": 1,
        "budget": 2.5,
        "progress": None,
    }
    assert json.loads((tmp_path / "speed.json").read_text())["schema"] == "liquid-ssm/bench"


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="needs matplotlib: see the extra bench")
def test_plots(measured, capsys, tmp_path):
    code, out, err = call(capsys, "--plots", tmp_path / "plots", "--json", "-")
    assert code == 0
    json.loads(out)
    assert err.count("plot: ") == 2
    assert len(list((tmp_path / "plots").glob("*.png"))) == 2


def test_bad_output_is_refused_before_the_run(measured, capsys, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr("liquid_ssm.bench.plots.need_matplotlib", lambda: None)
    for arguments, message in (
        (["--json", tmp_path], "is a directory; give the name of a file"),
        (["--plots", tmp_path / "file"], "is not a folder; give the name of a folder"),
        (["--plots", ""], "is not a folder"),
    ):
        code, out, err = call(capsys, *arguments)
        assert (code, out) == (2, "")
        assert message in err
    assert measured == {}


def test_plots_without_matplotlib_are_refused_before_the_run(measured, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("liquid_ssm.bench.plots.find_spec", lambda name: None)
    code, _, err = call(capsys, "--plots", tmp_path)
    assert code == 2
    assert "pip install 'liquid-ssm[bench]'" in err
    assert measured == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grid", "tiny"], "unknown grid 'tiny'; allowed: quick, targets, full"),
        (["--backend", "nunpy"], "unknown backend 'nunpy'"),
        (["--mode", "linear"], "unknown mode 'linear'"),
        (["--dtype", "float16"], "unknown dtype 'float16'"),
        (["--threads", 0], "threads is 0"),
        (["--budget", -1], "budget is -1.0 s"),
    ],
)
def test_bad_input_exits_with_2(capsys, arguments, message):
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_a_nan_exits_with_1_and_the_results_are_written(measured, capsys, monkeypatch, result):
    rows = (replace(result.rows[0], seconds=None, reason="error: array 0 of the result holds 1 NaN"), *result.rows[1:])
    monkeypatch.setattr(run_module, "bench", lambda grid, **options: replace(result, rows=rows))
    code, out, err = call(capsys, "--json", "-")
    assert code == 1
    assert json.loads(out)["rows"][0]["seconds"] is None
    assert "numba, liquid, 4 x 128 x 4096, N 64: error: array 0 of the result holds 1 NaN" in err
