"""A recurrence in time over chunks of steps, and its adjoint.

The loop over time is plain; everything else is done for all steps of a chunk at once.  The states of one chunk are all
that is ever kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch

from liquid_ssm.complex_numbers import Number, conj, join, size, stack, unbind
from liquid_ssm.summation import TreeSum

from .model import Model
from .ports import Ports
from .transition import transition_of

CHUNK_STEPS = 64
# Elements of one temporary, 16 MiB of complex128: large enough for few Python calls, small beside any device.
CHUNK_ELEMENTS = 1 << 20


class Step(NamedTuple):
    """What one step takes.

    Attributes:
        diagonal: what is added to the diagonal of the transition or, where that is elementwise, the transition.
        drive: w = B̄ u.
        inputs: u.
    """

    diagonal: Number
    drive: Number
    inputs: torch.Tensor


class Recurrence(ABC):
    """x_k = f(x_{k-1}, u_k, w_k), affine in x, with w_k = B̄ u_k, and an output read from x_k.

    A state is (..., H, M) or (..., M); subclasses may put further axes in front.  Methods that take
    all steps of a chunk at once have time as their first axis.
    """

    # Whether the drive is added to the transition.
    liquid: bool = False

    def __init__(self, model: Model) -> None:
        self.model = model
        self.transition = transition_of(model)
        self.ports = Ports(model)
        self.spread = max(self.transition.spread, self.ports.spread)

    @abstractmethod
    def state_shape(self, u_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of a state for an input of shape (..., H)."""

    @abstractmethod
    def step(self, x: Number, at: Step) -> Number:
        """The next state."""

    @abstractmethod
    def adjoint(self, cotangent: Number, at: Step) -> Number:
        """Cotangent of the state before a step from that of the state after it; `at` holds conjugates."""

    @abstractmethod
    def input_cotangents(
        self, before: Number, inputs: torch.Tensor, cotangent: Number
    ) -> tuple[Number, torch.Tensor | None]:
        """Cotangents of w and of u where it enters other than through w, all steps at once."""

    @abstractmethod
    def read(self, x: Number) -> torch.Tensor:
        """y (T, ..., H) of states (T, ...)."""

    @abstractmethod
    def read_adjoint(self, cotangent: torch.Tensor) -> Number:
        """Cotangent of the states, broadcastable to their shape, from that of y."""

    @abstractmethod
    def read_gradient(self, x: Number, cotangent: torch.Tensor) -> Number:
        """Gradient of C."""

    def drive_shape(self, u_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of w for an input of shape (..., H)."""
        n_modes = int(self.ports.C.shape[1])
        return (*u_shape[:-1], n_modes) if self.ports.shared else (*u_shape, n_modes)

    def steps(self, inputs: torch.Tensor, *, conjugated: bool = False) -> list[Step]:
        """What each step takes, from the inputs (T, ..., H) of a chunk."""
        drive = self.ports.drive(inputs)
        if self.liquid:
            diagonal = self.transition.diagonal(drive)
            diagonals = unbind(conj(diagonal) if conjugated else diagonal)
        else:
            constant = self.transition.diagonal()
            constant = conj(constant) if conjugated and constant is not None else constant
            diagonals = [constant] * len(inputs)
        drives = unbind(conj(drive) if conjugated else drive)
        return [Step(*parts) for parts in zip(diagonals, drives, inputs.unbind(0), strict=True)]

    def at_rest(self, u: torch.Tensor) -> Number:
        """The state before any input of u (..., H, L)."""
        return self.model.zeros(self.state_shape(tuple(u.shape[:-1])))


def run(
    recurrence: Recurrence, u: torch.Tensor, state: Number, chunk_steps: int | None = None
) -> tuple[torch.Tensor, Number]:
    """y (..., H, L) and the state after the last input, from u (..., H, L) and the state before it.

    Args:
        chunk_steps: steps whose states are kept at once; None for what `CHUNK_STEPS` and `CHUNK_ELEMENTS` allow.
    """
    y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    for start, stop in chunks(recurrence, u.shape[-1], state, chunk_steps):
        states = trajectory(recurrence, time_first(u, start, stop), state)
        state = states[-1]
        y[..., start:stop] = recurrence.read(stack(states, 0)).movedim(0, -1)
    return y, state


def final_state(recurrence: Recurrence, u: torch.Tensor, state: Number, chunk_steps: int | None = None) -> Number:
    """The state after the last input, without outputs."""
    for start, stop in chunks(recurrence, u.shape[-1], state, chunk_steps):
        for at in recurrence.steps(time_first(u, start, stop)):
            state = recurrence.step(state, at)
    return state


def run_vjp(
    recurrence: Recurrence,
    u: torch.Tensor,
    state: Number,
    grad_y: torch.Tensor | None,
    grad_state: Number | None,
    chunk_steps: int | None = None,
) -> tuple[dict[str, Number | None], torch.Tensor, Number]:
    """Gradients of the parameters, of u and of the initial state, by the adjoint recurrence in the order of time.

    One state per chunk is stored on the way forward; the chunk's other states are computed again on the way back.

    Args:
        recurrence: what was run.
        u: (..., H, L).
        state: the initial state.
        grad_y: cotangent of y, (..., H, L), or None.
        grad_state: cotangent of the final state, or None.
        chunk_steps: as in `run`.

    Returns:
        Gradients by the parameters' names, None for zero; those of u and of the initial state.
    """
    parts = chunks(recurrence, u.shape[-1], state, chunk_steps)
    initial = []
    for start, stop in parts:
        initial.append(state)
        if stop < u.shape[-1]:
            state = final_state(recurrence, u[..., start:stop], state, stop - start)
    sums = {name: TreeSum() for name in recurrence.model.parameters}
    grad_u = torch.zeros(u.shape, dtype=u.dtype, device=u.device)
    carry = recurrence.at_rest(u) if grad_state is None else grad_state
    for (start, stop), before in zip(reversed(parts), reversed(initial), strict=True):
        inputs = time_first(u, start, stop)
        states = [before, *trajectory(recurrence, inputs, before)]
        read_out: list[Number] | None = None
        if grad_y is not None:
            chunk_grad = time_first(grad_y, start, stop)
            read_out = unbind(recurrence.read_adjoint(chunk_grad))
            sums["C"].add(recurrence.read_gradient(stack(states[1:], 0), chunk_grad))
        cotangents = []
        steps = recurrence.steps(inputs, conjugated=True)
        for t in reversed(range(stop - start)):
            total = carry if read_out is None else carry + read_out[t]
            cotangents.append(total)
            carry = recurrence.adjoint(total, steps[t])
        earlier, cotangent = stack(states[:-1], 0), stack(cotangents[::-1], 0)
        grad_w, direct = recurrence.input_cotangents(earlier, inputs, cotangent)
        through_w = recurrence.ports.drive_adjoint(grad_w)
        grad_u[..., start:stop] = (through_w if direct is None else through_w + direct).movedim(0, -1)
        sums["B_bar"].add(recurrence.ports.drive_gradient(inputs, grad_w))
        for name, gradient in recurrence.transition.gradients(earlier, cotangent).items():
            sums[name].add(gradient)
    return {name: total.total() for name, total in sums.items()}, grad_u, carry


def like(parameter: torch.Tensor, gradient: Number | None) -> torch.Tensor:
    """The gradient as a tensor of the parameter's dtype: zero for None, the real part for a real parameter."""
    if gradient is None:
        return torch.zeros(parameter.shape, dtype=parameter.dtype, device=parameter.device)
    whole: torch.Tensor = join(gradient) if parameter.is_complex() else gradient.real
    return whole.to(parameter.dtype).contiguous()


def trajectory(recurrence: Recurrence, inputs: torch.Tensor, state: Number) -> list[Number]:
    """The state after each of the inputs (T, ..., H)."""
    states = []
    for at in recurrence.steps(inputs):
        state = recurrence.step(state, at)
        states.append(state)
    return states


def chunks(recurrence: Recurrence, length: int, state: Number, chunk_steps: int | None) -> list[tuple[int, int]]:
    """First and end of each chunk of steps."""
    steps, numbers = chunk_steps or CHUNK_STEPS, size(state) * recurrence.spread
    # Where an export leaves a size open, the graph is one for every size.
    if chunk_steps is None and not isinstance(numbers, torch.SymInt):
        steps = max(1, min(steps, CHUNK_ELEMENTS // max(1, numbers)))
    return [(start, min(start + steps, length)) for start in range(0, length, steps)]


def time_first(u: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """Some steps of a signal (..., L), as (T, ...)."""
    return u[..., start:stop].movedim(-1, 0).contiguous()
