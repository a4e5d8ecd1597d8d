"""Accuracy next to time: within the bound for a right backend, outside for a wrong one, reasons for the rest."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.bench.accuracy import accuracy
from liquid_ssm.problem import ModeSpec


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_right_backends_are_within_their_bound(dtype):
    found = accuracy(["scipy", "numpy"], ModeSpec("liquid"), dtype, steps=12)
    assert [a.subject for a in found] == ["scipy", "numpy"]
    assert all(a.status == "pass" and 0 < a.error_over_bound <= 1 for a in found)


def test_a_wrong_backend_is_outside(compiled, monkeypatch):
    def scan(system, u, state=None, *, liquid):
        y, final = NumPyBackend().scan(system, u, state, liquid=liquid)
        return y * np.float32(1 + 1e-3), final

    monkeypatch.setattr(type(compiled), "scan", staticmethod(scan), raising=False)
    (found,) = accuracy(["numba"], ModeSpec("liquid"), "float32", steps=12)
    assert found.status == "fail"
    assert found.error_over_bound > 1
    assert "times the bound" in found.reason


def test_a_rejection_has_its_reason_and_no_figure(compiled, monkeypatch):
    from dataclasses import replace

    monkeypatch.setattr(type(compiled), "capabilities", replace(compiled.capabilities, dtypes=("float64",)))
    (found,) = accuracy(["numba"], ModeSpec("s4"), "float32", steps=12)
    assert (found.status, found.error_over_bound) == ("rejected", None)
    assert "dtype" in found.reason
