from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from liquid_ssm.backends._sliding import from_blocks, in_blocks, sliding_aggregate

Array = npt.NDArray[Any]


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("window", [1, 2, 4, 11])
def test_blocks_hold_every_input_in_its_place(length: int, window: int) -> None:
    u = np.arange(1, 2 * length + 1).reshape(2, length)
    blocks = in_blocks(u, window)
    n_blocks = -(-length // window)
    assert blocks.shape == (window, 1 + n_blocks, 2)
    assert not blocks[:, 0].any()
    for k in range(length):
        assert np.array_equal(blocks[k % window, 1 + k // window], u[:, k])
    assert blocks.sum() == u.sum()
    assert np.array_equal(from_blocks(blocks[:, 1:], length), u)


@pytest.mark.parametrize("shape", [(0, 3, 5), (2, 3, 0), (0, 3, 0)])
def test_empty_inputs_keep_their_shape(shape: tuple[int, ...]) -> None:
    blocks = in_blocks(np.zeros(shape), 2)
    assert from_blocks(blocks[:, 1:], shape[-1]).shape == shape


@pytest.mark.parametrize(("n_previous", "expected"), [(0, [0, 0, 0]), (2, [0, 8, 9]), (5, [7, 8, 9])])
def test_previous_inputs_fill_the_block_before(n_previous: int, expected: list[int]) -> None:
    previous = np.arange(10 - n_previous, 10)
    blocks = in_blocks(np.array([1, 2]), 3, previous)
    assert np.array_equal(blocks[:, 0], expected)
    assert np.array_equal(blocks[:, 1], [1, 2, 0])


@pytest.mark.parametrize("window", [1, 2, 3, 7, 10, 12])
def test_products_are_those_of_the_newest_inputs_in_order(window: int) -> None:
    """Concatenation, the free product: a wrong, missing, doubled or swapped input shows."""
    text = "abcdefghij"
    blocks = in_blocks(np.array(list(text), object), window)
    calls = []

    def lift(u: Array) -> Array:
        return np.array([letter or "" for letter in u], object)

    def combine(earlier: Array, later: Array) -> Array:
        calls.append(1)
        return earlier + later

    identity = np.array("", object)
    pairs = list(sliding_aggregate(blocks, lift, combine, identity))
    assert len(calls) == 2 * window - 1
    aggregates = from_blocks(np.array([older + newer for older, newer in pairs]), len(text))
    assert list(aggregates) == [text[max(0, k - window + 1) : k + 1] for k in range(len(text))]
