from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends._read_out import read_out


def test_real_part_of_the_complex_product() -> None:
    C, x = np.array([1 + 2j, -3j]), np.array([[4 - 1j, 5], [1j, 2 + 2j]])
    # (1+2i)(4-i) = 6+7i, -15i; (1+2i)i = -2+i, -3i(2+2i) = 6-6i.
    assert np.array_equal(read_out(C, x, 1, axis=-1), [6, 4])
    assert np.array_equal(read_out(C[:, None], x.T, 2, axis=0), [12, 8])


def test_real_parameters() -> None:
    assert read_out(np.array([1.0, 2.0]), np.array([3.0, 5.0]), 2, axis=0) == 26


@pytest.mark.parametrize(("kind", "real"), [("F", "f"), ("D", "d"), ("f", "f"), ("d", "d")])
def test_dtype_is_kept(kind: str, real: str) -> None:
    assert read_out(np.ones(3, kind), np.ones((2, 3), kind), 2, axis=-1).dtype == np.dtype(real)
