"""The experiments on two cores: commands, rows, and the table that is made of them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


def load(name, patch):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    patch.setitem(sys.modules, name, module)  # where dataclasses look
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def report():
    with pytest.MonkeyPatch.context() as patch:
        yield load("experiments_report", patch)


@pytest.fixture(scope="module")
def program(report):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "experiments_report", report)
        yield load("experiments", patch)


def result(seeds):
    """As `results.json` of a run with these test accuracies; None is a seed that broke down."""
    rows = [
        {"seed": i, "title": "S4D-Lin", "parameters": 1234, "n_channels": 5, "failure": None if value else "Diverged",
         "seconds_per_epoch": value and 10 * value}
        for i, value in enumerate(seeds)
    ]  # fmt: skip
    summary = {"seeds": len(seeds), "failed": seeds.count(None), "test_accuracy": {"mean": 0.5, "deviation": 0.125}}
    return {"seeds": rows, "summary": summary, "data": {"counts": {"test": 8}}}


def test_every_experiment_is_a_command_that_can_be_typed(program):
    from liquid_ssm.generate.command import options_of
    from liquid_ssm.train.configuration import configuration, from_texts

    for experiment in program.EXPERIMENTS.values():
        values = [experiment.train[i + 1] for i, word in enumerate(experiment.train) if word == "--set"]
        assert configuration(task=experiment.task, preset="small", **from_texts(values)).task == experiment.task
        if experiment.generate:
            from liquid_ssm.generate import get_generator

            name, *words = experiment.generate
            counts, options = ([words[i + 1] for i, w in enumerate(words) if w == key] for key in ("--count", "--set"))
            assert options_of(name, get_generator(name), counts, options)


def test_models_run_one_after_the_other_and_each_is_kept(program, tmp_path, monkeypatch):
    typed = []

    def typing(command, cwd, check):
        typed.append(command[1:])
        if command[1] == "train":
            model = command[command.index("--run") + 1]
            (cwd / model).mkdir()
            (cwd / model / "results.json").write_text(json.dumps(result([0.5, None])))
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(program, "subprocess", SimpleNamespace(run=typing))
    target = tmp_path / "found.json"
    document = program.run(program.EXPERIMENTS["listops"], tmp_path, ["s4d", "lstm"], 1, target)
    assert [words[0] for words in typed] == ["generate", "train", "train"]
    assert [row["model"] for row in document["rows"]] == ["s4d", "lstm"]
    assert json.loads(target.read_text())["commands"] == document["commands"]
    assert document["commands"][2].startswith("liquid-ssm train listops --model lstm --preset small")


def test_a_row_with_settings_of_its_own_says_so(program, tmp_path, monkeypatch):
    def typing(command, cwd, check):
        if command[1] == "train":
            assert command[command.index("--model") + 1] == "liquid"
            assert 'options={"max_gain": 1.05}' in command
            (cwd / program.CLAMPED).mkdir()
            (cwd / program.CLAMPED / "results.json").write_text(json.dumps(result([0.5])))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(program, "subprocess", SimpleNamespace(run=typing))
    document = program.run(program.EXPERIMENTS["digits"], tmp_path, [program.CLAMPED], 1, tmp_path / "found.json")
    assert document["rows"][0]["title"] == "S4D-Lin, max_gain 1.05"
    # As a shell takes it.
    assert "--set 'options={\"max_gain\": 1.05}'" in document["commands"][0]


def test_the_table_has_means_deviations_and_failures(report):
    row = {**result([0.5, None]), "title": "S4D-Lin", "n_channels": 5, "parameters": 1234, "seconds": 61.4}
    assert report.cells(row) == ["S4D-Lin", "5", "1,234", "2, 1 failed", "50.0 % ± 12.5", "–", "5.00", "61"]
    document = {"rows": [row], "commands": ["liquid-ssm train x"]}
    lines = report.markdown(document).splitlines()
    assert lines[2] == f"| {' | '.join(report.cells(row))} |"
    assert "liquid-ssm train x" in lines
    assert report.text(document).splitlines()[1].startswith("S4D-Lin  5  1,234")
    regression = {"summary": {"test_rmse": {"mean": 1.25, "deviation": None}}}
    assert report._value(regression["summary"], "test") == "1.25"
