"""The published split, and that it is stratified where that is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.errors import DataError
from liquid_ssm.tasks.splits import reshuffled


def test_parts_share_out_all_rows():
    split = reshuffled(103)
    # The smaller part of each division is rounded up: ceil(0.3 · 103) = 31, ceil(31/2) = 16.
    assert [len(rows) for rows in split] == [72, 15, 16]
    assert sorted(np.concatenate(split).tolist()) == list(range(103))


def test_the_published_sizes_of_bidmc():
    # 5,550 + 2,399 series: ceil(0.3 · 7,949) = 2,385 are not for training.
    assert [len(rows) for rows in reshuffled(7949)] == [5564, 1192, 1193]


def test_rows_are_permuted_by_numpys_frozen_generator():
    # Without classes, `train_test_split` takes the last rows of RandomState's permutation, the test part first.
    order = np.random.RandomState(0).permutation(20)
    rest, train = order[:6], order[6:]
    again = np.random.RandomState(1).permutation(6)
    split = reshuffled(20)
    assert split.train.tolist() == train.tolist()
    assert split.test.tolist() == rest[again[:3]].tolist()
    assert split.validation.tolist() == rest[again[3:]].tolist()


def test_classes_have_the_same_share_of_every_part():
    labels = np.repeat(np.arange(3), (40, 80, 120))
    split = reshuffled(240, labels)
    for rows, sizes in zip(split, ((28, 56, 84), (6, 12, 18), (6, 12, 18)), strict=True):
        assert np.bincount(labels[rows]).tolist() == list(sizes)


@pytest.mark.parametrize(("count", "labels"), [(1, None), (3, None), (4, np.array([0, 0, 0, 1]))])
def test_too_few_rows_are_refused(count, labels):
    with pytest.raises(DataError, match=f"{count} samples.* too few"):
        reshuffled(count, labels)
