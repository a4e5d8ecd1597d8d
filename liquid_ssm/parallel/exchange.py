"""What ranks tell each other: buffers of a fixed size, and what went wrong elsewhere.

Every exchange is a collective of the whole group, so that a rank that fails tells the others in the next one instead of
leaving them waiting.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import distributed

from .. import errors
from ..errors import LiquidSSMError, ParameterError, UnstableRecurrence

# Bytes of a note: some numbers and a message of a few lines, and no more than a packet or two.
NOTE = 1024

Note = dict[str, Any]

# torch 2.13 has given it a new name, and warns of the old one.
_all_gather: Any = getattr(distributed, "all_gather_single", getattr(distributed, "all_gather_into_tensor", None))


class ExchangeFailed(LiquidSSMError, RuntimeError):
    """An exchange between ranks did not complete: another rank has ended, failed, or did not come to it in time."""


@dataclass(frozen=True)
class Members:
    """The ranks that hold one sequence, seen from one of them.

    Args:
        group: of torch.distributed; None for the default one.
        rank: of this process in the group.
        size: of the group.
        device: where buffers lie that are exchanged.
    """

    group: Any
    rank: int
    size: int
    device: torch.device

    @classmethod
    def of(cls, group: Any, tensor: Any) -> Members:
        """The members of a group, with buffers where its backend takes them from.

        Raises:
            ParameterError: torch.distributed is not initialised, or this process is not in the group.
        """
        if not (distributed.is_available() and distributed.is_initialized()):
            raise ParameterError(
                "torch.distributed is not initialised; call torch.distributed.init_process_group first, for instance "
                "in a script that torchrun starts. For one process use liquid_ssm.apply."
            )
        rank = distributed.get_rank(group)
        if rank < 0:
            raise ParameterError("this process is not in the group; call this on the ranks of the group only.")
        # gloo exchanges what lies in main memory.
        local = not isinstance(tensor, torch.Tensor) or distributed.get_backend(group) == "gloo"
        device = torch.device("cpu") if local else tensor.device
        return cls(group, rank, distributed.get_world_size(group), device)

    def gather(self, name: str, payload: torch.Tensor) -> torch.Tensor:
        """The payloads of all ranks, (size, n), of bytes (n,) as many on every rank.

        Raises:
            ExchangeFailed: not all ranks took part.
        """
        found = torch.empty((self.size, payload.numel()), dtype=torch.uint8, device=self.device)
        source = payload.to(self.device).contiguous()
        self._run(name, lambda: _all_gather(found.view(-1), source, group=self.group))
        return found

    def gather_notes(self, name: str, note: Note) -> list[Note]:
        """The notes of all ranks, by rank."""
        return [read(row) for row in self.gather(name, written(note)).cpu()]

    def total(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of a real or complex tensor over the ranks, on every rank."""
        real = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
        found = real.detach().to(self.device, copy=True).contiguous()
        self._run(name, lambda: distributed.all_reduce(found, group=self.group))
        found = found.to(tensor.device)
        return torch.view_as_complex(found) if tensor.is_complex() else found

    def from_rank(self, name: str, rank: int, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor of one rank, on every rank; the others give one of the same shape and dtype."""
        real = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
        found = real.detach().to(self.device, copy=True).contiguous()
        source = rank if self.group is None else distributed.get_global_rank(self.group, rank)
        self._run(name, lambda: distributed.broadcast(found, source, group=self.group))
        found = found.to(tensor.device)
        return torch.view_as_complex(found) if tensor.is_complex() else found

    def _run(self, name: str, collective: Callable[[], Any]) -> None:
        start = perf_counter()
        try:
            collective()
        except RuntimeError as error:
            raise ExchangeFailed(
                f"exchange {name!r} failed on rank {self.rank} of {self.size} after {perf_counter() - start:.1f} s: "
                "another rank has ended, or did not come to this exchange within the group's timeout. Look for the "
                "first error among the outputs of all ranks, then start all of them again, from the last checkpoint. "
                "The timeout is that of torch.distributed.init_process_group(timeout=...). "
                f"torch says: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
            ) from error


def attempt(function: Callable[[], Any], otherwise: Any) -> tuple[Any, Exception | None]:
    """What the function returns, or `otherwise` and the error, which `settle` raises once the other ranks know it."""
    try:
        return function(), None
    except Exception as error:
        return otherwise, error


def note_of(error: Exception | None) -> Note:
    """What the other ranks are told of an error."""
    if error is None:
        return {}
    note: Note = {"error": type(error).__name__, "message": str(error)}
    if isinstance(error, UnstableRecurrence):
        note |= {"step": error.step, "channel": error.channel, "input_bound": error.input_bound}
    return note


def settle(notes: Sequence[Note], own: Exception | None, rank: int, starts: Sequence[int] = ()) -> None:
    """Raise the error that a rank has met, on every rank: of several the own one, else that of the first rank.

    Of recurrences that leave their range all ranks raise the first one, which is the earliest.

    Args:
        notes: of all ranks, by rank.
        own: the error of this rank.
        starts: the step of the whole sequence at which each rank's slice begins.
    """
    failed = [r for r, note in enumerate(notes) if "error" in note]
    if not failed:
        return
    if own is not None and not isinstance(own, UnstableRecurrence):
        raise own
    where = failed[0]
    note = notes[where]
    if note["error"] == "UnstableRecurrence":
        begin = starts[where] if starts else 0
        raise UnstableRecurrence(
            f"on rank {where} of {len(notes)}, whose slice begins at step {begin} of the sequence (steps below are "
            f"counted from there): {note['message']}",
            step=begin + note["step"],
            channel=note["channel"],
            input_bound=note["input_bound"],
        ) from own
    others = f" (as did ranks {', '.join(map(str, failed[1:]))})" if len(failed) > 1 else ""
    text = f"rank {where} of {len(notes)} failed{others}: {note['message']}"
    kind = getattr(errors, note["error"], None)
    if isinstance(kind, type) and issubclass(kind, LiquidSSMError):
        raise kind(text)
    raise ExchangeFailed(f"{text} [{note['error']}] Correct that, then start all ranks again.")


def written(note: Note) -> torch.Tensor:
    """A note as `NOTE` bytes; a message that is too long is cut."""
    data = json.dumps(note, ensure_ascii=False).encode()
    while len(data) > NOTE:
        note = note | {"message": note["message"][: len(note["message"]) - (len(data) - NOTE) // 4 - 4] + " …"}
        data = json.dumps(note, ensure_ascii=False).encode()
    return torch.frombuffer(bytearray(data.ljust(NOTE)), dtype=torch.uint8)


def read(row: torch.Tensor) -> Note:
    note: Note = json.loads(bytes(row.numpy().tobytes()).decode())
    return note
