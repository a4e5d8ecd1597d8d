"""Errors fit Python's own, so that `except ValueError` works as users expect."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.backend import Rejection
from liquid_ssm.errors import BackendRejected, UnstableRecurrence, require_whole, unknown_name
from liquid_ssm.testing.contract import BackendFault
from liquid_ssm.testing.subject import PropertyViolation


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (ls.ShapeError, ValueError),
        (ls.ParameterError, ValueError),
        (ls.SignalError, ValueError),
        (ls.DTypeError, TypeError),
        (ls.BackendUnavailable, ImportError),
        (ls.UnstableRecurrence, ArithmeticError),
        (ls.BackendRejected, Exception),
        (ls.OracleInconclusive, Exception),
    ],
)
def test_every_error_is_ours_and_pythons(error, base):
    assert issubclass(error, ls.LiquidSSMError)
    assert issubclass(error, base)


def test_rejections_are_listed_in_the_message():
    reason = Rejection("numba", "package", "numba", "not installed", "run: pip install numba")
    error = ls.BackendRejected("nobody can:", [reason])
    assert error.rejections == (reason,)
    assert str(error) == "nobody can:\n  - numba: package: needs numba, got not installed; run: pip install numba"


def test_near_names_are_offered_and_far_ones_are_not():
    assert "Did you mean 'bilinear'?" in str(unknown_name("method", "bilinaer", ["euler", "bilinear"]))
    assert "Did you mean" not in str(unknown_name("method", "xyz", ["euler", "bilinear"]))


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "2", None, float("nan")])
def test_what_is_no_whole_number_is_named(value):
    with pytest.raises(ls.ParameterError, match=f"^rows is {re.escape(repr(value))}; give a whole number from 1.$"):
        require_whole("rows", value)
    assert require_whole("rows", np.int32(7), 7) is None


@pytest.mark.parametrize(
    "error",
    [
        UnstableRecurrence("too large", step=3, channel=1, input_bound=0.5),
        BackendRejected("no", [Rejection("numpy", "dtype", "float64", "float16")]),
        PropertyViolation("y is wrong"),
        BackendFault("shape", "y has shape ()"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_errors_survive_pickling(error):
    """Process pools send them from one process to another."""
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert vars(found) == vars(error)
