"""What operators ask of their arguments."""

from __future__ import annotations

import pytest
import torch

from liquid_ssm.backends.numba_backend import NumbaBackend, float64_state
from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.backends.operators import checks
from liquid_ssm.errors import BackendRejected, DTypeError, ParameterError, ShapeError

REAL, COMPLEX = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.complex64)
U = torch.ones(1, 2, 5)


def recurrence(u=U, A=COMPLEX, B=COMPLEX, C=COMPLEX, P=None, Q=None, state=None, orders=()):
    return checks.recurrence(NumbaBackend(), u, (A, B, C, P, Q), state, orders)


def test_what_fits_is_taken():
    assert recurrence() == torch.complex64
    assert recurrence(A=REAL, B=REAL, C=REAL) == torch.float32
    assert recurrence(A=REAL, B=REAL) == torch.complex64
    assert recurrence(state=torch.ones(1, 2, 3, dtype=torch.complex64)) == torch.complex64
    assert recurrence(state=torch.ones(1, 4, 2, 3, dtype=torch.complex64), orders=(4,)) == torch.complex64


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"u": U.half()}, DTypeError, r"u has dtype torch.float16; .*\.float\(\), or use liquid_ssm.apply"),
        ({"u": U.bfloat16()}, DTypeError, "u has dtype torch.bfloat16"),
        ({"u": U.int()}, DTypeError, r"u has dtype torch.int32; allowed: torch.float32, torch.float64. Cast it with"),
        ({"u": U.to(torch.complex64)}, DTypeError, "u has dtype torch.complex64"),
        ({"u": U[0]}, ShapeError, r"u has shape \(2, 5\); it must be \(batch, H, L\)"),
        ({"u": U[:, :1]}, ShapeError, r"so 1 channel\(s\); the system has 2"),
        ({"u": U.double()}, DTypeError, "A_bar has dtype torch.complex64 and u is torch.float64; allowed for A_bar: "),
        ({"B": COMPLEX.to(torch.complex128)}, DTypeError, "B_bar has dtype torch.complex128 and u is torch.float32"),
        ({"C": COMPLEX[:, :2]}, ShapeError, r"C has shape \(2, 2\); it must be \(H, M\) of A_bar = \(2, 3\)"),
        ({"P": COMPLEX[None]}, ParameterError, "P_bar is given without Q_bar"),
        ({"Q": COMPLEX[None]}, ParameterError, "Q_bar is given without P_bar"),
        ({"P": COMPLEX, "Q": COMPLEX}, ShapeError, r"P_bar has shape \(2, 3\); it must be \(R, H, M\)"),
        ({"P": COMPLEX[None], "Q": COMPLEX[None, :1]}, ShapeError, "Q_bar has shape"),
        ({"state": COMPLEX}, ShapeError, r"state has shape \(2, 3\); it must be \(batch, H, M\) = \(1, 2, 3\)"),
        ({"state": REAL[None]}, DTypeError, r"state has dtype torch.float32; it must be torch.complex64. Cast it with"),
        ({"A": COMPLEX.to("meta")}, ParameterError, r"on different devices \(u on cpu, A_bar on meta"),
    ],
)
def test_what_does_not_fit_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        recurrence(**changes)


def test_states_may_be_finer_than_signals():
    assert checks.state_dtype(float64_state(), torch.float32, COMPLEX) == torch.complex128
    assert checks.state_dtype(float64_state(), torch.float32, REAL, None) == torch.float64
    assert checks.state_dtype(NumbaBackend(), torch.float32, REAL, None) == torch.float32


def test_fused_forms_that_a_backend_lacks_are_refused():
    checks.fuses(NumbaBackend(), "joint_scan", "dplr")
    with pytest.raises(BackendRejected, match="needs diagonal or dplr for joint_scan"):
        checks.fuses(NumbaBackend(), "joint_scan", "dense")
    with pytest.raises(BackendRejected, match="needs joint_scan, which it does not have"):
        checks.fuses(NumPyBackend(), "joint_scan", "dplr")
