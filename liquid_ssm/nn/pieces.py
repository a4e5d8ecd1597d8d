"""How many steps of a signal are computed at once."""

from __future__ import annotations

# Numbers of one temporary: 4 MB in complex128.  The way back holds some tens of them.
ELEMENTS = 1 << 18


def steps_at_once(numbers: int) -> int:
    """As many steps as keep temporaries of so many numbers per step small; at least one."""
    return max(1, ELEMENTS // max(1, numbers))
