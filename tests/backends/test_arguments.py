from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends._arguments import at_least, optional, shaped, signal
from liquid_ssm.errors import DTypeError, ParameterError, ShapeError


def test_signal_is_real_floating_with_three_axes_and_the_systems_channels() -> None:
    u = np.zeros((2, 3, 4), np.float32)
    assert signal(u, 3) is u
    assert signal(u) is u
    with pytest.raises(DTypeError, match=r"complex64; allowed: float32, float64"):
        signal(u.astype(np.complex64))
    with pytest.raises(DTypeError, match="int64"):
        signal(u.astype(np.int64))
    with pytest.raises(ShapeError, match=r"\(3, 4\); it must be \(batch, H, L\)"):
        signal(u[0])
    with pytest.raises(ShapeError, match=r"3 channel\(s\); the system has 5"):
        signal(u, 5)


def test_shaped_is_a_copy_in_the_dtype() -> None:
    value = np.ones((2, 3))
    copy = shaped("state", value, (2, 3), np.complex64)
    assert copy.dtype == np.complex64
    same = shaped("state", value, (2, 3), np.float64)
    assert not np.shares_memory(same, value)
    with pytest.raises(ShapeError, match=r"state has shape \(2, 3\); it must be \(3, 2\)"):
        shaped("state", value, (3, 2), np.float64)
    with pytest.raises(DTypeError, match="complex128 but every parameter is real"):
        shaped("state", value + 1j, (2, 3), np.float64)


def test_optional_passes_none() -> None:
    assert optional("state", None, (2, 3), np.float64) is None
    with pytest.raises(ShapeError):
        optional("state", np.ones(2), (2, 3), np.float64)


def test_at_least() -> None:
    assert at_least("order", 1, 1) == 1
    with pytest.raises(ParameterError, match="order is 0; it must be at least 1"):
        at_least("order", 0, 1)
