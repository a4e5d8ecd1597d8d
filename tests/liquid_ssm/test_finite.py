"""NaN and infinities are found in either part, in any layout."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.finite import all_finite


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (100, 101)])
def test_finite_numbers(dtype, shape):
    assert all_finite(np.full(shape, np.finfo(dtype).max, dtype))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, complex(0, np.nan), complex(0, np.inf), complex(np.inf, 0)])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", [(3, 5), (100, 101)])
def test_one_that_is_not(value, transposed, shape):
    array = np.ones(shape, np.result_type(value, np.float32))
    array[2, 1] = value
    assert not all_finite(array.T if transposed else array)


def test_signals_with_their_channels_last_are_not_copied():
    signal = np.ones((2, 3000, 3)).swapaxes(1, 2)
    assert all_finite(signal)
    assert all_finite(np.full_like(signal, np.finfo(float).max))
    signal[1, 2, 5] = np.nan
    assert not all_finite(signal)
