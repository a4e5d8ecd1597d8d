from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from liquid_ssm.claims import Entry
from liquid_ssm.claims import complexity as theme

RECORDED = {
    "complexity-s4": "holds if the Cauchy sums are evaluated by fast polynomial arithmetic",
    "complexity-liquid-kb": "holds if N ≤ L̃",
    "complexity-liquid-pb": "holds",
}


def test_verdicts(agree: Callable[..., None]) -> None:
    agree(RECORDED, "complexity")


@pytest.mark.parametrize(
    ("name", "ingredients", "ruling"),
    [
        ("complexity-s4", {"fast": False}, "fails"),
        ("complexity-liquid-kb", {"count": theme._line_8_count}, "fails"),
        ("complexity-liquid-kb", {"count": theme._pb_count}, "holds"),
        ("complexity-liquid-pb", {"count": theme._kb_count}, "fails"),
    ],
)
def test_another_ingredient_gives_another_verdict(
    with_changed: Callable[..., str], name: str, ingredients: dict[str, Any], ruling: str
) -> None:
    assert with_changed(name, **ingredients) == ruling != RECORDED[name]


def test_growth(entry: Callable[[str], Entry]) -> None:
    evidence = entry("complexity-s4").evidence
    assert 1 < evidence["growth_exponent_fast"] < 1.4
    assert evidence["growth_exponent_direct_sums"] == pytest.approx(2)


@pytest.mark.parametrize(("exponent", "linear"), [(1.0, True), (1.5, False), (2.0, False)])
def test_nearly_linear(exponent: float, linear: bool) -> None:
    sizes = [2**j for j in range(6, 20)]
    assert theme._nearly_linear(sizes, [int(n**exponent) for n in sizes]) is linear
