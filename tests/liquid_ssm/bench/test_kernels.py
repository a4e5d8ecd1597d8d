"""The plain formula is the kernel, and rows say what a backend lacks."""

from __future__ import annotations

import numpy as np

from liquid_ssm.bench.kernels import PLAIN, kernel_row, kernel_slots, plain_cauchy_kernel, plain_row
from liquid_ssm.bench.memory import kernel_system
from liquid_ssm.bench.shapes import Shape
from liquid_ssm.registry import get_backend

SHAPE = Shape(1, 3, 8, 64)


def test_the_plain_formula_is_the_kernel():
    system = kernel_system("dplr", 3, 8)
    exact = get_backend("numpy").scan(system, np.eye(1, 64)[None].repeat(3, 1), None, liquid=False)[0][0]
    plain = plain_cauchy_kernel(system, 64)
    # Its resolvent has its poles near the circle of the FFT: single digits are lost, far from a wrong formula.
    np.testing.assert_allclose(plain, exact, rtol=0, atol=1e-9 * np.abs(exact).max())


def test_rows():
    row = kernel_row("scipy", get_backend("scipy"), "diagonal", "float32", SHAPE, 1.0)
    assert row.mode == "kernel, diagonal"
    assert row.seconds.median > 0
    assert row.slots == kernel_slots("diagonal", SHAPE) == 2 * 4 * 3 * 64
    assert kernel_slots("dplr", SHAPE) == 15 * 4 * 3 * 64
    plain = plain_row("float32", SHAPE, 1.0)
    assert (plain.subject, plain.mode) == (PLAIN, "kernel, dplr")
    assert plain.seconds is not None


def test_a_backend_without_kernels_and_a_slow_one_say_so(compiled, monkeypatch):
    from dataclasses import replace

    assert "more than the 1e-09 s" in plain_row("float32", SHAPE, 1e-9).reason
    bare = replace(compiled.capabilities, primitives={"scan": ("diagonal",)})
    monkeypatch.setattr(type(compiled), "capabilities", bare)
    assert "no kernel for dplr" in kernel_row("numba", compiled, "dplr", "float32", SHAPE, 1.0).reason
