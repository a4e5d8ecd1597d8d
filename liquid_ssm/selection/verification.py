"""One contender's outputs on the problem itself, in pieces and at other lengths, against the exact ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from ..compute import Array, compute
from .contenders import Contender
from .data import Data, extended, to_numpy
from .truth import Finding, Truth

RESIDUES = 128
# The sweep's lengths start here at most: what breaks at the edges of tiles does so for long signals and short ones.
LONGEST_BASE = 4096
# A state is carried over at least this many steps.
CARRIED = 24


class Refused(Exception):
    """A contender's output cannot be used at all; the message says why."""


@dataclass(frozen=True)
class Outputs:
    """What a contender computed on the real shape.

    Attributes:
        y: the verified rows and channels, as a NumPy array.
        heads: the first steps of all of them.
    """

    y: Array
    heads: Array


def run_whole(contender: Contender, data: Data) -> Outputs:
    """The real shape once.

    Raises:
        Refused: the output has another shape or dtype than promised, or is not finite.
    """
    system, u = data.whole(contender.problem.dtype)
    y = _outputs(contender, system, u, state=data.problem.state)
    _require_form(y, u)
    return Outputs(data.picked(y), data.picked_heads(y))


def check_whole(contender: Contender, data: Data, truth: Truth, outputs: Outputs) -> Finding:
    """The verified rows and channels, on all steps that the reference has."""
    system, u = data.few(contender.problem.dtype)
    return _first_steps(contender, data, truth, outputs.y, system, u)


def check_heads(contender: Contender, data: Data, heads: Truth, outputs: Outputs) -> Finding:
    """The first steps of every row and channel, where a wrong stride shows."""
    return _first_steps(contender, data, heads, outputs.heads, *data.heads(contender.problem.dtype))


def _first_steps(contender: Contender, data: Data, truth: Truth, y: Array, system: Any, u: Array) -> Finding:
    if contender.backend.linear_method == "convolution" and truth.steps < data.problem.length:
        # The bound of a transform needs the whole signal: the first steps are a signal of their own.
        given = data.same_kind(system, u[..., : truth.steps])
        y = to_numpy(_outputs(contender, *given, state=data.problem.state))
    return truth.finding(contender, y[..., : truth.steps])


def check_carried(contender: Contender, system: Any, u: Array, data: Data, truth: Truth) -> Finding:
    """A signal in several calls that hand on the state: in the problem's length if that is short, else in halves."""
    length = u.shape[-1]
    size = data.problem.length if data.problem.length < CARRIED else (length + 1) // 2
    parts, state = [], None
    for start in range(0, length, size):
        given = data.same_kind(system, u[..., start : start + size])
        y, state = compute(*given, data.problem.spec, backend=contender.backend, state=state, return_state=True)
        parts.append(to_numpy(y))
    return truth.finding(contender, np.concatenate(parts, axis=-1))


def carried_signal(data: Data, dtype: str, steps: int) -> tuple[Any, Array]:
    """The verified rows, repeated if they are shorter than what a state is to be carried over."""
    system, u = data.few(dtype)
    return system, extended(u, max(CARRIED, steps))


def sweep_lengths(length: int, longest: int = LONGEST_BASE) -> list[int]:
    """Lengths of the same bucket, every residue modulo 128 that it has once, spread so that an early end covers most.

    Args:
        length: of the problem, in the bucket from 2^k.
        longest: the first length is 2^k, or this if that is less; a power of two, at least 128.
    """
    if length == 0:
        return []
    base = min(1 << length.bit_length() >> 1, longest)
    count = min(base, RESIDUES)
    digits = count.bit_length() - 1
    return [base + int(f"{i:0{digits}b}"[::-1], 2) if digits else base for i in range(count)]


def sweep(
    contender: Contender,
    data: Data,
    lengths: list[int],
    system: Any,
    u: Array,
    truth: Truth,
    until: float,
    clock: Callable[[], float] = perf_counter,
) -> Iterator[tuple[int, Finding]]:
    """Finding at each length, until the time is over.

    Args:
        system, u: verified rows, as long as the longest of the lengths.
        until: reading of the clock at which to stop.

    Raises:
        Refused: as `run_whole`.
    """
    for length in lengths:
        if clock() >= until:
            return
        given = data.same_kind(system, u[..., :length])
        y = _outputs(contender, *given, state=data.problem.state)
        _require_form(y, given[1])
        yield length, truth.finding(contender, to_numpy(y))


def _outputs(contender: Contender, system: Any, u: Array, *, state: bool) -> Array:
    if contender.problem.gradient and contender.problem.arrays == "torch":
        u = u.detach().requires_grad_()  # outputs that will be differentiated are computed in their own way
    result = compute(system, u, contender.problem.spec, backend=contender.backend, return_state=state)
    return result[0] if state else result


def _require_form(y: Array, u: Array) -> None:
    if tuple(y.shape) != tuple(u.shape):
        raise Refused(f"its output has shape {tuple(y.shape)}; u has {tuple(u.shape)}")
    if y.dtype != u.dtype:
        raise Refused(f"its output has dtype {y.dtype}; u has {u.dtype}")


def synchronize(array: Any) -> None:
    """Wait until a GPU has finished; nothing to wait for elsewhere."""
    device = getattr(array, "device", None)
    if getattr(device, "type", "cpu") == "cuda":
        import torch

        torch.cuda.synchronize(device)
