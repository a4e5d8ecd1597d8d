"""The head's start: its outputs have the mean and the deviation of the training targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Subset

from liquid_ssm.errors import DataError
from liquid_ssm.tasks.window_store import Windows
from liquid_ssm.train.head_start import start_from_targets

TARGETS = np.array([80.0, 100.0, 90.0, 70.0, 1000.0])


@pytest.fixture
def make_windows(tmp_path: Path):
    def make(targets: np.ndarray) -> Windows:
        """All rows but the last."""
        np.save(tmp_path / "x.npy", np.zeros((len(targets), 3, 2), np.float32))
        np.save(tmp_path / "y.npy", targets)
        return Windows(tmp_path / "x.npy", tmp_path / "y.npy", np.arange(len(targets) - 1))

    return make


def heads() -> tuple[nn.Linear, nn.Linear]:
    """Two that are alike, with numbers that products with powers of two leave exact."""
    found = nn.Linear(2, 1), nn.Linear(2, 1)
    for head in found:
        nn.init.constant_(head.weight, 0.75)
        nn.init.constant_(head.bias, 0.5)
    return found


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_outputs_are_scaled_by_the_deviation_and_shifted_by_the_mean(make_windows, shape) -> None:
    head, before = heads()
    targets = np.array([84.0, 92.0, 92.0, 84.0, 1000.0]).reshape(shape)  # 88 ± 4 but for the last, which is left out
    start_from_targets(head, make_windows(targets))
    features = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    assert torch.equal(head(features), 4 * before(features) + 88)


def test_of_a_limited_part_only_its_own_targets_count(make_windows) -> None:
    head, _ = heads()
    start_from_targets(head, Subset(make_windows(TARGETS), range(2)))  # 90 ± 10
    assert head.weight.tolist() == [[7.5, 7.5]]
    assert head.bias.tolist() == [95.0]


def test_targets_that_are_all_the_same_shift_only(make_windows) -> None:
    head, _ = heads()
    start_from_targets(head, make_windows(np.full(4, 7.0)))
    assert head.weight.tolist() == [[0.75, 0.75]]
    assert head.bias.tolist() == [7.5]


def test_targets_that_are_not_finite_are_an_error(make_windows) -> None:
    with pytest.raises(DataError, match="1 targets of the training part are not finite"):
        start_from_targets(heads()[0], make_windows(np.array([1.0, np.nan, 2.0, 3.0])))
