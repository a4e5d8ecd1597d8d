"""What fits into the memory of a device, and errors that say it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import clear_frames

import torch

# Arrays of the size of all states of a chunk that are alive together: B̄ u, the transition with it, the states as a
# list and as one array, and two of the read-out.
FORWARD_TEMPORARIES = 6
# Besides: their conjugates, cotangents twice, the products that gradients are sums of.
BACKWARD_TEMPORARIES = 12


def bytes_per_step(elements: int, itemsize: int, temporaries: int) -> int:
    """Memory that each step of a chunk takes, from the numbers in its largest array."""
    return elements * itemsize * temporaries


def advice(per_step: int, free: int) -> str:
    """What to do where a chunk of steps did not fit."""
    steps = free // max(1, per_step)
    needs = f"one step takes about {_size(per_step)} with its temporaries and {_size(free)} are free"
    if steps < 1:
        return f"{needs}: not even one step fits. Use a smaller batch, or fewer channels at a time."
    return (
        f"{needs}: chunks of at most {steps} step(s) fit beside what is there. Pass a backend that takes them, "
        f"TorchBackend(chunk_steps={steps}), or use a smaller batch."
    )


@contextmanager
def explained(what: str, per_step: int, device: torch.device) -> Iterator[None]:
    """Errors that say no memory is left on a GPU say how long a chunk of steps would fit."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        # What the failed attempt still holds is free for the next one.
        clear_frames(error.__traceback__)
        message = f"{what} ran out of memory on {device}: {advice(per_step, free_bytes(device))}\n{error}"
        raise type(error)(message) from None


def free_bytes(device: torch.device) -> int:
    """Bytes that torch could still allocate: what the device has free, and what torch holds without using it."""
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:.4g} MiB"
