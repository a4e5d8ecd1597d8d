from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from liquid_ssm.claims import Entry

RECORDED = {
    "appendix-b-multiply": "holds if the product is taken before the sum over the state",
    "appendix-b-flip": "holds if the flipped kernel enters an inner product, or the unflipped one the convolution",
    "appendix-b-higher-orders": "holds",
}


def test_verdicts(agree: Callable[..., None]) -> None:
    agree(RECORDED, "appendix_b")


@pytest.mark.parametrize(
    ("name", "ingredients", "ruling"),
    [
        ("appendix-b-multiply", {"exponent": 2}, "fails"),
        ("appendix-b-flip", {"reverse": False}, "fails"),
        ("appendix-b-higher-orders", {"power_offset": 0}, "fails"),
    ],
)
def test_another_ingredient_gives_another_verdict(
    with_changed: Callable[..., str], name: str, ingredients: dict[str, Any], ruling: str
) -> None:
    assert with_changed(name, **ingredients) == ruling != RECORDED[name]


def test_numbers(entry: Callable[[str], Entry]) -> None:
    assert entry("appendix-b-multiply").evidence["entries_proved_after_it"] == 0
    assert entry("appendix-b-flip").evidence["relative_difference_flipped_and_convolved"] > 0.1
