"""The results of `experiments.py` as text and as Markdown; without torch, for the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADS = ("model", "H", "parameters", "seeds", "test", "validation", "s per epoch", "s in all")


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row of the results under `HEADS`: means and standard deviations over seeds (ddof = 1)."""
    summary = row["summary"]
    seeds = str(summary["seeds"]) + (f", {summary['failed']} failed" if summary["failed"] else "")
    times = sorted(seed["seconds_per_epoch"] for seed in row["seeds"] if seed["seconds_per_epoch"] is not None)
    middle = f"{times[len(times) // 2]:.2f}" if times else "–"
    parts = [_value(summary, part) for part in ("test", "validation")]
    return [
        row["title"],
        str(row["n_channels"]),
        f"{row['parameters']:,}",
        seeds,
        *parts,
        middle,
        f"{row['seconds']:.0f}",
    ]


def _value(summary: Mapping[str, Any], part: str) -> str:
    for name, scale, unit, digits in (("accuracy", 100, " %", 1), ("rmse", 1, "", 2)):
        found = summary.get(f"{part}_{name}")
        if found is not None:
            deviation = found["deviation"]
            spread = "" if deviation is None else f" ± {scale * deviation:.{digits}f}"
            return f"{scale * found['mean']:.{digits}f}{unit}{spread}"
    return "–"


def markdown(document: Mapping[str, Any]) -> str:
    """A table, and the commands that make it again."""
    table = [HEADS, ["---"] * len(HEADS), *map(cells, document["rows"])]
    lines = [f"| {' | '.join(row)} |" for row in table]
    return "\n".join([*lines, "", "```shell", *document["commands"], "```", ""])


def text(document: Mapping[str, Any]) -> str:
    """The same as text."""
    lines = [HEADS, *map(cells, document["rows"])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)
