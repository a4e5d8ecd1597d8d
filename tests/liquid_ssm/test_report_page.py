from __future__ import annotations

import importlib.util
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from liquid_ssm import report_plots
from liquid_ssm.curves import Curves, TruncationCurve
from liquid_ssm.errors import ParameterError
from liquid_ssm.report import DiscretizationRow, Report, RoundingRow, TruncationRow

ROW = RoundingRow(
    "numpy", "liquid", "float64", "pass", 1.234e-16, 2.345e-17, 3.456e-18, 0.04567, "componentwise", 812, "T1", 5.7e-30
)
FULL = Report(
    rounding=(
        replace(ROW, coverage="all 1024 steps", seconds=0.012),
        replace(ROW, mode="s4", status="inconclusive", componentwise_error=math.inf, error_over_bound=math.nan),
        RoundingRow("scipy", "liquid", "float64", "rejected", reason="primitive: needs cascade, got liquid"),
    ),
    truncation=(TruncationRow("s4", 6.2e-3, 0.98, 960),),
    discretization=(DiscretizationRow("euler", 7.3e-3, 2.2e-2, 3),),
    environment={"python": "3.11"},
    problem={"length": 1024},
    notes=("Channel 0 alone.",),
    curves=Curves(truncation=(TruncationCurve("truncated", (1, 2, 3), (0.1, 0.01, 0.001)),), notes=("Of the plots.",)),
)


class Page(HTMLParser):
    """Checks that tags nest, and collects tags, cells and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.values: list[str | None] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        # Plots refer to their own parts alone.
        assert not {name for name, _ in attrs} & {"src", "href", "onload", "onerror"}
        assert all((value or "").startswith("#") for name, value in attrs if name == "xlink:href")
        if tag != "meta":
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")
        if tag == "td":
            self.values.append(dict(attrs).get("data-value"))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag != "meta":
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data
        if not {"script", "style"} & set(self.open):
            self.text += data


def read_page(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert page.open == []
    return page


def test_the_page_has_everything_and_needs_nothing_else(tmp_path: Path) -> None:
    FULL.to_html(tmp_path / "r.html")
    page = read_page(tmp_path / "r.html")
    assert not set(page.tags) & {"link", "img", "iframe", "object", "foreignobject"}
    assert page.tags.count("script") == 1
    assert page.tags.count("svg") == page.tags.count("figure") == len(report_plots.plots(FULL)) == 2
    for cell in ("1.2e-16", "2.3e-17", "3.5e-18", "componentwise", "812", "all 1024 steps", "inconclusive", "euler"):
        assert cell in page.cells
    # The rejected row has no step, which is stored as -1.
    assert "-1" not in page.cells
    assert page.cells[-4:] == ["length", "1024", "python", "3.11"]
    assert "Channel 0 alone." in page.text
    assert "Of the plots." in page.text


def test_nothing_points_to_the_network(tmp_path: Path) -> None:
    FULL.to_html(tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    # Names of XML's vocabularies are no addresses.
    assert set(re.findall(r"https?:[^\s\"'<>]*", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_sections_come_in_the_order_of_their_importance(tmp_path: Path) -> None:
    FULL.to_html(tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    heads = re.findall(r"<h2>(.*?)</h2>", text)
    assert heads == ["To reproduce", "Plots", "Tables", "Notes", "Problem", "Environment"]
    assert text.index("INCONCLUSIVE") < text.index("To reproduce")


def test_numbers_carry_what_they_are_sorted_by(tmp_path: Path) -> None:
    FULL.to_html(tmp_path / "r.html")
    values = read_page(tmp_path / "r.html").values
    assert "1.234e-16" in values
    assert "Infinity" in values
    # Names are sorted as text; a rejected row and NaN have no number.
    assert values[0] is None
    assert {"nan", "inf", "NaN"}.isdisjoint(values)
    assert "" in values


def test_ids_of_different_plots_differ(tmp_path: Path) -> None:
    FULL.to_html(tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids)) > 10
    used = re.findall(r'(?:href="|url\()#([^")]*)', text)
    assert used
    assert set(used) <= set(ids)


def test_the_same_report_is_the_same_page(tmp_path: Path) -> None:
    FULL.to_html(tmp_path / "a.html")
    FULL.to_html(tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_text_from_outside_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>&\"$\\frac$\udcff"
    found = Report(
        (RoundingRow(evil, evil, evil, "fail", 1.0, 1.0, 1.0, 2.0, evil, 3, evil, 1.0, evil, 1.0, evil),),
        (TruncationRow(evil, 0.0, 0.0, 0),),
        (DiscretizationRow(evil, 0.0, 0.0, 0),),
        {evil: evil},
        {evil: evil, "signal_sha256": evil},
        (evil,),
        command=evil,
    )
    for plots in (True, False):
        found.to_html(tmp_path / "r.html", plots=plots)
        page = read_page(tmp_path / "r.html")
        assert page.tags.count("script") == 1
        assert page.tags.count("svg") == int(plots)
        assert evil.replace("\udcff", "\\udcff") in page.cells


def test_the_command_is_shown_or_that_there_is_none(tmp_path: Path) -> None:
    command = "liquid-ssm verify --signal 'a b.wav'"
    replace(FULL, command=command, problem={"signal_sha256": "abc123"}).to_html(tmp_path / "r.html")
    text = read_page(tmp_path / "r.html").text
    assert command in text
    assert "SHA-256 of the signal's file: abc123" in text
    FULL.to_html(tmp_path / "r.html")
    assert "no command line gives" in " ".join(read_page(tmp_path / "r.html").text.split())


def test_without_plots_the_page_says_so(tmp_path: Path) -> None:
    FULL.to_html(tmp_path / "r.html", plots=False)
    page = read_page(tmp_path / "r.html")
    assert "svg" not in page.tags
    assert "asked for without plots" in page.text


def test_without_curves_the_page_says_how_to_get_them(tmp_path: Path) -> None:
    replace(FULL, curves=None).to_html(tmp_path / "r.html")
    page = read_page(tmp_path / "r.html")
    assert page.tags.count("svg") == 1
    assert "curves=True" in page.text


def test_without_matplotlib_plots_are_refused_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(report_plots, "find_spec", lambda name: None if name == "matplotlib" else found(name))
    with pytest.raises(ParameterError, match=r"pip install 'liquid-ssm\[plots\]'.*--no-plots"):
        FULL.to_html(tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()
    with pytest.raises(ParameterError, match="matplotlib"):
        FULL.to_plots(tmp_path / "plots")
    FULL.to_html(tmp_path / "r.html", plots=False)
    assert (tmp_path / "r.html").exists()
