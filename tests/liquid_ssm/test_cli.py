from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import wave
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from liquid_ssm.cli import main
from liquid_ssm.discretize import DISCRETIZATIONS
from liquid_ssm.errors import OracleInconclusive, UnstableRecurrence
from liquid_ssm.initialize import DEFAULT_DISCRETIZATION, INITIALIZATIONS
from liquid_ssm.problem import CORRELATIONS, DTYPES, MODES
from liquid_ssm.registry import backend_names
from liquid_ssm.report import Report, RoundingRow
from liquid_ssm.testing.certify import ConformanceReport
from liquid_ssm.testing.runner import Outcome
from liquid_ssm.testing.suite import Check

PASSED = RoundingRow("numpy", "s4", "float64", "pass", 1e-16, 1e-16, 1e-16, 0.5, "componentwise", 3, "T1", 1e-30)


@dataclass
class FakeVerify:
    """Stands in for `liquid_ssm.verify.verify`: records its arguments and returns what it is told to."""

    report: Report = field(default_factory=lambda: Report((PASSED,), problem={"shape": (1, 4, 1024)}))
    error: BaseException | None = None
    calls: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, system: object, u: object, **options: Any) -> Report:
        self.calls.append({"system": system, "u": u, **options})
        if self.error is not None:
            raise self.error
        if options["progress"] is not None:
            for done in range(3):
                options["progress"](done, 2, f"[red]step {done}")
        return self.report


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeVerify:
    module = ModuleType("liquid_ssm.verify")
    fake = FakeVerify()
    module.verify = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "liquid_ssm.verify", module)
    return fake


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    # Colours asked for by the environment would reach captured output too.
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "GITHUB_ACTIONS", "PY_COLORS"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as left:
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return Result(int(left.value.code or 0), captured.out, captured.err)

    return call


def strict(text: str) -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return dict(json.loads(text, parse_constant=refuse))


def test_default_run_verifies_the_electrocardiogram(fake: FakeVerify, run: Callable[..., Result]) -> None:
    result = run("verify")
    assert result.code == 0
    call = fake.calls[0]
    u = call.pop("u")
    assert u.shape == (1, 4, 1024)
    assert np.abs(u).max() == 1.0
    system = call.pop("system")
    assert (system.structure, system.n_channels, system.n_state) == ("diagonal", 4, 64)
    assert call.pop("progress") is not None
    assert call == {
        "backends": None,
        "modes": None,
        "order": 3,
        "window": 32,
        "correlations": None,
        "dtypes": None,
        "discretization": "bilinear",
        "seed": 0,
        "oracle_budget": 2**21,
    }
    assert "electrocardiogram distributed by PyWavelets, scaled to max |u| = 1" in result.out
    assert "s4d-lin, bilinear, n_state 64, dt 0.001 to 0.1, seed 0" in result.out
    assert "modes     all of the system; order 3, windows none and 32, all and adjacent" in result.out
    assert f"backends  {', '.join(backend_names())}; float32, float64" in result.out
    assert result.out.endswith("\nPASS: 1 of 1 rows within their bound\n")


def test_every_option_reaches_verify(fake: FakeVerify, run: Callable[..., Result], tmp_path: Path) -> None:
    np.save(tmp_path / "u.npy", np.array([[1.0, 2, 3], [4, 5, 6]]))
    result = run(
        *("verify", "--signal", tmp_path / "u.npy", "--mode", "kb", "--mode", "pb", "--order", 2, "--window", 5),
        *("--correlations", "adjacent", "--backend", "numpy", "--init", "legs", "--discretization", "zoh"),
        *("--dtype", "float32", "--n-state", 8, "--channels", 3, "--dt-min", 0.01, "--dt-max", 0.02),
        *("--seed", 7, "--oracle-budget", 99),
    )
    assert result.code == 0
    call = fake.calls[0]
    np.testing.assert_array_equal(call["u"][:, 2], [[1.0, 2, 3], [4, 5, 6]])
    system = call["system"]
    assert (system.structure, system.n_channels, system.n_state) == ("dplr", 3, 8)
    assert 0.01 <= system.dt.min() <= system.dt.max() <= 0.02
    given = {k: v for k, v in call.items() if k not in ("system", "u", "progress")}
    assert given == {
        "backends": ["numpy"],
        "modes": ["kb", "pb"],
        "order": 2,
        "window": 5,
        "correlations": ["adjacent"],
        "dtypes": ["float32"],
        "discretization": "zoh",
        "seed": 7,
        "oracle_budget": 99,
    }
    assert "2 x 3 taken as channels x length" in result.out
    assert "modes     kb, pb; order 2, windows none and 5, adjacent" in result.out
    assert "backends  numpy; float32\n" in result.out


def test_seed_gives_the_system(fake: FakeVerify, run: Callable[..., Result]) -> None:
    for seed in (1, 1, 2):
        run("verify", "--seed", seed)
    first, again, other = (call["system"].C for call in fake.calls)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("init", INITIALIZATIONS)
def test_discretization_goes_with_the_initialization(fake: FakeVerify, run: Callable[..., Result], init: str) -> None:
    assert run("verify", "--init", init, "--n-state", 8).code == 0
    assert fake.calls[0]["discretization"] == DEFAULT_DISCRETIZATION[init]


@pytest.mark.parametrize(
    ("arguments", "window"),
    [
        (["--window", "0"], None),
        (["--no-window"], None),
        (["--no-window", "--window", "0"], None),
        (["--order", "40"], 40),
        (["--order", "4"], 32),
        (["--window", "3"], 3),
    ],
)
def test_window(fake: FakeVerify, run: Callable[..., Result], arguments: list[str], window: int | None) -> None:
    result = run("verify", *arguments)
    assert result.code == 0
    assert fake.calls[0]["window"] == window
    assert ("windows none," if window is None else f"windows none and {window},") in result.out


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["pass"], 0),
        (["pass", "rejected"], 0),
        (["pass", "fail"], 1),
        (["pass", "inconclusive"], 1),
        (["rejected"], 1),
        ([], 1),
    ],
)
def test_exit_code(fake: FakeVerify, run: Callable[..., Result], statuses: list[str], code: int) -> None:
    fake.report = Report(tuple(RoundingRow("numpy", "s4", "float64", status) for status in statuses))
    assert run("verify").code == code


def test_json_on_standard_output_is_alone(fake: FakeVerify, run: Callable[..., Result]) -> None:
    result = run("verify", "--json", "-")
    assert result.code == 0
    document = strict(result.out)
    assert document["passed"] is True
    problem = document["problem"]
    # What verify put there stays, what only the command line knows is added.
    assert problem["shape"] == [1, 4, 1024]
    assert problem["signal"] == "ecg"
    assert problem["signal_rate"] is None
    assert (problem["init"], problem["discretization"], problem["dt_max"]) == ("s4d-lin", "bilinear", 0.1)
    for text in ("electrocardiogram", "[red]step 1", "Rounding, float64", "PASS: 1 of 1"):
        assert text in result.err


def test_json_and_html_files(fake: FakeVerify, run: Callable[..., Result], tmp_path: Path) -> None:
    result = run("verify", "--json", tmp_path / "r.json", "--html", tmp_path / "r.html")
    assert result.code == 0
    assert "PASS" in result.out
    assert strict((tmp_path / "r.json").read_text())["problem"]["n_state"] == 64
    page = (tmp_path / "r.html").read_text()
    assert "PASS: 1 of 1 rows" in page
    assert "electrocardiogram" in page


def test_quiet_prints_the_verdict_only(fake: FakeVerify, run: Callable[..., Result]) -> None:
    result = run("verify", "--quiet")
    assert result.out == "PASS: 1 of 1 rows within their bound\n"
    assert result.err == ""
    assert fake.calls[0]["progress"] is None


def test_quiet_with_json_on_standard_output(fake: FakeVerify, run: Callable[..., Result]) -> None:
    result = run("verify", "-q", "--json", "-")
    strict(result.out)
    assert result.err == "PASS: 1 of 1 rows within their bound\n"


def test_progress_is_a_plain_log_where_there_is_no_terminal(fake: FakeVerify, run: Callable[..., Result]) -> None:
    lines = run("verify").err.splitlines()
    assert [re.sub(r"[0-9]+\.[0-9] s", "T", line) for line in lines] == [
        f"[{done}/2]    T  [red]step {done}" for done in range(3)
    ]


def test_progress_is_a_bar_on_a_terminal(
    fake: FakeVerify, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    result = run("verify")
    assert result.code == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", result.err)
    assert "2/2" in plain
    # A bar draws over itself; brackets are text, not markup.
    assert "\x1b[2K" in result.err
    assert "[red]step 2" in plain
    assert "\x1b" not in result.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--mode", "liqid"], "unknown mode 'liqid'; allowed: s4, liquid, truncated, kb, pb. Did you mean 'liquid'?"),
        (["--backend", "numpi"], "Did you mean 'numpy'"),
        (["--correlations", "adjacant"], "Did you mean 'adjacent'?"),
        (["--dtype", "float46"], "Did you mean 'float64'"),
        (["--init", "s4d-line"], "Did you mean 's4d-lin'"),
        (["--discretization", "bilinaer"], "Did you mean 'bilinear'"),
        (["--order", "0"], "order is 0; the lowest order is 1"),
        (["--order", "-2", "--mode", "s4"], "order is -2"),
        (["--window", "2"], "window is 2 but order is 3"),
        (["--window", "-1"], "window is -1 but order is 3"),
        (["--no-window", "--window", "8"], "exclude each other"),
        (["--dt-min", "0"], "0 < dt_min <= dt_max"),
        (["--dt-min", "-0.1"], "0 < dt_min <= dt_max"),
        (["--dt-max", "nan"], "0 < dt_min <= dt_max"),
        (["--dt-min", "0.2"], "0 < dt_min <= dt_max"),
        (["--channels", "0"], "n_channels is 0"),
        (["--n-state", "1"], "n_state is 1"),
        (["--html", "-"], "--html needs the name of a file"),
        (["--html", "."], "--html '.' is a directory"),
        (["--json", ""], "--json '' is a directory"),
        (["--json", "no/such/folder/r.json"], "there is no directory 'no/such/folder'"),
        (["--signal", "no-such-file.wav"], "there is no file 'no-such-file.wav'"),
        (["--signal", "."], "is a directory"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    fake: FakeVerify,
    run: Callable[..., Result],
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("verify", *arguments)
    assert result.code == 2
    assert said in result.err
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert result.out == ""
    assert fake.calls == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.wav", b"RIFF", "not a RIFF WAV"),
        ("a.wav", b"", "empty (0 bytes)"),
        ("a.csv", b"left,right\n", "is empty"),
        ("a.csv", b"1\nnan\n", "nan at index 1 of channel 0"),
        ("a.csv", b"1,2\n3,-inf\n", "-inf at index 1 of channel 1"),
        ("a.csv", b"1\ntwo\n", "line 2, column 1: 'two'"),
        ("a.flac", b"fLaC", "'.flac'; allowed: .wav"),
        ("a.npy", np.array([1j]), "complex"),
        ("a.npy", np.zeros((2, 2, 2)), "shape (2, 2, 2)"),
        ("a.npy", np.zeros((1, 0)), "is empty"),
        ("a.npy", np.array([None]), "pickle"),
    ],
)
def test_bad_signals(
    fake: FakeVerify,
    run: Callable[..., Result],
    tmp_path: Path,
    name: str,
    content: bytes | np.ndarray[Any, Any],
    said: str,
) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        np.save(tmp_path / name, content)
    result = run("verify", "--signal", tmp_path / name)
    assert result.code == 2
    assert said in result.err
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert result.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "--seed", "-1"],
        ["verify", "--order", "three"],
        ["verify", "--oracle-budget", "0"],
        ["verify", "--no-such-option"],
        ["verify", "positional"],
        ["verfy"],
        [],
    ],
)
def test_usage_errors(fake: FakeVerify, run: Callable[..., Result], arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert "Traceback" not in result.err
    assert fake.calls == []


def test_unstable_recurrence_is_an_input_error(fake: FakeVerify, run: Callable[..., Result]) -> None:
    message = "the state overflows at step 17 of channel 2; |u| < 0.25 is safe."
    fake.error = UnstableRecurrence(message, step=17, channel=2, input_bound=0.25)
    result = run("verify")
    assert result.code == 2
    assert result.err == f"error: {message}\n"


def test_an_undecided_reference_is_not_an_input_error(fake: FakeVerify, run: Callable[..., Result]) -> None:
    fake.error = OracleInconclusive("the enclosure stayed too wide.")
    result = run("verify")
    assert result.code == 1
    assert result.err == "error: the enclosure stayed too wide.\n"


def test_an_unexpected_exception_keeps_its_traceback(fake: FakeVerify) -> None:
    fake.error = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main(["verify", "-q"])


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_a_write_that_fails_is_one_line(
    fake: FakeVerify, run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", refuse)
    result = run("verify", option, tmp_path / "r")
    assert result.code == 2
    assert "cannot be written: No space left on device" in result.err
    assert "Traceback" not in result.err
    # The result itself is not lost.
    assert "PASS" in result.out


def test_a_target_without_permission_is_refused_before_the_work(
    fake: FakeVerify, run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A superuser may write everywhere; so the refusal is simulated.
    monkeypatch.setattr(os, "access", lambda *_: False)
    result = run("verify", "--json", tmp_path / "r.json")
    assert result.code == 2
    assert "permission denied" in result.err
    assert fake.calls == []


def test_version(run: Callable[..., Result]) -> None:
    from importlib.metadata import version

    result = run("--version")
    assert result.code == 0
    assert result.out == f"liquid-ssm {version('liquid-ssm')}\n"


def test_help_names_every_choice(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = run("verify", "--help")
    assert result.code == 0
    for name in (*MODES, *CORRELATIONS, *DTYPES, *INITIALIZATIONS, *DISCRETIZATIONS):
        assert name in result.out


SMALL = ("--n-state", "4", "--channels", "1")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "u.npy"
    np.save(path, np.sin(np.arange(40.0)))
    return path


def test_every_mode_and_backend_on_a_signal(run: Callable[..., Result], small: Path) -> None:
    result = run("verify", "--signal", small, "--order", 2, "--window", 5, *SMALL, "--json", "-")
    assert result.code == 0
    document = strict(result.out)
    assert document["passed"] is True
    rows = document["rounding"]
    forms = [f"(2, {kind}{window})" for kind in CORRELATIONS for window in ("", ", window 5")]
    modes = {"s4", "liquid", "truncated(2)", *(mode + form for mode in ("kb", "pb") for form in forms)}
    computed = {(row["mode"], row["dtype"]) for row in rows if row["status"] == "pass"}
    assert computed == {(mode, dtype) for mode in modes for dtype in DTYPES}
    assert {row["backend"] for row in rows} == set(backend_names())
    assert {row["mode"] for row in document["truncation"]} == modes - {"liquid"}
    assert {row["method"] for row in document["discretization"]} == set(DISCRETIZATIONS)
    assert document["environment"]["numpy"] == np.__version__
    assert document["problem"]["length"] == 40


def test_a_wrong_backend_gives_exit_code_1(
    run: Callable[..., Result], small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from liquid_ssm.registry import get_backend

    backend: Any = get_backend("numpy")
    right = backend.scan

    def one_step_late(*arguments: Any, **options: Any) -> Any:
        y, state = right(*arguments, **options)
        return np.roll(y, 1, axis=-1), state

    monkeypatch.setattr(type(backend), "scan", staticmethod(one_step_late))
    result = run("verify", "--signal", small, "--mode", "liquid", "--backend", "numpy", *SMALL)
    assert result.code == 1
    assert "\nfail: numpy liquid float64, largest at step " in result.out
    assert result.out.splitlines()[-1].startswith("FAIL: 2 of 2 rows outside their bound (numpy liquid float32, ")


def test_a_stereo_wav_in_excerpts(run: Callable[..., Result], tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((2, 3, 8000, 0, "NONE", ""))
        file.writeframes(np.random.default_rng(0).bytes(6 * 300))
    result = run(
        *("verify", "--signal", tmp_path / "a.wav", "--oracle-budget", 1000, "--mode", "s4", "--dtype", "float64"),
        *("--backend", "numpy", *SMALL),
    )
    assert result.code == 0
    assert "a.wav: 2 channels of 300 samples; WAV, 24-bit PCM, divided by 2^23 into [-1, 1)" in result.out
    assert re.search(r"\ncovered in 1 row: .*300 steps.*windows of \d+ steps", result.out)


def test_an_overflowing_recurrence_names_the_step_and_a_safe_input(run: Callable[..., Result], tmp_path: Path) -> None:
    u = np.sin(np.arange(300.0))
    np.save(tmp_path / "u.npy", 1e3 * u)
    arguments = ("verify", "-q", "--signal", tmp_path / "u.npy", "--mode", "liquid", *SMALL)
    result = run(*arguments)
    assert result.code == 2
    said = re.match(
        r"error: liquid in float32 left the range .* at step \d+, channel 0 .*\|u\| < ([0-9.e-]+) ", result.err
    )
    assert said, result.err
    assert result.err.count("\n") == 1
    # The bound that the message gives is one: below it (less the rounding of its digits) nothing overflows.
    np.save(tmp_path / "u.npy", 0.9 * float(said[1]) * u)
    assert run(*arguments).code == 0


def test_a_transition_that_grows_by_itself_has_no_safe_input(run: Callable[..., Result], small: Path) -> None:
    # Euler is stable for dt <= 2 |Re λ|/|λ|², which is 0.1 for λ = -1/2 + iπ and less for the others.
    unstable = ("--discretization", "euler", "--dt-min", 1, "--dt-max", 1, "--n-state", 64, "--channels", 1)
    result = run("verify", "--signal", small, *unstable, "--mode", "liquid", "--backend", "numpy", "-q")
    assert result.code == 2
    assert re.match(r"error: liquid in float32 left the range .* at step \d+, channel 0 .*no input is safe", result.err)


ADAPTER = """
import numpy as np

print("imported")

class Good:
    dtypes = ("float64",)

    def scan(self, a, b, c, u, state):
        print("scanning")
        x = np.zeros((len(u), *a.shape), a.dtype) if state is None else state
        y = np.zeros_like(u)
        for k in range(u.shape[-1]):
            w = b * u[..., k, None]
            x = (a + w) * x + w
            y[..., k] = 2 * (c * x).sum(axis=-1).real
        return y, x

class Bad(Good):
    def scan(self, a, b, c, u, state):
        return super().scan(a, b, c, u, None)
"""


@dataclass
class FakeCertify:
    """Stands in for `liquid_ssm.testing.certify.certify`."""

    outcomes: tuple[Outcome, ...] = (Outcome(Check("causality", "liquid", "diagonal", "float64"), "pass", examples=9),)
    calls: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, target: str, **options: Any) -> ConformanceReport:
        self.calls.append({"target": target, **options})
        if options["progress"] is not None:
            options["progress"](0, 1, "[red]causality")
            options["progress"](1, 1, "done")
        return ConformanceReport(target, "mine", self.outcomes, options["max_examples"], options["time_limit"], 1.0)


@pytest.fixture
def certifier(monkeypatch: pytest.MonkeyPatch) -> FakeCertify:
    fake = FakeCertify()
    monkeypatch.setattr("liquid_ssm.testing.certify.certify", fake)
    return fake


def failed(kind: str) -> Outcome:
    return Outcome(Check("empty", "liquid", "diagonal", "float32"), "fail", kind, "empty: no.\nexample: [red]")


def test_certify_tries_everything(certifier: FakeCertify, run: Callable[..., Result]) -> None:
    result = run("certify", "m:C")
    assert result.code == 0
    call = certifier.calls[0]
    assert call.pop("progress") is not None
    assert call == {"target": "m:C", "max_examples": 25, "time_limit": 60.0, "properties": None, "dtypes": None}
    assert re.search(r"^causality +1/1 +9 +0.0 s +u_j does not reach y_k", result.out, re.MULTILINE)
    assert result.out.endswith("\n\nmine: all 1 checks passed\n")
    assert result.err.splitlines()[-1].endswith("done")


def test_every_option_reaches_certify(certifier: FakeCertify, run: Callable[..., Result]) -> None:
    options = ("--examples", 7, "--time-limit", 2.5, "--property", "causality", "--property", "empty")
    assert run("certify", "m:C", *options, "--dtype", "float32", "-q").code == 0
    assert certifier.calls == [
        {
            "target": "m:C",
            "max_examples": 7,
            "time_limit": 2.5,
            "properties": ["causality", "empty"],
            "dtypes": ["float32"],
            "progress": None,
        }
    ]


@pytest.mark.parametrize("kinds", [["violated"], ["hang", "crash"]])
def test_a_rejected_backend_gives_exit_code_1(
    certifier: FakeCertify, run: Callable[..., Result], kinds: list[str]
) -> None:
    certifier.outcomes = (*certifier.outcomes, *map(failed, kinds))
    result = run("certify", "m:C")
    assert result.code == 1
    # Brackets are text, not markup.
    assert f"FAILED ({kinds[0]}): empty [liquid, diagonal, float32]\nempty: no.\nexample: [red]\n" in result.out
    assert f"mine: REJECTED, {len(kinds)} of {1 + len(kinds)} checks failed (" in result.out


def test_a_backend_of_which_nothing_was_checked_gives_exit_code_1(
    certifier: FakeCertify, run: Callable[..., Result]
) -> None:
    certifier.outcomes = ()
    result = run("certify", "m:C")
    assert result.code == 1
    assert "mine: nothing was checked" in result.out


def test_quiet_certify_prints_the_verdict_only(certifier: FakeCertify, run: Callable[..., Result]) -> None:
    result = run("certify", "m:C", "--quiet")
    assert (result.code, result.out, result.err) == (0, "mine: all 1 checks passed\n", "")


def test_json_of_certify(certifier: FakeCertify, run: Callable[..., Result], tmp_path: Path) -> None:
    result = run("certify", "m:C", "--json", "-")
    assert strict(result.out)["passed"] is True
    assert "mine: all 1 checks passed" in result.err
    certifier.outcomes = (failed("raised"),)
    assert run("certify", "m:C", "--json", tmp_path / "c.json").code == 1
    document = strict((tmp_path / "c.json").read_text())
    assert (document["passed"], document["checks"][0]["kind"]) == (False, "raised")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["m"], "'m' names no class; write module:Class"),
        (["no_such_module:C"], "cannot import 'no_such_module': No module named 'no_such_module'. Run from the folder"),
        (["m:C", "--property", "causalty"], "Did you mean 'causality'"),
        (["m:C", "--dtype", "float46"], "Did you mean 'float64'"),
        (["m:C", "--time-limit", "0"], "time_limit is 0.0"),
        (["m:C", "--json", "no/such/folder/r.json"], "there is no directory 'no/such/folder'"),
    ],
)
def test_bad_input_of_certify_is_one_line_and_exit_code_2(
    run: Callable[..., Result], arguments: list[str], said: str
) -> None:
    result = run("certify", *arguments)
    assert result.code == 2
    assert said in result.err
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert result.out == ""


@pytest.mark.parametrize("arguments", [[], ["m:C", "--examples", "0"], ["m:C", "--time-limit", "long"], ["m:C", "n:D"]])
def test_usage_errors_of_certify(certifier: FakeCertify, run: Callable[..., Result], arguments: list[str]) -> None:
    result = run("certify", *arguments)
    assert result.code == 2
    assert "Traceback" not in result.err
    assert certifier.calls == []


def test_certify_needs_hypothesis(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("certify", "m:C")
    assert result.code == 2
    assert "certify needs hypothesis, which is not installed. Run: pip install 'liquid-ssm[test]'" in result.err


def test_certify_a_file_of_this_folder(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(ADAPTER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    options = ("--examples", 5, "--property", "initial-state", "--property", "repeatability", "--json", "-")
    good = run("certify", "mine:Good", *options)
    assert good.code == 0
    assert [check["status"] for check in strict(good.out)["checks"]] == ["pass", "pass"]
    bad = run("certify", "mine:Bad", *options)
    assert bad.code == 1
    failure, other = strict(bad.out)["checks"]
    assert (failure["property"], failure["status"], failure["kind"]) == ("initial-state", "fail", "violated")
    assert "batch 1, H 1, M 1, L 1\n" in failure["message"]
    assert (other["property"], other["status"]) == ("repeatability", "pass")
    assert "FAILED (violated): initial-state [liquid, diagonal, float64]" in bad.err
    for result in (good, bad):
        # What the backend prints goes nowhere.
        assert "imported" not in result.out + result.err
        assert "scanning" not in result.out + result.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def fresh(*arguments: str, code: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """A new interpreter that runs `code` and then the command, as the installed script does."""
    command = [sys.executable, "-c", f"{code}\nfrom liquid_ssm.cli import main\nmain()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


FAKE = """
import sys, types
from liquid_ssm.report import Report, RoundingRow
def verify(*_, **__):
    {body}
sys.modules["liquid_ssm.verify"] = module = types.ModuleType("liquid_ssm.verify")
module.verify = verify
"""


def test_help_loads_no_numerical_package() -> None:
    heavy = {"scipy", "mpmath", "flint"}
    code = f"import atexit, sys; atexit.register(lambda: print(sorted({heavy} & set(sys.modules))))"
    assert fresh("verify", "--help", code=code).stdout.splitlines()[-1] == "[]"


def test_input_errors_of_the_installed_command_have_no_traceback() -> None:
    done = fresh("verify", "--signal", "no-such-file.wav")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: there is no file 'no-such-file.wav'")
    assert done.stderr.count("\n") == 1


def test_a_bug_of_the_installed_command_has_pythons_traceback() -> None:
    done = fresh("verify", "-q", code=FAKE.format(body="1 / 0"))
    assert done.returncode == 1
    assert "\nTraceback (most recent call last):\n" in "\n" + done.stderr
    assert done.stderr.endswith("\nZeroDivisionError: division by zero\n")


def test_a_file_name_that_the_terminal_cannot_show(tmp_path: Path) -> None:
    np.save(tmp_path / "naïve.npy", np.zeros(3))
    code = FAKE.format(body='return Report((RoundingRow("numpy", "s4", "float64", "pass"),))')
    done = fresh("verify", "--signal", str(tmp_path / "naïve.npy"), code=code, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "na\\xefve.npy" in done.stdout
