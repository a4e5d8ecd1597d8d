"""`liquid-ssm verify` with a page and with plots: what is refused before, what is written after, how to do it again."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from liquid_ssm import report_plots
from liquid_ssm.cli import main
from liquid_ssm.curves import Curves, TruncationCurve
from liquid_ssm.report import Report, RoundingRow

PASSED = RoundingRow("numpy", "s4", "float64", "pass", 1e-16, 1e-16, 1e-16, 0.5, "componentwise", 3, "T1", 1e-30)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stands in for `verify`, and records what it is asked for."""
    calls: list[dict[str, Any]] = []

    def verify(system: Any, u: Any, **options: Any) -> Report:
        calls.append({**options, "dt": tuple(system.dt), "C": system.C.tobytes(), "u": np.asarray(u).tobytes()})
        curves = Curves((), (TruncationCurve("truncated", (1, 2), (0.1, 0.01)),)) if options.get("curves") else None
        return Report((PASSED,), curves=curves)

    module = ModuleType("liquid_ssm.verify")
    module.verify = verify  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "liquid_ssm.verify", module)
    return calls


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Exit code and standard error of a command."""

    def call(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            main([str(a) for a in arguments])
        return int(left.value.code or 0), capsys.readouterr().err

    return call


def test_curves_are_computed_for_pages_and_plots_alone(calls: Any, run: Any, tmp_path: Path) -> None:
    html = tmp_path / "r.html"
    for options in ([], ["--json", tmp_path / "r.json"], ["--html", html, "--no-plots"]):
        assert run("verify", "-q", *options)[0] == 0
        assert not calls[-1].get("curves")
    for options in (["--html", html], ["--plots", tmp_path / "p"], ["--html", html, "--no-plots", "--plots", tmp_path]):
        assert run("verify", "-q", *options)[0] == 0
        assert calls[-1]["curves"] is True


def test_the_page_has_plots_unless_told_otherwise(calls: Any, run: Any, tmp_path: Path) -> None:
    run("verify", "-q", "--html", tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text().count("<svg ") == 2
    run("verify", "-q", "--html", tmp_path / "r.html", "--no-plots")
    assert "<svg" not in (tmp_path / "r.html").read_text()


def test_plots_are_written_into_a_new_folder(calls: Any, run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "plots"
    assert run("verify", "-q", "--plots", folder)[0] == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        *("bound-tightness-float64.png", "bound-tightness-float64.svg"),
        *("truncation-by-order.png", "truncation-by-order.svg"),
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--plots", "file"], "--plots 'file' is not a folder"),
        (["--plots", ""], "--plots '' is not a folder"),
        (["--plots", "file/below"], "--plots 'file/below' cannot be written"),
        (["--no-plots"], "--no-plots is about the page of --html"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_work(
    calls: Any, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    code, err = run("verify", *options)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert calls == []


def test_without_matplotlib_plots_are_refused_before_the_work(
    calls: Any, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_plots, "find_spec", lambda name: None)
    for options in (["--html", tmp_path / "r.html"], ["--plots", tmp_path]):
        code, err = run("verify", *options)
        assert code == 2
        assert "pip install 'liquid-ssm[plots]'" in err
        assert "--no-plots" in err
    assert calls == []
    assert run("verify", "-q", "--html", tmp_path / "r.html", "--no-plots")[0] == 0


def test_plots_that_cannot_be_written_are_one_line(
    calls: Any, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Report, "to_plots", refuse)
    code, err = run("verify", "-q", "--plots", tmp_path)
    assert code == 2
    assert "--plots" in err
    assert "No space left on device" in err


def test_the_command_on_the_page_makes_the_same_call(calls: Any, run: Any, tmp_path: Path) -> None:
    signal = tmp_path / "it's a <signal>.npy"
    np.save(signal, np.array([1.0, 2, 3, 4]))
    page = tmp_path / "r.html"
    run(
        *("verify", "-q", "--signal", signal, "--mode", "kb", "--mode", "pb", "--order", 2, "--no-window"),
        *("--correlations", "adjacent", "--backend", "numpy", "--init", "legs", "--dtype", "float32"),
        *("--n-state", 8, "--channels", 3, "--dt-min", 0.01, "--dt-max", 0.3, "--seed", 7, "--oracle-budget", 99),
        *("--html", page),
    )
    from html import unescape

    text = page.read_text()
    command = shlex.split(unescape(text[text.index("<pre><code>") + 11 : text.index("</code></pre>")]))
    assert command[:2] == ["liquid-ssm", "verify"]
    assert str(signal) in command
    run(*command[1:], "-q")
    first, again = ({k: v for k, v in call.items() if k != "progress"} for call in calls)
    assert first == again
    assert hashlib.sha256(signal.read_bytes()).hexdigest() in text


def test_options_that_were_not_given_are_in_the_command(calls: Any, run: Any, tmp_path: Path) -> None:
    """A later version may have other defaults."""
    run("verify", "-q", "--html", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    for words in ("--init s4d-lin --discretization bilinear --n-state 64 --channels 4", "--order 3 --window 32"):
        assert words in text
    assert "SHA-256" not in text
