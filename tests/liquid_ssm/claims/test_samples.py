from __future__ import annotations

from fractions import Fraction

import numpy as np

from liquid_ssm.claims.samples import generic_system, indexed, legs, rational_system, rationals, variables
from liquid_ssm.continuous import ContinuousSystem
from liquid_ssm.hippo import hippo
from liquid_ssm.oracle.discretisation_rounding import discretisation_bounds


def test_variables_are_independent() -> None:
    x, y = variables("x", "y")
    assert x * y == y * x
    assert x * y - y * y != 0
    assert (x + y) * (x - y) == x * x - y * y
    assert indexed("u", 2) == ["u0", "u1"]


def test_every_entry_of_a_generic_system_is_its_own_variable() -> None:
    s = generic_system(2, 3)
    entries = [*(a for row in s.A for a in row), *s.B, *s.C, *s.u]
    assert len(entries) == 11
    assert len({str(entry) for entry in entries}) == 11
    d = generic_system(2, 3, commuting=True)
    assert d.A[0][1] == d.A[1][0] == 0
    assert len({str(entry) for entry in [d.A[0][0], d.A[1][1], *d.B, *d.C, *d.u]}) == 9


def test_random_fractions_are_reproducible_and_not_zero() -> None:
    draw = rationals(100, seed=3)
    assert draw == rationals(100, seed=3) != rationals(100, seed=4)
    assert all(isinstance(value, Fraction) and value != 0 for value in draw)
    s = rational_system(2, 4)
    assert (len(s.A), len(s.B), len(s.C), len(s.u)) == (2, 2, 2, 4)
    assert rational_system(2, 4, commuting=True).A[0][1] == 0


def test_legs_is_the_package_s_system() -> None:
    A, B = hippo("legs", 4)
    own = ContinuousSystem.dense(A[None], B[None], B[None], 0.1).discretize("bilinear")
    A_bar, B_bar = legs(4, 0.1)
    bounds = discretisation_bounds(A[None], B[None], np.array([0.1]), "bilinear")
    for exact, computed, bound in ((A_bar, own.A_bar[0], bounds.A[0]), (B_bar, own.B_bar[0], bounds.B[0])):  # type: ignore[union-attr]
        # 2^-53 of the exact number is what its conversion to a float rounds.
        assert np.all(np.abs(exact.astype(float) - computed) <= bound + 2.0**-53 * np.abs(exact.astype(float)))
