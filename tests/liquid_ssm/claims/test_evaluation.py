from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

import pytest

from liquid_ssm.claims import Entry, changed, evaluate, ledger, select, to_json
from liquid_ssm.errors import ParameterError

KEYS = ["id", "equation", "statement", "reading", "verdict", "evidence", "page"]


def test_every_equation_line_and_appendix_has_an_entry() -> None:
    ids = [claim.id for claim in ledger()]
    assert len(ids) == len(set(ids))
    for number in range(1, 17):
        assert f"equation-{number}" in ids
        assert f"algorithm-1-line-{number}" in ids
    assert {"proposition-1-before-sum", "proposition-1-after-sum", "linearisation", "stable-parametrisation"} <= set(
        ids
    )
    for theme in ("complexity", *(f"appendix-{letter}" for letter in "abcdef")):
        assert any(name.startswith(f"{theme}-") for name in ids), theme


def test_ids_are_anchors() -> None:
    for claim in ledger():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", claim.id)
        assert claim.page == f"claims.html#{claim.id}"


def test_every_verdict_is_the_recorded_one(whole: Any) -> None:
    assert changed(whole.entries.values()) == []
    for entry in whole.entries.values():
        assert entry.ruling.startswith(("holds", "fails", "not decidable"))
        # What does not simply hold comes with its counterexample, what does has none.
        assert (": " in entry.verdict) == (entry.ruling != "holds"), entry.id
        if entry.ruling != "holds":
            assert re.search(r"\d", entry.verdict) or entry.ruling == "not decidable by computation", entry.id


def test_only_one_claim_cannot_be_decided(whole: Any) -> None:
    undecided = [entry.id for entry in whole.entries.values() if entry.ruling.startswith("not")]
    assert undecided == ["appendix-c-causal"]


def test_entries_are_complete(whole: Any) -> None:
    for claim, entry in zip(ledger(), whole.entries.values(), strict=True):
        assert entry.id == claim.id
        for text in (entry.equation, entry.statement, entry.reading, entry.verdict):
            assert text == text.strip() != ""
        assert entry.evidence
        assert all(isinstance(value, (int, float)) and isfinite(value) for value in entry.evidence.values())


def test_json_has_the_keys_and_no_others(whole: Any) -> None:
    entries = list(whole.entries.values())
    parsed = json.loads(to_json(entries), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert [list(item) for item in parsed] == [KEYS] * len(entries)
    for item, entry in zip(parsed, entries, strict=True):
        assert item == {key: getattr(entry, key) for key in KEYS}


def test_the_whole_ledger_takes_seconds(whole: Any) -> None:
    # Processor time; the promise is two minutes on two cores.
    assert whole.seconds < 60


def test_another_process_finds_the_same(whole: Any, tmp_path: Path) -> None:
    code = "from liquid_ssm.claims import evaluate, to_json; print(to_json(evaluate()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, encoding="utf-8", check=True)
    for item in json.loads(done.stdout):
        own = whole.entries[item["id"]]
        assert item["verdict"] == own.verdict
        # Numbers of the size of rounding errors may differ with the alignment of arrays.
        assert item["evidence"] == pytest.approx(own.evidence, rel=1e-6, abs=1e-9)


def test_some_claims_in_the_order_given() -> None:
    names = ["equation-6", "equation-5"]
    seen: list[tuple[int, int, str]] = []
    entries = evaluate([*names, "equation-6"], lambda *step: seen.append(step))
    assert [entry.id for entry in entries] == names
    assert seen == [(0, 2, "equation-6"), (1, 2, "equation-5"), (2, 2, "done")]


@pytest.mark.parametrize("ids", [None, [], ()])
def test_no_ids_are_all(ids: Any) -> None:
    assert select(ids) == ledger()


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("equation-17", "equation-1"),
        ("line-8", "algorithm-1-line-8"),
        ("proposition-1", "proposition-1-before-sum, proposition-1-after-sum"),
        ("Appendix-D", "appendix-d-euler"),
        ("algoritm-1-line-8", "algorithm-1-line-8"),
    ],
)
def test_an_unknown_id_is_answered_with_close_ones(given: str, near: str) -> None:
    with pytest.raises(ParameterError, match=f"unknown claim '{given}'; close to it: .*{near}"):
        evaluate(["equation-5", given])


@pytest.mark.parametrize("given", ["", "§§§"])
def test_where_nothing_is_close_the_list_is_pointed_to(given: str) -> None:
    with pytest.raises(ParameterError, match="lists all of them"):
        select([given])


def test_importing_the_package_computes_and_loads_nothing(tmp_path: Path) -> None:
    code = "import sys, liquid_ssm.claims.command; print({'flint', 'scipy', 'mpmath'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_flint_s_precision_is_left_alone(entry: Callable[[str], Entry]) -> None:
    from flint import ctx

    before = ctx.prec
    evaluate(["algorithm-1-line-1"])
    assert ctx.prec == before
