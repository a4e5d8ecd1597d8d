"""The task whose data come with scikit-learn."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits

from liquid_ssm.tasks.digits import Digits


def test_parts_are_all_images_once_with_the_same_share_of_each_class() -> None:
    data = Digits(None)
    # 60/20/20 % of 1797, rounded up where scikit-learn rounds up the part that it splits off.
    assert data.check().counts == {"train": 1078, "validation": 359, "test": 360}
    parts = [[part[i] for i in range(len(part))] for part in (data.train, data.validation, data.test)]
    targets = [sample.target for part in parts for sample in part]
    assert np.array_equal(np.bincount(targets), np.bincount(load_digits().target))
    for part in parts:
        share = np.bincount([sample.target for sample in part]) / np.bincount(load_digits().target)
        # A stratified split is off by less than one sample of a class, of which each has at least 174; twice split.
        assert np.ptp(share) < 2 * 2 / 174
    # The same images, whatever the standardisation.
    ours = sorted(tuple(np.argsort(sample.u.numpy().ravel(), kind="stable")) for part in parts for sample in part)
    theirs = sorted(tuple(np.argsort(image.ravel(), kind="stable")) for image in load_digits().images)
    assert ours == theirs


def test_pixels_are_standardised_by_training_pixels() -> None:
    data = Digits(None)
    data.setup()
    u = torch.stack([data.train[i].u for i in range(len(data.train))]).double()
    assert u.shape == (1078, 64, 1)
    # Rounding to float32 is 2^-24 relative, of numbers up to 16.
    assert abs(float(u.mean())) < 16 * 2**-24
    assert abs(float(u.var(unbiased=False)) - 1) < 2 * 16 * 2**-24
    assert data.n_inputs == 1


def test_a_limit_takes_the_first_of_a_part() -> None:
    whole, few = Digits(None), Digits(None, limit={"train": 5})
    whole.setup()
    few.setup()
    assert len(few.train) == 5
    assert len(few.test) == 360
    assert torch.equal(few.train[4].u, whole.train[4].u)
