"""Bounds of single steps, taken out of the oracle's running bounds, are those of the derivations."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from liquid_ssm.oracle.local_bounds import PRIMITIVES, allowed, corners
from liquid_ssm.oracle.rounding import RoundingModel

U = 2.0**-24
SEPARATE = RoundingModel(U, 0.0, pairwise=True, fused=False)
KAPPA = SEPARATE.product
# Factors for terms of second order: a few u, never a visible part of a bound.
SLACK = 1 + 2.0**-16

A, B, X, V, S = 0.5 + 0.5j, 0.25 - 0.125j, 2.0 - 1.0j, 0.75 + 1.5j, -0.5


def one(primitive: str, **operands: complex) -> float:
    """The bound at one point, in units."""
    arrays = {name: np.array([value]) for name, value in operands.items()}
    return float(PRIMITIVES[primitive].bound(SEPARATE, **arrays).item() / U)


def test_corners_are_all_signs_of_all_parts():
    found = corners("a* u", {"a": 0.5, "ai": 0.25, "u": 2.0})
    assert {(z, u) for z, u in zip(found["a"], found["u"], strict=True)} == {
        (complex(s * 0.5, t * 0.25), v * 2.0) for s in (-1, 1) for t in (-1, 1) for v in (-1, 1)
    }


def test_intervals_are_cut_and_the_rest_is_at_most_one():
    found = corners("h x", {"h": (-1.0, 0.0)})
    assert sorted(set(found["h"])) == [-1 + k / 8 for k in range(9)]
    assert set(found["x"]) == {-1.0, 1.0}


def test_the_largest_corner_counts_in_unit_roundoffs():
    assert allowed("complex_product", {}, fused=False, dtype="float32") == pytest.approx(2 * sqrt(5))
    assert allowed("complex_product", {"a": 0.5}, fused=False, dtype="float64") == pytest.approx(sqrt(5))
    assert allowed("complex_product", {}, fused=True, dtype="float32") == pytest.approx(4.0)


def test_without_contraction_accumulation_is_compared_with_the_model_that_knows_nothing():
    plain, accumulated = (
        allowed(name, {}, fused=False, dtype="float32") for name in ("linear_step", "linear_step_accumulated")
    )
    assert accumulated > plain


W = B * S
WANTED = {
    "real_times_complex": ({"b": B, "u": S}, abs(W)),
    "liquid_step": (
        {"A": A, "b": B, "u": S, "x": X},
        (abs(A + W) * (1 + KAPPA) + abs(W)) * abs(X) + abs(W) + abs((A + W) * X + W),
    ),
    "linear_step": ({"A": A, "b": B, "u": S, "x": X}, KAPPA * abs(A * X) + abs(W) + abs(A * X + W)),
    "truncated_step": (
        {"A": A, "b": B, "u": S, "x": X, "v": V},
        KAPPA * abs(A * X) + (1 + KAPPA) * abs(W * V) + abs(A * X + W * V),
    ),
    "chain_step": ({"A": A, "u": S, "x": X, "v": V}, KAPPA * abs(A * X) + abs(S * V) + abs(A * X + S * V)),
}


@pytest.mark.parametrize("primitive", WANTED)
def test_a_step_of_a_recurrence_has_the_terms_of_its_derivation(primitive):
    operands, wanted = WANTED[primitive]
    assert wanted / SLACK <= one(primitive, **operands) <= wanted * SLACK


def test_steps_of_sums_round_product_and_sum():
    # both signs are chosen for the largest result
    size = 0.75 + 0.5 * 0.25
    for primitive, operands in (
        ("elementary_step", {"e": 0.75, "f": 0.25, "u": 0.5}),
        ("running_sum_step", {"s": 0.75, "u": 0.5, "v": 0.25}),
    ):
        assert size + 0.125 <= one(primitive, **operands) <= (2 * size + 0.125) * SLACK


def test_two_terms_of_the_output_pass_two_roundings_and_one_addition():
    wanted = 3 * (abs(A * X) + abs(B * V))
    assert wanted / SLACK <= one("read_out", c=A, x=X, d=B, z=V) <= wanted * SLACK
