"""How many steps of a signal are computed at once."""

from __future__ import annotations

import torch

# Numbers of one temporary: 4 MB in complex128.  The way back holds some tens of them.
ELEMENTS = 1 << 18


def steps_at_once(numbers: int, most: int = ELEMENTS) -> int:
    """As many steps, at least one and no more than `most`, as keep temporaries of so many numbers per step small.

    Where an export leaves a size open, `most`: the graph is one for every size.
    """
    if isinstance(numbers, torch.SymInt):
        return most
    return min(most, max(1, ELEMENTS // max(1, numbers)))
