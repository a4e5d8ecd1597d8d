from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from liquid_ssm.claims import Entry
from liquid_ssm.claims import appendix_d as theme

RECORDED = {
    "appendix-d-euler": "holds",
    "appendix-d-euler-conditions": "holds",
    "appendix-d-euler-stability": "holds if every Re s < 0",
    "appendix-d-bound": "fails",
    "appendix-d-closeness": "holds if δt ‖A‖ is small",
    "appendix-d-adams-bashforth": "holds",
    "appendix-d-adams-bashforth-conditions": "holds if the state also holds f(k−1), twice the numbers of Eq. 10",
    "appendix-d-bilinear-open": "holds",
    "appendix-d-orders": "holds",
}


def test_verdicts(agree: Callable[..., None]) -> None:
    agree(RECORDED, "appendix_d")


def squared_input(A: Any, B: Any, x: Any, u: Any, h: Any) -> list[Any]:
    return [entry + h * u * u for entry in theme._forward_euler(A, B, x, u, h)]


@pytest.mark.parametrize(
    ("name", "ingredients", "ruling"),
    [
        ("appendix-d-euler", {"order": 2}, "fails"),
        ("appendix-d-euler-conditions", {"step": squared_input}, "fails"),
        ("appendix-d-euler-stability", {"frequency_factor": 2}, "fails"),
        ("appendix-d-bound", {"factor": lambda n: float(n) ** 4}, "holds"),
        ("appendix-d-closeness", {"factor": Fraction(1)}, "fails"),
        ("appendix-d-adams-bashforth", {"weights": (1.0, 0.0)}, "fails"),
        ("appendix-d-adams-bashforth-conditions", {"memory": 0}, "holds"),
        ("appendix-d-bilinear-open", {"method": "euler"}, "fails"),
        ("appendix-d-orders", {"methods": ("bilinear-exact",)}, "fails"),
    ],
)
def test_another_ingredient_gives_another_verdict(
    with_changed: Callable[..., str], name: str, ingredients: dict[str, Any], ruling: str
) -> None:
    assert with_changed(name, **ingredients) == ruling != RECORDED[name]


@pytest.mark.parametrize(("n", "ratio"), [(4, 40), (7, 349), (16, 9.0e3), (64, 1.4e6)])
def test_how_far_the_bound_is_off(entry: Callable[[str], Entry], n: int, ratio: float) -> None:
    assert entry("appendix-d-bound").evidence[f"ratio_N_{n}"] == pytest.approx(ratio, rel=0.01)


def test_spectral_radii(entry: Callable[[str], Entry]) -> None:
    evidence = entry("appendix-d-euler-stability").evidence
    assert evidence["radius_euler_N_16"] == pytest.approx(0.9)
    assert evidence["radius_euler_N_64"] == pytest.approx(5.4)
    assert evidence["radius_bilinear_N_64"] == pytest.approx(0.905, abs=5e-4)


def test_fitted_orders(entry: Callable[[str], Entry]) -> None:
    evidence = entry("appendix-d-orders").evidence
    assert {name: round(value) for name, value in evidence.items() if name.startswith("order")} == {
        "order_liquid_euler": 1,
        "order_liquid_bilinear": 1,
        "order_liquid_zoh": 1,
        "order_liquid_adams_bashforth": 2,
        "order_liquid_bilinear_exact": 2,
        "order_linear_euler": 1,
        "order_linear_bilinear": 2,
    }
    assert evidence["relative_error_linear_zoh_held_input"] < 1e-13
    assert entry("appendix-d-adams-bashforth").evidence["fitted_local_order"] == pytest.approx(3, abs=0.1)


def test_the_reference_solution_does_not_depend_on_the_solver() -> None:
    """The exponential step of the held input, refined, tends to the ODE solver's value."""
    from liquid_ssm.oracle.discretisation import held_input_solution

    count = 4000
    h = theme._TIME / count
    u = theme._input(h * (np.arange(count) + 0.5))[None, None]
    row = (theme._LAMBDA[None], theme._B[None], theme._C[None], np.array([h]), u)
    found = float(held_input_solution(*row, precision="float64")[0, 0, -1])
    # Midpoints: second order, h² = 2.5e-7.
    assert found == pytest.approx(theme._exact_output(1.0), abs=1e-5)
