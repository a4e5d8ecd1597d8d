from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liquid_ssm import diagnosis, registry
from liquid_ssm.cli import main
from liquid_ssm.errors import BackendUnavailable
from liquid_ssm.registry import backend_names

GROUPS = ("machine", "threads", "blas", "torch", "triton", "keops", "numba", "cache")
KEYS = {"environment", *GROUPS, "backends", "missing", "install"}


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str]]:
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path))

    def call(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            main(["info", *map(str, arguments)])
        return int(left.value.code or 0), capsys.readouterr().out

    return call


def strict(text: str) -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return dict(json.loads(text, parse_constant=refuse))


def groups(page: str) -> dict[str, dict[str, str]]:
    """Title to the rows below it, name to the first line of the value."""
    found = {}
    for paragraph in page.strip().split("\n\n"):
        title, *rows = paragraph.splitlines()
        assert not title.startswith(" ")
        words = (re.split(r" {2,}", row.strip(), maxsplit=1) for row in rows if not row.startswith("     "))
        found[title] = {word[0]: word[-1] for word in words}
    return found


def test_groups_with_versions_and_every_backend(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    code, page = run()
    assert code == 0
    found = groups(page)
    assert list(found)[:9] == [
        *("Versions", "Machine", "Threads", "Linear algebra (NumPy's)", "torch", "Triton", "KeOps", "Numba"),
        "Kept on disk",
    ]
    assert found["Versions"]["numpy"] == np.__version__
    assert set(found["Versions"]) >= {"python", "liquid-ssm", "scipy", "mpmath", "python-flint"}
    assert found["Linear algebra (NumPy's)"]["verdict"].startswith(("right: ", "wrong: ", "unknown ("))
    assert found["Kept on disk"]["certificates"] == str(tmp_path / "certificates")
    assert list(found["Backends, preferred first"]) == list(backend_names())
    assert all(re.search(r"\S", line) and len(line) <= 120 for line in page.splitlines() if line)


def test_json_has_everything(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    document = strict(run("--json", "-")[1])
    assert set(document) == KEYS
    assert document["environment"]["numpy"] == np.__version__
    assert [entry["name"] for entry in document["backends"]] == list(backend_names())
    assert isinstance(document["machine"]["cores"], int)
    code, page = run("--json", tmp_path / "i.json")
    assert code == 0
    assert strict((tmp_path / "i.json").read_text()) == document
    assert "Machine" in groups(page)


def test_nothing_is_missing_or_what_adds_it(
    run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "missing", list)
    found = groups(run()[1])
    assert found["Missing"] == {"nothing": "every optional package and tool is here"}
    assert "To add what is missing" not in found
    lacking = [
        {"name": "numba", "adds": "speed", "by": "pip"},
        {"name": "g++", "adds": "a compiler", "by": "system"},
    ]
    monkeypatch.setattr(diagnosis, "missing", lambda: lacking)
    page = run()[1]
    assert groups(page)["Missing"] == {"numba": "would add speed", "g++": "would add a compiler"}
    lines = page.splitlines()
    assert lines[-3:-1] == ["To add what is missing", "  pip install 'liquid-ssm[numba]'"]
    assert strict(run("--json", "-")[1])["install"]["pip"] == "pip install 'liquid-ssm[numba]'"


def test_a_backend_that_is_missing_says_what_it_needs(
    run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(name: str) -> None:
        raise BackendUnavailable(f"backend {name!r} needs numba, which is not installed. Run: pip install numba")

    monkeypatch.setattr(registry, "get_backend", unavailable)
    code, page = run()
    assert code == 0
    assert "not available: backend 'numpy' needs numba" in page
    assert strict(run("--json", "-")[1])["backends"][0]["available"] is False


def test_broken_packages_are_reported_where_they_belong(tmp_path: Path) -> None:
    for name in ("torch", "numba", "triton"):
        (tmp_path / f"{name}.py").write_text(f"raise OSError('{name} lacks its library')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "LIQUID_SSM_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", "from liquid_ssm.cli import main; main()", "info", "--json", "-"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    document = strict(done.stdout)
    for name in ("torch", "numba", "triton"):
        said = f"installed, but cannot be imported: OSError: {name} lacks its library"
        assert document[name] == {"version": said}


def test_it_answers_in_seconds(tmp_path: Path) -> None:
    environment = {**os.environ, "LIQUID_SSM_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", "from liquid_ssm.cli import main; main()", "info"]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    # Some 2.5 s, most of it torch's import; machines that run tests on all cores take longer.
    assert time.monotonic() - started < 15
    # Nothing is compiled or made for it.
    assert list(tmp_path.iterdir()) == []
