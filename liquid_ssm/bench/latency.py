"""Seconds of one `step`: called from Python, and in a compiled loop where the backend has one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..apply import step
from ..compute import problem_of
from ..errors import UnstableRecurrence
from ..problem import ModeSpec
from ..registry import rejection
from ..timing import Timing, TooSlow, time_call
from .shapes import Shape
from .subjects import NotANumber, checked, options, subject

SHAPE = Shape(1, 512, 64, 1)
PYTHON, LOOP = "from Python", "in a compiled loop"
LOOP_STEPS = 1000


@dataclass(frozen=True)
class Latency:
    """Seconds of one time step of one backend and mode.

    Attributes:
        called: `from Python` or `in a compiled loop`.
        seconds: None where it was not measured.
        reason: why not, else empty.
    """

    subject: str
    mode: str
    called: str
    dtype: str
    shape: Shape
    seconds: Timing | None = None
    reason: str = ""


def step_latency(name: str, backend: Any, spec: ModeSpec, dtype: str, limit: float, shape: Shape = SHAPE) -> Latency:
    """`ls.step` from Python, with a state that an earlier step returned."""
    one = subject(shape, dtype)
    u_k = one.u[..., 0]
    row = (name, spec.label, PYTHON, dtype, shape)
    refused = rejection(backend, problem_of(one.system, one.u, spec, state=True))
    if refused is not None:
        return Latency(*row, reason=str(refused))
    chosen = options(spec)
    try:
        _, state = checked(lambda: step(one.system, u_k, backend=backend, **chosen), u_k.size, dtype)
        found = time_call(lambda: step(one.system, u_k, state, backend=backend, **chosen), limit=limit)
    except TooSlow as error:
        return Latency(*row, reason=f"not measured: {error}")
    except (NotANumber, UnstableRecurrence) as error:
        return Latency(*row, reason=f"error: {error}")
    return Latency(*row, seconds=found)


def loop_latency(name: str, backend: Any, dtype: str, shape: Shape = SHAPE, runs: int = 7) -> Latency:
    """One `liquid` step inside a compiled loop of the backend's own, `compiled_step_seconds(system, batch, steps)`."""
    row = (name, "liquid", LOOP, dtype, shape)
    if not hasattr(backend, "compiled_step_seconds"):
        return Latency(*row, reason="it has no compiled loop over steps (method compiled_step_seconds)")
    system = subject(shape, dtype).system
    backend.compiled_step_seconds(system, shape.batch, LOOP_STEPS)
    found = [float(backend.compiled_step_seconds(system, shape.batch, LOOP_STEPS)) for _ in range(runs)]
    return Latency(*row, seconds=Timing(float(np.median(found)), min(found), max(found), runs, LOOP_STEPS))
