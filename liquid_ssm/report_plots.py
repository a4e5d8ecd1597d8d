"""The plots of a report, drawn from its rows and curves; nothing is computed here.

Every plot is one panel, so that a page can lay them out for its width.  The text colour is one that no data has, so
that a page can replace it by its own.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .curves import Curves, ErrorCurve
from .errors import ParameterError

if TYPE_CHECKING:
    from .report import Report

INSTALL = "pip install 'liquid-ssm[plots]'"

WIDTH, HEIGHT = 5.0, 3.5  # inches
DPI = 160

# What an unstable method is off by says nothing: beyond this relative error the plot ends.
UNSTABLE = 10.0

LEAST_SHOWN = 1e-300

INK = "#1f2328"
SENTINEL = "#010203"

# The same numbers give the same file: no date, and no version.
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))

# Each has a contrast of at least 3 to white and to the page's dark ground.
COLOURS = ("#2f7de1", "#d9730d", "#1a9850", "#dc2f2f", "#9b51e0", "#0d8fa8", "#d6408c", "#8a7a2a")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

Draw = Callable[[Any, str], None]


@dataclass(frozen=True)
class Plot:
    """One panel.

    Attributes:
        group: heading that it belongs under, with a sentence that explains all of the group.
        name: of its files, without suffix.
        title, caption: for people.
        draw: draws on matplotlib's axes, given the colour of text.
        height: inches.
    """

    group: tuple[str, str]
    name: str
    title: str
    caption: str
    draw: Draw
    height: float = HEIGHT


def need_matplotlib(otherwise: str = "ask for no plots") -> None:
    """Refuse plots where they cannot be drawn, before any time is spent.

    Raises:
        ParameterError: matplotlib is not installed; the message has the command that installs it.
    """
    if find_spec("matplotlib") is None:
        raise ParameterError(f"plots need matplotlib, which is not installed. Run: {INSTALL}, or {otherwise}.")


def plots(report: Report) -> list[Plot]:
    """All plots that the report has data for."""
    curves = report.curves or Curves()
    order = {name: i for i, name in enumerate(dict.fromkeys(row.backend for row in report.rounding))}
    return [
        *_error_plots(curves, order),
        *_tightness(report, order),
        *_truncation(curves),
        *_discretization(curves),
        *_times(curves, order),
        *_bands(curves),
    ]


def svg(plot: Plot, number: int) -> str:
    """The plot as an element for a page: text in the page's colour and font, ids that no other number has."""
    stream = io.StringIO()
    with _figure(plot, SENTINEL) as figure:
        figure.savefig(stream, format="svg", transparent=True, metadata=NO_METADATA)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    prefix = f"plot{number}-"
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = text.replace("url(#", f"url(#{prefix}").replace('href="#', f'href="#{prefix}')
    text = text.replace(SENTINEL, "currentColor")
    label = escape(f"{plot.title}. {plot.caption}")
    return re.sub(
        r'<svg .*?viewBox="(.*?)".*?>',
        r'<svg viewBox="\1" role="img" aria-label="@LABEL@">',
        text,
        count=1,
        flags=re.DOTALL,
    ).replace("@LABEL@", label, 1)


def write(report: Report, folder: Path) -> list[Path]:
    """Every plot as PNG and SVG.

    Raises:
        ParameterError: matplotlib is not installed.
    """
    need_matplotlib()
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for plot in plots(report):
        png, vector = folder / f"{plot.name}.png", folder / f"{plot.name}.svg"
        with _figure(plot, INK, title=True) as figure:
            figure.savefig(png, dpi=DPI, metadata={"Software": None})
            figure.savefig(vector, format="svg", metadata=NO_METADATA)
        made += [png, vector]
    return made


@contextmanager
def _figure(plot: Plot, ink: str, title: bool = False) -> Iterator[Any]:
    """The figure, within the settings that it is to be saved under: those of this module, not the user's."""
    from matplotlib import style

    # Without pyplot, so that no window system is asked for.
    from matplotlib.figure import Figure

    settings = {
        "svg.hashsalt": "liquid-ssm",
        "svg.fonttype": "none",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 10,
        "axes.titlesize": 10,
        "legend.fontsize": 9,
        "text.parse_math": False,
        "axes.edgecolor": ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": "#808080",
        "grid.alpha": 0.25,
        "lines.linewidth": 1.3,
        "lines.markersize": 4.5,
        **{f"{part}.color": ink for part in ("text", "xtick", "ytick")},
        "axes.labelcolor": ink,
    }
    with style.context(["default", settings]):
        figure = Figure(figsize=(WIDTH, plot.height), layout="constrained")
        axes = figure.subplots()
        axes.grid(True)
        axes.set_axisbelow(True)
        plot.draw(axes, ink)
        if title:
            axes.set_title(_clean(plot.title))
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            columns = 3 if max(map(len, labels)) < 17 else 2
            figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
        yield figure


def _clean(text: str) -> str:
    """Without lone surrogates, which no font and no encoding has."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _power(value: float, _: object = None) -> str:
    """1e-5 and 100: plain text, which needs no mathematics fonts."""
    if 0.01 <= value < 10_000:
        return f"{value:g}"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _log(axis: Any) -> None:
    """Logarithmic, with few plain labels."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(numticks=7))
    axis.set_major_formatter(FuncFormatter(_power))
    axis.set_minor_locator(NullLocator())  # they take most of the time of a plot


def _log_y(axes: Any) -> None:
    axes.set_yscale("log")
    _log(axes.yaxis)


def _log_x(axes: Any) -> None:
    axes.set_xscale("log")
    _log(axes.xaxis)


def _lengths_x(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _positive(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """The points that a logarithmic axis can show; its limits must not underflow, so subnormal numbers are none."""
    points = [(a, b) for a, b in zip(x, y, strict=True) if LEAST_SHOWN < b < float("inf")]
    return [a for a, _ in points], [b for _, b in points]


def _colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def _marker(i: int) -> str:
    return MARKERS[i % len(MARKERS)]


def _slug(*parts: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")


_BY_STEP = (
    "Error against the step, with its bound",
    "Solid: the error of a backend. Dashed, in the same colour: the bound that is derived for that way of computing. "
    "Both are of the channel that comes nearest to its bound, and the largest of each block of steps where there are "
    "more steps than points. The bound of an FFT holds for the 2-norm over all steps, and so for each of them.",
)
_BY_LENGTH = (
    "Error against the length L, with its bound",
    "Solid: the largest error of a run of L steps. Dashed: its bound. Recurrences: the first L steps of one run. FFT "
    "(squares): every L is a run of its own.",
)


def _error_plots(curves: Curves, order: dict[str, int]) -> Iterator[Plot]:
    for against, group in (("step", _BY_STEP), ("length", _BY_LENGTH)):
        chosen = [curve for curve in curves.errors if curve.against == against]
        panels: dict[tuple[str, str], list[ErrorCurve]] = {}
        for curve in chosen:
            panels.setdefault((curve.mode, curve.dtype), []).append(curve)
        # The dtypes of a mode stand side by side.
        modes = list(dict.fromkeys(mode for mode, _ in panels))
        for (mode, dtype), found in sorted(panels.items(), key=lambda item: modes.index(item[0][0])):
            if not any(_positive(curve.x, values)[1] for curve in found for values in (curve.error, curve.bound)):
                continue
            found.sort(key=lambda curve: order.get(curve.backend, len(order)))
            what = "at every step" if against == "step" else "of the first L steps"
            yield Plot(
                group,
                _slug("error by", against, mode, dtype),
                f"{mode}, {dtype}",
                f"Largest error {what} of {len(found)} backends in mode {mode}, {dtype}, next to their bounds.",
                _draw_errors(found, order),
            )


def _draw_errors(found: Sequence[ErrorCurve], order: dict[str, int]) -> Draw:
    def draw(axes: Any, ink: str) -> None:
        for curve in found:
            i = order.get(curve.backend, len(order))
            by_length = curve.against == "length"
            marker = ("s" if curve.own_runs else ".") if by_length else None
            axes.plot(
                *_positive(curve.x, curve.bound), "--", color=_colour(i), alpha=0.9, linewidth=1.0 + 0.5 * (i % 2)
            )
            axes.plot(*_positive(curve.x, curve.error), color=_colour(i), marker=marker, label=_clean(curve.backend))
        axes.plot([], [], "--", color=ink, label="bound")
        _log_y(axes)
        if found[0].against == "length":
            _lengths_x(axes)
        axes.set(
            xlabel="step k" if found[0].against == "step" else "length L (steps)",
            ylabel="|error| (units of y)" if found[0].against == "step" else "largest |error| (units of y)",
        )

    return draw


_TIGHTNESS = (
    "How tight the bounds are",
    "Bound over observed error, row by row of the tables. 1 means that the bound is reached; left of it a bound is "
    "broken. Rows without an error, or without a finite bound, have no dot.",
)


def _tightness(report: Report, order: dict[str, int]) -> Iterator[Plot]:
    rows = [row for row in report.rounding if LEAST_SHOWN < row.error_over_bound < float("inf")]
    for dtype, found in groupby(sorted(rows, key=lambda row: row.dtype), lambda row: row.dtype):
        group = list(found)
        modes = list(dict.fromkeys(row.mode for row in group))

        def draw(axes: Any, ink: str, group: Any = group, modes: Any = modes) -> None:
            backends = sorted({row.backend for row in group}, key=lambda name: order[name])
            for j, backend in enumerate(backends):
                own = [row for row in group if row.backend == backend]
                shift = 0.6 * ((j + 0.5) / len(backends) - 0.5)
                i = order[backend]
                axes.plot(
                    [1 / row.error_over_bound for row in own],
                    [modes.index(row.mode) + shift for row in own],
                    _marker(i),
                    color=_colour(i),
                    label=_clean(backend),
                )
            axes.axvline(1, color=ink, linestyle="--", label="bound reached")
            _log_x(axes)
            axes.set_yticks(range(len(modes)), [_clean(mode) for mode in modes])
            axes.set_ylim(len(modes) - 0.4, -0.6)
            axes.set(xlabel="bound / observed error")

        yield Plot(
            _TIGHTNESS,
            _slug("bound tightness", dtype),
            f"Bound tightness, {dtype}",
            f"Bound over observed error of each backend in each mode, {dtype}; 1 means that the bound is reached.",
            draw,
            1.7 + 0.34 * len(modes),
        )


def _truncation(curves: Curves) -> Iterator[Plot]:
    if not any(_positive(curve.order, curve.error)[1] for curve in curves.truncation):
        return

    def draw(axes: Any, ink: str) -> None:
        for i, curve in enumerate(curves.truncation):
            axes.plot(*_positive(curve.order, curve.error), "-", marker=_marker(i), color=_colour(i), label=curve.mode)
        _log_y(axes)
        axes.set_xticks(curves.truncation[0].order)
        axes.set(xlabel="order P", ylabel="relative error (2-norm)")

    yield Plot(
        (
            "Truncation error against the order",
            "What the approximation itself costs, the same in every backend: each mode against liquid, which has all "
            "orders, both by the oracle. On diagonal systems kb (all) is the same model as truncated.",
        ),
        "truncation-by-order",
        "Truncation error against the order",
        "Relative 2-norm error of each mode against liquid at the orders 1 to 6.",
        draw,
    )


def _discretization(curves: Curves) -> Iterator[Plot]:
    if not any(_positive(curve.dt, curve.error)[1] for curve in curves.discretization):
        return

    def draw(axes: Any, ink: str) -> None:
        shown: list[float] = []
        for i, curve in enumerate(curves.discretization):
            label = f"{curve.method}: no slope" if curve.slope != curve.slope else f"{curve.method}: {curve.slope:.2f}"
            x, y = _positive(curve.dt, curve.error)
            axes.plot(x, y, "-", marker=_marker(i), color=_colour(i), label=label)
            shown += [value for value in y if value < UNSTABLE]
        _log_x(axes)
        _log_y(axes)
        if shown:
            axes.set_ylim(min(shown) / 3, 3 * max(shown))
        axes.set(xlabel="largest step size dt (time)", ylabel="relative error (2-norm)")

    yield Plot(
        (
            "Discretisation error against the step size",
            "Liquid by each method against the continuous model (Eq. 10), both by the oracle. The input stays held "
            "over the signal's own steps while these are divided; the numbers in the legend are fitted slopes, that "
            "is, orders of convergence. Lines that leave the top belong to a method that is unstable at that step. "
            "adams-bashforth takes a slope from before each jump of the held input, which costs it its second order.",
        ),
        "discretisation-by-step-size",
        "Discretisation error against the step size",
        "Relative 2-norm error of each method against the exact solution, with fitted slopes in the legend.",
        draw,
    )


def _times(curves: Curves, order: dict[str, int]) -> Iterator[Plot]:
    group = (
        "Time against the length L, with the limits of the machine",
        "Median seconds of one call on the first L steps. Dashed and dotted: what the machine allows at best for this "
        "work, measured in the same run: the multiply-adds that are needed, and reading u and writing y once. Calls on "
        "short signals are far above it because starting them costs more than the work.",
    )
    for mode in dict.fromkeys(curve.mode for curve in curves.times):
        found = [curve for curve in curves.times if curve.mode == mode]

        def draw(axes: Any, ink: str, found: Any = found) -> None:
            limits = iter(("--", ":", "-."))
            for curve in sorted(found, key=lambda c: (c.limit, order.get(c.name, len(order)))):
                if curve.limit:
                    axes.plot(curve.length, curve.seconds, next(limits), color=ink, label=curve.name)
                    continue
                i = order.get(curve.name, len(order))
                axes.plot(
                    curve.length, curve.seconds, "-", marker=_marker(i), color=_colour(i), label=_clean(curve.name)
                )
            _lengths_x(axes)
            _log_y(axes)
            axes.set(xlabel="length L (steps)", ylabel="time of one call (s)")

        dtype = found[0].dtype
        yield Plot(
            group,
            _slug("time by length", mode, dtype),
            f"Time, {mode}, {dtype}",
            f"Median time of one call of each backend in mode {mode}, {dtype}, next to the limits of this machine.",
            draw,
        )


def _bands(curves: Curves) -> Iterator[Plot]:
    group = (
        "The signal and the exact outputs",
        "Reference values, not those of a backend: the outputs of the first row of the batch, up to four channels. "
        "Where there are more steps than points a band goes from the smallest to the largest value of each block.",
    )
    for of in dict.fromkeys(band.of for band in curves.bands):
        found = [band for band in curves.bands if band.of == of]
        signal = of == "u"

        def draw(axes: Any, ink: str, found: Any = found, signal: bool = signal) -> None:
            for i, band in enumerate(found):
                label = f"signal row {band.batch}" if signal else f"channel {band.channel}"
                # The edge keeps a band visible where it has no height.
                axes.fill_between(
                    band.step, band.low, band.high, color=_colour(i), alpha=0.75, linewidth=1.0, label=label
                )
            axes.set(xlabel="step k", ylabel="u (units of u)" if signal else "y (units of y)")

        yield Plot(
            group,
            "signal" if signal else _slug("output", of),
            "Signal u" if signal else f"Output, {of}",
            "The input signal." if signal else f"The exact output in mode {of}.",
            draw,
        )
