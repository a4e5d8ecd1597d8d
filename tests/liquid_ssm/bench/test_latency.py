"""One step, from Python and in the backend's own loop."""

from __future__ import annotations

import time
from dataclasses import replace

from liquid_ssm.bench.latency import LOOP, PYTHON, loop_latency, step_latency
from liquid_ssm.bench.shapes import Shape
from liquid_ssm.problem import ModeSpec
from liquid_ssm.registry import get_backend

SHAPE = Shape(1, 3, 4, 1)


def test_a_step_from_python():
    found = step_latency("numpy", get_backend("numpy"), ModeSpec("pb", 3), "float32", 1.0, SHAPE)
    assert (found.called, found.mode) == (PYTHON, "pb(3, all)")
    assert found.seconds.median > 0
    assert found.seconds.runs >= 7


def test_a_slow_step_is_given_up(compiled, monkeypatch):
    def scan(system, u, state=None, *, liquid):
        time.sleep(0.02)
        return get_backend("numpy").scan(system, u, state, liquid=liquid)

    monkeypatch.setattr(type(compiled), "scan", staticmethod(scan), raising=False)
    found = step_latency("numba", compiled, ModeSpec("liquid"), "float32", 0.01, SHAPE)
    assert found.seconds is None
    assert "more than the 0.01 s" in found.reason


def test_a_rejection_is_the_reason(compiled, monkeypatch):
    monkeypatch.setattr(type(compiled), "capabilities", replace(compiled.capabilities, dtypes=("float64",)))
    found = step_latency("numba", compiled, ModeSpec("liquid"), "float32", 1.0, SHAPE)
    assert found.seconds is None
    assert found.reason.startswith("numba: dtype: needs float64")


def test_the_loop_is_the_backends_own(compiled):
    found = loop_latency("numba", compiled, "float32", SHAPE)
    assert (found.called, found.seconds.median) == (LOOP, compiled.step_seconds)


def test_a_backend_without_a_loop_says_so():
    found = loop_latency("numpy", get_backend("numpy"), "float32", SHAPE)
    assert found.seconds is None
    assert "compiled_step_seconds" in found.reason
