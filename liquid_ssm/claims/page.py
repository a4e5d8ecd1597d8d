"""The ledger as Markdown, for the page of the documentation."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .claim import Entry


def to_markdown(entries: Sequence[Entry]) -> str:
    """A table of all verdicts, then one section per claim with its id as anchor (MyST Markdown).

    Args:
        entries: what `evaluate` returned.
    """
    lines = ["## Verdicts", "", "| claim | equation | verdict |", "| --- | --- | --- |"]
    lines += [f"| [{e.id}](#{e.id}) | {escaped(e.equation)} | {escaped(e.ruling)} |" for e in entries]
    lines += ["", "## The claims one by one"]
    for entry in entries:
        detail = entry.verdict.partition(": ")[2]
        verdict = f"**{escaped(entry.ruling)}**" + (f": {escaped(detail)}" if detail else "")
        lines += ["", f"({entry.id})=", f"### {escaped(entry.equation)}: {entry.id}", ""]
        lines += [f"> {escaped(entry.statement)}", "", f"*Read as*: {escaped(entry.reading)}", "", verdict, ""]
        lines += ["| evidence | |", "| --- | --- |"]
        lines += [f"| {name.replace('_', ' ')} | {number(value)} |" for name, value in entry.evidence.items()]
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """Whole numbers in full, others to four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def escaped(text: str) -> str:
    """Plain text in Markdown: every ASCII punctuation mark that could mean something gets a backslash."""
    return re.sub(r"([\\`*_{}\[\]<>$|#~^&@!+-])", r"\\\1", text)
