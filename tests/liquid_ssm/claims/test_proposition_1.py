from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from liquid_ssm.claims import Entry
from liquid_ssm.claims import proposition_1 as theme
from liquid_ssm.claims.formulas import kernel
from liquid_ssm.claims.ring import power
from liquid_ssm.claims.samples import rational_system

RECORDED = {"proposition-1-before-sum": "holds", "proposition-1-after-sum": "fails"}


def test_verdicts(agree: Callable[..., None]) -> None:
    agree(RECORDED, "proposition_1")


@pytest.mark.parametrize(
    ("name", "ingredients", "ruling"),
    [
        ("proposition-1-before-sum", {"factor": power}, "fails"),
        ("proposition-1-after-sum", {"n_state": 1}, "holds"),
    ],
)
def test_another_ingredient_gives_another_verdict(
    with_changed: Callable[..., str], name: str, ingredients: dict[str, Any], ruling: str
) -> None:
    assert with_changed(name, **ingredients) == ruling != RECORDED[name]


def test_the_unsummed_kernel_adds_up_to_the_kernel() -> None:
    s = rational_system(3, 0, seed=31)
    assert [sum(theme.unsummed(s, i)) for i in range(4)] == kernel(s, 4)


def test_the_ratio_to_the_summed_kernel_is_not_constant(entry: Callable[[str], Entry]) -> None:
    evidence = entry("proposition-1-after-sum").evidence
    assert evidence["ratio_i_0"] == float(Fraction(5, 3))
    assert evidence["ratio_i_1"] == 1.5
