from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from liquid_ssm.claims.claim import Claim, Finding, percent, ruling


def claim(finding: Finding, expected: str = "holds") -> Claim:
    return Claim("some-id", "Eq. 0", "1 = 1", "as integers", expected, lambda: finding)


def test_an_entry_carries_the_claim_and_what_its_check_found() -> None:
    entry = claim(Finding("holds if x", {"gap": np.float64(0.5), "count": 3}, "x = 2 gives 4")).evaluate()
    assert asdict(entry) == {
        "id": "some-id",
        "equation": "Eq. 0",
        "statement": "1 = 1",
        "reading": "as integers",
        "verdict": "holds if x: x = 2 gives 4",
        "evidence": {"gap": 0.5, "count": 3},
        "page": "claims.html#some-id",
    }
    assert entry.ruling == "holds if x"
    assert json.loads(json.dumps(entry.evidence)) == entry.evidence


def test_without_a_counterexample_the_verdict_is_the_ruling() -> None:
    assert claim(Finding("holds", {"gap": 0})).evaluate().verdict == "holds"


@pytest.mark.parametrize("evidence", [{}, {"gap": float("nan")}, {"gap": float("inf"), "count": 1}])
def test_evidence_must_be_finite_numbers(evidence: dict[str, float]) -> None:
    with pytest.raises(ArithmeticError, match="the check of some-id must give finite numbers"):
        claim(Finding("holds", evidence)).evaluate()


def test_ingredients_reach_the_check() -> None:
    tested = Claim("some-id", "", "", "", "holds", lambda value=1: Finding(ruling(value == 1), {"value": value}))
    assert tested.evaluate().ruling == "holds"
    assert tested.evaluate(value=2).ruling == "fails"


def test_rulings() -> None:
    assert ruling(True) == ruling(True, condition="x", under_condition=True) == "holds"
    assert ruling(False, condition="x", under_condition=True) == "holds if x"
    assert ruling(False) == ruling(False, condition="x", under_condition=False) == "fails"


@pytest.mark.parametrize(("share", "text"), [(0.249, "25 %"), (1.5, "150 %"), (0.0141, "1.4 %"), (0.0995, "10 %")])
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text
