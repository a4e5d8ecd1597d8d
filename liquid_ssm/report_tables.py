"""The tables of a report as columns and cells, and the remarks below them: what text, terminal and page share."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from .report import Report, RoundingRow

# Below this many columns the relative error and the oracle's radius are left out of the text tables.
FULL_WIDTH = 100


class Column(NamedTuple):
    header: str
    cell: Callable[[Any], str]
    left: bool = False
    # "narrow": on every page; "full": from FULL_WIDTH columns on; "page": in HTML only.
    since: Literal["narrow", "full", "page"] = "narrow"
    # What the page sorts by where the column holds numbers; None for a row without one.
    number: Callable[[Any], float | None] | None = None


class Section(NamedTuple):
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Any, ...]

    def cells(self) -> Iterator[list[str]]:
        for row in self.rows:
            yield [column.cell(row) for column in self.columns]


def _number(attribute: str) -> Callable[[Any], str]:
    def cell(row: Any) -> str:
        value = getattr(row, attribute)
        if getattr(row, "status", "") == "rejected":
            return "-"
        return "0" if value == 0 else f"{value:.1e}"

    return cell


def _value(attribute: str) -> Callable[[Any], float | None]:
    def number(row: Any) -> float | None:
        return None if getattr(row, "status", "") == "rejected" else float(getattr(row, attribute))

    return number


def _numbers(header: str, attribute: str, since: Literal["narrow", "full", "page"] = "narrow") -> Column:
    return Column(header, _number(attribute), since=since, number=_value(attribute))


def _text(attribute: str) -> Callable[[Any], str]:
    return lambda row: str(getattr(row, attribute)) or "-"


def _step(row: Any) -> str:
    return str(row.worst_step) if row.worst_step >= 0 else "-"


def _step_number(row: Any) -> float | None:
    return row.worst_step if row.worst_step >= 0 else None


def _seconds(row: RoundingRow) -> str:
    if row.status == "rejected":
        return "-"
    # At most six characters below 1000 s: 9.9 ms, 99 ms, 0.1 s.
    if row.seconds >= 0.0995:
        return f"{row.seconds:.1f} s"
    return f"{1e3 * row.seconds:.0f} ms" if row.seconds >= 0.00995 else f"{1e3 * row.seconds:.1f} ms"


_ROUNDING = (
    Column("backend", _text("backend"), left=True),
    Column("mode", _text("mode"), left=True),
    _numbers("error", "componentwise_error"),
    _numbers("2-norm", "relative_error", "full"),
    _numbers("inf-norm", "norm_inf_error", "page"),
    _numbers("/bound", "error_over_bound"),
    Column("bound", _text("bound_kind"), left=True, since="page"),
    Column("at step", _step, since="page", number=_step_number),
    Column("tier", _text("oracle"), left=True),
    _numbers("radius", "radius", "full"),
    Column("covered", _text("coverage"), left=True, since="page"),
    Column("time", _seconds, number=_value("seconds")),
    Column("verdict", _text("status"), left=True),
    Column("reason", _text("reason"), left=True, since="page"),
)

_ERRORS = (
    _numbers("error", "max_error"),
    _numbers("2-norm", "relative_error"),
    Column("at step", _step, number=_step_number),
)


def sections(report: Report, width: int | None) -> Iterator[Section]:
    """The tables that have rows; `width` None gives all columns."""
    shown = {"narrow"} | ({"full"} if width is None or width >= FULL_WIDTH else set())
    shown |= {"page"} if width is None else set()
    columns = tuple(column for column in _ROUNDING if column.since in shown)
    for dtype in dict.fromkeys(row.dtype for row in report.rounding):
        rows = tuple(row for row in report.rounding if row.dtype == dtype)
        if width is not None:
            # Who computed nothing at all is named below with the reason.
            computing = {row.backend for row in rows if row.status != "rejected"}
            rows = tuple(row for row in rows if row.backend in computing)
        if not rows:
            continue
        yield Section(f"Rounding, {dtype}: each backend against the exact value of the same mode", columns, rows)
    if report.truncation:
        mode = Column("mode", _text("mode"), left=True)
        yield Section("Truncation: each mode against liquid, both by the oracle", (mode, *_ERRORS), report.truncation)
    if report.discretization:
        method = Column("method", _text("method"), left=True)
        title = "Discretisation: liquid by each method against the continuous model (Eq. 10)"
        yield Section(title, (method, *_ERRORS), report.discretization)


def remarks(report: Report, width: int | None) -> list[str]:
    """What the tables mean, what they cover, and why rows did not pass."""
    lines = []
    if report.rounding:
        lines.append(
            "error: max |y_hat - y|; 2-norm: ||y_hat - y|| / ||y||; /bound: error in units of the derived bound, "
            "at most 1 passes; tier, radius: of the reference (T0 exact, T1 enclosure, T2 mpmath, T3 running bound)"
        )
    if width is not None and width < FULL_WIDTH and report.rounding:
        lines.append(f"columns 2-norm and radius need {FULL_WIDTH} columns; --json and --html have everything")
    covered = Counter(row.coverage for row in report.rounding if row.coverage)
    lines += [f"covered in {n} row{'s' if n > 1 else ''}: {coverage}" for coverage, n in covered.items()]
    refused: dict[tuple[str, str], list[RoundingRow]] = {}
    for row in report.rounding:
        if row.status == "rejected":
            refused.setdefault((row.backend, row.reason), []).append(row)
        elif row.status != "pass":
            at = f", largest at step {row.worst_step}" if row.worst_step >= 0 else ""
            lines.append(f"{row.status}: {row.label}{at}: {row.reason or 'no reason given'}")
    lines += [f"rejected: {backend}, {_whose(report, rows)}: {reason}" for (backend, reason), rows in refused.items()]
    return [*lines, *report.notes]


def _whose(report: Report, rejected: Sequence[RoundingRow]) -> str:
    """Which modes these rows are about, in as few words as possible."""
    modes = dict.fromkeys(row.mode for row in rejected)
    dtypes = {row.dtype for row in rejected}
    alike = [row for row in report.rounding if row.backend == rejected[0].backend and row.dtype in dtypes]
    if len(modes) == 1 or len(rejected) < len(alike):
        return "; ".join(modes)
    everywhere = dtypes == {row.dtype for row in report.rounding}
    return "every mode" if everywhere else f"every mode in {' and '.join(sorted(dtypes))}"


def wrap(lines: list[str], width: int) -> list[str]:
    # Long words stay whole: they are paths and names, which people copy.
    return [
        part
        for line in lines
        for part in textwrap.wrap(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    ]
