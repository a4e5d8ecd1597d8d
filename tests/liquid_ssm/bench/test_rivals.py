"""What one would use instead computes the same, and says why where it cannot."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.bench import rivals
from liquid_ssm.bench.rivals import CONVOLUTIONS, QUICK_OTHERS, SLOW, Rival, available_cores, power_of_two
from liquid_ssm.bench.shapes import Shape
from liquid_ssm.bench.subjects import subject

SHAPE = Shape(2, 3, 8, 40)
# torch.compile takes half a minute; `nox -s bench` runs it.
RIVALS = [rival for rival in (*CONVOLUTIONS, *QUICK_OTHERS, *SLOW) if not rival.compiler]


@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.name)
def test_it_computes_the_mode(rival: Rival):
    if find_spec(rival.package) is None:
        pytest.skip(f"needs {rival.package}, which is not installed")
    one = subject(SHAPE, "float64")
    y = rival.prepare(one, 1)()
    exact = ls.apply(one.system, one.u, mode=rival.mode, backend="numpy")
    assert y.shape == exact.shape
    # 40 steps of stable float64 recurrences or convolutions: 2^-53 times at most some thousand operations.
    np.testing.assert_allclose(y, exact, rtol=0, atol=1e-11 * np.abs(exact).max())


def test_an_absent_package_is_the_reason():
    absent = Rival("x", "s4", lambda one, threads: lambda: one.u, package="surely_not_installed")
    assert absent.missing() == "needs surely_not_installed: pip install surely_not_installed"


def test_an_absent_compiler_is_the_reason(monkeypatch):
    rival = Rival("x", "s4", lambda one, threads: lambda: one.u, package="numpy", compiler=True)
    monkeypatch.setattr(rivals.shutil, "which", lambda name: None)
    assert "needs a C++ compiler" in rival.missing()
    monkeypatch.setattr(rivals.shutil, "which", lambda name: "/usr/bin/c++")
    assert rival.missing() == ""


@pytest.mark.parametrize(("length", "size"), [(1, 2), (2, 4), (3, 8), (4, 8), (5, 16), (4096, 8192)])
def test_a_convolution_fits_without_wrapping(length, size):
    assert power_of_two(length) == size >= 2 * length - 1


def test_cores():
    assert available_cores() >= 1
