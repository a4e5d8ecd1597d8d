from __future__ import annotations

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm import time_curves as module
from liquid_ssm.bench.limits import Limits
from liquid_ssm.problem import ModeSpec
from liquid_ssm.time_curves import time_curves
from liquid_ssm.timing import Timing, TooSlow

CONTINUOUS = ls.initialize("s4d-lin", n_channels=2, n_state=8)
SYSTEM = CONTINUOUS.discretize("bilinear").astype("float32")
U = np.random.default_rng(0).normal(size=(1, 2, 300)).astype(np.float32)
KNOWN = Limits(2, 1e9, 5e8, 1e8)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Calls are made once, and the machine's limits are numbers of the test's own."""

    def timed(call, *, runs, limit):
        call()
        return Timing(2e-3, 1e-3, 3e-3, runs)

    monkeypatch.setattr(module, "time_call", timed)
    monkeypatch.setattr(module, "measure_limits", lambda: KNOWN)


def test_backends_and_limits_at_powers_of_two():
    curves, notes = time_curves(SYSTEM, U, [ModeSpec("liquid")], ["scipy", "keops", "numpy"])
    assert [(c.name, c.limit) for c in curves] == [
        ("scipy", False),
        ("numpy", False),  # keops rejects liquid
        ("limit: memory", True),
        ("limit: multiply-adds", True),
    ]
    assert {c.length for c in curves} == {(64, 128, 256, 300)}
    assert curves[0].seconds == (2e-3,) * 4
    memory, slots = curves[2:]
    # u and y of 2 x 64 numbers of 4 bytes; 10 slots for each of 4 modes, channel and step
    assert memory.seconds[0] == pytest.approx(2 * 2 * 64 * 4 / 1e8, rel=1e-3)
    assert slots.seconds[0] == pytest.approx(10 * 4 * 2 * 64 / 1e9, rel=1e-3)
    assert "0.25 s" in notes[0]


def test_a_curve_ends_before_the_length_that_takes_too_long(monkeypatch):
    calls = []

    def timed(call, *, runs, limit):
        calls.append(limit)
        if len(calls) > 2:
            raise TooSlow(1.0, limit)
        return Timing(1e-3, 1e-3, 1e-3, runs)

    monkeypatch.setattr(module, "time_call", timed)
    curves, _ = time_curves(SYSTEM, U, [ModeSpec("s4")], ["numpy"])
    assert curves[0].length == (64, 128)
    assert set(calls) == {module.SLOWEST}


def test_without_the_compiled_backend_numpys_copy_is_the_limit(monkeypatch):
    monkeypatch.setattr(module, "measure_limits", lambda: Limits(reason="needs numba: pip install it"))
    monkeypatch.setattr(module, "COPY_BYTES", 1 << 20)
    curves, notes = time_curves(SYSTEM, U, [ModeSpec("s4")], ["numpy"])
    assert [c.name for c in curves if c.limit] == ["limit: memory"]
    assert curves[1].seconds[0] > 0
    assert "needs numba" in notes[0]


def test_other_structures_have_no_count_of_multiply_adds():
    system = ls.initialize("legs", n_channels=2, n_state=8).discretize("bilinear").astype("float32")
    curves, _ = time_curves(system, U, [ModeSpec("liquid")], ["numpy"])
    assert [c.name for c in curves] == ["numpy", "limit: memory"]


def test_integrators_have_their_own_code_alone():
    system = CONTINUOUS.discretize("adams-bashforth").astype("float32")
    curves, _ = time_curves(system, U, [ModeSpec("liquid")], ["scipy", "numpy"])
    assert [c.name for c in curves] == ["numpy", "limit: memory"]
