"""The learning rate by step."""

from __future__ import annotations

import math

from liquid_ssm.train.presets import get_preset
from liquid_ssm.train.schedule import Schedule


def test_warmup_is_linear_and_the_cosine_ends_at_zero() -> None:
    factor = Schedule(get_preset("digits").override(warmup_steps=4), steps_per_epoch=6, epochs=2)
    assert [factor(k) for k in range(4)] == [0.25, 0.5, 0.75, 1.0]
    # Half of the cosine after half of the eight steps that are left.
    assert math.isclose(factor(8), 0.5)
    assert factor(12) == factor(99) == 0.0


def test_halving_is_by_epochs() -> None:
    preset = get_preset("bidmc-hr", "published").override(halve_every=2)
    factor = Schedule(preset, steps_per_epoch=3, epochs=6)
    assert preset.schedule == "halve"
    assert [factor(3 * epoch) for epoch in range(6)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_a_warmup_longer_than_the_run_stays_a_warmup() -> None:
    factor = Schedule(get_preset("digits").override(warmup_steps=100), steps_per_epoch=5, epochs=2)
    assert factor(9) == 0.1
