"""Verification at run time: a backend that turns wrong is found, quarantined, reported once and replaced."""

from __future__ import annotations

import sys
import warnings
from time import sleep

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.certificate_store import CertificateStore
from liquid_ssm.selection import auto, recheck


class Slow(NumPyBackend):
    """numpy, so slow that it is not chosen while there is another."""

    name = "slow"

    def scan(self, *args, **options):
        sleep(0.01)
        return super().scan(*args, **options)


WRONG = {"factor": 1.0}


class Turning(NumPyBackend):
    """numpy, until it is told to be wrong."""

    name = "turning"

    def scan(self, *args, **options):
        y, state = super().scan(*args, **options)
        return y * WRONG["factor"], state


@pytest.fixture
def turning(only, monkeypatch):
    WRONG["factor"] = 1.0
    monkeypatch.setitem(sys.modules, "planted_backends", sys.modules[Turning.__module__])
    only(turning="planted_backends:Turning", slow="planted_backends:Slow")
    yield
    WRONG["factor"] = 1.0


def chosen():
    return [g.certificate.backend for grants in auto._grants.values() for g in grants]


def certified(system, u, **options):
    """A call, for which the turning backend is chosen."""
    ls.apply(system, u, mode="liquid", **options)
    assert chosen() == ["turning"]


def test_a_right_backend_stays(system, u, turning):
    certified(system, u)
    for _ in range(3):
        ls.apply(system, u, mode="liquid", recheck=1.0)
        recheck.wait()
    assert chosen() == ["turning"]
    assert not list(CertificateStore().records())


@pytest.mark.parametrize("with_state", [False, True])
def test_one_that_turns_wrong_is_quarantined_and_replaced(system, u, turning, with_state, tmp_path):
    options = {"return_state": True} if with_state else {}
    certified(system, u, **options)
    WRONG["factor"] = 1 + 1e-9
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(3):
            ls.apply(system, u, mode="liquid", recheck=1.0, **options)
            recheck.wait()
    messages = [str(w.message) for w in said if "quarantined" in str(w.message)]
    assert len(messages) == 1
    assert "times the derived bound" in messages[0]
    path = messages[0].partition("are in ")[2].partition(";")[0]
    kept = np.load(path)
    assert set(kept) == {"u", "y", "A_bar", "B_bar", "C"}
    exact = ls.apply(
        ls.DiagonalSystem(kept["A_bar"], kept["B_bar"], kept["C"]), kept["u"], mode="liquid", backend=NumPyBackend()
    )
    assert np.allclose(kept["y"] / exact, 1 + 1e-9, rtol=1e-12)
    assert chosen() == ["slow"]
    assert [record.backend for record in CertificateStore().records()] == ["turning"]
    # It stays out, though it would pass again and though this process knows nothing any more.
    WRONG["factor"] = 1.0
    (path,) = [path for path, _ in CertificateStore().all()]
    path.unlink()
    auto.forget()
    ls.apply(system, u, mode="liquid", **options)
    assert chosen() == ["slow"]


def test_a_state_that_is_given_is_part_of_the_check(system, u, turning):
    _, state = ls.apply(system, u, mode="liquid", return_state=True)
    assert chosen() == ["turning"]
    for _ in range(4):
        _, state = ls.apply(system, u, mode="liquid", state=state, return_state=True, recheck=1.0)
        recheck.wait()
    assert chosen() == ["turning"]


def test_the_share_is_a_probability(system, u, turning, monkeypatch):
    certified(system, u)
    checked = []
    monkeypatch.setattr(recheck, "_check", checked.append)
    recheck._random.seed(0)
    for _ in range(200):
        ls.apply(system, u, mode="liquid", recheck=0.1)
        recheck.wait()
    assert 8 <= len(checked) <= 35
