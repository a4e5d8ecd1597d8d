"""States between blocks of time that a forward pass leaves for the backward pass of the same call.

The interface of backends has no room for them, and operators none for a result whose shape only the backend knows; so
they go past both, within one thread and one call.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class _Local(threading.local):
    record: list[Array] | None = None
    found: Array | None = None


_local = _Local()


@contextmanager
def recording(follows: bool) -> Iterator[list[Array]]:
    """`keep` fills the list inside, if a backward pass of the same arguments follows; else it stays empty."""
    record: list[Array] = []
    before, _local.record = _local.record, record if follows else None
    try:
        yield record
    finally:
        _local.record = before


def is_recording() -> bool:
    return _local.record is not None


def keep(states: Array) -> None:
    """Leave states where `is_recording`."""
    if _local.record is not None:
        _local.record.append(states)


@contextmanager
def handing(states: Array | None) -> Iterator[None]:
    """`kept` gives these states inside, which the forward pass of the same arguments has left, or None."""
    before, _local.found = _local.found, states
    try:
        yield
    finally:
        _local.found = before


def kept(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array | None:
    """The states that are handed, if they are of this shape and dtype: other calls split their rows in another way."""
    found = _local.found
    return found if found is not None and found.shape == shape and found.dtype == np.dtype(dtype) else None
