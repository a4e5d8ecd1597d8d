from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.curves import BAND_POINTS, POINTS, band, largest, lengths, rounded, starts


@pytest.mark.parametrize("length", [1, 5, POINTS, POINTS + 1, 1000, 100_000])
def test_blocks_cover_everything_with_few_points(length: int) -> None:
    first = starts(length)
    assert first[0] == 0
    assert len(first) <= POINTS
    sizes = np.diff([*first, length])
    assert sizes.min() >= 1
    assert sizes.max() == -(-length // POINTS)


@pytest.mark.parametrize("peak", [0, 1, 499, 998, 999])
def test_no_peak_is_lost(peak: int) -> None:
    values = np.full(1000, 1e-16)
    values[peak] = 1.0
    found = largest(values)
    assert max(found) == 1.0
    # In the block that the step lies in.
    assert found.index(1.0) == np.searchsorted(starts(1000), peak, side="right") - 1


def test_a_nan_is_not_hidden() -> None:
    values = np.zeros(1000)
    values[700] = np.nan
    assert np.isnan(largest(values)).sum() == 1


def test_few_points_are_kept_as_they_are() -> None:
    assert largest(np.array([3.0, 1.0, 2.0])) == (3.0, 1.0, 2.0)


def test_bands_hold_the_extremes() -> None:
    y = np.random.default_rng(0).normal(size=(2, 3, 5000))
    found = band("liquid", y, 1, 2)
    assert (found.of, found.batch, found.channel) == ("liquid", 1, 2)
    assert len(found.step) <= BAND_POINTS
    assert max(found.high) == pytest.approx(y[1, 2].max(), rel=1e-3)
    assert min(found.low) == pytest.approx(y[1, 2].min(), rel=1e-3)
    assert all(low <= high for low, high in zip(found.low, found.high, strict=True))


def test_lengths() -> None:
    assert lengths(0) == ()
    assert lengths(1) == (1,)
    assert lengths(9) == (1, 2, 4, 8, 9)
    assert lengths(256, 64) == (64, 128, 256)
    assert lengths(40, 64) == (40,)


def test_rounding_keeps_four_digits_and_gives_plain_floats() -> None:
    assert rounded(np.array([1.23456e-17, np.inf], np.longdouble)) == (1.235e-17, float("inf"))
    assert {type(value) for value in rounded(np.float32([1, 2]))} == {float}
