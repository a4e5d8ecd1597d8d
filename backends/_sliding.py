"""Aggregates over the newest `window` inputs, for any associative product and without its inverse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
T = TypeVar("T")


def in_blocks(u: Array, window: int, previous: Array | None = None) -> Array:
    """The inputs cut into blocks of `window` steps, one block before the start included.

    Args:
        u: (..., L).
        window: steps per block, >= 1.
        previous: inputs before u_0, (..., any number); zeros where there are none.

    Returns:
        (window, 1 + n_blocks, ...) with n_blocks = ceil(L / window): entry (i, 1 + j) is u_(j·window + i),
        block 0 precedes u_0, and the end of the last block is zero.
    """
    length = u.shape[-1]
    n_blocks = -(-length // window)
    padded = np.zeros((*u.shape[:-1], (1 + n_blocks) * window), u.dtype)
    padded[..., window : window + length] = u
    if previous is not None:
        known = min(previous.shape[-1], window)
        padded[..., window - known : window] = previous[..., previous.shape[-1] - known :]
    blocks = padded.reshape(*u.shape[:-1], 1 + n_blocks, window)
    return np.ascontiguousarray(np.moveaxis(blocks, (-1, -2), (0, 1)))


def from_blocks(blocks: Array, length: int) -> Array:
    """(window, n_blocks, ...) back to (..., length)."""
    window, n_blocks, *rest = blocks.shape
    # No -1 in the shape: it is undefined where a batch is empty.
    return np.moveaxis(blocks, (0, 1), (-1, -2)).reshape(*rest, n_blocks * window)[..., :length]


def sliding_aggregate(
    blocks: Array, lift: Callable[[Array], T], combine: Callable[[T, T], T], identity: T
) -> Iterator[tuple[T, T]]:
    """Aggregates of every `window` consecutive inputs, in two parts, by van Herk's scheme.

    The window that ends at position i of a block is a suffix of the block before (its positions
    i + 1 … window - 1) and a prefix of the block itself (0 … i).  Both grow by one product per
    step, so no input ever has to be removed again: nothing is divided or subtracted.

    Args:
        blocks: (window, 1 + n_blocks, ...) from `in_blocks`.
        lift: the element that belongs to inputs (n_blocks, ...).
        combine: (earlier, later) to their product; associative.
        identity: its neutral element.

    Yields:
        For i = 0 … window - 1 a pair (older, newer), each over (n_blocks, ...): the aggregate of the
        windows that end at position i of each block is combine(older, newer).

    Accuracy:
        Behind the pair stand at most window - 1 products with a single element and two with `identity`.

    References:
        van Herk, Pattern Recognition Letters 13 (1992), 517-521; Gil, Werman, IEEE Trans. PAMI 15 (1993), 504-507.
    """
    window = len(blocks)
    before, current = blocks[:, :-1], blocks[:, 1:]
    older = [identity]
    for i in range(window - 1, 0, -1):
        older.append(combine(lift(before[i]), older[-1]))
    newer = identity
    for i in range(window):
        newer = combine(newer, lift(current[i]))
        yield older.pop(), newer
