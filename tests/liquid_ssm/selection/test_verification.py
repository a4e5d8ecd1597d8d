"""What the checks of a contender find: planted backends, each with one mistake that only one check sees."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.problem import ModeSpec, Problem
from liquid_ssm.selection.choose import Selection
from liquid_ssm.selection.data import canonical
from liquid_ssm.selection.verification import sweep_lengths

PROBLEM = Problem(ModeSpec("liquid"), "diagonal", 3, 3, 4, 40, "float64")


class Planted(NumPyBackend):
    """numpy, in which one mistake is made by those below."""

    name = "planted"

    def scan(self, system, u, state=None, **options):
        y, final = super().scan(system, u, state, **options)
        return self.spoil(y, u, state), final

    def spoil(self, y, u, state):
        return y


class Forgets(Planted):
    def scan(self, system, u, state=None, **options):
        return super().scan(system, u, None, **options)


class LosesState(Planted):
    """What it hands on has rounded to float32."""

    def scan(self, system, u, state=None, **options):
        y, final = super().scan(system, u, state, **options)
        return y, final.astype(np.complex64).astype(final.dtype)


class OneNaN(Planted):
    def spoil(self, y, u, state):
        y = y.copy()
        y[y.shape[0] // 2, -1, -1] = np.nan
        return y


class TooShort(Planted):
    def spoil(self, y, u, state):
        return y[..., :-1]


class Narrow(Planted):
    def spoil(self, y, u, state):
        return y.astype(np.float32)


class Raises(Planted):
    def spoil(self, y, u, state):
        raise KeyError("planted")


class Rounds(Planted):
    """Beyond its bound, and far within any tolerance that anybody would ask for."""

    def spoil(self, y, u, state):
        return y * (1 + 1e-9)


class LastStep(Planted):
    def spoil(self, y, u, state):
        y = y.copy()
        y[..., -1] *= 1.001
        return y


class OneRow(Planted):
    row = 0

    def spoil(self, y, u, state):
        if y.shape[0] > self.row:
            y = y.copy()
            y[self.row, 1] *= 1.001
        return y


class OneResidue(Planted):
    def spoil(self, y, u, state):
        return y * 1.001 if y.shape[-1] % 128 == 64 else y


class OddLengths(Planted):
    def spoil(self, y, u, state):
        return y * 1.001 if y.shape[-1] % 2 else y


class RaisesElsewhere(Planted):
    def spoil(self, y, u, state):
        if y.shape[-1] == 33:
            raise ZeroDivisionError("at 33")
        return y


class WrongGradient(Planted):
    def scan_vjp(self, *args, **options):
        found = super().scan_vjp(*args, **options)
        return found._replace(parameters={**found.parameters, "C": found.parameters["C"] * (1 + 1e-9)})


class NoGradientOfU(Planted):
    def scan_vjp(self, *args, **options):
        found = super().scan_vjp(*args, **options)
        return found._replace(u=found.u * 0)


class NaNGradient(Planted):
    def scan_vjp(self, *args, **options):
        found = super().scan_vjp(*args, **options)
        u = found.u.copy()
        u[..., 0] = np.nan
        return found._replace(u=u)


@pytest.fixture
def judged(only, monkeypatch):
    """The candidate that a planted class becomes, and the whole certificate."""
    monkeypatch.setitem(sys.modules, "planted_backends", sys.modules[__name__])

    def judge(kind, problem=PROBLEM, **options):
        only("numpy", planted=f"planted_backends:{kind.__name__}")
        # As if it were the fastest: who comes first in the fixed order stays if the times are alike.
        monkeypatch.setattr("liquid_ssm.selection.choose._alike", lambda one, fastest: True)
        certificate = Selection(canonical(problem), validators={}, incumbent="planted", **options).run()
        return certificate.candidates[0], certificate

    return judge


def test_without_a_mistake_it_is_chosen(judged):
    for problem in (PROBLEM, replace(PROBLEM, state=True), replace(PROBLEM, gradient=True)):
        found, certificate = judged(Planted, problem)
        assert (found.name, found.status, certificate.backend) == ("planted", "chosen", "planted")


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [
        (OneNaN, "failed", "not finite"),
        (TooShort, "refused", r"its output has shape (3, 3, 39); u has (3, 3, 40)"),
        (Narrow, "refused", "its output has dtype float32; u has float64"),
        (Raises, "failed", "KeyError: 'planted'"),
        (Rounds, "refused", "times the derived bound"),
        (LastStep, "refused", "at step 39"),
        (OddLengths, "refused", "its error at length"),
        (RaisesElsewhere, "failed", "at another length of the domain: ZeroDivisionError: at 33"),
    ],
)
def test_each_mistake_is_found_and_shown_and_stops_no_other(judged, kind, status, words):
    found, certificate = judged(kind)
    assert certificate.backend == "numpy"
    assert found.status == status
    assert words in found.reason
    if status == "refused" and found.error is not None:
        assert found.error_over_bound > 1
        assert found.error > found.bound


def test_one_that_is_wrong_in_a_row_of_which_only_the_first_steps_are_looked_at(judged, monkeypatch):
    problem = replace(PROBLEM, batch=6)
    monkeypatch.setattr(OneRow, "row", next(row for row in range(6) if row not in canonical(problem).rows))
    found, certificate = judged(OneRow, problem)
    assert (found.status, certificate.backend) == ("refused", "numpy")
    assert "the first 32 steps of 6 rows and 3 channels" in certificate.oracle["checks"]


def test_one_that_is_wrong_at_one_residue_only(judged):
    """As many lengths as there are residues: another one of the same bucket has it."""
    found, certificate = judged(OneResidue, replace(PROBLEM, length=200))
    assert found.status == "refused"
    assert "at length 192" in found.reason
    assert certificate.oracle["residues"] == "all"


def test_an_error_below_the_tolerance_and_above_the_bound_is_refused(judged):
    found, _ = judged(Rounds, tolerance=1e-3)
    assert found.status == "refused"
    assert found.error < 1e-8
    assert "times the derived bound" in found.reason


@pytest.mark.parametrize("kind", [Forgets, LosesState])
def test_what_only_a_state_shows(judged, kind):
    assert judged(kind)[1].backend == "planted"
    for length in (40, 5, 1):
        found, certificate = judged(kind, replace(PROBLEM, length=length, state=True))
        assert (found.status, certificate.backend) == ("refused", "numpy")
        assert found.error_over_bound > 1


@pytest.mark.parametrize("kind", [WrongGradient, NoGradientOfU, NaNGradient])
def test_what_only_a_gradient_shows(judged, kind):
    assert judged(kind)[1].backend == "planted"
    found, certificate = judged(kind, replace(PROBLEM, gradient=True))
    assert (found.status, certificate.backend) == ("refused", "numpy")
    assert found.error_over_bound > 1


@pytest.mark.parametrize("longest", [128, 1024, 4096])
def test_lengths_of_a_sweep_stay_in_the_bucket_or_below(longest):
    for length in (1, 7, 40, 127, 128, 1000, 100_000):
        lengths = sweep_lengths(length, longest)
        bucket = 1 << length.bit_length() >> 1
        start = min(bucket, longest)
        assert all(start <= n < 2 * start for n in lengths)
        # An early end leaves residues that are spread: the first half holds every second one.
        half = {n % 128 for n in lengths[: len(lengths) // 2]}
        assert len(lengths) < 2 or half == {n for n in range(start % 128, start % 128 + len(lengths)) if n % 2 == 0}
    assert sweep_lengths(0) == []
