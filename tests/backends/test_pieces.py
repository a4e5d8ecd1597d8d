from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends._pieces import pieces


@pytest.mark.parametrize("limit", [1, 8, 24, 100, 10**6])
@pytest.mark.parametrize("sizes", [(1,), (7,), (3, 5), (2, 3, 11)])
def test_pieces_cover_every_index_once_within_the_limit(sizes: tuple[int, ...], limit: int) -> None:
    count = np.zeros(sizes, int)
    for piece in pieces(sizes, 8, limit):
        count[piece] += 1
        assert count[piece].size == 1 or 8 * count[piece].size <= limit
    assert (count == 1).all()


def test_last_axis_runs_fastest_and_in_order() -> None:
    assert list(pieces((2, 5), 10, 20)) == [
        (slice(row, row + 1), times) for row in range(2) for times in (slice(0, 2), slice(2, 4), slice(4, 5))
    ]


def test_one_piece_if_everything_fits() -> None:
    assert list(pieces((4, 6), 1, 24)) == [(slice(0, 4), slice(0, 6))]


@pytest.mark.parametrize("sizes", [(0,), (3, 0), (0, 3)])
def test_empty_range_has_no_pieces(sizes: tuple[int, ...]) -> None:
    assert list(pieces(sizes, 8)) == []
