"""Systems, signals and calls that are measured, made outside the timing."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..apply import apply, vjp
from ..errors import LiquidSSMError
from ..initialize import initialize
from ..problem import ModeSpec
from .shapes import Shape
from .work import FORWARD

Array = npt.NDArray[Any]

SPECS = (
    ModeSpec("s4"),
    ModeSpec("liquid"),
    ModeSpec("truncated", 3),
    ModeSpec("kb", 3, "all"),
    ModeSpec("kb", 3, "adjacent"),
    ModeSpec("pb", 3, "all"),
    ModeSpec("pb", 3, "adjacent"),
)


class NotANumber(LiquidSSMError):
    """A measured call returned NaN, so its time means nothing."""


@dataclass(frozen=True, eq=False)
class Subject:
    """One system with its signal.

    Attributes:
        system: s4d-lin, bilinear, time steps from 1e-3 to 1e-1.
        u: normal random numbers (batch, n_channels, length).
        grad_y: cotangent of y, likewise.
    """

    shape: Shape
    dtype: str
    system: Any
    u: Array
    grad_y: Array


@cache
def _system(n_channels: int, n_state: int) -> Any:
    continuous = initialize("s4d-lin", n_channels=n_channels, n_state=n_state, dt_min=1e-3, dt_max=1e-1, seed=0)
    return continuous.discretize("bilinear")


def subject(shape: Shape, dtype: str) -> Subject:
    """The problem of that shape, the same in every run."""
    rng = np.random.default_rng(0)
    size = (shape.batch, shape.n_channels, shape.length)
    u, grad_y = (rng.standard_normal(size, dtype=np.float32).astype(dtype, copy=False) for _ in range(2))
    return Subject(shape, dtype, _system(shape.n_channels, shape.n_state).astype(dtype), u, grad_y)


def options(spec: ModeSpec) -> dict[str, Any]:
    """The keyword arguments of `apply`, `step` and `vjp` for a mode."""
    return {"mode": spec.mode, "order": spec.order, "correlations": spec.correlations, "window": spec.window}


def call(subject: Subject, spec: ModeSpec, backend: Any, direction: str) -> Callable[[], Any]:
    """`apply` for the forward direction, `vjp` for the backward one, ready to be timed."""
    chosen = options(spec)
    if direction == FORWARD:
        return lambda: apply(subject.system, subject.u, backend=backend, **chosen)
    return lambda: vjp(subject.system, subject.u, subject.grad_y, backend=backend, **chosen)


def arrays(result: Any) -> list[Array]:
    """Every array of a result: an output, a tuple of them, or gradients."""
    if isinstance(result, dict):
        return [array for item in result.values() for array in arrays(item)]
    if isinstance(result, tuple):
        return [array for item in result for array in arrays(item)]
    return [] if result is None else [np.asarray(result)]


def checked(call: Callable[[], Any], size: int, dtype: str) -> Any:
    """The result of a call whose output may land on memory full of NaN, and has none.

    Args:
        call: takes nothing.
        size: elements of the output, for the NaN that are left in the allocator's hands.

    Raises:
        NotANumber: an array of the result holds NaN.
    """
    poison = np.full(min(size, 2**24), np.nan, dtype)
    del poison
    result = call()
    for index, array in enumerate(arrays(result)):
        if np.isnan(array).any():
            count = int(np.isnan(array).sum())
            raise NotANumber(
                f"array {index} of the result, shape {array.shape}, holds {count} NaN; the time of a wrong result "
                "means nothing. Run `liquid-ssm verify` with this backend and report what it says."
            )
    return result


def with_threads(backend: Any, threads: int | None) -> Any:
    """The backend with that number of threads, or as it is where it takes none or None is given."""
    name = _threads_argument(backend)
    if threads is None or name is None:
        return backend
    takes = inspect.signature(type(backend)).parameters
    others = {other: getattr(backend, other) for other in takes if other != name and hasattr(backend, other)}
    return type(backend)(**others, **{name: threads})


def takes_threads(backend: Any) -> bool:
    """Whether the backend can be told its number of threads."""
    return _threads_argument(backend) is not None


def _threads_argument(backend: Any) -> str | None:
    takes = inspect.signature(type(backend)).parameters
    return next((name for name in ("threads", "workers") if name in takes), None)
