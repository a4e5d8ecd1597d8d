"""Unit roundoffs and summation depths."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.oracle.rounding import COMPLEX_PRODUCT, RoundingModel, unit_roundoff


def test_unit_roundoffs():
    assert unit_roundoff(np.float32) == 2.0**-24
    assert unit_roundoff("float64") == 2.0**-53


@pytest.mark.parametrize(
    ("terms", "pairwise", "any_order"), [(0, 0, 0), (1, 0, 0), (2, 1, 1), (3, 2, 2), (32, 5, 31), (33, 6, 32)]
)
def test_depth_of_a_sum(terms, pairwise, any_order):
    assert RoundingModel.of_dtype("float32", pairwise=True).depth(terms) == pairwise
    assert RoundingModel.of_dtype("float32").depth(terms) == any_order


def test_the_constant_of_the_complex_product_holds_and_is_tight():
    """|fl(xy) - xy| <= √5 u |xy| for complex64, over products chosen to come close (Brent et al. 2007)."""
    rng = np.random.default_rng(0)
    # the worst cases have all four parts near 1 with the mantissas' ends random
    x, y = (1 + rng.integers(0, 2**12, (2, 400_000, 2)) * 2.0**-23).astype(np.float32)
    z = (x[:, 0] + 1j * x[:, 1]).astype(np.complex64) * (y[:, 0] + 1j * y[:, 1]).astype(np.complex64)
    wide = (x[:, 0] + 1j * x[:, 1].astype(complex)) * (y[:, 0] + 1j * y[:, 1].astype(complex))
    units = np.abs(z.astype(complex) - wide) / np.abs(wide) * 2.0**24
    assert units.max() <= COMPLEX_PRODUCT
    assert units.max() >= COMPLEX_PRODUCT / 4
