"""Work on torch's threads: all of them, every error, and never in a forked child."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from liquid_ssm.backends.compiled import openmp, threads
from liquid_ssm.backends.compiled.openmp import run_together, team
from liquid_ssm.backends.compiled.threads import share

needs_gnu = pytest.mark.skipif(
    openmp._parallel(torch.__file__) is None, reason="this torch does not compute with GNU's OpenMP"
)


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@needs_gnu
def test_every_thread_of_the_team_works(four_threads):
    together, seen = threading.Barrier(4, timeout=30), set()

    def work():
        together.wait()  # passes only if four are in it at the same time
        seen.add(threading.get_native_id())

    run_together(work, team(3))
    assert len(seen) == 4
    assert threading.get_native_id() in seen


@needs_gnu
def test_no_more_threads_than_asked_for_share_the_work(four_threads, monkeypatch):
    monkeypatch.setattr(threads, "_pool", None)
    seen = set()
    together = threading.Barrier(3, timeout=30)

    def work(first, end):
        seen.add(threading.get_native_id())
        if end <= 3:
            together.wait()
        time.sleep(0.001)  # so long that whoever else could would take a piece

    share(work, 200, 3, 1)
    assert len(seen) == 3


@needs_gnu
def test_a_team_is_as_large_as_torchs(four_threads):
    assert [team(n) for n in (1, 2, 3, 4, 5)] == [0, 4, 4, 4, 0]


def test_there_is_none_while_the_interpreter_ends(four_threads, monkeypatch):
    monkeypatch.setattr(openmp.sys, "is_finalizing", lambda: True)
    assert team(2) == 0


def test_without_torch_there_is_none():
    code = "import sys; from liquid_ssm.backends.compiled.openmp import team; print('torch' in sys.modules, team(2))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.split() == ["False", "0"]


def test_without_the_library_there_is_none(four_threads, monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "__file__", str(tmp_path / "__init__.py"))
    assert team(2) == 0
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libgomp.so.1").write_text("not a library")
    openmp._parallel.cache_clear()
    assert team(2) == 0


@needs_gnu
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_of_any_thread_reaches_the_caller(four_threads, error):
    caller = threading.get_native_id()
    for fails in (True, False):
        together = threading.Barrier(4, timeout=30)

        def work(together=together, fails=fails):
            together.wait()
            if (threading.get_native_id() == caller) is fails:
                raise error("piece 5")

        with pytest.raises(error, match="piece 5"):
            run_together(work, 4)


@needs_gnu
def test_a_call_inside_a_call_ends(four_threads):
    done = []

    def work(first, end):
        share(lambda a, b: done.extend((first, k) for k in range(a, b)), 8, 4)

    share(work, 8, 4, 1)
    assert sorted(done) == [(i, k) for i in range(8) for k in range(8)]


@needs_gnu
def test_calls_from_several_threads_do_not_disturb_each_other():
    results = [[] for _ in range(3)]

    def caller(done):
        torch.set_num_threads(2)
        for _ in range(50):
            share(lambda first, end: done.extend(range(first, end)), 16, 2)

    callers = [threading.Thread(target=caller, args=(done,)) for done in results]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    for done in results:
        assert sorted(done) == sorted(list(range(16)) * 50)


@needs_gnu
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_threads_of_its_parent(four_threads):
    share(lambda first, end: None, 8, 4)
    child = os.fork()
    if child == 0:
        done = []
        share(lambda first, end: done.extend(range(first, end)), 8, 4)
        os._exit(0 if sorted(done) == list(range(8)) and team(4) == 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
