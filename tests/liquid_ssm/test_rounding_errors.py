"""Rounding rows: a wrong backend fails, an undecidable comparison is inconclusive, windows follow the seed."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm import rounding_errors as module
from liquid_ssm.backend import Arithmetic
from liquid_ssm.oracle.errors import PrecisionExhausted
from liquid_ssm.oracle.reference import Bound
from liquid_ssm.registry import get_backend
from liquid_ssm.testing.strategies import random_system

CONTINUOUS = ls.initialize("s4d-lin", n_channels=2, n_state=8, dt_max=1e-2)
U = np.random.default_rng(0).normal(size=(1, 2, 60))


def test_excerpts_include_both_ends_and_follow_the_seed():
    system = CONTINUOUS.discretize("bilinear")
    case = module.Case("float64", system, np.zeros((1, 2, 5000)))
    cut = [module._excerpts(case, ls.ModeSpec("liquid"), seed, 20_000) for seed in (0, 0, 1)]
    assert cut[0] == cut[1]
    assert cut[0] != cut[2]
    assert cut[0][0].steps.start == 0
    assert cut[0][-1].steps.stop == 5000
    assert module._excerpts(case, ls.ModeSpec("liquid"), 0, 10**9) == []


BUGS = {
    "one step late": lambda y, u: np.concatenate([np.zeros_like(y[..., :1]), y[..., :-1]], axis=-1),
    "looks ahead": lambda y, u: y + 1e-3 * np.concatenate([u[..., 1:], u[..., :1]], axis=-1),
    "one NaN": lambda y, u: np.where(np.arange(y.shape[-1]) == 40, np.nan, y),
    "rounded to float16": lambda y, u: y.astype(np.float16).astype(y.dtype),
    "factor 1 + 2^-16": lambda y, u: y * (1 + 2.0**-16),
    "first step lost": lambda y, u: np.where(np.arange(y.shape[-1]) == 0, 0, y),
    "channels swapped": lambda y, u: y[:, ::-1],
}


@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.parametrize("mode", ["s4", "liquid", "kb"])
def test_a_wrong_backend_fails(bug, mode, monkeypatch):
    real = module.compute

    def wrong(system, u, spec, **options):
        return BUGS[bug](real(system, u, spec, **options), u)

    monkeypatch.setattr(module, "compute", wrong)
    report = ls.verify(CONTINUOUS, U, modes=[mode], dtypes=["float32"], backends=["numpy"])
    assert not report.passed
    assert {r.status for r in report.rounding} == {"fail"}
    assert "times the bound" in report.rounding[0].reason


def test_float32_accumulation_where_float64_is_claimed_fails(monkeypatch):
    real = module.compute

    def lazy(system, u, spec, **options):
        return real(system.astype("float32"), u.astype(np.float32), spec, **options).astype(u.dtype)

    monkeypatch.setattr(module, "compute", lazy)
    assert not ls.verify(CONTINUOUS, U, modes=["liquid"], dtypes=["float64"]).passed


def test_contradicting_tiers_stop_the_verification(monkeypatch):
    enclosure = importlib.import_module("liquid_ssm.oracle.enclosure")
    real = enclosure.enclose

    def shifted(*args, **options):
        found = real(*args, **options)
        return replace(found, hi=found.hi + 1e-6)

    monkeypatch.setattr(enclosure, "enclose", shifted)
    with pytest.raises(ls.OracleInconclusive, match="T1 and T3"):
        ls.verify(CONTINUOUS, U, modes=["liquid"])


def test_a_radius_too_large_to_decide_is_inconclusive_not_a_pass():
    y = np.zeros((1, 1, 3))
    bound = Bound(np.full(y.shape, 1e-6), np.zeros((1, 1)))
    compared = module._compare(y, y, 0.0, np.full(y.shape, 1e-3), bound)
    row = module._row("numpy", ls.ModeSpec("s4"), "float64", [compared], "T3", "", 0.0)
    assert row.status == "inconclusive"
    # error 0 over an infinite bound is no proof of anything
    unbounded = Bound(np.full(y.shape, np.inf), np.zeros((1, 1)))
    row = module._row("numpy", ls.ModeSpec("s4"), "float64", [module._compare(y, y, 0.0, y, unbounded)], "T3", "", 0.0)
    assert row.status == "inconclusive"
    assert "finite bound" in row.reason


def test_an_exhausted_enclosure_is_inconclusive_and_says_so(monkeypatch):
    def exhausted(*args, **options):
        raise PrecisionExhausted("no radius below the target at 65536 bits")

    monkeypatch.setattr(importlib.import_module("liquid_ssm.oracle.enclosure"), "enclose", exhausted)
    report = ls.verify(CONTINUOUS, U, modes=["liquid"], dtypes=["float64"], backends=["numba", "scipy", "numpy"])
    assert not report.passed
    assert {r.status for r in report.rounding} == {"inconclusive"}
    assert "65536 bits" in report.rounding[0].reason


@pytest.mark.parametrize(
    ("structure", "status"), [("diagonal", "pass"), ("dplr", "inconclusive"), ("dense", "inconclusive")]
)
def test_a_coupled_scan_in_another_order_than_time_is_inconclusive(structure, status, monkeypatch):
    monkeypatch.setattr(type(get_backend("numpy")), "arithmetic", Arithmetic(scan="any"))
    system = random_system(structure, n_channels=1, n_modes=2)
    u = np.random.default_rng(0).normal(size=(1, 1, 9))
    case = module.Case("float64", system, u, module.realization_of(system))
    ((row,), _) = module.mode_rows(case, ls.ModeSpec("liquid"), ["numpy"], 0, 10**6)
    assert row.status == status
    assert (row.reason == module.NO_SCAN_BOUND) == (status == "inconclusive")


def test_what_a_backend_says_of_matrix_products_and_correlations_reaches_the_bounds(monkeypatch):
    backend = get_backend("numpy")
    problem = ls.Problem(ls.ModeSpec("s4"), "diagonal", 1, 1, 2, 9, "float32")
    usual = module.rounding_model(backend, problem)
    assert (usual.factor_unit, usual.correlations) == (None, "sequential")
    monkeypatch.setattr(
        type(backend), "arithmetic", Arithmetic(factor_dtype="tf32", linear_chunk=4, correlations="any")
    )
    found = module.rounding_model(backend, problem)
    assert (found.factor_unit, found.correlations) == (2.0**-10, "any")
    assert module.rounding_model(backend, replace(problem, dtype="float64")).factor_unit is None


def curves_of(spec, names, length=200, dtype="float64", budget=2**21):
    u = np.random.default_rng(3).normal(size=(2, 2, length)).astype(dtype)
    system = CONTINUOUS.discretize("bilinear").astype(dtype)
    case = module.Case(dtype, system, u, module.realization_of(system))
    found = []
    rows, _ = module.mode_rows(case, spec, names, 0, budget, found)
    return case, rows, found


@pytest.mark.parametrize("budget", [2**21, 2000])
def test_error_curves_hold_the_largest_error_and_stay_under_the_bound(budget):
    _, (row,), (step, length) = curves_of(ls.ModeSpec("liquid"), ["numpy"], budget=budget)
    assert (step.against, length.against) == ("step", "length")
    assert (step.backend, step.mode, step.dtype) == ("numpy", "liquid", "float64")
    assert len(step.x) == 100  # blocks of two
    assert all(error <= bound for error, bound in zip(step.error, step.bound, strict=True))
    assert max(step.error) <= row.componentwise_error * 1.001
    # The row of the batch and the channel that the verdict rests on.
    ratio = max(error / bound for error, bound in zip(step.error, step.bound, strict=True))
    assert 0.3 * row.error_over_bound <= ratio <= 1.001 * row.error_over_bound
    assert length.x == (1, 2, 4, 8, 16, 32, 64, 128, 200)
    assert list(length.error) == sorted(length.error)
    assert length.error[-1] == max(step.error)
    assert length.bound[-1] == max(step.bound)
    assert not length.own_runs


def test_a_wrong_step_is_seen_where_it_is(monkeypatch):
    real = module.compute
    bump = np.zeros((2, 2, 200))
    bump[1, 0, 150] = 1e-3
    monkeypatch.setattr(module, "compute", lambda system, u, spec, **o: real(system, u, spec, **o) + bump)
    _, (row,), (step, length) = curves_of(ls.ModeSpec("liquid"), ["numpy"])
    assert row.status == "fail"
    assert (step.batch, step.channel) == (1, 0)
    assert step.x[int(np.argmax(step.error))] == 150
    assert max(step.error) == pytest.approx(1e-3)
    assert length.error[length.x.index(128)] < 1e-9 < length.error[-1]


def test_an_fft_has_runs_of_its_own_for_every_length():
    case, rows, found = curves_of(ls.ModeSpec("s4"), ["scipy", "numpy"])
    assert [row.bound_kind for row in rows] == ["normwise", "componentwise"]
    assert [(c.backend, c.against) for c in found] == [("scipy", "step"), ("numpy", "step"), ("numpy", "length")]
    assert len(set(found[0].bound)) == 1  # of the 2-norm over all steps, and so of each
    (curve,) = module.length_curves(case, ls.ModeSpec("s4"), ["scipy", "numpy"])
    assert curve.backend == "scipy"
    assert curve.own_runs
    assert curve.x == (64, 128, 200)
    assert all(0 < error <= bound for error, bound in zip(curve.error, curve.bound, strict=True))
    # The whole length is the run of the rows, whose reference is another tier.
    assert curve.error[-1] == pytest.approx(max(found[0].error), rel=1)
    assert curve.bound[-1] == pytest.approx(found[0].bound[0], rel=1e-3)


def test_recurrences_need_no_runs_of_their_own():
    case, _, _ = curves_of(ls.ModeSpec("liquid"), ["numpy"])
    assert module.length_curves(case, ls.ModeSpec("liquid"), ["scipy", "numpy", "keops"]) == []


def test_rejected_rows_have_no_curve():
    _, rows, found = curves_of(ls.ModeSpec("liquid"), ["keops"])
    assert [row.status for row in rows] == ["rejected"]
    assert found == []
