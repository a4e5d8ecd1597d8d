"""Rows are scaled by powers of two, exactly, whatever their size."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.oracle.scaling import normalised, scaled


@pytest.mark.parametrize("kind", [float, complex])
def test_rows_are_scaled_to_one_and_back(kind):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 5)).astype(kind)
    if kind is complex:
        values += 1j * rng.normal(size=(4, 5))
    values *= np.array([1.0, 2.0**1000, 2.0**-1000, 0.0])[:, None]
    found, exponent = normalised(values)
    sizes = np.abs(found).max(axis=1)
    assert np.all((sizes[:3] >= 0.5) & (sizes[:3] < 2))
    assert exponent[3] == 0
    assert np.array_equal(scaled(found, exponent[:, None]), values)


def test_one_row_and_empty_rows():
    found, exponent = normalised(np.array([3.0, -5.0]))
    assert np.array_equal(found, [0.375, -0.625])
    assert exponent == 3
    assert normalised(np.zeros((2, 0)))[0].shape == (2, 0)


def test_infinite_rows_stay_what_they_are():
    found, exponent = normalised(np.array([[np.inf, 1.0]]))
    assert exponent == 0
    assert np.array_equal(found, [[np.inf, 1.0]])
