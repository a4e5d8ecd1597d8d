"""Cutting a computation into pieces, so that its temporaries stay small whatever the problem's size."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

PIECE_BYTES = 64 * 2**20


def pieces(sizes: tuple[int, ...], item_bytes: int, limit: int = PIECE_BYTES) -> Iterator[tuple[slice, ...]]:
    """Slices that cover an index range of these sizes once, the last axis running fastest.

    Args:
        sizes: extent of each axis; nothing is yielded if one is 0.
        item_bytes: memory that one index combination needs.
        limit: memory that one piece may need; a single item is never cut.

    Yields:
        One slice per axis.  Later axes are kept whole as long as the limit allows.
    """
    steps: list[int] = []
    for size in reversed(sizes):
        step = max(1, min(size, limit // max(item_bytes, 1)))
        item_bytes *= step
        steps.insert(0, step)
    axes = [
        [slice(start, min(start + step, size)) for start in range(0, size, step)]
        for size, step in zip(sizes, steps, strict=True)
    ]
    yield from product(*axes)
