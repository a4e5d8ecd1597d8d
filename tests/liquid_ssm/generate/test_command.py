"""`liquid-ssm generate`: options by the types of a generator's signature, and clear errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from liquid_ssm.data_folder import Generated, read_generated
from liquid_ssm.errors import BackendUnavailable, ParameterError
from liquid_ssm.generate import command
from liquid_ssm.generate.command import generate, options_of


@dataclass
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "GITHUB_ACTIONS", "PY_COLORS", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(generate)

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            app([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(int(left.value.code or 0), captured.out, captured.err)

    return call


SMALL = ("--count", "train=20", "--count", "validation=4", "--count", "test=3")
SHORT = ("--set", "min_length=5", "--set", "max-length=40")


def test_data_are_written_with_what_was_asked(run: Run, tmp_path: Path) -> None:
    result = run("listops", "--to", tmp_path / "x", "--seed", 7, *SMALL, *SHORT)
    assert result.code == 0
    assert result.out == f"listops: 20 train, 4 validation, 3 test; seed 7, in {tmp_path / 'x'}\n"
    assert "27" in result.err
    about = read_generated(tmp_path / "x")
    assert about is not None
    assert (about.seed, about.counts) == (7, {"train": 20, "validation": 4, "test": 3})
    assert about.options == {"min_length": 5, "max_length": 40, "max_depth": 10, "max_args": 10}


def test_json_is_alone_on_standard_output(run: Run, tmp_path: Path) -> None:
    result = run("aan", "--to", tmp_path / "x", *SMALL, "--json", "-")
    found = json.loads(result.out)
    assert found["task"] == "aan"
    assert found["counts"] == {"train": 20, "validation": 4, "test": 3}
    assert found["folder"] == str(tmp_path / "x")
    run("imdb", "--to", tmp_path / "y", "--count", "train=4", "--count", "test=2", "--json", tmp_path / "z.json")
    assert json.loads((tmp_path / "z.json").read_text())["counts"] == {"train": 4, "test": 2}


def test_quiet_says_nothing(run: Run, tmp_path: Path) -> None:
    result = run("listops", "--to", tmp_path / "x", *SMALL, *SHORT, "--quiet")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_progress_is_not_a_line_for_every_sample(run: Run, tmp_path: Path) -> None:
    result = run("imdb", "--to", tmp_path / "x", "--count", "train=1000", "--count", "test=2")
    assert len(result.err.splitlines()) <= 101


def test_the_list_names_every_option_with_its_default(run: Run) -> None:
    result = run("listops", "--list")
    assert result.code == 0
    assert "listops: Write `listops/basic_{train,val,test}.tsv`" in result.out
    assert "  min_length = 500\n" in result.out
    assert "folder" not in result.out.splitlines()[1]
    assert "  seed" not in result.out


def test_the_list_goes_on_without_a_package(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = command.get_generator

    def without(name: str) -> Any:
        if name not in ("listops", "imdb", "aan"):
            raise BackendUnavailable("neurokit2 is not installed. Run: pip install it")
        return usual(name)

    monkeypatch.setattr(command, "get_generator", without)
    result = run("--list")
    assert result.code == 0
    assert "bidmc: neurokit2 is not installed. Run: pip install it\n" in result.out
    assert "aan: Write made-up pairs of papers" in result.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "generate needs the name of a task; tasks: listops, imdb, aan"),
        (("listops",), "generate needs a folder, --to DIR"),
        (("listop", "--to", "x"), "unknown generator 'listop'.*Did you mean 'listops'"),
        (("listops", "--to", "x", "--count", "train"), "--count 'train' is not of the form PART=N"),
        (("listops", "--to", "x", "--count", "trian=3"), "unknown part of listops 'trian'.*Did you mean 'train'"),
        (("imdb", "--to", "x", "--count", "validation=3"), "unknown part of imdb 'validation'; allowed: train, test"),
        (("listops", "--to", "x", "--count", "train=many"), "--count train is 'many'; expected a whole number"),
        (("listops", "--to", "x", "--count", "train=1", "--count", "train=2"), "train is given twice"),
        (("listops", "--to", "x", "--count", "train=1", "--set", "train=2"), "train is given twice"),
        (("listops", "--to", "x", "--count", "train=0"), "train is 0; at least 1"),
        (("listops", "--to", "x", "--set", "max_arg=3"), "unknown option of listops 'max_arg'.*'max_args'"),
        (("listops", "--to", "x", "--set", "seed=3"), "unknown option of listops 'seed'"),
        (("listops", "--to", "x", "--set", "max_args"), "--set 'max_args' is not of the form NAME=VALUE"),
        (("listops", "--to", "x", "--set", "max_args=2.5"), "--set max_args is '2.5'; expected a whole number"),
        (("imdb", "--to", "x", "--set", "negated=often"), "--set negated is 'often'; expected a number"),
    ],
)
def test_what_cannot_be_is_named_before_anything_is_written(
    run: Run, arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError, match=said):
        run_plain(*arguments)
    assert list(tmp_path.iterdir()) == []


def run_plain(*arguments: str) -> None:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(generate)
    app(list(arguments), standalone_mode=False)


def test_a_folder_with_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("")
    with pytest.raises(ParameterError, match="is not empty"):
        run_plain("listops", "--to", str(tmp_path))
    with pytest.raises(ParameterError, match=r"--to .* is not a folder"):
        run_plain("listops", "--to", str(tmp_path / "notes"))


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, *, seed: int = 0, progress: object = None) -> Generated:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "get_generator", lambda name: full)
    with pytest.raises(ParameterError, match=r"--to .* cannot be written: No space left on device"):
        run_plain("listops", "--to", str(tmp_path / "x"))


def typed(
    folder: Path,
    *,
    seed: int = 0,
    whole: int = 1,
    real: float = 0.5,
    flag: bool = False,
    name: str = "a",
    maybe: int | None = None,
    words: Sequence[str] | None = None,
    sizes: tuple[int, ...] = (1,),
    counts: Mapping[str, int] = {"train": 1, "test": 2},
    progress: Callable[[int, int, str], None] | None = None,
) -> Generated:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("whole=-3", {"whole": -3}),
        ("real=2", {"real": 2.0}),
        ("real = 1e-3", {"real": 1e-3}),
        ("flag=yes", {"flag": True}),
        ("flag=False", {"flag": False}),
        ("name=x=y", {"name": "x=y"}),
        ("maybe=none", {"maybe": None}),
        ("maybe=4", {"maybe": 4}),
        ("words=yes, no", {"words": ("yes", "no")}),
        ("words=none", {"words": None}),
        ("sizes=3,4", {"sizes": (3, 4)}),
    ],
)
def test_values_have_the_type_of_the_signature(option: str, expected: dict[str, Any]) -> None:
    found = options_of("typed", typed, [], [option])
    assert found == expected
    assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]


def test_counts_in_one_option_are_joined() -> None:
    assert options_of("typed", typed, ["train=3", "test=4"], []) == {"counts": {"train": 3, "test": 4}}
    with pytest.raises(ParameterError, match="unknown part of typed 'eval'; allowed: train, test"):
        options_of("typed", typed, ["eval=3"], [])
    with pytest.raises(ParameterError, match="unknown option of typed 'counts'"):
        options_of("typed", typed, [], ["counts=3"])


def test_flags_are_yes_or_no() -> None:
    with pytest.raises(ParameterError, match="--set flag is 'maybe'; expected true or false"):
        options_of("typed", typed, [], ["flag=maybe"])
