"""A stand-in for the compiled backend: NumPy's results under its name, with limits that are made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from liquid_ssm import registry
from liquid_ssm.backend import Backend
from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.bench.accuracy import Accuracy
from liquid_ssm.bench.latency import Latency
from liquid_ssm.bench.limits import Limits
from liquid_ssm.bench.memory import Peak
from liquid_ssm.bench.result import Result
from liquid_ssm.bench.rows import Row, backend_row, together
from liquid_ssm.bench.shapes import Shape
from liquid_ssm.bench.startup import StartUp
from liquid_ssm.bench.targets import Target
from liquid_ssm.bench.work import BACKWARD, BOTH, FORWARD
from liquid_ssm.problem import ModeSpec
from liquid_ssm.timing import Timing

LIMITS = {"threads": 1, "fma_float32": 1e11, "fma_float64": 5e10, "copy": 1e10}


class Compiled(Backend):
    """Computes as `numpy` does."""

    name = "numba"
    capabilities = NumPyBackend.capabilities
    arithmetic = NumPyBackend.arithmetic
    step_seconds = 5e-6

    def __init__(self, threads: int = 1, flavour: str = "plain") -> None:
        self.threads, self.flavour = threads, flavour

    def __getattr__(self, name: str) -> Any:
        return getattr(NumPyBackend(), name)

    def limits(self) -> dict[str, float]:
        return LIMITS

    def compiled_step_seconds(self, system: Any, batch: int, steps: int) -> float:
        return self.step_seconds


@pytest.fixture
def no_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry in which no backend is called numba."""
    known = {name: target for name, target in registry._targets().items() if name != "numba"}
    monkeypatch.setattr(registry, "_targets", lambda: known)
    monkeypatch.setattr(registry, "_named", registry._named.__wrapped__)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Compiled:
    """A registry in which the stand-in is called numba."""
    known = {"numba": "", **{name: t for name, t in registry._targets().items() if name != "numba"}}
    named, one = registry._named, Compiled()
    monkeypatch.setattr(registry, "_targets", lambda: known)
    monkeypatch.setattr(registry, "_named", lambda name: one if name == "numba" else named(name))
    return one


@pytest.fixture
def result() -> Result:
    """A result with one of everything."""
    shape, length = Shape(4, 128, 64, 4096), Shape(1, 64, 64, 2**10)
    limits = Limits(2, 2e11, 1e11, 3e10)
    timing = Timing(5e-3, 4e-3, 6e-3, 7)
    rows = []
    for size in (shape, length, Shape(1, 64, 64, 2**12)):
        for mode in ("liquid", "s4"):
            spec = ModeSpec(mode)
            forward = backend_row("numba", spec, FORWARD, "float32", size, seconds=timing).against(limits)
            backward = replace(forward, direction=BACKWARD)
            rows += [forward, backward, together(forward, backward, spec).against(limits)]
        rows.append(Row("scipy.fft, 2^k", "rival", "s4", FORWARD, "float32", size, timing, convolution_ratio=1.0))
        rows.append(
            Row("torch.fft, 2^k", "rival", "s4", FORWARD, "float32", size, reason="needs torch: pip install torch")
        )
    rows[0] = replace(rows[0], error_over_bound=0.03, convolution_ratio=0.4)
    peak = Peak("numba", "liquid", BOTH, "float32", length, 2**28, 2**20, 2**18, 2**19)
    return Result(
        {"grid": "full"},
        {"cpu": "A processor", "cores": "2", "python": "CPython 3", "numpy": "2", "scipy": "1", "blas": "b"},
        limits,
        (limits, limits),
        tuple(rows),
        (Row("numba", "backend", "kernel, dplr", FORWARD, "float32", length, timing),),
        (Accuracy("numba", "liquid", "float32", "pass", 0.03, 1e-7),),
        (Latency("numba", "liquid", "from Python", "float32", length, timing),),
        (peak, replace(peak, whole=None, added=None, outputs=None, reason="it failed")),
        StartUp(0.03, ("scipy",), 9.0, 0.5, 1.0, 0.1),
        (
            Target("1a", "liquid on W", ">= 65 %", "72 %", 0.72, True),
            Target("1b", "ratio", "<= 0.5 x", "0.70 x", 0.7, False),
            Target("9a", "step", "<= 10 us", reason="no step was measured"),
        ),
        ("a note.",),
    )
