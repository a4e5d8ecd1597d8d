"""`verify`: what it compares, what it lets pass, and what it must not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import liquid_ssm as ls
from liquid_ssm import rounding_errors
from liquid_ssm.curves import rounded
from liquid_ssm.discretize import DISCRETIZATIONS
from liquid_ssm.registry import get_backend
from liquid_ssm.testing.strategies import random_system

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
    assert len(report.rounding) == 8 * 2 * 11  # backends × dtypes × forms
    assert {r.mode.partition("(")[0] for r in report.rounding} == {"s4", "liquid", "truncated", "kb", "pb"}
    rows = by_status(report)
    wide = [r for r in rows["rejected"] if r.backend == "numba-wide-state"]
    assert {r.dtype for r in wide} == {"float64"}
    # It has kernels and no recurrence.
    others = {(r.backend, r.mode.partition("(")[0]) for r in rows["rejected"] if r not in wide}
    assert others == {("keops", mode) for mode in ("liquid", "truncated", "kb")}
    assert {r.oracle for r in rows["pass"]} == {"T1"}
    assert {r.coverage for r in rows["pass"]} == {"all 60 steps"}
    assert [r.method for r in report.discretization] == list(DISCRETIZATIONS)
    assert len(report.truncation) == 10


def test_verification_assumes_the_precision_that_torchs_flags_allow():
    system = random_system("diagonal", n_channels=1, n_modes=3, seed=5)
    u = np.random.default_rng(6).normal(size=(1, 1, 64)).astype(np.float32)
    options = {"backends": ["torch-split-real"], "modes": ["s4"], "dtypes": ["float32"]}
    before = torch.get_float32_matmul_precision()
    reports = {}
    try:
        for flag in ("highest", "high", "medium"):
            torch.set_float32_matmul_precision(flag)
            reports[flag] = ls.verify(system, u, **options)
    finally:
        torch.set_float32_matmul_precision(before)
    assert all(report.passed for report in reports.values())
    allowed = {
        flag: report.rounding[0].componentwise_error / report.rounding[0].error_over_bound
        for flag, report in reports.items()
    }
    # Factors of 11 and of 8 bits in place of 24: the bound, which is error / ratio, grows accordingly.
    assert allowed["high"] > 100 * allowed["highest"]
    assert allowed["medium"] > 2 * allowed["high"]
    flags = [report.environment["torch float32 matmul"] for report in reports.values()]
    assert len(set(flags)) == 3


@pytest.mark.parametrize("structure", ["dplr", "dense", "mimo"])
def test_other_structures_pass_or_are_rejected_with_reasons(structure):
    names = ["numba", "scipy", "numpy"]
    system = random_system(structure, n_channels=2, n_modes=3)
    report = ls.verify(system, U, order=2, window=5, dtypes=["float64"], backends=names)
    assert report.passed
    rejected = by_status(report)["rejected"]
    assert rejected
    assert all(structure in r.reason for r in rejected)
    assert {r.backend for r in rejected} == ({"numba", "scipy"} if structure == "dense" else {"scipy"})


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
    ls.verify(CONTINUOUS, U, ["scipy", "numpy"], modes=["s4", "liquid"], progress=lambda *c: calls.append(c))
    assert [c[:2] for c in calls] == [(0, 8), (2, 8), (4, 8), (6, 8), (8, 8)]


def test_numpy_is_slow_but_named():
    report = ls.verify(CONTINUOUS, U, backends="numpy", modes="s4", dtypes="float32")
    assert [r.backend for r in report.rounding] == [get_backend("numpy").name]


def test_a_signal_without_samples_is_refused():
    with pytest.raises(ls.ParameterError, match="no samples"):
        ls.verify(CONTINUOUS, np.zeros((1, 2, 0)))


def test_values_beyond_float32_name_the_dtype():
    with pytest.raises(ls.ParameterError, match="beyond the range of float32; verify in float64 alone"):
        ls.verify(CONTINUOUS, 1e300 * np.abs(U), modes=["s4"])


def test_modes_that_are_left_out_are_noted():
    report = ls.verify(random_system("mimo", n_channels=2), U, dtypes=["float64"])
    assert any("kb and pb are left out" in note for note in report.notes)


NAMES = ["numba", "scipy", "numpy"]


def test_curves_are_computed_only_when_asked_for():
    assert ls.verify(CONTINUOUS, U, NAMES, modes=["s4"]).curves is None


def test_curves_have_every_mode_dtype_and_backend():
    report = ls.verify(CONTINUOUS, U, NAMES, window=5, curves=True)
    plain = ls.verify(CONTINUOUS, U, NAMES, window=5)
    assert [replace(row, seconds=0) for row in report.rounding] == [replace(row, seconds=0) for row in plain.rounding]
    curves = report.curves
    labels = ["s4", "liquid", "truncated(3)", "kb(3, all)", "pb(3, all)"]
    for against in ("step", "length"):
        found = {(c.backend, c.mode, c.dtype) for c in curves.errors if c.against == against}
        assert found == {(name, mode, dtype) for name in NAMES for mode in labels for dtype in ("float32", "float64")}
    assert [c.mode for c in curves.truncation] == [
        "truncated",
        "kb (all)",
        "kb (adjacent)",
        "pb (all)",
        "pb (adjacent)",
    ]
    assert [c.method for c in curves.discretization] == list(DISCRETIZATIONS)
    assert {(c.name, c.mode, c.dtype) for c in curves.times if not c.limit} == {
        (name, mode, "float32") for name in NAMES for mode in ("s4", "liquid")
    }
    assert {c.name for c in curves.times if c.limit} == {"limit: memory", "limit: multiply-adds"}
    assert [(b.of, b.channel) for b in curves.bands] == [("u", 0), *((mode, h) for mode in labels for h in (0, 1))]
    assert curves.bands[0].low == rounded(U[0, 0])


def test_a_form_that_fails_is_drawn_too(monkeypatch):
    real = rounding_errors.compute
    monkeypatch.setattr(rounding_errors, "compute", lambda s, u, spec, **o: real(s, u, spec, **o) + bool(spec.window))
    report = ls.verify(CONTINUOUS, U, ["numpy"], modes=["pb"], window=5, dtypes=["float64"], curves=True)
    assert {c.mode for c in report.curves.errors if c.against == "step"} == {
        "pb(3, all)",
        "pb(3, all, window 5)",
        "pb(3, adjacent, window 5)",
    }


def test_curves_of_other_structures_say_what_is_missing():
    report = ls.verify(random_system("dense", n_channels=2, n_modes=3), U, ["numpy"], modes=["s4"], curves=True)
    assert report.passed
    assert not report.curves.discretization
    assert not report.curves.truncation
    assert any("continuous diagonal system" in note for note in report.curves.notes)
    assert any("no mode with an order" in note for note in report.curves.notes)


def test_curves_of_an_integrator():
    report = ls.verify(CONTINUOUS, U, discretization="adams-bashforth", curves=True)
    assert {(c.backend, c.mode) for c in report.curves.errors} == {("numpy", "liquid")}
    assert len(report.curves.discretization) == len(DISCRETIZATIONS)
    assert {b.of for b in report.curves.bands} == {"u", "liquid"}
