"""Which steps of a sequence a rank holds."""

from __future__ import annotations

from ..errors import ParameterError


def share(length: int, rank: int, size: int) -> slice:
    """The steps of one rank: contiguous, in rank order, lengths that differ by at most 1.

    Args:
        length: steps of the whole sequence; may be less than `size`, and then some slices are empty.
        rank: of this process, from 0.
        size: number of processes.

    Raises:
        ParameterError: no such rank, or a negative length.
    """
    if not (0 <= rank < size and length >= 0):
        raise ParameterError(
            f"rank is {rank}, size {size} and length {length}; needed: 0 <= rank < size and length >= 0. Take rank and "
            "size from torch.distributed."
        )
    return slice(rank * length // size, (rank + 1) * length // size)
