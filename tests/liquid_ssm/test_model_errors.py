"""Truncation and discretisation errors, which no backend has a part in."""

from __future__ import annotations

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm import model_errors as module
from liquid_ssm.discretize import DISCRETIZATIONS
from liquid_ssm.rounding_errors import Case, realization_of
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


def case_of(system, u=U):
    return Case("float64", system, u, realization_of(system))


def test_truncation_curves_agree_with_the_rows():
    system = random_system("diagonal", drive=0.1, n_modes=4)
    report = ls.verify(system, U, dtypes=["float64"], order=2, modes=["truncated", "kb", "pb"], backends=["numpy"])
    rows = {row.mode: row.relative_error for row in report.truncation}
    specs = [ls.ModeSpec("truncated"), ls.ModeSpec("s4"), ls.ModeSpec("kb", 3, "adjacent"), ls.ModeSpec("pb", window=9)]
    curves = {curve.mode: curve for curve in module.truncation_curves(case_of(system), specs)}
    assert list(curves) == ["truncated", "kb (adjacent)", "pb (all)"]
    for label, row in (("truncated", "truncated(2)"), ("kb (adjacent)", "kb(2, adjacent)"), ("pb (all)", "pb(2, all)")):
        assert curves[label].order == (1, 2, 3, 4, 5, 6)
        assert curves[label].error[1] == pytest.approx(rows[row], rel=1e-3)
    assert list(curves["truncated"].error) == sorted(curves["truncated"].error, reverse=True)


def test_truncation_curves_need_a_mode_with_an_order():
    assert module.truncation_curves(case_of(random_system("diagonal")), [ls.ModeSpec("s4")]) == ()


def test_truncation_curves_of_full_matrices_take_the_beginning():
    system = random_system("dense", n_modes=2)
    u = np.random.default_rng(1).normal(size=(1, 2, module.LONGEST_MATRIX + 50))
    whole, beginning = (
        module.truncation_curves(case_of(system, part), [ls.ModeSpec("truncated")])
        for part in (u, u[..., : module.LONGEST_MATRIX])
    )
    assert whole == beginning


@pytest.mark.parametrize(
    ("u", "adams_bashforth"),
    # A multistep method takes a slope from before each jump of a held input.
    [(np.ones((1, 1, 300)), 2.0), (np.random.default_rng(2).normal(size=(1, 1, 300)), 1.0)],
)
def test_methods_converge_at_their_order_on_the_users_system(u, adams_bashforth):
    continuous = ls.ContinuousSystem(
        np.array([[-0.5 + 3j, -0.7 + 1j]]), np.ones((1, 2)), np.ones((1, 2)), np.array([0.2])
    )
    curves = {curve.method: curve for curve in module.discretization_curves(continuous, u)}
    assert list(curves) == list(DISCRETIZATIONS)
    assert curves["euler"].dt[0] == 0.2
    assert curves["euler"].dt[-1] == pytest.approx(0.2 / 1024, rel=1e-3)
    orders = {method: round(curve.slope, 1) for method, curve in curves.items()}
    assert orders == {
        "euler": 1.0,
        "bilinear": 1.0,
        "zoh": 1.0,
        "adams-bashforth": adams_bashforth,
        "bilinear-exact": 2.0,
    }


def test_the_first_point_is_the_row_of_the_table():
    u = U[..., : module.EXCERPT]
    continuous = ls.initialize("s4d-lin", n_channels=2, n_state=8, dt_max=1e-2)
    rows, _ = module.discretization_rows(continuous, u)
    for row, curve in zip(rows, module.discretization_curves(continuous, u), strict=True):
        assert curve.method == row.method
        assert curve.error[0] == pytest.approx(row.relative_error, rel=1e-3)


def test_the_excerpt_is_where_the_signal_is_loud():
    continuous = ls.initialize("s4d-lin", n_channels=1, n_state=4)
    u = np.zeros((1, 1, 500))
    u[..., 400:402] = 1.0
    curve = module.discretization_curves(continuous, u)[2]
    assert all(error > 0 for error in curve.error)


def test_an_unstable_method_has_no_slope():
    continuous = ls.ContinuousSystem(np.array([[-1.0 + 200j]]), np.ones((1, 1)), np.ones((1, 1)), np.array([0.1]))
    curve = module.discretization_curves(continuous, np.ones((1, 1, 20)))[0]
    assert np.isnan(curve.slope)
    assert curve.error[0] > 1


def test_other_systems_have_no_discretisation_curves():
    assert module.discretization_curves(None, U) == ()
    assert module.discretization_curves(ls.initialize("legs", n_channels=2, n_state=8), U) == ()
