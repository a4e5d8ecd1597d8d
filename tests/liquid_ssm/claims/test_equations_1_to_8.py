from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from liquid_ssm.claims import Entry
from liquid_ssm.claims import equations_1_to_8 as theme
from liquid_ssm.claims.ring import dot, repeat, scale, total

MEAN = "u_k is the mean of the input over the step"

RECORDED = {
    "equation-1": "holds",
    "equation-2": f"holds if {MEAN}",
    "equation-3": "holds",
    "equation-4": "holds",
    "equation-5": "holds",
    "equation-6": "holds",
    "equation-7": "holds",
    "equation-8": "holds",
    "initial-vectors": "holds",
    "stable-parametrisation": "holds",
}


def test_verdicts(agree: Callable[..., None]) -> None:
    agree(RECORDED, "equations_1_to_8")


@pytest.mark.parametrize(
    ("name", "ingredients", "ruling"),
    [
        ("equation-1", {"skip": lambda D, u: scale(2 * D, u)}, "fails"),
        ("equation-2", {"sample": theme._mean}, "holds"),
        ("equation-2", {"mean": theme._at_the_end}, "fails"),
        ("equation-3", {"method": "euler"}, "fails"),
        (
            "equation-4",
            {"printed": lambda s, k: total(dot(s.C, repeat(s.A, s.B, i)) * s.u[i] for i in range(k + 1))},
            "fails",
        ),
        ("equation-5", {"convolve": theme._circular}, "fails"),
        ("equation-6", {"entry": lambda s, i: dot(s.C, repeat(s.A, s.B, i + 1))}, "fails"),
        (
            "equation-7",
            {"row": lambda n, m: total((2 * k + 1) * m[k] for k in range(n)) + n * m[n]},
            "fails",
        ),
        ("equation-8", {"scale_of_P": Fraction(1, 3)}, "fails"),
        ("initial-vectors", {"B_growth": 1}, "fails"),
        ("initial-vectors", {"P_growth": 2}, "fails"),
        ("stable-parametrisation", {"other": lambda P, Q: Q}, "fails"),
    ],
)
def test_another_ingredient_gives_another_verdict(
    with_changed: Callable[..., str], name: str, ingredients: dict[str, Any], ruling: str
) -> None:
    assert with_changed(name, **ingredients) == ruling != RECORDED[name]


def test_the_order_of_eq_2_depends_on_the_input_of_a_step(entry: Callable[[str], Entry]) -> None:
    evidence = entry("equation-2").evidence
    assert evidence["order_with_mean_input"] == pytest.approx(2, abs=0.05)
    assert evidence["order_with_u_at_end_of_step"] == pytest.approx(1, abs=0.05)


def test_a_low_rank_part_of_two_vectors_destabilises(entry: Callable[[str], Entry]) -> None:
    evidence = entry("stable-parametrisation").evidence
    assert evidence["largest_real_part_with_PQ"] > 1
    assert evidence["largest_real_part_with_PP"] < 0
    assert evidence["share_of_PQ_to_the_right"] > 0.3
