"""Every piece once, whatever the number of threads, and errors that arrive."""

from __future__ import annotations

import os
import threading

import pytest

from liquid_ssm.backends.compiled import threads
from liquid_ssm.backends.compiled.threads import available_threads, share


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("at_once", [1, 3, 100])
@pytest.mark.parametrize("pieces", [0, 1, 2, 17])
def test_every_piece_is_done_once(pieces, n_threads, at_once):
    done = []
    share(lambda first, end: done.extend(range(first, end)), pieces, n_threads, at_once)
    assert sorted(done) == list(range(pieces))


def test_several_threads_work():
    together = threading.Barrier(3, timeout=30)
    # Passes only if three threads are in it at the same time.
    share(lambda first, end: together.wait(), 3, 3)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_an_error_reaches_the_caller(n_threads):
    def work(first, end):
        if end > 5:
            raise ValueError("piece 5")

    with pytest.raises(ValueError, match="piece 5"):
        share(work, 9, n_threads)


def test_numbas_setting_is_respected(monkeypatch):
    from numba import config

    monkeypatch.setattr(config, "NUMBA_NUM_THREADS", 1)
    assert available_threads() == 1
    monkeypatch.setattr(config, "NUMBA_NUM_THREADS", 10**6)
    assert 1 <= available_threads() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_makes_threads_of_its_own(monkeypatch):
    monkeypatch.setattr(threads, "team", lambda n_threads: 0)
    share(lambda first, end: None, 4, 2)
    assert threads._pools
    child = os.fork()
    if child == 0:
        done = []
        share(lambda first, end: done.extend(range(first, end)), 4, 2)
        os._exit(0 if sorted(done) == [0, 1, 2, 3] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
