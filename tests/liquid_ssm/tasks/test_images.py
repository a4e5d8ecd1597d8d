"""What the tasks of images share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from liquid_ssm.data_folder import Generated
from liquid_ssm.errors import DataError
from liquid_ssm.tasks.images import check_counts, scaled, split_rows

PUBLISHED = {"train": 8, "validation": 1, "test": 1}


def test_every_step_of_the_scaling_is_rounded_to_single_precision():
    values = torch.arange(256, dtype=torch.uint8)
    mean, std = (122.6 / 255, 0.4822), (61 / 255, 0.243)
    found = scaled(torch.stack([values, values.flip(0)], dim=1), mean, std)
    assert found.dtype == torch.float32
    one = np.arange(256, dtype=np.float32) / np.float32(255)
    for channel, wanted in enumerate((one, one[::-1])):
        wanted = (wanted - np.float32(mean[channel])) / np.float32(std[channel])
        assert np.array_equal(found[:, channel].numpy(), wanted)


def test_splits_are_consecutive_parts_of_the_permutation_of_seed_42():
    # What `random_split` is documented to do, and what torch's generator gives on every machine.
    order = torch.randperm(50, generator=torch.Generator().manual_seed(42))
    rows = split_rows({"train": 40, "validation": 7, "test": 3})
    assert list(rows) == ["train", "validation", "test"]
    assert torch.equal(torch.cat(list(rows.values())), order)
    assert [len(part) for part in rows.values()] == [40, 7, 3]
    state = torch.random.get_rng_state()
    split_rows({"train": 5})
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    "generated", [None, Generated("x", 0, "1", PUBLISHED), Generated("x", 0, "1", {"train": 9, "test": 1})]
)
def test_right_counts(generated):
    check_counts(Path("there"), PUBLISHED, PUBLISHED, generated)


def test_wrong_counts_are_named():
    found = {"train": 7, "validation": 1, "test": 1}
    with pytest.raises(
        DataError,
        match=r"^there holds 7 train, 1 validation, 1 test images; expected 8 train, 1 validation, 1 test "
        r"\(the published sizes\)\. Look\. The download is incomplete or of another version; .* GENERATED\.json",
    ):
        check_counts(Path("there"), found, PUBLISHED, None, "Look. ")
    with pytest.raises(
        DataError, match=r"8 train, 1 test images; expected 9 train, 1 test \(GENERATED\.json says so\)"
    ):
        check_counts(Path("there"), found, PUBLISHED, Generated("x", 0, "1", {"train": 9, "test": 1}))
    with pytest.raises(DataError, match=r"expected nothing \(GENERATED\.json"):
        check_counts(Path("there"), found, PUBLISHED, Generated("x", 0, "1", {}))


def test_a_part_without_samples_is_named():
    found = {"train": 9, "validation": 0, "test": 0}
    with pytest.raises(DataError, match="too few images: none for validation and test"):
        check_counts(Path("there"), found, PUBLISHED, Generated("x", 0, "1", found))
