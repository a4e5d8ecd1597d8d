"""`verify`: what it compares, what it lets pass, and what it must not."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.registry import get_backend
from liquid_ssm.testing.strategies import random_system

module = importlib.import_module("liquid_ssm.verify")

CONTINUOUS = ls.initialize("s4d-lin", n_channels=2, n_state=8, dt_max=1e-2)
U = np.random.default_rng(0).normal(size=(1, 2, 60))


def by_status(report):
    return {
        status: [r for r in report.rounding if r.status == status]
        for status in ("pass", "fail", "inconclusive", "rejected")
    }


def test_every_mode_of_every_backend_passes_on_a_diagonal_system():
    report = ls.verify(CONTINUOUS, U)
    assert report.passed
    assert len(report.rounding) == 2 * 2 * 11  # backends × dtypes × forms
    assert {r.mode.partition("(")[0] for r in report.rounding} == {"s4", "liquid", "truncated", "kb", "pb"}
    assert {r.oracle for r in report.rounding} == {"T1"}
    assert {r.coverage for r in report.rounding} == {"all 60 steps"}
    assert [r.method for r in report.discretization] == list(module.METHODS)
    assert len(report.truncation) == 10


@pytest.mark.parametrize("structure", ["dplr", "dense", "mimo"])
def test_other_structures_pass_or_are_rejected_with_reasons(structure):
    report = ls.verify(random_system(structure, n_channels=2, n_modes=3), U, order=2, window=5, dtypes=["float64"])
    assert report.passed
    rejected = by_status(report)["rejected"]
    assert rejected
    assert all(structure in r.reason for r in rejected)
    assert all(r.backend == "scipy" for r in rejected)


@pytest.mark.parametrize("method", ["adams-bashforth", "bilinear-exact"])
def test_integrators_are_verified_in_their_only_mode(method):
    report = ls.verify(CONTINUOUS, U, discretization=method)
    assert report.passed
    assert {r.mode for r in report.rounding} == {"liquid"}
    assert len(by_status(report)["pass"]) == 2
    with pytest.raises(ls.ParameterError, match="integrates the liquid system"):
        ls.verify(CONTINUOUS, U, modes=["kb"], discretization=method)


def test_long_signals_are_covered_by_both_tiers_and_say_so():
    u = np.random.default_rng(1).normal(size=(2, 2, 3000))
    report = ls.verify(CONTINUOUS, u, modes=["liquid"], dtypes=["float32"], oracle_budget=2000)
    assert report.passed
    row = report.rounding[0]
    assert row.oracle == "T3+T1"
    assert "T3: all 3000 steps" in row.coverage
    assert "5 windows" in row.coverage
    again = ls.verify(CONTINUOUS, u, modes=["liquid"], dtypes=["float32"], oracle_budget=2000)
    assert again.rounding[0].error_over_bound == row.error_over_bound  # same seed, same windows


def test_excerpts_include_both_ends_and_follow_the_seed():
    system = CONTINUOUS.discretize("bilinear")
    case = module._Case("float64", system, np.zeros((1, 2, 5000)), None)
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
    real = module.apply

    def wrong(system, u, **options):
        return BUGS[bug](real(system, u, **options), u)

    monkeypatch.setattr(module, "apply", wrong)
    report = ls.verify(CONTINUOUS, U, modes=[mode], dtypes=["float32"], backends=["numpy"])
    assert not report.passed
    assert {r.status for r in report.rounding} == {"fail"}
    assert "times the bound" in report.rounding[0].reason


def test_float32_accumulation_where_float64_is_claimed_fails(monkeypatch):
    real = module.apply

    def lazy(system, u, **options):
        return real(system.astype("float32"), u.astype(np.float32), **options).astype(u.dtype)

    monkeypatch.setattr(module, "apply", lazy)
    assert not ls.verify(CONTINUOUS, U, modes=["liquid"], dtypes=["float64"]).passed


def test_contradicting_tiers_stop_the_verification(monkeypatch):
    enclosure = importlib.import_module("liquid_ssm.oracle.enclosure")
    real = enclosure.enclose

    def shifted(*args, **options):
        from dataclasses import replace

        found = real(*args, **options)
        return replace(found, hi=found.hi + 1e-6)

    monkeypatch.setattr(enclosure, "enclose", shifted)
    with pytest.raises(ls.OracleInconclusive, match="T1 and T3"):
        ls.verify(CONTINUOUS, U, modes=["liquid"])


def test_a_radius_too_large_to_decide_is_inconclusive_not_a_pass():
    from liquid_ssm.oracle.reference import Bound

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


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backends": ["numpi"]}, "'numpy'"),
        ({"modes": ["liqud"]}, "'liquid'"),
        ({"dtypes": ["float16"]}, "float32"),
        ({"correlations": ["some"]}, "all, adjacent"),
        ({"order": 0}, "order is 0"),
        ({"order": 5, "window": 4}, "window is 4"),
        ({"discretization": "bilinaer"}, "'bilinear'"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ls.ParameterError, match=words):
        ls.verify(CONTINUOUS, U, **options)


def test_discretization_of_a_discrete_system_is_refused():
    with pytest.raises(ls.ParameterError, match="ContinuousSystem"):
        ls.verify(random_system("diagonal"), U, discretization="zoh")


def test_overflow_is_not_a_row_but_an_error():
    system = ls.DiagonalSystem([[1.5 + 0j]], [[1.0]], [[1.0]])
    with pytest.raises(ls.UnstableRecurrence):
        ls.verify(system, np.ones((1, 1, 400)), dtypes=["float32"])


def test_progress_counts_to_the_end():
    calls = []
    ls.verify(CONTINUOUS, U, modes=["s4", "liquid"], progress=lambda *c: calls.append(c))
    assert [c[:2] for c in calls] == [(0, 8), (2, 8), (4, 8), (6, 8), (8, 8)]


def test_numpy_is_slow_but_named():
    report = ls.verify(CONTINUOUS, U, backends="numpy", modes="s4", dtypes="float32")
    assert [r.backend for r in report.rounding] == [get_backend("numpy").name]
