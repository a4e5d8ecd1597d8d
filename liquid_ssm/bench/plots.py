"""Plots of a result: time against L with the limit drawn in, and the fraction of the limit by shape."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import ParameterError
from .result import Result
from .rows import Row
from .shapes import LENGTHS, ROWS, STATES, Shape
from .work import BOTH, FORWARD

DPI = 100
INSTALL = "pip install 'liquid-ssm[bench]'"
MODES = ("s4", "liquid", "truncated(3)", "kb(3, adjacent)", "pb(3, all)")


def need_matplotlib() -> None:
    """Refuse plots where they cannot be drawn, before any time is spent.

    Raises:
        ParameterError: matplotlib is not installed; the message has the command that installs it.
    """
    if find_spec("matplotlib") is None:
        raise ParameterError(f"plots need matplotlib, which is not installed. Run: {INSTALL}, or leave --plots out.")


def draw(result: Result, folder: Path) -> list[Path]:
    """Write the PNG files of a result into a folder; those without a point are left out.

    Raises:
        ParameterError: matplotlib is not installed.
    """
    need_matplotlib()
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, figure in (
        ("time-by-length", _time_by_length(result)),
        ("limit-by-shape", _fraction_by_shape(result)),
    ):
        if figure is not None:
            made.append(folder / f"{name}.png")
            figure.savefig(made[-1], dpi=DPI)
    return made


def _figure(columns: int, height: float = 3.6) -> tuple[Any, Any]:
    # Without pyplot, so that no window system is asked for.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * columns, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _timed(result: Result, shapes: tuple[Shape, ...], direction: str) -> list[Row]:
    return [row for row in result.rows if row.seconds and row.direction == direction and row.shape in shapes]


def _series(rows: list[Row], subject: str, mode: str, x: str) -> list[tuple[float, Row]]:
    found = {getattr(row.shape, x): row for row in rows if (row.subject, row.mode) == (subject, mode)}
    return sorted(found.items(), key=lambda item: item[0])


def _median(row: Row) -> float:
    assert row.seconds is not None
    return row.seconds.median


def _time_by_length(result: Result) -> Any:
    """Seconds against L: every backend in mode liquid, the convolutions, and the limit; forward and both."""
    if not _timed(result, LENGTHS, FORWARD):
        return None
    figure, axes = _figure(2)
    for axis, direction in zip(axes, (FORWARD, BOTH), strict=True):
        rows = _timed(result, LENGTHS, direction)
        for subject, mode in dict.fromkeys((r.subject, r.mode) for r in rows):
            if mode != "liquid" and not (subject.startswith("scipy.fft") and mode == "s4"):
                continue
            points = _series(rows, subject, mode, "length")
            label = subject if mode == "s4" else f"{subject}, {mode}"
            axis.plot([x for x, _ in points], [_median(r) for _, r in points], "o-", ms=3, label=label)
        limited = [row for row in rows if row.mode == "liquid" and row.limit_fraction]
        limit = sorted({r.shape.length: _median(r) * (r.limit_fraction or 0) for r in limited}.items())
        if limit:
            axis.plot([x for x, _ in limit], [y for _, y in limit], "k--", label="limit of the machine, liquid")
        axis.set(xscale="log", yscale="log", xlabel="L", ylabel="seconds", title=direction)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=7)
    return figure


def _fraction_by_shape(result: Result) -> Any:
    """Fraction of the limit that binds, of the backend that is nearest to it, over L, N and batch·channels."""
    rows = [row for row in result.rows if row.limit_fraction is not None]
    if not rows:
        return None
    best = max(rows, key=lambda row: row.limit_fraction or 0).subject
    figure, axes = _figure(3)
    for axis, (x, label, shapes) in zip(
        axes, (("length", "L", LENGTHS), ("n_state", "N", STATES), ("rows", "batch x channels", ROWS)), strict=True
    ):
        for direction, style in ((FORWARD, "o-"), (BOTH, "s:")):
            chosen = [row for row in _timed(result, shapes, direction) if row.limit_fraction is not None]
            for index, mode in enumerate(MODES):
                points = _series(chosen, best, mode, x)
                if points:
                    ys = [100 * (row.limit_fraction or 0) for _, row in points]
                    name = mode if direction == FORWARD else None
                    axis.plot([p for p, _ in points], ys, style, ms=3, color=f"C{index}", label=name)
        axis.set(xscale="log", xlabel=label, ylim=(0, 100), ylabel="% of the limit")
        axis.set_xscale("log", base=2)
        axis.grid(alpha=0.3)
    if axes[0].lines:
        axes[0].legend(fontsize=7, title=f"{best}; dotted: {BOTH}", title_fontsize=7)
    return figure
