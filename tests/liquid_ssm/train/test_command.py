"""The command `liquid-ssm train`."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from liquid_ssm.cli import main
from liquid_ssm.train.command import _show

TINY = [
    "train", "digits", "--model", "s4d", "--set", "epochs=1", "--set", "n_channels=4", "--set", "n_state=4",
    "--limit", "train=16", "--limit", "validation=10", "--limit", "test=10", "--backend", "first", "--threads", "1",
]  # fmt: skip


def code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return int(left.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_is_trained_and_goes_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code(*TINY, "--seeds", "0", "--run", "run", "--json", "-") == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document == json.loads((folder / "run" / "results.json").read_text())
    assert "seed-0, epoch 1 of 1, validation accuracy" in captured.err
    # Another seed, later; the first is not trained again.
    before = (folder / "run" / "seed-0" / "result.json").read_bytes()
    assert code("train", "--resume", "run", "--seeds", "0,5", "-q") == 0
    assert json.loads((folder / "run" / "results.json").read_text())["summary"]["seeds"] == 2
    assert (folder / "run" / "seed-0" / "result.json").read_bytes() == before
    assert code(*TINY, "--run", "run") == 2
    assert "is not empty, and nothing in it is overwritten" in capsys.readouterr().err


def test_a_seed_that_breaks_down_is_exit_code_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code(*TINY, "--run", "run", "--set", "lr=1e30", "--set", "warmup_steps=0") == 1
    assert "1 of 1 seeds broke down." in capsys.readouterr().out


def test_the_papers_figure_stands_below_in_the_unit_of_the_table() -> None:
    shown = {}
    for figure, unit in ((62.75, "%"), (0.303, "unit of the target")):
        document = {
            "summary": {"seeds": 1, "failed": 0, "test_metric": {"mean": 0.5, "deviation": None}},
            "paper": {
                "figures": {"pb": figure}, "part": "validation",
                "comparison": {"name": "pb", "figure": figure, "unit": unit},
            },
            "data": {"generated": None},
        }  # fmt: skip
        out = io.StringIO()
        _show(document, Path("run"), out)
        shown[unit] = out.getvalue()
        document["summary"] = {"seeds": 1, "failed": 1}
        _show(document, Path("run"), out := io.StringIO())
        # With nothing of ours to compare, there is no table.
        assert "the paper's pb" not in out.getvalue()
        assert "1 of 1 seeds broke down" in out.getvalue()
    row = next(line for line in shown["%"].splitlines() if "the paper's pb, validation" in line)
    assert "0.6275" in row
    assert "The paper's figures, validation: pb 62.75" in shown["%"]
    assert "0.3030" in shown["unit of the target"]


def test_the_list_cuts_no_number_off(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert code("train", "sc35", "--list", "--quick") == 0
    shown = capsys.readouterr().out
    assert "224,675" in shown
    assert "…" not in shown.split("sc35:")[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "no task is given"),
        (["train", "digit"], "unknown task 'digit'"),
        (["train", "digits", "--model", "s44"], "unknown model 's44'"),
        (["train", "digits", "--preset", "paper"], "unknown preset of digits 'paper'"),
        (["train", "digits", "--set", "n_state=0"], "n_state is 0"),
        (["train", "digits", "--seeds", "a"], "give whole numbers with commas"),
        (["train", "digits", "--limit", "train"], "is not of the form PART=N"),
        (["train", "digits", "--limit", "train=few"], "is not of the form PART=N"),
        (["train", "digits", "--other-version"], "--other-version is about what --resume goes on with"),
        (["train", "digits", "--as-published", "none"], "unknown deviation of digits 'none'"),
        (["train", "listops"], "needs its data: give their folder with --data"),
        (["train", "listops", "--data", "nowhere"], "data folder 'nowhere' does not exist"),
        (["train", "--resume", "nowhere"], "so it is no run's folder"),
        (["train", "digits", "--resume", "nowhere"], "leave out TASK"),
        *(
            (["train", "--resume", "nowhere", option, value], f"leave out {option}")
            for option, value in {
                "--model": "pb",
                "--preset": "small",
                "--config": "a.toml",
                "--set": "lr=1",
                "--budget": "9",
                "--as-published": "all",
                "--limit": "train=9",
                "--run": "run",
                "--backend": "first",
            }.items()
        ),
    ],
)
def test_bad_input_is_exit_code_2_and_leaves_nothing(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code(*arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(folder.iterdir())
