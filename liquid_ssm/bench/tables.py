"""A result as tables: plain text for the terminal, Markdown for the documentation."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..timing import Timing
from .latency import Latency
from .limits import COMPILED
from .memory import Peak
from .result import Result
from .rows import Row
from .targets import Target
from .work import BOTH, FORWARD

DASH = "-"
LEFT = ("subject", "mode", "direction", "target", "limit", "figure", "met", "called", "computed", "shape", "binds")


@dataclass(frozen=True)
class Table:
    """A title, the names of the columns, and rows of text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def text(self) -> str:
        """Columns in plain text, names to the left, numbers to the right."""
        grid = [self.columns, *self.rows]
        widths = [max(map(len, cells)) for cells in zip(*grid, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if name in LEFT else cell.rjust(width)
                for cell, width, name in zip(cells, widths, self.columns, strict=True)
            ).rstrip()
            for cells in grid
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([self.title, *lines])

    def markdown(self) -> str:
        """The same as a Markdown table, without the title."""
        aligned = ["---" if name in LEFT else "---:" for name in self.columns]
        rows = [self.columns, aligned, *([cell.replace("|", r"\|") for cell in row] for row in self.rows)]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def seconds_text(value: float) -> str:
    """Three digits with a unit: 12.3 us, 4.56 ms, 7.8 s."""
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        # 999.5 would be shown as 1e+03.
        if value * factor < 999.5:
            return f"{value * factor:.3g} {unit}"
    return f"{value:.3g} s"


def spread_text(timing: Timing | None) -> str:
    """The range from fastest to slowest run in units of the median."""
    if timing is None or not timing.median:
        return DASH
    return f"{timing.minimum / timing.median:.2f}-{timing.maximum / timing.median:.2f}"


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.0f} %" if value >= 0.0095 else f"{100 * value:.1g} %"


def _number(value: float | None, form: str) -> str:
    return DASH if value is None else format(value, form)


def time_table(title: str, rows: Sequence[Row]) -> Table:
    """Rows with a time, as they come."""
    cells = tuple(
        (
            row.subject,
            row.mode,
            row.direction,
            seconds_text(row.seconds.median),
            spread_text(row.seconds),
            _percent(row.limit_fraction),
            row.binds or DASH,
            _number(row.convolution_ratio, ".2f"),
            _number(row.error_over_bound, ".1e"),
        )
        for row in rows
        if row.seconds is not None
    )
    columns = ("subject", "mode", "direction", "time", "spread", "of limit", "binds", "/FFT", "/bound")
    return Table(title, columns, cells)


def operator_table(title: str, rows: Sequence[Row]) -> Table:
    """Rows of operators with a time, next to the compiled one's."""
    compiled = {
        (row.mode, row.direction, row.shape): row.seconds.median
        for row in rows
        if row.subject == COMPILED and row.seconds is not None
    }
    cells = []
    for row in rows:
        if row.seconds is None:
            continue
        reference = compiled.get((row.mode, row.direction, row.shape))
        ratio = None if reference is None else row.seconds.median / reference
        name = f"{row.subject} (liquid_ssm::{row.mode.partition(',')[0]})" if row.subject == COMPILED else row.subject
        cells.append(
            (
                name,
                row.mode,
                row.direction,
                seconds_text(row.seconds.median),
                spread_text(row.seconds),
                _percent(row.limit_fraction),
                _number(ratio, ".3g"),
            )
        )
    columns = ("subject", "mode", "direction", "time", "spread", "of limit", f"/{COMPILED}")
    return Table(title, columns, tuple(cells))


def target_table(targets: Iterable[Target]) -> Table:
    """Every target, the figure reached, and whether that is enough."""
    rows = []
    for target in targets:
        met = "not measured" if target.met is None else "yes" if target.met else "NO"
        rows.append((target.id, target.statement, target.limit, target.figure or target.reason, met))
    return Table("Targets", ("#", "target", "limit", "figure", "met"), tuple(rows))


def step_table(steps: Iterable[Latency]) -> Table:
    rows = tuple(
        (step.subject, step.mode, step.called, seconds_text(step.seconds.median), spread_text(step.seconds))
        for step in steps
        if step.seconds is not None
    )
    return Table("One step, batch 1, H 512, N 64", ("subject", "mode", "called", "time", "spread"), rows)


def peak_table(peaks: Iterable[Peak]) -> Table:
    rows = []
    for p in peaks:
        if p.whole is None:
            continue
        allowed = DASH if p.computed != BOTH else f"{(p.beyond or 0) / p.allowed:.2f}"
        sizes = (f"{(value or 0) / 2**20:.1f} MiB" for value in (p.whole, p.inputs, p.outputs, p.beyond))
        rows.append((p.subject, p.mode, p.computed, p.shape.label, *sizes, allowed))
    columns = ("subject", "mode", "computed", "shape", "process", "inputs", "outputs", "beyond", "/allowed")
    return Table("Peak memory, each in a process of its own", columns, tuple(rows))


def tables(result: Result, *, directions: Sequence[str] = (FORWARD, BOTH)) -> list[Table]:
    """Every table of a result that has rows, one of times for each shape."""
    found = [target_table(result.targets)]
    # By size of the problem, whatever the order of measuring was.
    for shape in sorted({row.shape for row in result.rows}, key=lambda s: (s.n_state, s.rows, s.length)):
        rows = [row for row in result.rows if row.shape == shape and row.direction in directions]
        order = {direction: i for i, direction in enumerate(directions)}
        rows.sort(key=lambda row: (order[row.direction], row.mode, row.seconds.median if row.seconds else 0))
        found.append(time_table(f"{shape.label}, {rows[0].dtype if rows else ''}", rows))
    found.append(time_table("Kernels alone", result.kernels))
    for shape in dict.fromkeys(row.shape for row in result.operators):
        rows = [row for row in result.operators if row.shape == shape]
        found.append(operator_table(f"Torch operators, {shape.label}, {rows[0].dtype}", rows))
    found += [step_table(result.steps), peak_table(result.peaks)]
    return [table for table in found if table.rows]


def limits_text(result: Result) -> str:
    """The machine's limits in one line, or why they are not known."""
    limits = result.limits
    if not limits.known:
        return f"limits    not measured: {limits.reason}"
    single, double, copied = (value or 0 for value in (limits.fma_float32, limits.fma_float64, limits.copy))
    return (
        f"limits    {limits.threads} threads: {single / 1e9:.4g} (float32) and {double / 1e9:.4g} (float64) "
        f"billion multiply-adds a second, copy {copied / 1e9:.3g} GB/s"
    )


def _common(reason: str) -> str:
    """The reason without the figures of its row, which the JSON has, so that rows share it."""
    for pattern, plain in (
        (r"one call took [\d.e+-]+ s, more", "one call took more"),
        (r"slower than .*", "slower than the limit on a smaller shape"),
        (r"about .* a call, by .*", "too slow, by what a shorter signal takes"),
    ):
        reason = re.sub(pattern, plain, reason)
    return reason


def left_out(result: Result) -> list[str]:
    """Why rows were not measured, one line for each reason and subject."""
    reasons: dict[tuple[str, str], dict[str, None]] = {}
    entries: list[tuple[str, str, str]] = []
    for row in (*result.rows, *result.kernels, *result.operators):
        if row.direction != BOTH or row in result.operators:
            entries.append((row.subject, row.reason, f"{row.mode} {row.direction} at {row.shape.label}"))
    entries += [(step.subject, step.reason, f"step {step.mode} {step.called}") for step in result.steps]
    entries += [(p.subject, p.reason, f"memory of {p.computed}, {p.mode} at {p.shape.label}") for p in result.peaks]
    for subject, reason, what in entries:
        if reason:
            reasons.setdefault((subject, _common(reason.removeprefix(f"{subject}: "))), {})[what] = None
    lines = []
    for (subject, reason), names in reasons.items():
        first, *rest = names
        more = f" and {len(rest)} more" if rest else ""
        lines.append(f"{subject}: {reason}: {first}{more}")
    return lines


LEGEND = (
    "time: median of at least 7 runs; spread: fastest and slowest in units of it; of limit: the least time of the "
    "plain recurrence at the limit which binds, over the time taken (fma: multiply-adds, copy: memory); /FFT: over "
    "the fastest scipy.fft convolution of the same inputs, kernel given; /bound: largest error on an excerpt in units "
    "of its derived bound, at most 1 is within it; forward + backward: the sum, backward by a vector-Jacobian product."
)


def text(result: Result, width: int = 110) -> str:
    """The whole result as text."""
    environment = result.environment
    head = [f"machine   {environment.get('cpu', 'unknown')}; cores {environment.get('cores', 'unknown')}"]
    blocks = ["\n".join([*head, limits_text(result)]), *(table.text() for table in tables(result))]
    remarks = [LEGEND, *left_out(result), *result.notes]
    wrapped = [line for remark in remarks for line in textwrap.wrap(remark, width, subsequent_indent="  ")]
    return "\n\n".join([*blocks, "\n".join(wrapped)])


def markdown(result: Result, level: int = 3) -> str:
    """The whole result as Markdown, times of all shapes in one table."""
    marks = "#" * level
    about = limits_text(result).removeprefix("limits").strip()
    parts = [f"Limits: {about}."]
    if result.targets:
        parts += [f"{marks} Targets", target_table(result.targets).markdown()]
    for title, table in (
        ("Times", _all_times(result)),
        ("Kernels alone", time_table("", result.kernels)),
        ("Torch operators", _all_operators(result)),
        ("One step", step_table(result.steps)),
        ("Peak memory", peak_table(result.peaks)),
        ("Accuracy", _accuracy(result)),
    ):
        if table.rows:
            parts += [f"{marks} {title}", table.markdown()]
    if lines := left_out(result):
        parts += [f"{marks} Not measured", "\n".join(f"- {line}" for line in lines)]
    return "\n\n".join(parts) + "\n"


def _all_times(result: Result) -> Table:
    grid = []
    columns: tuple[str, ...] = ()
    for shape in sorted({row.shape for row in result.rows}, key=lambda s: (s.n_state, s.rows, s.length)):
        rows = [row for row in result.rows if row.shape == shape and row.direction in (FORWARD, BOTH)]
        one = time_table("", rows)
        columns = one.columns
        grid += [(shape.label, *cells) for cells in one.rows]
    return Table("", ("shape", *columns), tuple(grid))


def _all_operators(result: Result) -> Table:
    table = operator_table("", result.operators)
    shapes = [row.shape.label for row in result.operators if row.seconds is not None]
    rows = tuple((shape, *cells) for shape, cells in zip(shapes, table.rows, strict=True))
    return Table("", ("shape", *table.columns), rows)


def _accuracy(result: Result) -> Table:
    rows = tuple(
        (a.subject, a.mode, a.dtype, _number(a.relative_error, ".1e"), _number(a.error_over_bound, ".1e"), a.status)
        for a in result.accuracy
        if a.status != "rejected"
    )
    return Table("", ("subject", "mode", "dtype", "2-norm error", "error/bound", "verdict"), rows)
