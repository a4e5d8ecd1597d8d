"""What all ranks must have in common before they exchange buffers whose sizes depend on it."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import torch

from ..errors import DTypeError, LiquidSSMError, ParameterError, ShapeError
from .exchange import Note

_ERRORS: dict[str, type[LiquidSSMError]] = {"batch": ShapeError, "n_channels": ShapeError, "n_modes": ShapeError}
_ERRORS |= {"dtype": DTypeError}
_ADVICE = {
    "parameters": "bit for bit; send them from one rank to the others (torch.distributed.broadcast), or seed all ranks "
    "alike",
    "gradients": "all of them under torch.no_grad, or none",
}


def fingerprint(system: Any) -> str:
    """A hash of a system's parameters, of every bit."""
    digest = blake2b(digest_size=8)
    for name, tensor in system.parameters.items():
        found = tensor.detach().resolve_conj().contiguous().cpu()
        digest.update(name.encode())
        digest.update((torch.view_as_real(found) if found.is_complex() else found).numpy().tobytes())
    return digest.hexdigest()


def require_agreement(notes: Sequence[Note], names: Sequence[str]) -> None:
    """Raise, on every rank alike, the error that says which ranks have what, if they do not agree on it.

    Args:
        notes: of all ranks.
        names: of the entries that must be equal.
    """
    for name in names:
        ranks: dict[Any, list[int]] = {}
        for rank, note in enumerate(notes):
            ranks.setdefault(note.get(name), []).append(rank)
        if len(ranks) > 1:
            found = "; ".join(f"{value} on {_named(members)}" for value, members in ranks.items())
            advice = _ADVICE.get(name)
            raise _ERRORS.get(name, ParameterError)(
                f"the ranks do not agree on {name}: {found}. All ranks must have the same"
                + (f", {advice}." if advice else "; only the lengths of their slices may differ.")
            )


def _named(ranks: Sequence[int]) -> str:
    shown = ", ".join(map(str, ranks[:8])) + (", …" if len(ranks) > 8 else "")
    return f"rank{'s' if len(ranks) > 1 else ''} {shown}"
