from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from liquid_ssm.claims import Entry
from liquid_ssm.claims import equations_10_to_16 as theme
from liquid_ssm.claims.ring import System, apply, diagonal, dot, multiply, power

COMMUTE = "holds if diag(B̄) and Ā commute"

RECORDED = {
    "equation-10": "holds if I_N B u stands for diag(B) u",
    "equation-11": "holds",
    "equation-11-parameters": "fails",
    "equation-11-bilinear": "holds",
    "equation-12": COMMUTE,
    "equation-13": COMMUTE,
    "equation-13-counts": "fails",
    "equation-13-convolution": "holds if only products of adjacent inputs are counted",
    "equation-14": "holds if i stops at L̃ − p",
    "equation-15": "holds",
    "equation-16": "holds if ∗ is an inner product and each power of Ā is repeated for each product it multiplies",
}


def test_verdicts(agree: Callable[..., None]) -> None:
    agree(RECORDED, "equations_10_to_16")


def corrected(s: System) -> list[Any]:
    """Eq. 12 with C diag(B̄) Ā B̄ u_0u_2 in place of C Ā B̄² u_0u_2."""
    y = theme._printed_outputs(s)
    right = dot(s.C, apply(multiply(diagonal(s.B), s.A), s.B))
    wrong = dot(s.C, apply(s.A, power(s.B, 2)))
    return [*y[:2], y[2] + (right - wrong) * s.u[0] * s.u[2]]


@pytest.mark.parametrize(
    ("name", "ingredients", "ruling"),
    [
        ("equation-10", {"reading": theme._all_ones}, "fails"),
        ("equation-11", {"euler_factor": 2}, "fails"),
        ("equation-11-parameters", {"factor": 1.0}, "holds"),
        ("equation-11-bilinear", {"radius": lambda z: np.abs(1 + z)}, "fails"),
        ("equation-12", {"printed": corrected}, "holds"),
        ("equation-12", {"printed": lambda s: [2 * y for y in corrected(s)]}, "fails"),
        ("equation-13", {"exponent": lambda k, p, i: k - i}, "fails"),
        ("equation-13-counts", {"shift": 0}, "holds"),
        ("equation-13-convolution", {"delay": 0}, "fails"),
        ("equation-14", {"exponent": lambda window, i, p: window - i - 1}, "fails"),
        ("equation-15", {"p_offset": -1}, "fails"),
        ("equation-16", {"repeated": False}, "fails"),
    ],
)
def test_another_ingredient_gives_another_verdict(
    with_changed: Callable[..., str], name: str, ingredients: dict[str, Any], ruling: str
) -> None:
    assert with_changed(name, **ingredients) == ruling != RECORDED[name]


def test_the_gap_for_legs_is_large_and_is_the_commutator(entry: Callable[[str], Entry]) -> None:
    evidence = entry("equation-12").evidence
    # About a quarter; the specification quotes 24 % for another draw of inputs.
    assert 0.2 < evidence["largest_relative_difference_of_an_output_legs"] < 0.3
    assert evidence["gap_is_the_commutator_term"] == 1
    assert "25 %" in entry("equation-13").verdict


def test_the_gap_for_legs_in_floating_point() -> None:
    """The same draw by a plain loop in float64."""
    A, B = (v.astype(float) for v in theme.legs(6, 0.1))
    u = np.random.default_rng(0).normal(size=8)
    liquid, kb = np.zeros(6), [np.zeros((p, 6)) for p in range(1, 9)]
    largest = 0.0
    for u_k in u:
        liquid = A @ liquid + B * u_k * liquid + B * u_k
        kb = [chain @ A.T + u_k * np.vstack([B**p, chain[:-1]]) for p, chain in enumerate(kb, start=1)]
        total = sum(chain[-1] for chain in kb)
        largest = max(largest, float(np.abs((total - liquid) / liquid).max()))
    assert largest == pytest.approx(theme.legs_difference()[0], rel=1e-9)


def test_the_misprinted_half_step_does_not_converge(entry: Callable[[str], Entry]) -> None:
    evidence = entry("equation-11-parameters").evidence
    assert evidence["relative_error_as_printed"] > 0.5
    assert evidence["relative_error_with_full_step"] < 1e-3


def test_spectral_radii(entry: Callable[[str], Entry]) -> None:
    evidence = entry("equation-11-bilinear").evidence
    assert evidence["radius_euler"] == pytest.approx(5.4)
    assert evidence["radius_bilinear"] == pytest.approx(0.905, abs=5e-4)


def test_counts_of_products(entry: Callable[[str], Entry]) -> None:
    evidence = entry("equation-13-counts").evidence
    assert [evidence[name] for name in ("pairs", "triples", "quadruples")] == [4950, 161700, 3921225]
    assert entry("equation-16").evidence["length"] == 21 + 35 + 35
