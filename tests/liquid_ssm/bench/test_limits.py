"""The limits come from the compiled backend; without it they are not known, and the reason says what to do."""

from __future__ import annotations

import pytest

from liquid_ssm.bench.limits import Limits, compiled_backend, fraction, measure_limits


def test_limits_are_those_that_the_backend_measures(compiled):
    assert measure_limits() == Limits(1, 1e11, 5e10, 1e10)
    assert measure_limits().fma("float32") == 1e11
    assert measure_limits().fma("float64") == 5e10
    assert compiled_backend(3)[0].threads == 3


@pytest.mark.usefixtures("no_compiled")
def test_without_it_the_reason_has_the_command():
    found = measure_limits()
    assert not found.known
    assert found.fma("float32") is None
    assert "pip install 'liquid-ssm[numba]'" in found.reason


def test_a_backend_that_does_not_measure_is_named(compiled, monkeypatch):
    monkeypatch.delattr(type(compiled), "limits")
    # What the stand-in lacks it takes from numpy, which measures nothing either.
    with pytest.raises(AttributeError):
        compiled.limits  # noqa: B018
    assert "'numba' of this version does not measure" in measure_limits().reason


def test_the_higher_of_two_measurements_counts():
    low, high = Limits(2, 1e11, 6e10, 1e10), Limits(2, 2e11, 5e10, 3e10)
    assert low.best(high) == Limits(2, 2e11, 6e10, 3e10)
    unknown = Limits(reason="none")
    assert unknown.best(low) == low.best(unknown) == low


def test_fraction():
    assert fraction(1e9, 1e10, 0.2) == 0.5
    assert fraction(None, 1e10, 0.2) is None
    assert fraction(1e9, None, 0.2) is None
