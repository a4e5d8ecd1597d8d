from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from liquid_ssm.claims import Entry
from liquid_ssm.claims import algorithm_1 as theme
from liquid_ssm.claims.samples import rational_system

RECORDED = {f"algorithm-1-line-{line}": "holds" for line in range(1, 17)} | {
    "algorithm-1-line-2": "holds if L is odd or the point ω = −1 is replaced by its limit",
    "algorithm-1-line-5": "holds if ω_k = exp(−2πik/L)",
    "algorithm-1-line-6": "holds if line 8 takes the head of K",
    "algorithm-1-line-8": "fails",
    "algorithm-1-line-11": "holds if line 13 has B̄^p",
    "algorithm-1-line-13": "fails",
}


def test_verdicts(agree: Callable[..., None]) -> None:
    agree(RECORDED, "algorithm_1")


@pytest.mark.parametrize(
    ("line", "ingredients", "ruling"),
    [
        (1, {"truncate": lambda s, length: s.row}, "fails"),
        (2, {"factor": 1}, "fails"),
        (3, {"correction": 1}, "fails"),
        (4, {"points": lambda length: theme._roots(length)[:1] * length}, "fails"),
        (5, {"sign": -1}, "holds"),
        (6, {"corrected": theme._tail}, "fails"),
        (7, {"last_order": -1}, "fails"),
        (8, {"slice_of_kernel": theme.head}, "holds"),
        (9, {"keep": lambda kernels: kernels[1:]}, "fails"),
        (10, {"last_order": 1}, "fails"),
        (11, {"corrected": theme._response}, "fails"),
        (12, {"last_order": 1}, "fails"),
        (13, {"response": theme.full_response}, "holds"),
        (14, {"keep": lambda kernels: kernels[::-1]}, "fails"),
        (15, {"last_order": -1}, "fails"),
        (16, {"modes": ("KB", "KB")}, "fails"),
    ],
)
def test_another_ingredient_gives_another_verdict(
    with_changed: Callable[..., str], line: int, ingredients: dict[str, Any], ruling: str
) -> None:
    name = f"algorithm-1-line-{line}"
    assert with_changed(name, **ingredients) == ruling != RECORDED[name]


def test_the_tail_has_none_of_the_exponents_that_eq_14_needs(entry: Callable[[str], Entry]) -> None:
    evidence = entry("algorithm-1-line-8").evidence
    assert evidence["smallest_exponent"] == evidence["length"] - evidence["window"]
    assert evidence["smallest_exponent"] > evidence["largest_exponent_of_equation_14"]
    assert evidence["largest_exponent_of_equation_14"] == evidence["window"] - 2
    assert evidence["relative_difference"] > 0.5


def test_one_power_of_B_is_missing(entry: Callable[[str], Entry]) -> None:
    evidence = entry("algorithm-1-line-13").evidence
    assert (evidence["power_of_B_for_p_2"], evidence["power_of_B_in_equation_15_for_p_2"]) == (1, 2)
    assert evidence["factor_for_B_one_tenth"] == pytest.approx(10)


def test_even_lengths_divide_by_zero_once(entry: Callable[[str], Entry]) -> None:
    evidence = entry("algorithm-1-line-2").evidence
    assert [evidence[f"divisions_by_zero_length_{length}"] for length in (8, 9, 16)] == [1, 0, 1]


def test_the_printed_sign_reverses_the_kernel(entry: Callable[[str], Entry]) -> None:
    evidence = entry("algorithm-1-line-5").evidence
    assert evidence["relative_difference_to_reversed_kernel"] == 0
    assert evidence["relative_difference_as_printed"] > 0.5


@pytest.mark.parametrize("mode", ["KB", "PB", "neither"])
def test_every_line_of_a_branch_is_executed(mode: str) -> None:
    done = theme.run(rational_system(2, 0), mode, 3, 8, 4)
    lines = {"KB": {6, 7, 8, 9, 10, 16}, "PB": {6, 11, 12, 13, 14, 15, 16}, "neither": {6, 11, 16}}
    assert set(done.lines) == lines[mode]
    assert done.orders == ([] if mode == "neither" else [2, 3])
