"""Every bad argument of T1 and T2 is named; every float arrives unchanged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from liquid_ssm.oracle.arguments import Arguments, exact_floats
from liquid_ssm.oracle.enclosure import enclose
from liquid_ssm.oracle.multiprecision import outputs
from liquid_ssm.oracle.realization import Realization

DIAGONAL = Realization("diagonal", np.full((2, 3), 0.5), np.ones((2, 3)), np.ones((2, 3)))
MIMO = Realization("mimo", np.full(3, 0.5), np.ones((3, 2)), np.ones((2, 3)))
DENSE = Realization("dense", np.full((2, 3, 3), 0.1), np.ones((2, 3)), np.ones((2, 3)), conjugate_pairs=True)
NO_LOW_RANK = Realization("dplr", np.full((2, 3), 0.5), np.ones((2, 3)), np.ones((2, 3)))
INFINITE = Realization("diagonal", np.full((2, 3), 0.5), np.full((2, 3), np.inf), np.ones((2, 3)))
U = np.ones((1, 2, 4))


@pytest.mark.parametrize("tier", [enclose, outputs])
@pytest.mark.parametrize(
    ("realization", "u", "mode", "options", "message"),
    [
        (DIAGONAL, U, "liquids", {}, "mode is 'liquids'; allowed: s4, liquid, truncated, kb, pb"),
        (DIAGONAL, U, "kb", {"correlations": "some"}, "correlations is 'some'; allowed: all, adjacent"),
        (DIAGONAL, U, "kb", {"order": 0}, "order is 0"),
        (DIAGONAL, U[0], "s4", {}, r"u has shape \(2, 4\); it must be \(batch, 2, L\)"),
        (DIAGONAL, U[:, :1], "s4", {}, r"u has shape \(1, 1, 4\); it must be \(batch, 2, L\)"),
        (DIAGONAL, U * 1j, "s4", {}, "u has dtype complex128; give real numbers"),
        (DIAGONAL, np.where(np.arange(4) == 2, np.nan, U), "s4", {}, r"u is nan at index \(0, 0, 2\)"),
        (INFINITE, U, "s4", {}, r"B is inf at index \(0, 0\)"),
        (DIAGONAL, U, "liquid", {"window": 3}, "window is 3, but mode 'liquid' has none"),
        (DIAGONAL, U, "pb", {"window": 0}, "window is 0; it must be at least 1"),
        (DIAGONAL, U, "pb", {"state": np.ones((1, 2, 3))}, "mode 'pb' starts from rest"),
        (DIAGONAL, U, "s4", {"state": np.ones((1, 3))}, r"state has shape \(1, 3\); it must be \(1, 2, 3\)"),
        (DIAGONAL, U, "s4", {"state": np.full((1, 2, 3), np.nan)}, r"state is nan at index \(0, 0, 0\)"),
        (DIAGONAL, U, "liquid", {"state": np.ones((1, 3, 2, 3))}, r"state has shape \(1, 3, 2, 3\)"),
        (DIAGONAL, U, "truncated", {"state": np.ones((1, 2, 2, 3))}, r"or \(1, 3, 2, 3\) for 'truncated'"),
        (MIMO, U, "kb", {}, "mode 'kb' is not defined for mimo"),
        (MIMO, U, "s4", {"state": np.ones((1, 2, 3))}, r"state has shape \(1, 2, 3\); it must be \(1, 3\)"),
        (DENSE, U, "s4", {}, "give it conjugate_pairs=False"),
        (NO_LOW_RANK, U, "s4", {}, "a dplr realization needs P and Q"),
        (Realization("full", U, U, U), U, "s4", {}, "structure is 'full'; allowed: diagonal, dplr, dense, mimo"),
    ],
)
def test_bad_argument_is_named(
    tier: Any, realization: Realization, u: Any, mode: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tier(realization, u, mode, **options)


def test_one_initial_state_belongs_to_the_first_order() -> None:
    state = np.arange(6.0).reshape(1, 2, 3)
    a = Arguments.of(DIAGONAL, U, "truncated", 3, "all", None, state)
    assert (a.states[:, 0] == state).all()
    assert (a.states[:, 1:] == 0).all()


@pytest.mark.parametrize("mode", ["s4", "liquid"])
def test_order_is_ignored_where_there_is_none(mode: str) -> None:
    assert Arguments.of(DIAGONAL, U, mode, 3, "all", None, None).order == 1


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float16, np.float32, np.float64, bool])
def test_exact_dtypes_pass(dtype: Any) -> None:
    values = np.array([0, 1, 1], dtype=dtype)
    assert exact_floats("u", values, real=True).tolist() == [0.0, 1.0, 1.0]
    assert exact_floats("A", values).dtype == np.complex128


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([2**53 + 1]), "values that no float64 equals"),
        (np.array([2**63 - 1]), "values that no float64 equals"),
        (np.array(["1"]), "u has dtype <U1"),
    ],
)
def test_values_without_a_float_are_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        exact_floats("u", value, real=True)


@pytest.mark.skipif(np.finfo(np.longdouble).nmant <= 52, reason="longdouble is float64 here")
def test_longdouble_is_refused() -> None:
    third = np.array([1], dtype=np.longdouble) / 3
    with pytest.raises(ValueError, match="no float64 equals"):
        exact_floats("u", third, real=True)
    with pytest.raises(ValueError, match="no float64 equals"):
        exact_floats("A", third + 0j)
    assert exact_floats("u", np.array([0.5], dtype=np.longdouble), real=True)[0] == 0.5
