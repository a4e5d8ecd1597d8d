"""The results of `digits.py` as text, as a table of Markdown, and as a plot; without torch, for the documentation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

HEADS = ("model", "width", "parameters", "seeds", "test accuracy", "validation accuracy", "seconds per epoch")


def summary(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry per length and model: mean and standard deviation (ddof = 1) over seeds, in the order of the rows.

    Runs that failed have no accuracy: they are counted, and the others make the numbers, None where there are too few
    (no mean of none, no deviation of one).
    """
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["length"], row["model"]), []).append(row)
    entries = []
    for (length, model), found in sorted(groups.items(), key=lambda item: item[0][0]):
        done = [row for row in found if row["failure"] is None]
        entry = {
            "length": length, "model": model, "title": found[0]["title"], "width": found[0]["width"],
            "parameters": found[0]["parameters"], "seeds": len(found), "failed": len(found) - len(done),
        }  # fmt: skip
        for part in ("test", "validation"):
            values = [row[f"{part}_accuracy"] for row in done]
            entry[f"{part}_mean"] = float(np.mean(values)) if values else None
            entry[f"{part}_deviation"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        entry["seconds_per_epoch"] = median(row["seconds_per_epoch"] for row in done) if done else None
        entries.append(entry)
    return entries


def cells(entry: dict[str, Any]) -> list[str]:
    """An entry of the summary under `HEADS`; accuracies in %."""
    seeds = f"{entry['seeds']}" + (f", {entry['failed']} failed" if entry["failed"] else "")
    seconds = "–" if entry["seconds_per_epoch"] is None else f"{entry['seconds_per_epoch']:.2f}"
    accuracies = [_accuracy(entry, part) for part in ("test", "validation")]
    return [entry["title"], str(entry["width"]), str(entry["parameters"]), seeds, *accuracies, seconds]


def _accuracy(entry: dict[str, Any], part: str) -> str:
    mean, deviation = entry[f"{part}_mean"], entry[f"{part}_deviation"]
    if mean is None:
        return "–"
    return f"{100 * mean:.1f} %" + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def markdown(document: dict[str, Any], level: int = 3) -> str:
    """A table per length, under headings of that level."""
    parts = []
    for length in dict.fromkeys(entry["length"] for entry in document["summary"]):
        epochs = document["settings"]["epochs"][str(length)]
        found = [cells(entry) for entry in document["summary"] if entry["length"] == length]
        table = [HEADS, ["---"] * len(HEADS), *found]
        lines = "\n".join(f"| {' | '.join(row)} |" for row in table)
        parts.append(f"{'#' * level} L = {length}, {epochs} epochs\n\n{lines}\n")
    return "\n".join(parts)


def text(document: dict[str, Any]) -> str:
    """The same as text."""
    lines: list[Iterable[str]] = [("L", *HEADS)]
    lines += [(str(entry["length"]), *cells(entry)) for entry in document["summary"]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def draw(document: dict[str, Any], path: Path) -> Path:
    """Per length: test accuracy against seconds per epoch, and validation accuracy by epoch; the suffix is the format.

    Bars and bands are one standard deviation to each side.
    """
    # Without pyplot, so that no window system is asked for.
    from matplotlib.figure import Figure

    entries = document["summary"]
    lengths = list(dict.fromkeys(entry["length"] for entry in entries))
    # A model keeps its colour in every panel.
    models = {entry["model"]: f"C{i}" for i, entry in enumerate({e["model"]: e for e in entries}.values())}
    figure = Figure(figsize=(10, 3.8 * len(lengths)), layout="constrained")
    panels = figure.subplots(len(lengths), 2, squeeze=False)
    for (points, curves), length in zip(panels, lengths, strict=True):
        for entry in entries:
            if entry["length"] != length or entry["test_mean"] is None:
                continue
            color, label = models[entry["model"]], entry["title"]
            bar = 100 * (entry["test_deviation"] or 0)
            x, y = entry["seconds_per_epoch"], 100 * entry["test_mean"]
            points.errorbar(x, y, bar, fmt="o", capsize=3, color=color, label=label)
            curve = 100 * np.array(
                [
                    row["validation_curve"]
                    for row in document["rows"]
                    if (row["length"], row["model"], row["failure"]) == (length, entry["model"], None)
                ]
            )
            epoch, mean = np.arange(1, curve.shape[1] + 1), curve.mean(0)
            curves.plot(epoch, mean, ".-", ms=4, color=color, label=label)
            if len(curve) > 1:
                band = curve.std(0, ddof=1)
                curves.fill_between(epoch, mean - band, mean + band, color=color, alpha=0.12, lw=0)
        points.set(xscale="log", xlabel="seconds per epoch", ylabel="test accuracy, %", title=f"L = {length}")
        curves.set(xlabel="epoch", ylabel="validation accuracy, %", title=f"L = {length}")
        for axis in (points, curves):
            axis.grid(alpha=0.3, which="both")
        curves.legend(fontsize=8, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    # The same numbers give the same file: no date, and names inside an SVG from a fixed seed.
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "digits"}):
        figure.savefig(path, dpi=100, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path
