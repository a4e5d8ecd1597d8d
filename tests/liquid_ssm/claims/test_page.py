from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from liquid_ssm.claims import Entry
from liquid_ssm.claims.page import escaped, number, to_markdown

DOCS = Path(__file__).parents[3] / "docs"


def test_every_page_link_has_its_anchor(whole: Any) -> None:
    text = to_markdown(list(whole.entries.values()))
    anchors = re.findall(r"^\(([a-z0-9-]+)\)=$", text, re.MULTILINE)
    assert [f"claims.html#{anchor}" for anchor in anchors] == [entry.page for entry in whole.entries.values()]
    # Every target is followed by a heading, and the table links to every target.
    assert all(f"({anchor})=\n### " in text and f"[{anchor}](#{anchor})" in text for anchor in anchors)


def test_the_page_includes_the_generated_text() -> None:
    assert "{include} _generated/claims.md" in (DOCS / "claims.md").read_text(encoding="utf-8")
    assert '"claims.md"' in (DOCS / "conf.py").read_text(encoding="utf-8")


def test_one_entry() -> None:
    entry = Entry("an-id", "Eq. 1", "a_n < |b|", "as is", "fails: 2 > 1", {"gap_in_y": 0.12345, "count": 1200}, "")
    lines = to_markdown([entry]).splitlines()
    assert "| [an-id](#an-id) | Eq. 1 | fails |" in lines
    assert r"> a\_n \< \|b\|" in lines
    assert r"**fails**: 2 \> 1" in lines
    assert "| gap in y | 0.1235 |" in lines
    assert "| count | 1,200 |" in lines


def test_escaped_text_has_no_markup() -> None:
    assert escaped("x_{k-1} ∈ [0, 1], a*b, 2 + 2") == r"x\_\{k\-1\} ∈ \[0, 1\], a\*b, 2 \+ 2"
    assert number(3) == "3"
    assert number(1e-12) == "1e-12"
