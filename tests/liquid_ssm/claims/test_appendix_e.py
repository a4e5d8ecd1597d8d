from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from liquid_ssm.claims import Entry
from liquid_ssm.claims import appendix_e as theme

RECORDED = {
    "appendix-e-step": "holds",
    "appendix-e-violet-terms": "holds if the sums are carried along as e_p(k) = e_p(k−1) + u_k e_{p−1}(k−1)",
    "appendix-e-cost": "holds",
    "appendix-e-speed": "holds if N is below p L/2",
    "appendix-e-correlations": "holds",
}


def test_verdicts(agree: Callable[..., None]) -> None:
    agree(RECORDED, "appendix_e")


def late(responses: Any, e: list[Any], inputs: list[Any]) -> tuple[Any, list[Any]]:
    """Order p from the sums after this step, not before it: u_k would meet itself."""
    for p in range(len(e)):
        e = [*e[:p], e[p] + inputs[-1] * (e[p - 1] if p else 1), *e[p + 1 :]]
    return theme.dot(responses, e[1:]), e


@pytest.mark.parametrize(
    ("name", "ingredients", "ruling"),
    [
        ("appendix-e-step", {"liquid": late}, "fails"),
        ("appendix-e-violet-terms", {"k": 1}, "holds"),
        ("appendix-e-cost", {"liquid": theme.by_products}, "fails"),
        ("appendix-e-speed", {"slower": 100}, "fails"),
        ("appendix-e-correlations", {"order": 1}, "fails"),
    ],
)
def test_another_ingredient_gives_another_verdict(
    with_changed: Callable[..., str], name: str, ingredients: dict[str, Any], ruling: str
) -> None:
    assert with_changed(name, **ingredients) == ruling != RECORDED[name]


@pytest.mark.parametrize("order", [2, 3, 6])
@pytest.mark.parametrize("n_state", [1, 5])
@pytest.mark.parametrize("at_step", [8, 20])
def test_two_multiplications_per_order(order: int, n_state: int, at_step: int) -> None:
    assert theme.pb_extra_operations(order, n_state, at_step) == 2 * (order - 1)


def test_numbers(entry: Callable[[str], Entry]) -> None:
    # binom(100, 2) + 2 binom(100, 3) products, and one multiplication by each of C B̄² and C B̄³.
    assert entry("appendix-e-violet-terms").evidence["multiplications_as_written_P_3"] == 4950 + 2 * 161700 + 2
    assert entry("appendix-e-correlations").evidence["different_weights_PB"] == 1
    assert entry("appendix-e-step").evidence["relative_difference_of_the_package"] < 1e-14
