"""The limits are rates of real work: twice the lanes, twice the rate, never above what was done."""

from __future__ import annotations

import numpy as np

from liquid_ssm.backends.compiled import limits


def test_the_chains_are_computed(monkeypatch):
    monkeypatch.setattr(limits, "ROUNDS", 1000)
    monkeypatch.setattr(limits, "COPY_BYTES", 1 << 16)
    assert limits.fma_rate("float32", 1) > 0
    assert limits.fma_rate("float64", 2) > 0
    assert limits.copy_rate(2) > 0


def test_ten_different_chains():
    # x ← a x + b with a = 1/2, b = 0 halves every number in every round.
    w = limits.lanes("float64")
    numbers = np.zeros(12 * w)
    numbers[:w] = 0.5
    numbers[2 * w :] = np.repeat(2.0 ** np.arange(10), w)
    limits._multiply_adds(numbers, 3)
    assert (numbers[:w] == (2**10 - 1) / 8).all()
