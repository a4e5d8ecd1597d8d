"""How far an output is from the exact one, in units of its bound and of the largest output."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from liquid_ssm.compute import compute
from liquid_ssm.errors import OracleInconclusive
from liquid_ssm.problem import ModeSpec, Problem
from liquid_ssm.selection import truth as module
from liquid_ssm.selection.contenders import contenders
from liquid_ssm.selection.data import canonical
from liquid_ssm.selection.truth import Finding, Truth, affordable_steps

PROBLEM = Problem(ModeSpec("liquid"), "diagonal", 2, 2, 4, 40, "float64")


def setting(problem=PROBLEM, *, other_dtypes=False, steps=None, data=None):
    data = data or canonical(problem)
    who = list(contenders(problem, other_dtypes=other_dtypes, only=("numpy",)))
    dtypes = {problem.dtype, *(c.problem.dtype for c in who)}
    truth = Truth(who, {dtype: data.few(dtype) for dtype in dtypes}, problem.dtype, steps or problem.length)
    return data, who, truth


def output(data, contender):
    system, u = data.few(contender.problem.dtype)
    return compute(system, u, contender.problem.spec, backend=contender.backend)


@pytest.mark.parametrize(
    "cost", [lambda n: 1e-3 * n, lambda n: 0.05 + 1e-4 * n, lambda n: 1e-5 * n**2, lambda n: 1e-7 * n**3]
)
def test_the_reference_takes_no_more_than_twice_its_time(cost, monkeypatch):
    """Whether its time grows in proportion, faster, or hardly at first."""
    now = [0.0]

    def run(contenders, systems, given, steps, confirm):
        now[0] += cost(steps)

    monkeypatch.setattr(module, "Truth", run)
    problem = replace(PROBLEM, length=5000)
    who = list(contenders(problem, other_dtypes=False, only=("numpy",)))
    steps = affordable_steps(canonical(problem), who, 1.0, lambda: now[0])
    assert now[0] + cost(steps) <= 2.0
    # A quarter of what would fit is not left out.
    assert steps == 5000 or cost(4 * steps) + now[0] > 1.0


@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated", "kb", "pb"])
@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense"])
def test_a_right_output_is_within_its_bound_and_a_spoilt_one_is_not(structure, mode):
    data, (numpy,), truth = setting(replace(PROBLEM, structure=structure, spec=ModeSpec(mode), dtype="float32"))
    y = output(data, numpy)
    good = truth.finding(numpy, y)
    assert 0 < good.error <= good.bound < 1e-3
    assert 0 < good.ratio <= 1
    assert 0 < truth.enclosed <= 40
    spoilt = y.copy()
    spoilt[-1, -1, 17] += 3 * good.bound * np.abs(y[-1, -1]).max()
    bad = truth.finding(numpy, spoilt)
    assert bad.ratio > 1
    assert bad.where == 17
    assert bad.error >= 2 * good.bound


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_element_that_is_no_number_is_never_within_a_bound(value):
    data, (numpy,), truth = setting()
    y = output(data, numpy)
    y[0, 0, 5] = value
    found = truth.finding(numpy, y)
    assert not found.ratio <= 1
    assert not found.error <= 1e300
    assert found.where == 5


def test_less_than_all_steps_can_be_compared():
    data, (numpy,), truth = setting(steps=25)
    y = output(data, numpy)[..., :25]
    assert truth.finding(numpy, y).ratio <= 1
    assert truth.finding(numpy, y[..., :7]).ratio <= 1
    assert truth.finding(numpy, y[..., 1:8]).ratio > 1


def test_in_another_dtype_errors_count_against_the_data_as_given():
    standard = canonical(PROBLEM)  # of float32 numbers, so that rounding to it would cost nothing
    finer = replace(standard, u=standard.u / 3, _cast={}, _shared={})
    data, (wide, narrow), truth = setting(other_dtypes=True, data=finer)
    found = truth.finding(narrow, output(data, narrow))
    own = truth.finding(wide, output(data, wide))
    assert own.error < 1e-13 < 1e-9 < found.error < 1e-5
    assert found.ratio <= 1
    # What rounding u and the parameters costs is in the bound, too.
    assert found.error <= found.bound
    rounded, exact = (truth.references[dtype].value for dtype in ("float32", "float64"))
    shift = (np.abs(rounded - exact).max(axis=-1) / np.abs(exact).max(axis=-1)).astype(float)
    alone = Truth([narrow], {"float32": data.few("float32")}, "float32", 40).finding(narrow, output(data, narrow))
    assert shift.min() > 1e-9
    assert found.bound - alone.bound == pytest.approx(shift.min(), abs=1.1 * (shift.max() - shift.min()))


def test_tiers_that_disagree_are_an_error_and_no_verdict(monkeypatch):
    from liquid_ssm.oracle import enclosure

    usual = enclosure.enclose

    def off(*args, **options):
        e = usual(*args, **options)
        return replace(e, hi=e.hi + 1e-3)

    monkeypatch.setattr(enclosure, "enclose", off)
    with pytest.raises(OracleInconclusive, match="T1 and T3 of the oracle disagree"):
        setting()


def test_the_worse_of_two_findings():
    good, bad = Finding(1e-9, 1e-8, 0.1, 3), Finding(1e-3, 1e-9, 7.0, 5)
    assert good.worse(bad) == bad.worse(good) == Finding(1e-3, 1e-8, 7.0, 5)
    for found in (good.worse(Finding(np.nan, 1.0, np.nan, 9)), Finding(np.nan, 1.0, np.nan, 9).worse(good)):
        assert np.isnan(found.error)
        assert np.isnan(found.ratio)
        assert found.where == 9


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 1.0, 1e9, np.inf])
def test_steps_that_are_affordable(seconds):
    problem = replace(PROBLEM, length=500)
    steps = affordable_steps(
        canonical(problem), list(contenders(problem, other_dtypes=False, only=("numpy",))), seconds
    )
    assert module._SAMPLE <= steps <= 500
    assert isinstance(steps, int)
    if seconds < 1e-6:
        assert steps == module._SAMPLE
    if seconds > 1e6:
        assert steps == 500
