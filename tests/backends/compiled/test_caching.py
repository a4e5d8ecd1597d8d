"""Machine code is kept, found again by another process, renewed when sources change, and never required."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numba
import pytest

from liquid_ssm.backends.compiled import caching

# One small kernel of the package, and how often something was compiled.
PROGRAM = """
import sys
import numpy as np
from numba.core import event
from liquid_ssm.backends.compiled import limits
compiled = []
class Count(event.Listener):
    def on_start(self, e): compiled.append(e.data["dispatcher"].py_func.__name__)
    def on_end(self, e): pass
event.register("numba:compile", Count())
limits._multiply_adds(np.zeros(12 * limits.lanes("float32"), "float32"), 1)
print("_multiply_adds" in compiled)
"""


def run(folder, cwd):
    """What the program prints, started where the source tree is not in sight."""
    settings = {**os.environ, caching.ENVIRONMENT_VARIABLE: str(folder)}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, env=settings, cwd=cwd, check=True)
    return done.stdout.strip(), done.stderr


def test_the_second_process_compiles_nothing(tmp_path):
    assert run(tmp_path / "kept", tmp_path)[0] == "True"
    assert list(tmp_path.rglob("*.nbc")), "nothing was kept"
    assert run(tmp_path / "kept", tmp_path)[0] == "False"


def test_a_folder_that_cannot_be_written_is_said_and_compiling_goes_on(tmp_path):
    (tmp_path / "file").write_text("no folder can be made below a file")
    output, errors = run(tmp_path / "file", tmp_path)
    assert output == "True"
    assert caching.ENVIRONMENT_VARIABLE in errors


def test_the_folder_changes_with_sources_and_versions(monkeypatch, tmp_path):
    usual = caching.fingerprint()
    assert usual == caching.fingerprint()
    monkeypatch.setattr(caching.numba, "__version__", "0.0")
    assert caching.fingerprint() != usual
    monkeypatch.undo()
    for path in Path(caching.__file__).parent.glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(caching, "__file__", str(tmp_path / "caching.py"))
    assert caching.fingerprint() == usual
    (tmp_path / "scan.py").write_bytes((tmp_path / "scan.py").read_bytes() + b"\n# changed\n")
    assert caching.fingerprint() != usual


def test_the_users_cache_folder_is_the_default(monkeypatch, tmp_path):
    import platformdirs

    caching.cache_folder.cache_clear()
    try:
        monkeypatch.delenv(caching.ENVIRONMENT_VARIABLE, raising=False)
        monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / name)
        assert caching.cache_folder() == tmp_path / "liquid-ssm" / "compiled" / caching.fingerprint()
    finally:
        caching.cache_folder.cache_clear()


def test_code_that_was_not_used_for_long_is_deleted(monkeypatch, tmp_path):
    monkeypatch.setenv(caching.ENVIRONMENT_VARIABLE, str(tmp_path))
    old, recent = (tmp_path / "compiled" / name for name in ("old", "recent"))
    for folder, age in ((old, 2 * caching.KEPT_SECONDS), (recent, 60)):
        folder.mkdir(parents=True)
        (folder / "kernel.nbc").write_bytes(b"")
        os.utime(folder, (time.time() - age,) * 2)
    caching.cache_folder.cache_clear()
    try:
        used = caching.cache_folder()
    finally:
        caching.cache_folder.cache_clear()
    assert sorted(p for p in (tmp_path / "compiled").iterdir()) == sorted((used, recent))


def test_numbas_own_setting_is_left_as_it_was():
    import numba

    before = numba.config.CACHE_DIR
    caching.compiled(lambda x: x + 1)
    assert before == numba.config.CACHE_DIR


def started():
    """The event of Numba that a function of this file is being compiled."""
    return SimpleNamespace(data={"dispatcher": SimpleNamespace(py_func=run)})


class _Terminal:
    def __init__(self, is_terminal):
        self.is_terminal, self.written = is_terminal, ""

    def isatty(self):
        return self.is_terminal

    def write(self, text):
        self.written += text

    def flush(self):
        pass


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_is_told_once_that_kernels_are_compiled(monkeypatch, caplog, is_terminal):
    monkeypatch.setattr(caching, "_compiled_files", {run.__code__.co_filename})
    monkeypatch.setattr(sys, "stderr", _Terminal(is_terminal))
    announcer = caching._Announcer()
    with caplog.at_level(logging.INFO, "liquid_ssm"):
        announcer.on_start(started())
        announcer.on_start(started())
    assert sys.stderr.written.count("compiling kernels") == is_terminal
    assert len(caplog.records) == 1


def test_other_peoples_kernels_are_not_announced(monkeypatch):
    monkeypatch.setattr(caching, "_compiled_files", set())
    monkeypatch.setattr(sys, "stderr", _Terminal(True))
    caching._Announcer().on_start(started())
    assert sys.stderr.written == ""


def test_what_numba_compiles_is_counted():
    before, start = caching.compile_seconds(), time.perf_counter()
    compiled = numba.njit(lambda x: x + 1)
    compiled(1.0)
    passed = time.perf_counter() - start
    counted = caching.compile_seconds() - before
    assert 0 < counted <= passed
    compiled(1.0)
    assert caching.compile_seconds() - before == counted


def test_what_is_compiled_inside_of_another_function_is_counted_once(monkeypatch):
    times = iter([1.0, 9.0])
    monkeypatch.setattr(caching, "perf_counter", lambda: next(times))
    watch = caching._Stopwatch()
    for happens in (watch.on_start, watch.on_start, watch.on_end, watch.on_start, watch.on_end, watch.on_end):
        happens(None)
    assert watch.seconds == 8.0
