"""A report as one HTML page: no other file, no network, readable without its script, which only sorts tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any

from . import report_plots
from .report_tables import Column, Section, remarks, sections

if TYPE_CHECKING:
    from .report import Report


def page(report: Report, plots: bool = True) -> str:
    """The page as text.

    Args:
        report: what it shows.
        plots: with the plots.

    Raises:
        ParameterError: plots are wanted and matplotlib is not installed.
    """
    if plots:
        report_plots.need_matplotlib("ask for a page without plots: plots=False, on the command line --no-plots")
    body = "\n".join(
        [
            *_verdict(report),
            *_command(report),
            *_plots(report, plots),
            "<h2>Tables</h2>",
            *(part for section in sections(report, None) for part in _table(section)),
            *_notes(report),
            *_pairs("Problem", report.problem),
            *_pairs("Environment", report.environment),
        ]
    )
    return _PAGE.replace("@STYLE@", _STYLE).replace("@SCRIPT@", _SCRIPT).replace("@BODY@", body)


def _verdict(report: Report) -> Iterator[str]:
    undecided = report.verdict.startswith("INCONCLUSIVE")
    kind = "pass" if report.passed else "inconclusive" if undecided else "fail"
    yield f'<p class="verdict {kind}">{escape(report.verdict)}</p>'


def _command(report: Report) -> Iterator[str]:
    yield "<h2>To reproduce</h2>"
    if report.command:
        yield f"<pre><code>{escape(report.command)}</code></pre>"
        digest = report.problem.get("signal_sha256")
        if digest:
            yield f"<p>SHA-256 of the signal's file: <code>{escape(str(digest))}</code></p>"
        return
    yield (
        "<p>This report was made by <code>liquid_ssm.verify</code> from Python, on a system and a signal that no "
        "command line gives; the table “Problem” has what was asked for, and the seed.</p>"
    )


def _plots(report: Report, wanted: bool) -> Iterator[str]:
    yield "<h2>Plots</h2>"
    if not wanted:
        yield "<p>This page was asked for without plots.</p>"
        return
    if report.curves is None:
        yield (
            "<p>Errors against step and length, times and signals are not drawn: their data was not computed. "
            "<code>liquid_ssm.verify(..., curves=True)</code> computes it.</p>"
        )
    number = 0
    for (title, text), found in groupby(report_plots.plots(report), lambda plot: plot.group):
        yield f"<h3>{escape(title)}</h3>\n<p>{escape(text)}</p>\n<div class=plots>"
        for plot in found:
            number += 1
            yield (
                f"<figure><figcaption><strong>{escape(plot.title)}</strong></figcaption>\n"
                f"{report_plots.svg(plot, number)}\n<figcaption>{escape(plot.caption)}</figcaption></figure>"
            )
        yield "</div>"


def _table(section: Section) -> Iterator[str]:
    heads = "".join(f'<th scope="col"{_classes(column, "")}>{escape(column.header)}</th>' for column in section.columns)
    rows = "\n".join(
        "<tr>" + "".join(_cell(column, row) for column in section.columns) + "</tr>" for row in section.rows
    )
    yield f"<h3>{escape(section.title)}</h3>"
    # Reached by keyboard, so that it can be scrolled without a mouse.
    yield f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(section.title)}">'
    yield f"<table class=sortable>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"


def _cell(column: Column, row: Any) -> str:
    text = column.cell(row)
    value = ""
    if column.number is not None:
        number = column.number(row)
        value = f' data-value="{"" if number is None or math.isnan(number) else _javascript(number)}"'
    return f"<td{_classes(column, text)}{value}>{escape(text)}</td>"


def _javascript(number: float) -> str:
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return repr(float(number))


def _classes(column: Column, text: str) -> str:
    classes = [*(["left"] if column.left else []), *([text] if column.header == "verdict" and text else [])]
    return f' class="{escape(" ".join(classes))}"' if classes else ""


def _notes(report: Report) -> Iterator[str]:
    lines = [*remarks(report, None), *(report.curves.notes if report.curves else ())]
    items = "\n".join(f"<li>{escape(line)}</li>" for line in lines)
    yield f"<h2>Notes</h2>\n<ul>\n{items}\n</ul>"


def _pairs(title: str, pairs: Mapping[str, object]) -> Iterator[str]:
    rows = "\n".join(
        f'<tr><th scope="row" class="left">{escape(str(key))}</th><td class="left">{escape(str(value))}</td></tr>'
        for key, value in pairs.items()
    )
    yield f'<h2>{title}</h2>\n<div class="scroll"><table class="pairs">\n<tbody>\n{rows}\n</tbody>\n</table></div>'


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>liquid-ssm verification</title>
<style>
@STYLE@</style>
</head>
<body>
<main>
<h1>liquid-ssm verification</h1>
@BODY@
</main>
<script>
@SCRIPT@</script>
</body>
</html>
"""

_STYLE = """\
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1f2328; --muted: #59636e; --line: #d1d9e0; --panel: #f6f8fa;
  --good: #1a7f37; --bad: #c2202b; --open: #8a5c00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171c; --ink: #e6e9ed; --muted: #9aa4b0; --line: #363d47; --panel: #1d2128;
    --good: #4cc264; --bad: #ff7b72; --open: #e0ac3f;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 84rem; margin: 0 auto; padding: 1rem clamp(0.9rem, 3vw, 2.5rem) 3rem; }
h1 { font-size: 1.5rem; margin: 0.5rem 0 0.8rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 0.6rem; border-bottom: 1px solid var(--line); padding-bottom: 0.2rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 0.3rem; }
p, li { max-width: 52rem; overflow-wrap: anywhere; }
p { margin: 0.3rem 0 0.7rem; }
ul { padding-left: 1.2rem; }
.verdict { font-size: 1.1rem; font-weight: 600; padding: 0.7rem 1rem; border: 1px solid; border-left-width: 0.5rem;
  border-radius: 4px; max-width: none; }
.pass { color: var(--good); } .fail { color: var(--bad); font-weight: 600; }
.inconclusive { color: var(--open); } .rejected { color: var(--muted); }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 4px; padding: 0.7rem 0.9rem; margin: 0;
  white-space: pre-wrap; overflow-wrap: anywhere; }
code { font: 0.92em/1.5 ui-monospace, monospace; }
.plots { display: grid; gap: 1.2rem 1.6rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 29rem), 1fr)); }
figure { margin: 0; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; color: var(--ink); }
figcaption { font-size: 0.87rem; color: var(--muted); }
figcaption strong { color: var(--ink); font-size: 0.95rem; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th, td { padding: 0.2rem 0.6rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top;
  white-space: nowrap; }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; }
.left { text-align: left; }
.pairs th { font-weight: 400; color: var(--muted); }
.pairs td { white-space: normal; overflow-wrap: anywhere; }
th button { all: unset; cursor: pointer; }
th button:focus-visible { outline: 2px solid var(--ink); outline-offset: 2px; }
th button::after { content: "\\2195"; color: var(--muted); padding-left: 0.25em; }
th[aria-sort=ascending] button::after { content: "\\2191"; color: inherit; }
th[aria-sort=descending] button::after { content: "\\2193"; color: inherit; }
@media print {
  @page { size: A4 landscape; margin: 12mm; }
  :root {
    color-scheme: light;
    --paper: #ffffff; --ink: #000000; --muted: #444444; --line: #bbbbbb; --panel: #ffffff;
    --good: #1a6b31; --bad: #b01722; --open: #7a5200;
  }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  .scroll { overflow: visible; }
  table { font-size: 6.5pt; width: 100%; }
  table.pairs { font-size: 8pt; width: auto; }
  th, td { padding: 0.1rem 0.3rem; }
  th, td.left { white-space: normal; }
  thead { display: table-header-group; }
  tr, figure, pre { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .plots { grid-template-columns: repeat(2, 1fr); }
  th button::after { content: none; }
}
"""

_SCRIPT = """\
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0];
      const keyed = [...body.rows].map(row => {
        const cell = row.cells[index], value = cell.dataset.value;
        return { row, key: value === undefined ? cell.textContent : value === "" ? null : Number(value) };
      });
      // Rows without a number stay last, whichever the direction.
      keyed.sort((a, b) => {
        if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
        const order = typeof a.key === "number"
          ? (a.key < b.key ? -1 : a.key > b.key ? 1 : 0)
          : a.key.localeCompare(b.key, "en", { numeric: true });
        return down ? -order : order;
      });
      body.append(...keyed.map(entry => entry.row));
    });
  });
}
"""
