from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import product
from typing import Any

import pytest

from liquid_ssm.claims import Entry
from liquid_ssm.claims import appendix_c as theme

ZERO_MEAN = "holds if the inputs are independent with mean zero"

RECORDED = {
    "appendix-c-learning-rate": ZERO_MEAN,
    "appendix-c-dt-max": "holds if the discretisation is bilinear or zoh",
    "appendix-c-dt-min": "holds",
    "appendix-c-causal": "not decidable by computation",
    "appendix-c-state-size": "holds",
    "appendix-c-kernel-choice": "holds",
    "appendix-c-order": ZERO_MEAN,
}


def test_verdicts(agree: Callable[..., None]) -> None:
    agree(RECORDED, "appendix_c")


@pytest.mark.parametrize(
    ("name", "ingredients", "ruling"),
    [
        ("appendix-c-learning-rate", {"signs": (1,)}, "fails"),
        ("appendix-c-learning-rate", {"signs": (0, 1)}, "fails"),
        ("appendix-c-dt-max", {"dt": 0.001}, "holds"),
        ("appendix-c-dt-min", {"exponent": 0.5}, "fails"),
        ("appendix-c-causal", {"reverse": True}, "fails"),
        ("appendix-c-state-size", {"n_state": 64}, "fails"),
        ("appendix-c-kernel-choice", {"n_state": 1}, "fails"),
        ("appendix-c-order", {"inputs": (0, 1)}, "fails"),
    ],
)
def test_another_ingredient_gives_another_verdict(
    with_changed: Callable[..., str], name: str, ingredients: dict[str, Any], ruling: str
) -> None:
    assert with_changed(name, **ingredients) == ruling != RECORDED[name]


def test_seven_states_are_three_pairs(entry: Callable[[str], Entry]) -> None:
    evidence = entry("appendix-c-state-size").evidence
    # Λ, P, B and C with 3 complex numbers each, and one step size.
    assert (evidence["conjugate_pairs"], evidence["parameters"], evidence["parameters_N_64"]) == (3, 25, 257)


def test_euler_at_the_largest_step(entry: Callable[[str], Entry]) -> None:
    evidence = entry("appendix-c-dt-max").evidence
    assert evidence["largest_N_stable_with_euler"] == 10
    assert evidence["radius_euler_N_64"] == pytest.approx(11.8)


def test_sensitivities_are_derivatives() -> None:
    a, b, h = Fraction(1, 2), Fraction(1, 3), Fraction(1, 10**6)
    u = [1, -1, 2, 1]

    def states(b: Fraction) -> list[Fraction]:
        x, result = Fraction(0), []
        for u_k in u:
            x = (a + b * u_k) * x + b * u_k
            result.append(x)
        return result

    numeric = [float((p - m) / (2 * h)) for p, m in zip(states(b + h), states(b - h), strict=True)]
    assert [float(d) for d in theme._sensitivities(a, b, u, 1)] == pytest.approx(numeric, rel=1e-9)


def test_the_mean_square_gain_is_that_of_a_direct_sum(entry: Callable[[str], Entry]) -> None:
    a, b = 0.9, 0.2
    sums = {0: 0.0, 1: 0.0}
    for u in product((-1, 1), repeat=5):
        for coupling in (0, 1):
            sums[coupling] += sum(d * d for d in theme._sensitivities(a, b, u, coupling))
    ratio = entry("appendix-c-learning-rate").evidence["mean_square_ratio_random_signs"]
    assert ratio == pytest.approx(sums[1] / sums[0], rel=1e-9)
