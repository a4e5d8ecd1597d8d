from __future__ import annotations

from collections.abc import Callable

import pytest

from liquid_ssm.claims import Entry

RECORDED = {"appendix-a-length": "holds", "appendix-a-kernel": "holds"}


def test_verdicts(agree: Callable[..., None]) -> None:
    agree(RECORDED, "appendix_a")


@pytest.mark.parametrize("name", list(RECORDED))
@pytest.mark.parametrize("offset", [0, 2])
def test_another_binomial_gives_another_verdict(with_changed: Callable[..., str], name: str, offset: int) -> None:
    assert with_changed(name, offset=offset) == "fails"


def test_numbers(entry: Callable[[str], Entry]) -> None:
    # binom(16, 2) + binom(16, 3) + binom(16, 4)
    assert entry("appendix-a-length").evidence["length_at_step_15"] == 120 + 560 + 1820
    # p = 4, k = 12: power 9 of Ā belongs to binom(12, 3) products.
    assert entry("appendix-a-kernel").evidence["most_products_with_one_power"] == 220
