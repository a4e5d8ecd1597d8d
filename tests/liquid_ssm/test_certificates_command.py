"""The command, with validators that are made up: what it prints, writes and returns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from liquid_ssm import certificate_store, certificates_command, validators
from liquid_ssm.certificate import Certificate
from liquid_ssm.certificate_store import CertificateStore
from liquid_ssm.cli import main

Make = Callable[..., Certificate]


@dataclass
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    # Colours and widths asked for by the environment would reach captured output too.
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "GITHUB_ACTIONS", "PY_COLORS", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as left:
            main(["certificates", *map(str, arguments)])
        captured = capsys.readouterr()
        return Result(int(left.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: dict[str, str]) -> CertificateStore:
    """The store that the command finds."""
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(certificate_store, "_withdrawn", {})
    return CertificateStore()


@pytest.fixture
def three(store: CertificateStore, make_certificate: Make) -> tuple[Certificate, Certificate, Path]:
    """A valid one, one of an older Numba, and a damaged file."""
    good = make_certificate()
    old = make_certificate(order=4, validators={"numba": "0.60", "cpu": "a processor"})
    damaged = make_certificate(order=5)
    for certificate in (good, old, damaged):
        store.save(certificate)
    path = store.folder / f"{damaged.id}.json"
    path.write_text(path.read_text()[:-10])
    return good, old, path


Three = tuple[Certificate, Certificate, Path]


def strict(text: str) -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return dict(json.loads(text, parse_constant=refuse))


def line_of(result: Result, word: str) -> str:
    [line] = [line for line in result.out.splitlines() if word in line]
    return line


def test_list_says_what_is_covered_and_whether_it_holds(run: Run, three: Three, store: CertificateStore) -> None:
    good, old, damaged = three
    result = run("list")
    assert result.code == 0
    assert result.err == ""
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    covered = "diagonal numpy, float32, on cpu 1-4 x 3-4 x 1,025-2,048 1e-05"
    assert f"{good.id} yes numba truncated, order 3 {covered}" in lines
    assert f"{old.id} no numba truncated, order 4 {covered}" in lines
    assert f"not valid here: {old.id}: numba was 0.60 and is 0.61.2" in lines
    assert line_of(result, f"not valid here: {damaged.name}: the file is not JSON (truncated?)")
    assert not any(line.endswith(" ") for line in result.out.splitlines())
    assert result.out.endswith(f"3 certificates in {store.folder}\n")


def test_list_of_nothing(run: Run, store: CertificateStore) -> None:
    result = run("list")
    assert (result.code, result.out) == (0, f"0 certificates in {store.folder}\n")
    assert not store.folder.exists()


def test_list_as_json(run: Run, three: Three, store: CertificateStore, tmp_path: Path) -> None:
    good, old, damaged = three
    store.quarantine(old, "its error was [bold]3 bounds", {})
    result = run("list", "--json", "-")
    document = strict(result.out)
    entries = {entry["id"]: entry for entry in document["certificates"]}
    assert set(entries) == {good.id, damaged.name}
    assert entries[good.id]["valid"] is True
    assert entries[good.id]["backend"] == "numba"
    assert entries[damaged.name]["valid"] is False
    [record] = document["quarantined"]
    assert (record["id"], record["backend"]) == (old.id, "numba")
    assert document["folder"] == str(store.folder)
    result = run("list", "--json", tmp_path / "list.json")
    assert strict((tmp_path / "list.json").read_text()) == document
    # rich would read what is in brackets as a style.
    assert line_of(result, "quarantined") == f"quarantined: numba, {old.id}: its error was [bold]3 bounds"


def test_show_has_everything(run: Run, three: Three) -> None:
    _, old, _ = three
    result = run("show", old.id[:20])
    assert result.code == 0
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    for label, value in old.domain.describe():
        assert f"{label} {value}" in lines
    assert "numba chosen 3.1e-07 2.0e-06 1.5e-01 3.1 ms 3 ms 4 ms 30 1.25 s" in lines
    assert "keops, unavailable: pykeops is not installed" in result.out
    assert "[red]its error is 1.2 times the bound" in result.out
    for word in ("spec.mode", "every step", "1.2e-32", "4, 4, 2048"):
        assert word in result.out
    assert line_of(result, "<- now").split() == ["numba", "0.60", "<-", "now:", "0.61.2"]
    assert "Valid here: no\n  - numba was 0.60 and is 0.61.2" in result.out


def test_show_as_json(run: Run, three: Three, tmp_path: Path) -> None:
    good, _, _ = three
    result = run("show", good.id, "--json", "-")
    document = strict(result.out)
    assert Certificate.from_json(json.dumps(document["certificate"])) == good
    assert (document["id"], document["valid"], document["reasons"]) == (good.id, True, [])
    assert document["current_validators"] == {"numba": "0.61.2", "cpu": "a processor"}
    assert "Valid here: yes" in run("show", good.id, "--json", tmp_path / "x.json").out
    assert strict((tmp_path / "x.json").read_text()) == document


def test_show_of_what_cannot_be_shown(run: Run, three: Three) -> None:
    good, _, damaged = three
    result = run("show", "nothing")
    assert (result.code, result.out) == (2, "")
    assert good.id in result.err
    result = run("show", damaged.stem)
    assert result.code == 2
    assert "is not JSON (truncated?)" in result.err
    assert "made again" in result.err


def test_verify_says_what_is_not_valid(run: Run, three: Three, tmp_path: Path) -> None:
    good, old, damaged = three
    result = run("verify")
    assert result.code == 1
    assert f"{good.id}: valid\n" in result.out
    assert f"{old.id}: NOT VALID\n  - numba was 0.60 and is 0.61.2\n" in result.out
    assert f"{damaged.name}: NOT VALID\n  - the file is not JSON (truncated?)" in result.out
    assert "1 of 3 certificates valid here" in result.out

    assert run("verify", good.id[:20]).code == 0
    assert run("verify", good.id, old.id).code == 1
    assert run("verify", damaged.stem).code == 1
    assert run("verify", "nothing").code == 2

    result = run("verify", "--json", "-")
    assert result.code == 1
    document = strict(result.out)
    assert document["valid"] is False
    assert [entry["valid"] for entry in document["certificates"]].count(True) == 1
    assert strict(run("verify", good.id, "--json", "-").out)["valid"] is True


def test_verify_finds_quarantine_and_damaged_records(run: Run, three: Three, store: CertificateStore) -> None:
    good, old, damaged = three
    store.remove(old.id)
    damaged.unlink()
    assert run("verify").code == 0
    path = store.quarantine(good, "wrong", {})
    assert path is not None
    assert run("verify").code == 0
    path.write_text("{")
    result = run("verify")
    assert result.code == 1
    assert f"NOT VALID: the quarantine record {path.name} is not JSON" in result.out
    # A process that had chosen it before saves it now.
    store.save(good)
    assert "it is quarantined" in run("verify", good.id).out


def test_clear_needs_a_terminal_or_yes(
    run: Run, three: Three, store: CertificateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    store.quarantine(three[0], "wrong", {})
    result = run("clear")
    assert result.code == 2
    assert "give --yes" in result.err
    assert len(list(store.folder.iterdir())) == 3

    monkeypatch.setattr(certificates_command.sys, "stdin", Terminal())
    asked = []
    for answer in (False, True):
        monkeypatch.setattr(
            certificates_command.typer, "confirm", lambda text, answer=answer: asked.append(text) or answer
        )
        result = run("clear")
        assert result.code == 0
        assert str(store.folder) in asked[-1]
        if not answer:
            assert result.out == "nothing was removed\n"
            assert len(list(store.folder.iterdir())) == 3
    assert result.out == f"removed 3 files from {store.folder}\n"
    assert list(store.folder.iterdir()) == []
    assert run("clear", "--yes").out == f"removed 0 files from {store.folder}\n"


def test_export_and_import(
    run: Run, three: Three, store: CertificateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, old, damaged = three
    path = tmp_path / "export.json"
    result = run("export", path)
    # A damaged one was not exported, which must not go unnoticed.
    assert result.code == 1
    assert f"{good.id}: exported\n" in result.out
    assert f"{damaged.name}: is not JSON" in result.out
    assert result.out.endswith(f"2 certificates exported to {path}\n")
    assert run("export", tmp_path / "one.json", good.id[:20]).code == 0

    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path / "other"))
    result = run("import", tmp_path / "one.json")
    assert (result.code, result.out.splitlines()[0]) == (0, f"{good.id}: imported")
    result = run("import", path)
    assert result.code == 0
    assert f"{good.id}: is already here, and stays as it is\n" in result.out
    assert f"{old.id}: imported, but will not be used here: numba was 0.60 and is 0.61.2\n" in result.out
    assert run("verify", good.id).code == 0
    assert run("verify").code == 1

    document = strict(path.read_text())
    document["certificates"][0]["backend"] = "numpy"
    path.write_text(json.dumps(document))
    result = run("import", path)
    assert result.code == 1
    assert "entry 0: has been changed after it was written" in result.out


def test_export_and_import_refuse_bad_paths(run: Run, three: Three, tmp_path: Path) -> None:
    for arguments in (("export", "-"), ("export", tmp_path), ("export", tmp_path / "none" / "x.json")):
        assert run(*arguments).code == 2
    assert run("export", tmp_path / "x.json", "nothing").code == 2
    assert not (tmp_path / "x.json").exists()
    assert "there is no file" in run("import", tmp_path / "none.json").err
    (tmp_path / "x.json").write_text("{}")
    result = run("import", tmp_path / "x.json")
    assert result.code == 2
    assert "Nothing is imported" in result.err


@pytest.mark.parametrize("command", ["list", "verify", "show"])
def test_json_is_refused_before_anything_is_printed(command: str, run: Run, three: Three, tmp_path: Path) -> None:
    ids = [three[0].id] if command == "show" else []
    result = run(command, *ids, "--json", tmp_path / "none" / "x.json")
    assert (result.code, result.out) == (2, "")
    assert "--json" in result.err


def test_a_folder_that_cannot_be_read(run: Run, tmp_path: Path, store: CertificateStore) -> None:
    (tmp_path / "cache").write_text("a file")
    assert "cannot be read: Not a directory" in run("list").out
    assert run("verify").code == 1
    for arguments in (("show", "x"), ("clear", "--yes"), ("verify", "x"), ("export", tmp_path / "x.json")):
        result = run(*arguments)
        assert result.code == 2
        assert "Set LIQUID_SSM_CACHE_DIR to another folder" in result.err


def test_times_have_units_that_fit(run: Run, store: CertificateStore, make_certificate: Make) -> None:
    certificate = make_certificate()
    quick = replace(certificate.candidates[0], seconds=12.3e-6, seconds_min=0.0, seconds_max=None, error=0.0)
    store.save(replace(certificate, candidates=(quick,)))
    words = line_of(run("show", certificate.id), "chosen").split()
    assert words[2] == "0"
    assert words[5:10] == ["12.3", "µs", "0", "µs", "-"]


def test_the_command_is_part_of_the_program() -> None:
    code = "import sys\nfrom liquid_ssm.cli import main\n"
    code += "try:\n    main()\nfinally:\n    print({'scipy', 'torch', 'numba'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code, "certificates", "--help"], capture_output=True, text=True, check=True
    )
    for name in ("list", "show", "verify", "clear", "export", "import"):
        assert f" {name} " in done.stdout
    assert done.stdout.endswith("set()\n")


def test_a_certificate_for_a_device_that_is_not_here(
    run: Run, store: CertificateStore, make_certificate: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: str) -> dict[str, str]:
        raise AssertionError("Torch not compiled with CUDA enabled")

    certificate = make_certificate(validators={}, arrays="torch", device="cuda")
    store.save(certificate)
    monkeypatch.setattr(validators, "validators", unknown)
    why = "torch on cuda cannot be used here: Torch not compiled with CUDA enabled"
    assert f"not valid here: {certificate.id}: {why}\n" in run("list").out
    assert f"Valid here: no\n  - {why}" in run("show", certificate.id).out
    assert run("verify").code == 1


def test_the_validators_of_this_machine(make_certificate: Make, tmp_path: Path) -> None:
    """In processes of their own, with nothing made up."""
    environment = {**os.environ, "LIQUID_SSM_CACHE_DIR": str(tmp_path), "NUMBA_NUM_THREADS": "1"}
    code = "import json; from liquid_ssm.validators import validators; print(json.dumps(validators()))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    certificate = make_certificate(validators=json.loads(told.stdout))
    CertificateStore(tmp_path / "certificates").save(certificate)
    command = [sys.executable, "-c", "from liquid_ssm.cli import main; main()", "certificates", "verify"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, f"{certificate.id}: valid")
    done = subprocess.run(command, capture_output=True, text=True, env={**environment, "NUMBA_NUM_THREADS": "2"})
    assert done.returncode == 1
    assert "NUMBA_NUM_THREADS was 1 and is 2" in done.stdout
