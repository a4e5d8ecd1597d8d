from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import typer
from rich.cells import cell_len

from liquid_ssm.claims import evaluation
from liquid_ssm.claims.command import claims, key_number
from liquid_ssm.claims.evaluation import ledger
from liquid_ssm.errors import ParameterError


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command as it is attached to the package's Typer app."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "GITHUB_ACTIONS", "PY_COLORS"):
        monkeypatch.delenv(name, raising=False)
    app = typer.Typer(pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    app.command()(claims)

    def call(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as left:
            app(["claims", *map(str, arguments)])
        captured = capsys.readouterr()
        return Result(int(left.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def other_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that has another verdict on record for Eq. 6."""
    altered = [replace(claim, expected="fails") if claim.id == "equation-6" else claim for claim in ledger()]
    monkeypatch.setattr(evaluation, "ledger", lambda: altered)


def test_table(run: Callable[..., Result]) -> None:
    result = run("equation-6", "algorithm-1-line-13", "equation-10")
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0].split() == ["id", "equation", "key", "number", "verdict"]
    assert set(lines[1]) == {"-", " "}
    assert lines[2].split(maxsplit=2)[0] == "equation-6"
    assert "entries proved = 6" in lines[2]
    assert lines[2].endswith("holds")
    assert "fails: B̄^(p−1) where Eq. 15 has B̄^p" in lines[3]
    # The verdicts begin in one column.
    assert len({line.index(word) for line, word in zip(lines[2:5], ("holds", "fails", "holds"), strict=True)}) == 1
    assert lines[-1] == "3 claims: 1 hold, 1 hold under a condition, 1 fail"
    shown = [line.split()[-1] for line in result.err.splitlines()]
    assert shown == ["equation-6", "algorithm-1-line-13", "equation-10", "done"]


def test_json_to_a_file(run: Callable[..., Result], tmp_path: Path) -> None:
    target = tmp_path / "claims.json"
    result = run("equation-6", "--json", target)
    assert result.code == 0
    assert "equation-6" in result.out
    (item,) = json.loads(target.read_text(encoding="utf-8"))
    assert item["id"] == "equation-6"
    assert item["verdict"] == "holds"


def test_json_to_standard_output_is_alone_there(run: Callable[..., Result]) -> None:
    result = run("equation-6", "equation-5", "--json", "-")
    assert [item["id"] for item in json.loads(result.out)] == ["equation-6", "equation-5"]


@pytest.mark.usefixtures("other_record")
def test_a_changed_verdict_exits_with_1(run: Callable[..., Result]) -> None:
    result = run("equation-5", "equation-6", "--json", "-")
    assert result.code == 1
    assert len(json.loads(result.out)) == 2
    assert result.err.splitlines()[-1] == "equation-6: the verdict is 'holds', recorded is 'fails'"


def test_input_errors(run: Callable[..., Result], tmp_path: Path) -> None:
    # `liquid_ssm.cli.main` turns these into one line on standard error and exit code 2.
    for arguments, message in (
        (["equation-99"], "unknown claim 'equation-99'; close to it: equation-9"),
        (["--json", tmp_path], "is a directory; give the name of a file"),
        (["--json", tmp_path / "no" / "file"], "there is no directory"),
        (["--json", ""], "give the name of a file"),
    ):
        with pytest.raises(ParameterError, match=message):
            run(*arguments)


def test_on_a_terminal_the_table_fits_its_width(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    result = run("equation-10", "algorithm-1-line-8")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", result.out)
    assert plain != result.out
    assert all(cell_len(line) <= 80 for line in plain.splitlines())
    assert "algorithm-1-line-8" in plain
    assert "Algorithm 1, line 8" in plain
    assert "smallest exponent = 6" in plain


def test_key_number() -> None:
    (counted,) = evaluation.evaluate(["equation-13-counts"])
    assert key_number(counted) == "pairs = 4,950"
