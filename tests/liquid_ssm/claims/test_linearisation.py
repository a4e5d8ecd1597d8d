from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from liquid_ssm.claims import Entry
from liquid_ssm.claims import linearisation as theme

RECORDED = {
    "equation-9": "holds",
    "linearisation": "holds if f = 0 at x = 0, u = 0, and B and C of Eq. 10 are −B and −C of Eq. 9",
}


def test_verdicts(agree: Callable[..., None]) -> None:
    agree(RECORDED, "linearisation")


@pytest.mark.parametrize(
    ("name", "ingredients", "ruling"),
    [
        ("equation-9", {"rate": lambda f: theme._A}, "fails"),
        ("linearisation", {"sign": 1}, "fails"),
    ],
)
def test_another_ingredient_gives_another_verdict(
    with_changed: Callable[..., str], name: str, ingredients: dict[str, Any], ruling: str
) -> None:
    assert with_changed(name, **ingredients) == ruling != RECORDED[name]


def test_the_error_is_of_second_order_in_the_input(entry: Callable[[str], Entry]) -> None:
    evidence = entry("linearisation").evidence
    assert evidence["error_order_f_curved"] == pytest.approx(2, abs=0.1)
    assert evidence["error_order_f_of_x_and_u"] == pytest.approx(2, abs=0.1)
    assert evidence["error_order_f_odd_in_u"] == pytest.approx(3, abs=0.1)
    assert evidence["error_order_f_not_zero_at_rest"] == pytest.approx(0, abs=0.1)
    assert evidence["error_order_without_the_product_term"] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(("f", "curvature"), [(theme._odd, 0), (theme._curved, -2 * np.tanh(0.5))])
def test_the_nonlinearities_have_the_derivatives_that_they_claim(f: Any, curvature: float) -> None:
    h = 1e-4
    assert f(0.0, 0.0) == 0
    assert (f(0.0, h) - f(0.0, -h)) / (2 * h) == pytest.approx(1, abs=1e-7)
    assert (f(0.0, h) - 2 * f(0.0, 0.0) + f(0.0, -h)) / h**2 == pytest.approx(curvature, abs=1e-6)


def test_solutions_are_those_of_one_system_at_a_time() -> None:
    together = theme.solutions([theme.network(theme._odd), theme.linear(-theme._A, theme._B, theme._B)])
    alone = theme.solutions([theme.linear(-theme._A, theme._B, theme._B)])
    # The solver keeps each step within 1e-11 |x| + 1e-14; both systems contract, so that errors only add up, and take
    # fewer than 5,000 steps each.
    allowed = 2 * 5000 * (1e-11 * np.abs(alone[0]).max() + 1e-14)
    assert np.abs(together[1] - alone[0]).max() <= allowed
