"""What an error about a full device says: which interval of kept states, or which part of the batch, would fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from traceback import clear_frames

import torch

from ..eager.memory import free_bytes


@contextmanager
def explained(what: str, device: torch.device, advice: Callable[[int], str]) -> Iterator[None]:
    """Errors of a full device leave with what would take less memory.

    Args:
        what: was computed.
        advice: from the bytes that are free, what to do.

    Raises:
        torch.OutOfMemoryError: the one raised inside, with a longer message.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        # What the failed attempt still holds is free for the next one.
        clear_frames(error.__traceback__)
        message = f"{what} ran out of memory on {device}: {advice(free_bytes(device))}\n{error}"
        raise type(error)(message) from None


def kept_bytes(state: int, length: int, interval: int, block: int) -> int:
    """Bytes of the states that an adjoint keeps: one per `interval` steps, one per block of a single interval.

    Args:
        state: bytes of one state of all rows.
        block: steps whose states are in registers.
    """
    return state * (-(-length // interval) + min(interval, length) // block + 1)


def fitting_interval(state: int, length: int, block: int, free: int) -> int | None:
    """The shortest interval, `block` times a power of two, whose states fit into `free` bytes; None if none does."""
    interval = block
    while True:
        if kept_bytes(state, length, interval, block) <= free:
            return interval
        if interval >= length:
            return None
        interval *= 2


def advice_for_output(batch: int, per_row: int, free: int) -> str:
    """What to do where an output does not fit, `per_row` bytes for every row of the batch."""
    fit = min(batch, free // max(1, per_row))
    if fit < 1:
        return f"not even one row of the batch fits into the {_size(free)} that are free. Use fewer channels at a time."
    return f"{_size(free)} are free, enough for {fit} of {batch} row(s) of the batch at a time."


def advice_for_adjoint(state: int, length: int, interval: int, block: int, free: int, batch: int, others: int) -> str:
    """What to do where an adjoint does not fit.

    Args:
        others: bytes of gradients and cotangents, which no interval makes smaller.
    """
    room = free - others
    fits = fitting_interval(state, length, block, room)
    needs = f"states kept every {interval} steps take {_size(kept_bytes(state, length, interval, block))}"
    if fits is None:
        smaller = max(1, batch // 2)
        return (
            f"{needs}, {_size(free)} are free, and no interval fits. Use a smaller batch, for instance {smaller} of "
            f"{batch} row(s) at a time."
        )
    return f"{needs}, {_size(free)} are free; every {fits} would fit: pass TritonBackend(interval={fits})."


def _size(n_bytes: int) -> str:
    return f"{max(0, n_bytes) / 2**20:.4g} MiB"
