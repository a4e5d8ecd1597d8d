"""Tensor arguments: what is wrong with them is said."""

from __future__ import annotations

import pytest
import torch

from liquid_ssm.backends.eager.arguments import complex_of, optional, shaped, signal
from liquid_ssm.errors import DTypeError, ParameterError, ShapeError
from liquid_ssm.testing.strategies import random_system

SYSTEM = random_system("diagonal", n_channels=2).to_torch()
U = torch.ones((1, 2, 3))


def test_a_signal_is_real_floating_with_three_axes_and_the_channels_of_the_system():
    assert signal(U, SYSTEM) is U
    assert signal(U) is U
    for dtype in (torch.int32, torch.bool, torch.float16, torch.complex64):
        with pytest.raises(DTypeError, match=rf"u has dtype {dtype}; allowed: torch.float32, torch.float64"):
            signal(U.to(dtype))
    with pytest.raises(ShapeError, match=r"u has shape \(2, 3\); it must be \(batch, H, L\)"):
        signal(U[0])
    with pytest.raises(ShapeError, match=r"u has shape \(1, 3, 3\), so 3 channel\(s\); the system has 2"):
        signal(torch.ones((1, 3, 3)), SYSTEM)


def test_nothing_is_moved_between_devices_unasked():
    with pytest.raises(ParameterError, match="u is on meta but the system's parameters on cpu"):
        signal(U.to("meta"), SYSTEM)
    with pytest.raises(ParameterError, match=r"u is on cpu but state on meta; move one of them with \.to"):
        shaped("state", U.to("meta"), (1, 2, 3), torch.float32, U)


def test_other_arguments_have_their_shape_and_come_in_the_dtype_of_the_computation():
    assert shaped("state", U, (1, 2, 3), torch.complex128, U).dtype == torch.complex128
    assert optional("state", None, (1,), torch.float32, U) is None
    assert optional("state", U, (1, 2, 3), torch.float64, U).dtype == torch.float64
    with pytest.raises(ShapeError, match=r"state has shape \(1, 2, 3\); it must be \(1, 2\)"):
        shaped("state", U, (1, 2), torch.float32, U)
    with pytest.raises(DTypeError, match=r"state has dtype torch\.int64; allowed: torch\.float32"):
        shaped("state", U.to(torch.int64), (1, 2, 3), torch.float32, U)
    with pytest.raises(DTypeError, match=r"state has dtype torch\.complex64 but every parameter is real"):
        shaped("state", U.to(torch.complex64), (1, 2, 3), torch.float32, U)


def test_complex_dtypes_are_those_of_torch():
    for dtype in (torch.float32, torch.float64):
        assert complex_of(dtype) == dtype.to_complex()
