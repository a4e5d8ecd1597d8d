"""The claims' own formulas against the oracle, which shares no code with them."""

from __future__ import annotations

from fractions import Fraction
from math import comb
from typing import Any

import numpy as np
import pytest

from liquid_ssm.claims import formulas
from liquid_ssm.claims.ring import System, diagonal, dot, power
from liquid_ssm.claims.samples import rational_system
from liquid_ssm.oracle import exact
from liquid_ssm.oracle.realization import Realization
from liquid_ssm.oracle.words import outputs_by_words

LENGTH = 6


def as_objects(values: Any) -> Any:
    shape = np.array(values, dtype=object).shape
    return np.array(values, dtype=object).reshape(shape)


@pytest.fixture(params=[False, True], ids=["full", "diagonal"])
def system(request: pytest.FixtureRequest) -> System:
    return rational_system(3, LENGTH, commuting=request.param, seed=21)


def reference(s: System, mode: str, **options: Any) -> list[Fraction]:
    A, B, C = (as_objects(v)[None] for v in (s.A, s.B, s.C))
    realization = Realization("dense", A, B, C, conjugate_pairs=False)
    return list(exact.outputs(realization, as_objects(s.u)[None, None], mode, **options)[0, 0])


def test_recurrences(system: System) -> None:
    assert formulas.outputs(system, liquid=False) == reference(system, "s4")
    assert formulas.outputs(system, liquid=True) == reference(system, "liquid")


@pytest.mark.parametrize("order", [1, 2, 3])
def test_truncated_orders(system: System, order: int) -> None:
    assert formulas.truncated_outputs(system, order) == reference(system, "truncated", order=order)


@pytest.mark.parametrize("correlations", ["all", "adjacent"])
def test_equation_13(system: System, correlations: str) -> None:
    found = formulas.equation_13(system, 3, adjacent=correlations == "adjacent")
    assert found == reference(system, "kb", order=3, correlations=correlations)


def test_kernel_and_convolution(system: System) -> None:
    K = formulas.kernel(system, LENGTH)
    assert formulas.convolution(K, system.u) == reference(system, "s4")
    assert formulas.kernel(system, 1, 3) == [dot(system.C, power(system.B, 3))]


def test_chains_are_the_sums_over_index_tuples(system: System) -> None:
    for p in (1, 2, 3):
        wanted = [formulas.correlation_terms(system, k, p) for k in range(LENGTH)]
        assert formulas.chain_outputs(system, p) == wanted


def test_the_oracle_s_words_agree(system: System) -> None:
    A, B, C = (as_objects(v)[None] for v in (system.A, system.B, system.C))
    realization = Realization("dense", A, B, C, conjugate_pairs=False)
    words = outputs_by_words(realization, as_objects(system.u)[None, None])[0, 0]
    assert formulas.outputs(system, liquid=True) == list(words)


def test_index_tuples() -> None:
    assert list(formulas.index_tuples(2, 2)) == [(0, 1), (0, 2), (1, 2)]
    assert list(formulas.index_tuples(3, 2, adjacent=True)) == [(0, 1), (1, 2), (2, 3)]
    assert list(formulas.index_tuples(1, 3, adjacent=True)) == []
    assert sum(1 for _ in formulas.index_tuples(6, 3)) == comb(7, 3)


def test_elementary_polynomials() -> None:
    assert formulas.elementary([2, 3, 5], 3) == [[2, 0, 0], [5, 6, 0], [10, 31, 30]]


def test_one_state_by_hand() -> None:
    s = System(diagonal([Fraction(1, 2)]), [Fraction(1, 4)], [1], [1, 2, 3])
    # 1/4; (1/2 + 1/2) 1/4 + 1/2 = 3/4; (1/2 + 3/4) 3/4 + 3/4 = 27/16
    assert formulas.outputs(s, liquid=True) == [Fraction(1, 4), Fraction(3, 4), Fraction(27, 16)]
