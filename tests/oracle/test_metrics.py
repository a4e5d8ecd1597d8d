"""The metrics are total: defined for NaN, infinities, signed zeros, subnormals and zero references."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.oracle.metrics import absolute_error, norm2, summarize, units_of_bound, within

INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
    ("computed", "reference", "error"),
    [
        (1.5, 1.0, 0.5),
        (0.0, -0.0, 0.0),
        (5e-324, 0.0, 5e-324),
        (INF, INF, 0.0),
        (-INF, -INF, 0.0),
        (INF, -INF, INF),
        (INF, 1.0, INF),
        (1.0, INF, INF),
        (NAN, 1.0, INF),
        (1.0, NAN, INF),
        (NAN, NAN, INF),
    ],
)
def test_absolute_error_is_defined_for_every_float(computed, reference, error):
    assert absolute_error(np.array(computed), np.array(reference)) == error


def test_the_tail_of_a_double_double_reference_counts():
    assert absolute_error(np.array(1.0), np.array(1.0), np.array(2.0**-80)) == 2.0**-80
    assert absolute_error(np.array(1.0 + 2.0**-52), np.array(1.0), np.array(2.0**-52)) == 0


def test_norm2_neither_overflows_nor_underflows():
    assert norm2(np.array([3e300, 4e300])) == pytest.approx(5e300, rel=4 * 2.0**-52)  # a few roundings
    assert norm2(np.array([3e-320, 4e-320])) == pytest.approx(5e-320, rel=2.0**-10)  # subnormals hold 2^-12 of it
    assert norm2(np.array([1.0, NAN])) == INF
    assert norm2(np.array([])) == 0


def test_summary_of_a_zero_reference():
    assert summarize(np.zeros((1, 3)), np.zeros((1, 3))).relative == 0
    assert summarize(np.array([[0.0, 1.0]]), np.zeros((1, 2))).relative == INF


def test_worst_step_is_on_the_time_axis():
    error = np.zeros((2, 3, 5))
    error[1, 2, 4] = 1
    found = summarize(error, np.ones_like(error))
    assert found.worst_step == 4
    assert found.componentwise == 1
    assert summarize(np.zeros((0, 3)), np.zeros((0, 3))).worst_step == -1


def test_a_nan_is_never_within_a_bound():
    one = np.array([1.0])
    assert within(one, one)
    assert not within(np.array([NAN]), one)
    assert not within(one, np.array([NAN]))
    assert units_of_bound(one, np.array([NAN])) == INF
    assert units_of_bound(np.array([NAN]), one) == INF


@pytest.mark.parametrize(
    ("error", "bound", "units"), [(0.0, 0.0, 0.0), (1.0, 0.0, INF), (1.0, 2.0, 0.5), (1.0, INF, 0.0)]
)
def test_units_of_bound(error, bound, units):
    assert units_of_bound(np.array([error]), np.array([bound])) == units
