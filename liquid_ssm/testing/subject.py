"""A backend under test: its outputs, the bounds that hold for them, and how two outputs are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..apply import apply, step, vjp
from ..backend import Backend, Gradients
from ..compute import problem_of
from ..oracle.enclosure import Enclosure, enclose
from ..oracle.metrics import absolute_error, norm2
from ..oracle.reference import Bound, reference
from ..oracle.rounding import RoundingModel
from ..problem import Problem
from ..rounding_errors import NO_SCAN_BOUND, has_bound, realization_of, rounding_models
from .contract import CheckedBackend
from .example import Array, Example


class PropertyViolation(AssertionError):
    """A property does not hold; the message says by how much and where."""


class Subject:
    """A backend as the properties see it.

    Args:
        backend: what is tested; every one of its calls is checked (`contract.CheckedBackend`).
        bound_factor: all bounds are multiplied by it; only tests of the tests use another factor than 1.
        tensors: call the backend through torch tensors instead of NumPy arrays, gradients by automatic differentiation.
    """

    def __init__(self, backend: Backend, bound_factor: float = 1.0, *, tensors: bool = False) -> None:
        self.plain = backend
        # The contract is that of calls with NumPy arrays.
        self.backend: Any = backend if tensors else CheckedBackend(backend)
        self.bound_factor = bound_factor
        self.tensors = tensors

    def accepts(self, example: Example, **needs: bool) -> bool:
        """Whether the backend offers what the example asks for; `needs`: gradient, state."""
        return self.backend.reject(self._problem(example, **needs)) is None

    def outputs(self, example: Example) -> Array:
        """y (batch, H, L) of the whole sequence in one call."""
        y = self._call(apply, example.system, example.u, state=example.state, **example.options)
        return np.asarray(y)

    def outputs_and_state(self, example: Example, state: Any = None) -> tuple[Array, Any]:
        """(y, final state), from `state` if given, else from the example's."""
        start = example.state if state is None else state
        found = self._call(apply, example.system, example.u, state=start, return_state=True, **example.options)
        return found[0], found[1]

    def step(self, example: Example, k: int, state: Any) -> tuple[Array, Any]:
        """(y_k (batch, H), state) of time step k."""
        found = self._call(step, example.system, example.u[..., k], state, **example.options)
        return found[0], found[1]

    def vjp(self, example: Example, grad_y: Array, grad_state: Any) -> Gradients:
        """Gradients of Σ grad_y·y + Re Σ conj(grad_state)·final state."""
        options = {"state": example.state, "grad_state": grad_state, **example.options}
        return Gradients(*self._call(vjp, example.system, example.u, grad_y, **options))

    def _call(self, function: Any, system: Any, *arrays: Any, **options: Any) -> Any:
        if not self.tensors:
            return function(system, *arrays, backend=self.backend, **options)
        given = _tensors((arrays, options))
        return _arrays(function(system.to_torch(), *given[0], backend=self.backend, **given[1]))

    def bound(self, example: Example, *, state: bool = False) -> Bound:
        """Bound on the error of `outputs`, or with `state` of outputs computed with a state in play."""
        problem = self._problem(example, state=state or example.state is not None)
        if not has_bound(self.backend, problem):
            raise PropertyViolation(f"nothing can be decided: {NO_SCAN_BOUND}")
        return self._bound(example, rounding_models(self.backend, problem))

    def enclosure(self, example: Example) -> Enclosure:
        """The exact outputs; a state only in the modes s4, liquid and truncated."""
        return enclose(realization_of(example.system), example.u, state=example.state, **example.options)

    def is_time_ordered(self, *bounds: Bound, example: Example | None = None) -> bool:
        """Whether outputs with these bounds were computed without looking ahead: recurrences, no FFT, no tree.

        Args:
            example: what was computed; without one the arithmetic is the backend's usual one.
        """
        arithmetic = self.backend.arithmetic
        if example is not None:
            arithmetic = self.backend.arithmetic_for(self._problem(example, state=example.state is not None))
        return arithmetic.scan == "sequential" and all(b.is_componentwise for b in bounds)

    def _problem(self, example: Example, **needs: bool) -> Problem:
        problem = problem_of(example.system, example.u, example.spec, **needs)
        return replace(problem, arrays="torch") if self.tensors else problem

    def _bound(self, example: Example, models: Sequence[RoundingModel]) -> Bound:
        found = reference(
            realization_of(example.system), example.u, state=example.state, models=models, **example.options
        ).bounds
        total = added(*found)
        if not (np.isfinite(total.componentwise).all() and np.isfinite(total.normwise).all()):
            raise PropertyViolation("the oracle has no finite error bound for this example, so nothing can be decided")
        return Bound(self.bound_factor * total.componentwise, self.bound_factor * total.normwise)


def _tensors(value: Any) -> Any:
    """The same with torch tensors, which own their memory, for NumPy arrays."""
    import torch

    # torch has no negative strides; all other layouts stay.
    return _mapped(value, lambda v: torch.from_numpy(v.copy(order="K")) if isinstance(v, np.ndarray) else v)


def _arrays(value: Any) -> Any:
    """The same with NumPy arrays for torch tensors."""
    return _mapped(value, lambda v: v.detach().resolve_conj().numpy() if hasattr(v, "detach") else v)


def _mapped(value: Any, function: Any) -> Any:
    if isinstance(value, dict):
        return {name: _mapped(part, function) for name, part in value.items()}
    if isinstance(value, tuple):
        parts = [_mapped(part, function) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return function(value)


def added(*bounds: Bound) -> Bound:
    """The bound of a sum of errors."""
    return Bound(
        np.sum([b.componentwise for b in bounds], axis=0),
        np.sum([b.normwise for b in bounds], axis=0),
    )


def part(bound: Bound, steps: slice) -> Bound:
    """The bound of some time steps: an error that is spread over time may all be in them."""
    return Bound(bound.componentwise[..., steps], bound.normwise)


def require_exact(y: Array, exact: Enclosure, bound: Bound, what: str = "y") -> None:
    """Raise unless y is within the bound of the exact value, wherever in its enclosure that lies."""
    _require(absolute_error(y, exact.hi, exact.lo) + exact.radius, bound, y, exact.hi, what, "the exact value")


def require_equal(y: Array, z: Array, bounds: Sequence[Bound], what: str, other: str) -> None:
    """Raise unless two outputs with the same exact value agree within the sum of their bounds."""
    _require(absolute_error(y, z), added(*bounds), y, z, what, other)


def require_identical(y: Array, z: Array, what: str, other: str) -> None:
    """Raise unless two outputs are the same bit for bit."""
    if y.tobytes() != z.tobytes():
        index = tuple(int(i) for i in np.argwhere((y != z) | (np.signbit(y) != np.signbit(z)))[0])
        raise PropertyViolation(f"{what} differs from {other} at {_place(index)}: {y[index]} and {z[index]}")


def _require(error: Array, bound: Bound, y: Array, expected: Array, what: str, other: str) -> None:
    if error.size == 0:
        return
    units = bound.units(error)
    if units <= 1:
        return
    if bound.is_componentwise:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(error > 0, error / bound.componentwise, 0)
        index = tuple(int(i) for i in np.unravel_index(int(np.nanargmax(ratio)), ratio.shape))
    else:
        index = tuple(int(i) for i in np.unravel_index(int(np.nanargmax(error)), error.shape))
    limit = float(bound.componentwise[index]) + float(bound.normwise[index[:2]])
    norm = "" if bound.is_componentwise else f" (2-norm over time: {norm2(error[index[:2]]):.3g})"
    raise PropertyViolation(
        f"{what} is {y[index]} at {_place(index)}, {other} is {expected[index]}: the error {error[index]:.3g}{norm} is "
        f"{units:.3g} times its bound, {limit:.3g}"
    )


def _place(index: tuple[int, ...]) -> str:
    return ", ".join(f"{name} {i}" for name, i in zip(("batch", "channel", "step"), index, strict=False))
