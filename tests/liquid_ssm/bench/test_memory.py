"""Peak memory in a fresh process: a known allocation is found, and failures are reasons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from liquid_ssm.bench import memory
from liquid_ssm.bench.memory import KERNEL, Peak, high_water, peak, reset_peak, resident
from liquid_ssm.bench.shapes import Shape
from liquid_ssm.bench.work import BOTH, FORWARD
from liquid_ssm.problem import ModeSpec

linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")


@linux
def test_the_high_water_mark_sees_what_was_freed_and_can_be_reset():
    size = 64 * 2**20
    reset_peak()
    before = resident()
    block = np.ones(size, np.uint8)
    del block
    # Pages are 4 KiB; the interpreter itself moves by less than a MiB meanwhile.
    assert high_water() - before == pytest.approx(size, rel=0.05)
    reset_peak()
    assert high_water() - resident() < size / 2


@linux
def test_forward_and_backward_of_a_backend():
    shape = Shape(1, 4, 8, 2**14)
    found = peak("numpy", ModeSpec("liquid"), BOTH, "float32", shape)
    assert found.reason == ""
    signal = 4 * shape.elements
    # u and grad_y; y and the gradient of u; parameters are small.
    assert found.inputs == pytest.approx(2 * signal, rel=0.01)
    assert found.outputs == pytest.approx(2 * signal, rel=0.01)
    # What comes back is in memory at the peak; numpy keeps the states of one chunk, not a complex one per step.
    assert found.outputs <= found.added < found.whole
    assert 0 < found.beyond < 8 * shape.n_modes * shape.elements


@linux
def test_a_kernel():
    found = peak("scipy", ModeSpec("liquid"), KERNEL, "float32", Shape(1, 1, 8, 2**16), structure="dplr")
    assert found.reason == ""
    assert found.mode == "kernel, dplr"
    assert found.outputs >= 4 * 2**16


def test_a_process_that_fails_is_a_reason():
    found = peak("numpy", ModeSpec("liquid"), FORWARD, "float16", Shape(1, 1, 2, 4))
    assert found.added is None
    assert "ended with code 1" in found.reason
    assert "float16" in found.reason


def test_a_process_that_hangs_is_a_reason(monkeypatch):
    monkeypatch.setattr(memory, "TIMEOUT", 0.01)
    assert "took more than" in peak("numpy", ModeSpec("s4"), FORWARD, "float32", Shape(1, 1, 2, 4)).reason


def test_what_is_allowed_and_what_is_beyond():
    one = Peak("numba", "liquid", BOTH, "float32", Shape(1, 64, 64, 6400), 10**9, 500, 300, 400)
    assert one.beyond == 100
    assert one.allowed == 64 * 16 * 32 * 100
    assert Peak("numba", "liquid", BOTH, "float32", Shape(1, 1, 2, 4)).beyond is None
