"""Batches padded on the right."""

from __future__ import annotations

import pytest
import torch

from liquid_ssm.tasks.batch import Sample, collate, padded_length


def test_equal_lengths_need_no_lengths() -> None:
    batch = collate([Sample(torch.ones(3, 2), 1), Sample(torch.zeros(3, 2), 0)])
    assert batch.u.shape == (2, 3, 2)
    assert batch.lengths is None
    assert batch.rate == 1.0
    assert batch.target.dtype == torch.int64
    assert batch.target.tolist() == [1, 0]


def test_shorter_sequences_are_padded_on_the_right_with_zeros() -> None:
    batch = collate([Sample(torch.tensor([5, 6, 7]), 2), Sample(torch.tensor([8]), 3)], rate=2.0)
    assert batch.u.tolist() == [[5, 6, 7, 0], [8, 0, 0, 0]]
    assert batch.u.dtype == torch.int64
    assert batch.lengths is not None
    assert batch.lengths.tolist() == [3, 1]
    assert batch.rate == 2.0


@pytest.mark.parametrize(
    ("lengths", "padded"),
    [([7, 7], 7), ([1, 1], 1), ([1, 2], 2), ([3, 5], 8), ([100, 128], 128), ([5, 129], 256), ([384, 1], 384)],
)
def test_batches_have_few_lengths(lengths: list[int], padded: int) -> None:
    assert padded_length(lengths) == padded
    assert collate([Sample(torch.ones(n), 0) for n in lengths]).u.shape == (2, padded)


def test_features_keep_their_place() -> None:
    first, second = torch.randn(4, 3), torch.randn(2, 3)
    batch = collate([Sample(second, 0), Sample(first, 0)])
    assert torch.equal(batch.u[0, :2], second)
    assert not batch.u[0, 2:].any()
    assert torch.equal(batch.u[1], first)


def test_numbers_to_predict() -> None:
    batch = collate([Sample(torch.ones(2, 1), torch.tensor([0.5])), Sample(torch.ones(2, 1), torch.tensor([1.5]))])
    assert batch.target.tolist() == [[0.5], [1.5]]
    assert batch.target.dtype == torch.float32


def test_pairs_stay_pairs() -> None:
    a, b, c, d = (torch.arange(1, n + 1) for n in (2, 4, 3, 1))
    batch = collate([Sample((a, b), 1), Sample((c, d), 0)])
    assert batch.u.shape == (2, 2, 4)
    assert batch.u.tolist() == [[[1, 2, 0, 0], [1, 2, 3, 4]], [[1, 2, 3, 0], [1, 0, 0, 0]]]
    assert batch.lengths is not None
    assert batch.lengths.tolist() == [[2, 4], [3, 1]]


def test_pairs_always_have_lengths() -> None:
    batch = collate([Sample((torch.ones(2), torch.ones(2)), 1)])
    assert batch.lengths is not None
    assert batch.lengths.tolist() == [[2, 2]]
