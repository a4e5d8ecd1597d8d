"""Adapters as a third party would write them: files in a folder of their own."""

from __future__ import annotations

import sys
from itertools import count

import pytest

_NUMBERS = count()

GOOD = """
import numpy as np

class Good:
    scan_order = "sequential"

    def scan(self, a, b, c, u, state):
        x = np.zeros((len(u), *a.shape), a.dtype) if state is None else state
        y = np.zeros_like(u)
        for k in range(u.shape[-1]):
            w = b * u[..., k, None]
            x = (a + w) * x + w
            y[..., k] = 2 * (c * x).sum(axis=-1).real
        return y, x
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a module and returns its name; the right adapter `Good` stands in it before what is given."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    written = []

    def call(source: str = "") -> str:
        name = f"adapter_{next(_NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(GOOD + source)
        written.append(name)
        return name

    yield call
    for name in written:
        sys.modules.pop(name, None)
