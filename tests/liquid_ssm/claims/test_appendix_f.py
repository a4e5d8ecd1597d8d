from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from liquid_ssm.claims import Entry
from liquid_ssm.claims import appendix_f as theme

RECORDED = {
    "appendix-f-high-orders": "holds if products are formed one by one",
    "appendix-f-truncation": "fails",
    "appendix-f-scan": "holds",
    "appendix-f-all-orders": "holds if Ā is diagonal",
}


def test_verdicts(agree: Callable[..., None]) -> None:
    agree(RECORDED, "appendix_f")


@pytest.mark.parametrize(
    ("name", "ingredients", "ruling"),
    [
        ("appendix-f-high-orders", {"chains": False}, "holds"),
        ("appendix-f-truncation", {"pb_order": 64}, "holds"),
        ("appendix-f-scan", {"compose": lambda older, newer: theme._compose(newer, older)}, "fails"),
        (
            "appendix-f-scan",
            {"compose": lambda older, newer: (newer[0], theme._compose(older, newer)[1])},
            "fails",
        ),
        ("appendix-f-all-orders", {"full": False}, "fails"),
    ],
)
def test_another_ingredient_gives_another_verdict(
    with_changed: Callable[..., str], name: str, ingredients: dict[str, Any], ruling: str
) -> None:
    assert with_changed(name, **ingredients) == ruling != RECORDED[name]


@pytest.mark.parametrize("length", range(10))
def test_tree_scan_gives_every_prefix(length: int) -> None:
    elements = [(k,) for k in range(length)]
    prefixes = theme._tree_scan(elements, lambda older, newer: older + newer)
    assert prefixes == [tuple(range(k + 1)) for k in range(length)]


def test_costs(entry: Callable[[str], Entry]) -> None:
    evidence = entry("appendix-f-all-orders").evidence
    assert evidence["multiplications_added_by_the_liquid_term"] == 0
    assert evidence["scan_over_linear_recurrence_diagonal"] < 3
    assert evidence["scan_over_linear_recurrence_dense_N_8"] > 3 * evidence["scan_over_linear_recurrence_dense_N_2"]


def test_pb_is_cut_off_too(entry: Callable[[str], Entry]) -> None:
    evidence = entry("appendix-f-truncation").evidence
    assert evidence["share_left_out_PB"] > evidence["share_left_out_KB"] > 0.05
