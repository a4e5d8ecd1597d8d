"""Truncation and discretisation errors, which no backend has a part in."""

from __future__ import annotations

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.testing.strategies import random_system

U = np.random.default_rng(0).normal(size=(1, 2, 40))


def truncation(system, **options):
    return {row.mode: row for row in ls.verify(system, U, dtypes=["float64"], **options).truncation}


def test_truncation_vanishes_where_a_mode_is_exact():
    """An order as long as the signal leaves nothing out."""
    rows = truncation(random_system("dense", n_modes=2), order=40, modes=["truncated", "s4"], window=None)
    assert rows["truncated(40)"].relative_error < 40 * 40 * 20 * 2.0**-64 * 100  # the oracle's own rounding
    assert rows["s4"].relative_error > 1e-2


def test_higher_orders_leave_less_out():
    system = random_system("diagonal", drive=0.1, n_modes=4)
    errors = [truncation(system, order=p, modes=["truncated"])[f"truncated({p})"].relative_error for p in (1, 2, 3, 4)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.2 * errors[0]


def test_discretisation_errors_shrink_with_the_step_at_their_order():
    """u held over ever finer steps: first order for Eq. 11 whatever Ā and B̄, second for bilinear-exact."""
    coarse = np.repeat(np.random.default_rng(1).normal(size=(1, 1, 5)), 16, axis=2)
    errors = {}
    for refinement in (1, 2, 4):
        continuous = ls.ContinuousSystem(
            np.array([[-0.5 + 3j, -0.7 + 1j]]), np.ones((1, 2)), np.ones((1, 2)), np.array([0.04 / refinement])
        )
        report = ls.verify(continuous, np.repeat(coarse, refinement, axis=2), modes=["s4"], dtypes=["float64"])
        for row in report.discretization:
            errors.setdefault(row.method, []).append(row.relative_error)
    for method, found in errors.items():
        slopes = np.log2(np.array(found[:-1]) / found[1:])
        order = 2 if method == "bilinear-exact" else 1
        # asymptotically the order; δt|λ| = 0.03 to 0.12 leaves a tenth or so. Held input that jumps costs
        # adams-bashforth its second order.
        assert np.all(np.abs(slopes - order) < 0.25), (method, slopes)


@pytest.mark.parametrize(("system", "words"), [("discrete", "given in discrete form"), ("legs", "not for dplr")])
def test_a_missing_table_is_explained(system, words):
    given = random_system("diagonal") if system == "discrete" else ls.initialize("legs", n_channels=2, n_state=4)
    report = ls.verify(given, U, modes=["s4"], dtypes=["float64"])
    assert report.discretization == ()
    assert any(words in note for note in report.notes)
