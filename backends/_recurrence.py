"""A recurrence in time over chunks of steps, and its adjoint.

The loop over time is plain; everything else is an array operation.  The states of a chunk are kept
so that its outputs and gradients are formed at once; elementwise operations and balanced sums make
that the same, bit for bit, as forming them step by step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from liquid_ssm.summation import TreeSum
from liquid_ssm.systems import System

from ._ports import Ports
from ._transition import transition_of

Array = npt.NDArray[Any]

CHUNK_STEPS = 64
# Elements of one temporary, 4 MiB of complex128: small enough for caches, large enough for few Python calls.
CHUNK_ELEMENTS = 1 << 18


class Recurrence(ABC):
    """x_k = f(x_{k-1}, u_k, w_k), affine in x, with w_k = B̄ u_k, and an output read from x_k.

    A state is (..., H, M) or (..., M); subclasses may put further axes in front.  Methods that take
    all steps of a chunk at once have time as their first axis.
    """

    def __init__(self, system: System) -> None:
        self.transition = transition_of(system)
        self.ports = Ports(system)
        self.parameters = system.parameters
        self.dtype = np.result_type(*self.parameters.values())
        self.spread = max(self.transition.spread, self.ports.spread)
        self.n_modes = system.n_modes

    @abstractmethod
    def state_shape(self, u_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of a state for an input of shape (..., H)."""

    @abstractmethod
    def step(self, x: Array, u: Array, w: Array) -> Array:
        """The next state."""

    @abstractmethod
    def adjoint(self, cotangent: Array, u: Array, w: Array) -> Array:
        """Cotangent of the state before a step from that of the state after it."""

    @abstractmethod
    def input_cotangents(self, before: Array, u: Array, cotangent: Array) -> tuple[Array, Array]:
        """Cotangents of w and of u where it enters other than through w, all steps at once."""

    @abstractmethod
    def read(self, x: Array) -> Array:
        """y (T, ..., H) of states (T, ...)."""

    @abstractmethod
    def read_adjoint(self, cotangent: Array) -> Array:
        """Cotangent of the states, broadcastable to their shape, from that of y."""

    @abstractmethod
    def read_gradient(self, x: Array, cotangent: Array) -> Array:
        """Gradient of C."""

    def drive_shape(self, u_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of w for an input of shape (..., H)."""
        return (*u_shape[:-1], self.n_modes) if self.ports.shared else (*u_shape, self.n_modes)


def run(recurrence: Recurrence, u: Array, state: Array) -> tuple[Array, Array]:
    """y (..., H, L) and the state after the last input, from u (..., H, L) and the state before it."""
    y = np.empty(u.shape, u.dtype)
    for start, stop in _chunks(recurrence, u.shape[-1], state):
        states = _trajectory(recurrence, *_inputs(recurrence, u, start, stop), state)
        y[..., start:stop] = np.moveaxis(recurrence.read(states[1:]), 0, -1)
        # A copy, so that the chunk's states are freed.
        state = states[-1].copy()
    return y, state


def final_state(recurrence: Recurrence, u: Array, state: Array) -> Array:
    """The state after the last input, without outputs."""
    for start, stop in _chunks(recurrence, u.shape[-1], state):
        for k_inputs, k_drive in zip(*_inputs(recurrence, u, start, stop), strict=True):
            state = recurrence.step(state, k_inputs, k_drive)
    return state


def run_vjp(
    recurrence: Recurrence, u: Array, state: Array, grad_y: Array | None, grad_state: Array | None
) -> tuple[dict[str, Array], Array, Array]:
    """Gradients of the parameters, of u and of the initial state, by the adjoint recurrence.

    One state per chunk is stored on the way forward; the chunk's other states are computed again,
    with the same rounding, on the way back.  Sums over time and batch are balanced trees.

    Args:
        recurrence: what was run.
        u: (..., H, L).
        state: the initial state.
        grad_y: cotangent of y, (..., H, L), or None.
        grad_state: cotangent of the final state, or None.
    """
    chunks = list(_chunks(recurrence, u.shape[-1], state))
    initial = []
    for start, stop in chunks:
        initial.append(state)
        if stop < u.shape[-1]:
            state = _trajectory(recurrence, *_inputs(recurrence, u, start, stop), state)[-1].copy()
    sums = {name: TreeSum() for name in recurrence.parameters}
    grad_u = np.zeros(u.shape, u.dtype)
    carry = np.zeros(state.shape, recurrence.dtype) if grad_state is None else grad_state
    for (start, stop), before in zip(reversed(chunks), reversed(initial), strict=True):
        inputs, drives = _inputs(recurrence, u, start, stop)
        states = _trajectory(recurrence, inputs, drives, before)
        cotangents = np.zeros(states[1:].shape, recurrence.dtype)
        if grad_y is not None:
            chunk_grad = np.moveaxis(grad_y[..., start:stop], -1, 0)
            cotangents += recurrence.read_adjoint(chunk_grad)
            sums["C"].add(recurrence.read_gradient(states[1:], chunk_grad))
        for t in reversed(range(stop - start)):
            cotangents[t] += carry
            carry = recurrence.adjoint(cotangents[t], inputs[t], drives[t])
        grad_w, direct = recurrence.input_cotangents(states[:-1], inputs, cotangents)
        grad_u[..., start:stop] = np.moveaxis(recurrence.ports.drive_adjoint(grad_w) + direct, 0, -1)
        sums["B_bar"].add(recurrence.ports.drive_gradient(inputs, grad_w))
        for name, gradient in recurrence.transition.gradients(states[:-1], cotangents).items():
            sums[name].add(gradient)
    gradients = {name: like(value, sums[name].total()) for name, value in recurrence.parameters.items()}
    return gradients, grad_u, carry


def like(parameter: Array, gradient: Array | None) -> Array:
    """The gradient in the parameter's dtype: zero for None, the real part for a real parameter."""
    if gradient is None:
        return np.zeros(parameter.shape, parameter.dtype)
    if not np.iscomplexobj(parameter):
        gradient = gradient.real
    return np.ascontiguousarray(gradient, dtype=parameter.dtype)


def _chunks(recurrence: Recurrence, length: int, state: Array) -> list[tuple[int, int]]:
    size = max(1, state.size) * recurrence.spread
    steps = max(1, min(CHUNK_STEPS, CHUNK_ELEMENTS // size))
    return [(start, min(start + steps, length)) for start in range(0, length, steps)]


def _inputs(recurrence: Recurrence, u: Array, start: int, stop: int) -> tuple[Array, Array]:
    inputs = np.ascontiguousarray(np.moveaxis(u[..., start:stop], -1, 0))
    return inputs, recurrence.ports.drive(inputs)


def _trajectory(recurrence: Recurrence, inputs: Array, drives: Array, state: Array) -> Array:
    """The state before the first input and after each, (T + 1, ...)."""
    states = np.empty((len(inputs) + 1, *state.shape), recurrence.dtype)
    states[0] = state
    for t, (u, w) in enumerate(zip(inputs, drives, strict=True)):
        states[t + 1] = recurrence.step(states[t], u, w)
    return states
