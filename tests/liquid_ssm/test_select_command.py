"""The commands on problems so small that a selection takes a moment, with certificates in a folder of the test."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from liquid_ssm import registry, select_command
from liquid_ssm.certificate import Certificate
from liquid_ssm.certificate_store import CertificateStore
from liquid_ssm.cli import main

SMALL = ("--batch", 1, "--channels", 2, "--n-state", 8, "--length", 64, "--budget", 30)


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """Standard output without its line breaks."""
        return " ".join(self.out.split())


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    # Colours asked for by the environment would reach captured output too.
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "GITHUB_ACTIONS", "PY_COLORS", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as left:
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return Result(int(left.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CertificateStore:
    """The store that the commands find."""
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path / "cache"))
    return CertificateStore()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two backends that need no compiling, and one that rejects NumPy arrays of float64."""
    names = ("scipy", "numpy", "numba-wide-state")
    kept = {name: target for name, target in registry.BUILT_IN if name in names}
    monkeypatch.setattr(registry, "_targets", lambda: kept)


def strict(text: str) -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return dict(json.loads(text, parse_constant=refuse))


def rows(result: Result) -> dict[str, list[str]]:
    """The lines of the table that begin with a candidate, by its name."""
    found = (line.split() for line in result.out.splitlines() if line[:1].strip())
    return {words[0]: words[1:] for words in found}


def test_select_prints_all_candidates_and_what_to_do(run: Run, store: CertificateStore, few: None) -> None:
    options = ("--mode", "pb", "--order", 2, "--correlations", "adjacent", "--window", 4, "--length", 16)
    result = run("select", *SMALL, *options, "--tolerance", "1e-5")
    assert (result.code, result.err) == (0, "")
    assert result.words.startswith(
        "problem pb(2, adjacent, window 4), outputs; batch 1, channels 2, length 16, state size 8; numpy arrays, "
        "float64, on cpu system standard diagonal system, bilinear, dt 0.001 to 0.1 [time], normal inputs, seed 0 "
        "wanted tolerance 1e-05; budget 30 s candidate status error bound /bound time spread compile"
    )
    table = rows(result)
    [certificate] = [c for _, c in store.all() if isinstance(c, Certificate) and c.domain.dt is not None]
    assert {name: table[name][0] for name in ("scipy", "numpy", "numba-wide-state")} == {
        c.name: c.status for c in certificate.candidates if ":" not in c.name
    }
    assert "scipy:float32" in table
    for candidate in certificate.candidates:
        assert candidate.reason in result.words
        if candidate.error is not None:
            assert table[candidate.name][1] == f"{candidate.error:.1e}"
    assert table["chosen"][0] == f"{certificate.backend},"
    assert table["certificate"][:3] == [f"{certificate.id},", "made", "now,"]
    assert table["file"] == [str(store.folder / f"{certificate.id}.json")]
    assert "covers batch 1, channels 2 to 3, modes per channel 4 to 7, length 16 to 31" in result.words
    call = "liquid_ssm.apply(system, u, mode='pb', order=2, correlations='adjacent', window=4"
    assert f"use {call}, tolerance=1e-05) takes it" in result.words
    assert f"{call}, backend='{certificate.backend}') always does" in result.words
    assert max(map(len, result.out.splitlines())) <= 100 or str(store.folder) in result.out
    assert not any(line.endswith(" ") for line in result.out.splitlines())


def test_a_certificate_on_disk_is_read_unless_again(run: Run, store: CertificateStore, few: None) -> None:
    first = strict(run("select", *SMALL, "--json", "-").out)
    assert first["new"] is True
    second = strict(run("select", *SMALL, "--json", "-").out)
    assert second == {**first, "new": False}
    assert "read from disk, made 20" in run("select", *SMALL).out
    assert strict(run("select", *SMALL, "--again", "--json", "-").out)["new"] is True
    # Other step sizes are another domain.
    assert strict(run("select", *SMALL, "--dt-max", "1e-3", "--json", "-").out)["id"] != first["id"]


def test_json_has_everything(run: Run, store: CertificateStore, few: None, tmp_path: Path) -> None:
    result = run("select", *SMALL, "--json", "-")
    document = strict(result.out)
    assert (result.code, result.err) == (0, "")
    certificate = Certificate.from_json(json.dumps(document["certificate"]))
    assert (document["backend"], document["id"]) == (certificate.backend, certificate.id)
    assert Path(document["file"]).is_file()
    assert document["reasons"] == []
    by_name = {one["name"]: one for one in document["candidates"]}
    assert list(by_name["numba-wide-state"].values())[3:] == [None, None, None, None, None, None, 0, None]
    for key in ("status", "reason", "error", "bound", "error_over_bound", "seconds", "seconds_min", "seconds_max"):
        assert by_name[document["backend"]][key] is not None
    assert run("select", *SMALL, "--json", tmp_path / "x.json", "--quiet").out == f"{document['backend']}\n"
    assert strict((tmp_path / "x.json").read_text()) == {**document, "new": False}


def test_where_none_passes_the_table_is_printed_all_the_same(run: Run, store: CertificateStore, few: None) -> None:
    arguments = ("select", *SMALL, "--tolerance", "1e-18")
    result = run(*arguments)
    assert result.code == 1
    assert rows(result)["scipy"][0] == rows(result)["numpy"][0] == "refused"
    assert "more than the tolerance 1e-18" in result.words
    assert result.err.startswith("error: no backend computes liquid for this problem within the tolerance 1e-18.")
    assert len(result.err.splitlines()) == 1
    assert not store.folder.exists()

    result = run(*arguments, "--json", "-")
    document = strict(result.out)
    assert (result.code, document["backend"], document["certificate"]) == (1, None, None)
    assert {one["status"] for one in document["candidates"]} == {"refused", "rejected"}

    result = run(*arguments, "--quiet")
    assert (result.code, result.out) == (1, "")
    # Without the table each reason is in the message.
    assert len(result.err.splitlines()) == 1 + len(document["candidates"])


def test_numbers_of_who_was_refused_are_in_the_table(run: Run, few: None) -> None:
    result = run("select", *SMALL, "--tolerance", "3e-16", "--json", "-")
    errors = {one["name"]: one["error"] for one in strict(result.out)["candidates"]}
    assert result.code == 1
    assert errors["numpy"] > 0
    assert rows(run("select", *SMALL, "--tolerance", "3e-16"))["numpy"][1] == f"{errors['numpy']:.1e}"


def test_explain_selects_only_where_it_must(run: Run, store: CertificateStore, few: None) -> None:
    result = run("explain", *SMALL)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("There was no valid certificate, so one was made first.\n")
    [name] = [c.backend for _, c in store.all() if isinstance(c, Certificate) and c.domain.dt is not None]
    assert f"{name} was chosen for its derived bound: the " in result.out
    for heading in ("Why none of the others:", "What it covers, which is every call with:", "How it was verified:"):
        assert f"\n{heading}\n" in result.out
    again = run("explain", *SMALL)
    assert again.out.startswith(f"{name} was chosen for its derived bound: the ")
    assert ", read from disk, made " in again.words
    assert run("explain", *SMALL, "--quiet").out == f"{name}\n"
    document = strict(run("explain", *SMALL, "--json", "-").out)
    assert document["new"] is False
    assert " ".join(again.out.split()) == " ".join(" ".join(document["explanation"]).split())


def test_explain_says_why_a_stored_certificate_was_not_used(run: Run, store: CertificateStore, few: None) -> None:
    document = strict(run("select", *SMALL, "--json", "-").out)
    certificate = store.get(document["id"])
    store.clear()
    older = replace(certificate, validators={**certificate.validators, "numba": "0.1"})
    store.save(older)
    text = run("explain", *SMALL).words
    change = f"numba was 0.1 and is {certificate.validators['numba']}"
    assert f"Why other certificates on disk were not used: certificate {older.id}: {change}" in text
    assert f"not used certificate {older.id}: {change}" in run("select", *SMALL).words

    assert run("explain", certificate.id).out.startswith("It holds here.\n")
    text = run("explain", older.id).out
    assert text.startswith(f"It does not hold here any more:\n  {change}\n{older.backend} was chosen")
    assert strict(run("explain", older.id, "--json", "-").out)["reasons"] == [change]
    assert run("explain", older.id, "-q").out == f"{older.backend}\n"


def test_explain_by_id_takes_no_problem(run: Run, store: CertificateStore, make_certificate: Any) -> None:
    certificate = make_certificate()
    store.save(certificate)
    assert run("explain", certificate.id[:18]).code == 0
    result = run("explain", certificate.id, "--mode", "s4", "--dt-min", "0.1")
    assert (result.code, result.out) == (2, "")
    assert "so --mode, --dt-min cannot be given too" in result.err
    result = run("explain", "nothing")
    assert (result.code, result.out) == (2, "")
    assert certificate.id in result.err


def test_named_backends_alone_are_considered_and_nothing_is_kept(run: Run, store: CertificateStore, few: None) -> None:
    result = run("select", *SMALL, "--backend", "numpy", "--backend", "scipy")
    assert result.code == 0
    assert {"numpy", "scipy"} < set(rows(result))
    assert "numba-wide-state" not in result.out
    assert "file not kept, since --backend leaves others out" in result.words
    assert "takes it" not in result.out
    assert "With --backend none is read from disk or kept." in run("explain", *SMALL, "--backend", "numpy").words
    assert not store.folder.exists()
    # One of all backends has the same id, and is not what this is about.
    stored = strict(run("select", *SMALL, "--json", "-").out)
    named = strict(run("select", *SMALL, "--backend", "numpy", "--json", "-").out)
    assert named["id"] == stored["id"]
    assert (stored["file"] is None, named["file"]) == (False, None)


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense", "mimo"])
def test_every_structure(structure: str, run: Run, few: None) -> None:
    odd = ("--n-state", 3) if structure == "dense" else ()
    document = strict(run("select", *SMALL, "--structure", structure, "--length", 16, *odd, "--json", "-").out)
    assert document["certificate"]["problem"]["n_modes"] == (3 if odd else 4)
    assert document["certificate"]["domain"]["structure"] == structure


def test_gradients_and_states(run: Run, few: None) -> None:
    result = run("select", *SMALL, "--length", 16, "--gradient")
    assert "outputs and gradients;" in result.words
    assert "use liquid_ssm.vjp(system, u, grad_y, mode='liquid') takes it" in result.words
    result = run("select", *SMALL, "--length", 16, "--gradient", "--tolerance", "1e-3")
    assert "use liquid_ssm.vjp(system, u, grad_y, mode='liquid', tolerance=0.001) takes it" in result.words
    result = run("select", *SMALL, "--length", 16, "--state")
    assert "outputs and states;" in result.words
    assert "use liquid_ssm.apply(system, u, mode='liquid', return_state=True) takes it" in result.words


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--mode", "liqid"), "unknown mode 'liqid'; allowed: s4, liquid, truncated, kb, pb. Did you mean 'liquid'?"),
        (("--structure", "diag"), "unknown structure 'diag'; allowed: diagonal, dplr, dense, mimo."),
        (("--dtype", "float16"), "unknown dtype 'float16'; allowed: float32, float64."),
        (("--arrays", "jax"), "unknown kind of arrays 'jax'; allowed: numpy, torch."),
        (("--device", "gpu"), "unknown device 'gpu'; allowed: cpu, cuda."),
        (("--backend", "nunba"), "Did you mean 'numba'"),
        (("--mode", "pb", "--correlations", "some"), "unknown correlations 'some'"),
        (("--order", "3"), "--order 3 is of the modes truncated, kb and pb, not of 'liquid'; leave it out."),
        (("--correlations", "all"), "--correlations all is of the modes kb and pb"),
        (("--window", "9"), "window applies to the modes kb and pb"),
        (("--mode", "kb", "--order", "0"), "order is 0"),
        (("--n-state", "7"), "--n-state is 7; diagonal systems store one of each conjugate pair"),
        (("--tolerance", "0"), "--tolerance is 0.0; it must be positive and finite."),
        (("--tolerance", "nan"), "--tolerance is nan; it must be positive and finite."),
        (("--budget", "-1"), "--budget is -1.0; it must be positive and finite."),
        (("--budget", "inf"), "--budget is inf; it must be positive and finite."),
        (("--dt-min", "1"), "--dt-min is 1.0 and --dt-max is 0.1; they need 0 < --dt-min <= --dt-max, finite."),
        (("--dt-max", "inf"), "--dt-max is inf"),
        (("--device", "cuda"), "--device cuda computes with torch tensors; give --arrays torch too."),
        (("--json", "/no/such/folder/x.json"), "--json"),
        (("--batch", "0"), "--batch"),
        (("--channels", "0"), "--channels"),
        (("--length", "0"), "--length"),
        (("--n-state", "0"), "--n-state"),
        (("--seed", "-1"), "--seed"),
    ],
)
@pytest.mark.parametrize("command", ["select", "explain"])
def test_what_cannot_be_asked(command: str, options: tuple[str, ...], said: str, run: Run) -> None:
    result = run(command, *options)
    assert (result.code, result.out) == (2, "")
    assert said in " ".join(result.err.split())


def test_torch_and_a_gpu_that_are_not_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = run("select", "--arrays", "torch", "--device", "cuda")
    assert (result.code, result.out) == (2, "")
    assert "--device cuda needs a GPU, and torch finds none" in result.err

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    result = run("select", "--arrays", "torch")
    assert (result.code, result.out) == (2, "")
    assert "--arrays torch needs torch, which is not installed. Run: pip install 'liquid-ssm[torch]'" in result.err


def test_a_terminal_gets_its_width(run: Run, few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select_command, "_terminal_width", lambda out: 70)
    monkeypatch.setenv("NO_COLOR", "1")
    result = run("select", *SMALL)
    assert "left out on a page this narrow: " in result.out
    table = result.out.partition("candidate ")[2].partition("left out")[0]
    assert max(map(len, table.splitlines())) <= 70


def test_help_answers_at_once() -> None:
    code = "import sys\nfrom liquid_ssm.cli import main\n"
    code += "try:\n    main()\nfinally:\n    print({'scipy', 'torch', 'numba'} & set(sys.modules))"
    for command in ("select", "explain"):
        done = subprocess.run(
            [sys.executable, "-c", code, command, "--help"], capture_output=True, text=True, check=True
        )
        for option in ("tolerance", "budget", "gradient", "n-state", "dt-min", "arrays"):
            assert f"--{option}" in done.stdout
        assert done.stdout.endswith("set()\n")
