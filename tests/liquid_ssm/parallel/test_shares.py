"""Slices of a sequence: all of it, in order, as even as they can be."""

from __future__ import annotations

from itertools import pairwise

import pytest

from liquid_ssm.errors import ParameterError
from liquid_ssm.parallel import share


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("length", [0, 1, 2, 20, 10**8])
def test_shares_cover_the_sequence_evenly(length, size):
    parts = [share(length, rank, size) for rank in range(size)]
    assert parts[0].start == 0
    assert parts[-1].stop == length
    assert all(a.stop == b.start for a, b in pairwise(parts))
    lengths = [part.stop - part.start for part in parts]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(("length", "rank", "size"), [(5, 2, 2), (5, -1, 2), (-1, 0, 2), (5, 0, 0)])
def test_no_such_rank(length, rank, size):
    with pytest.raises(ParameterError, match="0 <= rank < size"):
        share(length, rank, size)
