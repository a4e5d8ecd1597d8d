"""Verification at run time: a backend that turns wrong is found, quarantined, reported once and replaced."""

from __future__ import annotations

import sys
import threading
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

import liquid_ssm as ls
from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.certificate_store import CertificateStore
from liquid_ssm.selection import auto, choose, recheck


class Second(NumPyBackend):
    """numpy, second to the turning one."""

    name = "second"


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
    only(turning="planted_backends:Turning", second="planted_backends:Second")
    # Whichever is the fastest by the clock: the fixed order says who is chosen.
    monkeypatch.setattr(choose.Selection, "_fastest", lambda self, passed: self.order(passed)[0])
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
    # The planted error is one product, rounded once: y (1 + 2^-53) at most.
    wrong = exact * (1 + 1e-9)
    assert (np.abs(kept["y"] - wrong) <= 2.0**-53 * np.abs(wrong)).all()
    assert chosen() == ["second"]
    assert [record.backend for record in CertificateStore().records()] == ["turning"]
    # It stays out, though it would pass again and though this process knows nothing any more.
    WRONG["factor"] = 1.0
    (path,) = [path for path, _ in CertificateStore().all()]
    path.unlink()
    auto.forget()
    ls.apply(system, u, mode="liquid", **options)
    assert chosen() == ["second"]


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


def said_by(calls):
    """The warnings while rows are called and checked, one after the other."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        calls()
        recheck.wait()
    return [str(w.message) for w in said]


def test_rows_that_wait_when_one_has_failed_say_nothing_more(system, u, turning, monkeypatch):
    certified(system, u)
    WRONG["factor"] = 1 + 1e-9
    let_go, usual = threading.Event(), recheck._check
    monkeypatch.setattr(recheck, "_check", lambda sample: let_go.wait(10) and usual(sample))

    def calls():
        for k in range(4):  # each is wrong in its own way, so that no two warnings would be alike
            ls.apply(system, u * (1 - 0.01 * k), mode="liquid", recheck=1.0)
        assert recheck._waiting.qsize() >= 3
        let_go.set()

    assert len(said_by(calls)) == 1


def test_warnings_that_are_errors_do_not_end_the_checks(system, u, turning):
    certified(system, u)
    WRONG["factor"] = 1 + 1e-9
    ls.apply(system, u, mode="liquid", recheck=1.0)  # as pytest is set up, a warning is an error
    recheck.wait()
    assert [record.backend for record in CertificateStore().records()] == ["turning"]
    assert recheck._worker.is_alive()


def test_a_check_that_fails_is_said_and_the_next_one_runs(system, u, turning, monkeypatch):
    certified(system, u)
    usual, calls = recheck._check, []

    def fails_once(sample):
        calls.append(1)
        if len(calls) == 1:
            raise OverflowError("of the reference")
        usual(sample)

    monkeypatch.setattr(recheck, "_check", fails_once)
    (message,) = said_by(lambda: [ls.apply(system, u, mode="liquid", recheck=1.0) for _ in range(2)])
    assert "could not be checked: OverflowError: of the reference" in message
    assert len(calls) == 2
    assert chosen() == ["turning"]


@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated", "kb", "pb"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_right_results_are_never_quarantined(mode, dtype, system, u, only):
    only("numba", "numpy", "scipy")
    given = u.astype(dtype)

    def calls():
        state = None
        for tolerance in (None, 1e-3):
            for _ in range(2):
                ls.apply(system, given, mode=mode, recheck=1.0, tolerance=tolerance)
                recheck.wait()
                _, state = ls.apply(
                    system, given, mode=mode, recheck=1.0, tolerance=tolerance, state=state, return_state=True
                )
                recheck.wait()

    assert said_by(calls) == []
    assert not list(CertificateStore().records())


def test_results_that_were_rounded_to_halves_are_checked_as_such(system, u, only):
    only("numba", "torch")
    tensor = torch.from_numpy(u)

    def calls():
        for dtype in (torch.bfloat16, torch.float16):
            for _ in range(3):
                ls.apply(system, tensor.to(dtype), mode="liquid", recheck=1.0)
                recheck.wait()

    assert said_by(calls) == []


def test_halves_that_are_wrong_are_found(system, u, only, monkeypatch):
    only("numba", "torch")
    tensor, checked = torch.from_numpy(u).bfloat16(), []
    ls.apply(system, tensor, mode="liquid")
    monkeypatch.setattr(recheck, "_quarantine", lambda sample, reason: checked.append(reason))
    usual = recheck._copy
    for factor in (1.001, 1.02):  # less and more than the rounding to 8 bits
        monkeypatch.setattr(
            recheck, "_copy", lambda array, *place, f=factor: usual(array, *place) * (1 if array is tensor else f)
        )
        ls.apply(system, tensor, mode="liquid", recheck=1.0)
        recheck.wait()
    assert any("times the derived bound" in reason for reason in checked)


def test_lists_and_gradients_are_checked_too(system, u, only):
    only("numpy", "torch")
    leaves = {name: p.requires_grad_() for name, p in system.to_torch().parameters.items()}

    def calls():
        assert ls.apply(system, u.tolist(), mode="liquid", recheck=1.0).shape == u.shape
        recheck.wait()
        ls.apply(ls.DiagonalSystem(**leaves), torch.from_numpy(u), mode="liquid", recheck=1.0).sum().backward()

    assert said_by(calls) == []


@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated", "kb", "pb"])
def test_results_that_were_computed_in_a_wider_dtype_are_checked_as_such(mode, system, u, only, monkeypatch):
    only("numpy")
    # Its bound is tighter than what rounding to float32 costs.
    monkeypatch.setattr(choose.Selection, "_fastest", lambda self, passed: passed[-1])

    def calls():
        for _ in range(3):
            ls.apply(system, u.astype("float32"), mode=mode, recheck=1.0, tolerance=1e-4)
            recheck.wait()

    assert said_by(calls) == []
    assert chosen() == ["numpy:float64"]


def test_an_error_below_the_tolerance_is_no_failure(system, u, turning):
    """The margin below it is for rows that nobody has compared; this one has been."""
    narrow, row = system.astype("float32"), u.astype("float32")
    wide = ls.apply(narrow.astype("float64"), row.astype("float64"), mode="liquid", backend=NumPyBackend())
    own = ls.apply(narrow, row, mode="liquid", backend=NumPyBackend())
    error = (np.abs(own - wide).max(axis=-1) / np.abs(wide).max(axis=-1)).max()
    ls.apply(narrow, row, mode="liquid", tolerance=5 * error)
    assert chosen() == ["turning"]
    (grant,) = (g for grants in auto._grants.values() for g in grants)
    tighter = replace(grant.certificate, domain=replace(grant.certificate.domain, tolerance=2 * error))
    for h in range(2):
        sample = recheck._Sample(tighter, narrow.take([h]), row[:1, h : h + 1], own[:1, h : h + 1], None, (2.0**-24, 0))
        recheck._check(sample)
    assert not list(CertificateStore().records())
