"""The result of a verification: rows of numbers, and the same rows as text, rich tables, JSON and HTML.

The three kinds of error stay in three tables; no number is made from more than one of them.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from .errors import ParameterError

if TYPE_CHECKING:
    from rich.console import Console

Status = Literal["pass", "fail", "inconclusive", "rejected"]
STATUSES: tuple[str, ...] = get_args(Status)

SCHEMA = "liquid-ssm/report"
SCHEMA_VERSION = 1

# Below this many columns the relative error and the oracle's radius are left out of the text tables.
FULL_WIDTH = 100


@dataclass(frozen=True)
class RoundingRow:
    """One backend, mode and dtype against the exact value of the same mode and parameters.

    Attributes:
        status: `pass`: every error is within its bound; `fail`: one is not; `inconclusive`: the reference cannot
            decide; `rejected`: the backend does not offer this problem and computed nothing.
        componentwise_error: max over batch, channels and steps of |ŷ − y| [units of y].
        relative_error: ‖ŷ − y‖₂ / ‖y‖₂; 0 where both norms are 0.
        norm_inf_error: ‖ŷ − y‖_∞ / ‖y‖_∞.
        error_over_bound: the largest error in units of its bound; at most 1 passes.
        bound_kind: `componentwise` or `normwise`.
        worst_step: step k of the largest error, -1 where nothing was computed.
        oracle: tier of the reference, `T0` to `T3`.
        radius: how far the reference may be from the exact value [units of y].
        coverage: which steps were compared with which tier.
        seconds: wall time of the backend's call.
        reason: why the status is not `pass`, else empty.
    """

    backend: str
    mode: str
    dtype: str
    status: str
    componentwise_error: float = math.nan
    relative_error: float = math.nan
    norm_inf_error: float = math.nan
    error_over_bound: float = math.nan
    bound_kind: str = ""
    worst_step: int = -1
    oracle: str = ""
    radius: float = math.nan
    coverage: str = ""
    seconds: float = math.nan
    reason: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ParameterError(f"status is {self.status!r}; allowed: {', '.join(STATUSES)}.")

    @property
    def label(self) -> str:
        return f"{self.backend} {self.mode} {self.dtype}"


@dataclass(frozen=True)
class TruncationRow:
    """One mode against `liquid`, both by the oracle: what the approximation itself costs.

    Attributes:
        relative_error: ‖y_mode − y_liquid‖₂ / ‖y_liquid‖₂.
        max_error: max |y_mode − y_liquid| [units of y].
        worst_step: step of the largest error.
    """

    mode: str
    relative_error: float
    max_error: float
    worst_step: int


@dataclass(frozen=True)
class DiscretizationRow:
    """`liquid` after one discretisation against the continuous model (Eq. 10), both by the oracle.

    Attributes: as in `TruncationRow`, with the name of the method.
    """

    method: str
    relative_error: float
    max_error: float
    worst_step: int


@dataclass(frozen=True)
class Report:
    """Everything that one verification found.

    Attributes:
        rounding, truncation, discretization: the rows of the three tables.
        environment: versions, processor, threads.
        problem: shapes, seeds, initialisation, signal, …; values that JSON knows.
        notes: what a reader should know, one sentence each.
    """

    rounding: tuple[RoundingRow, ...]
    truncation: tuple[TruncationRow, ...] = ()
    discretization: tuple[DiscretizationRow, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    problem: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """True if some rounding row passes and every other one passes or was rejected.

        A rejected row has no result that could be wrong, so it does not count against the others; rejected rows
        alone, or no rows, are not a pass.
        """
        found = {row.status for row in self.rounding}
        return "pass" in found and found <= {"pass", "rejected"}

    @property
    def verdict(self) -> str:
        """One line: PASS, FAIL, INCONCLUSIVE or NOTHING VERIFIED, with the numbers behind it."""
        count = Counter(row.status for row in self.rounding)
        computed = len(self.rounding) - count["rejected"]
        rejected = f"; {count['rejected']} rejected" if count["rejected"] else ""
        if self.passed:
            return f"PASS: {count['pass']} of {computed} rows within their bound{rejected}"
        if not computed:
            return f"NOTHING VERIFIED: no row was computed{rejected}"
        found = []
        for status, said in (("fail", "outside their bound"), ("inconclusive", "not decided by the reference")):
            labels = [row.label for row in self.rounding if row.status == status]
            if labels:
                more = f" and {len(labels) - 4} more" if len(labels) > 4 else ""
                found.append(f"{len(labels)} of {computed} rows {said} ({', '.join(labels[:4])}{more})")
        return f"{'FAIL' if count['fail'] else 'INCONCLUSIVE'}: {'; '.join(found)}{rejected}"

    def table(self, width: int = FULL_WIDTH) -> str:
        """The tables as plain ASCII text, for `print` and for files.

        Args:
            width: columns to keep within; below 100 two columns of the first table are left out.
        """
        blocks = []
        for section in _sections(self, width):
            grid = [[column.header for column in section.columns], *section.cells()]
            widths = [max(map(len, cells)) for cells in zip(*grid, strict=True)]
            lines = [
                "  ".join(
                    cell.ljust(size) if column.left else cell.rjust(size)
                    for cell, size, column in zip(cells, widths, section.columns, strict=True)
                ).rstrip()
                for cells in grid
            ]
            lines.insert(1, "  ".join("-" * size for size in widths))
            blocks.append("\n".join([*_wrap([section.title], width), *lines]))
        remarks = _wrap(_remarks(self, width), width)
        return "\n\n".join(
            [*blocks, *(["\n".join(remarks)] if remarks else []), "\n".join(_wrap([self.verdict], width))]
        )

    def print(self, console: Console) -> None:
        """The tables on a rich console: with colour and fitted to its width on a terminal, else `table()`."""
        if not console.is_terminal:
            console.file.write(self.table() + "\n")
            return
        from rich.table import Table
        from rich.text import Text

        for section in _sections(self, console.width):
            # box=None and a gap of two give the layout of `table()`, so that its widths hold here too.
            table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
            for column in section.columns:
                table.add_column(
                    column.header, justify="left" if column.left else "right", no_wrap=column.header != "mode"
                )
            for cells in section.cells():
                # Text, not str: rich would read brackets in a name as markup.
                table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in cells))
            console.print(Text(section.title, style="bold underline"))
            console.print(table)
            console.print()
        for line in _remarks(self, console.width):
            console.print(Text(line, style=_STYLES.get(line.partition(":")[0], "dim")))
        console.print()
        console.print(Text(self.verdict, style="bold green" if self.passed else "bold red"))

    def to_json(self, path: str | PathLike[str] | None = None) -> str:
        """The report as strict JSON (RFC 8259), and written to `path` if one is given.

        Keys: `schema`, `schema_version` (raised when a key changes its meaning or goes), `passed`, `verdict`,
        `problem`, `environment`, `notes`, and `rounding`, `truncation`, `discretization`: lists of objects whose
        keys are the attributes of the rows.  JSON has no NaN and no infinity: such a number is one of the strings
        "nan", "inf", "-inf", which `float()` reads back.

        Raises:
            TypeError: `problem` holds a value that JSON has no form for.
        """
        document = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "passed": self.passed,
            "verdict": self.verdict,
            "problem": self.problem,
            "environment": self.environment,
            "notes": self.notes,
            "rounding": [asdict(row) for row in self.rounding],
            "truncation": [asdict(row) for row in self.truncation],
            "discretization": [asdict(row) for row in self.discretization],
        }
        text = dump_json(document)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    def to_html(self, path: str | PathLike[str]) -> None:
        """Write the report as one HTML file that needs no other file and no script."""
        parts = [f"<p class={'pass' if self.passed else 'fail'}><strong>{escape(self.verdict)}</strong></p>"]
        for section in _sections(self, None):
            heads = "".join(
                f"<th{' class=left' if column.left else ''}>{escape(column.header)}</th>" for column in section.columns
            )
            rows = []
            for cells in section.cells():
                filled = zip(cells, section.columns, strict=True)
                rows.append("".join(f"<td{_css(cell, column)}>{escape(cell)}</td>" for cell, column in filled))
            body = "\n".join(f"<tr>{row}</tr>" for row in rows)
            parts.append(f"<h2>{escape(section.title)}</h2>\n<table>\n<tr>{heads}</tr>\n{body}\n</table>")
        remarks = "\n".join(f"<li>{escape(line)}</li>" for line in _remarks(self, None))
        parts.append(f"<h2>Notes</h2>\n<ul>\n{remarks}\n</ul>")
        for title, pairs in (("Problem", self.problem), ("Environment", self.environment)):
            body = "\n".join(
                f"<tr><td class=left>{escape(str(key))}</td><td class=left>{escape(str(value))}</td></tr>"
                for key, value in pairs.items()
            )
            parts.append(f"<h2>{title}</h2>\n<table>\n{body}\n</table>")
        page = _PAGE.replace("@BODY@", "\n".join(parts))
        # A file name that is not valid UTF-8 reaches this as lone surrogates.
        Path(path).write_text(page, encoding="utf-8", errors="backslashreplace")


def dump_json(document: object) -> str:
    """Strict JSON: NaN and infinities as "nan", "inf", "-inf", NumPy scalars as numbers, tuples as lists."""
    return json.dumps(_strict(document), indent=2, allow_nan=False)


def _strict(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    # NumPy's scalars, without importing NumPy.
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


class _Column(NamedTuple):
    header: str
    cell: Callable[[Any], str]
    left: bool = False
    # "narrow": on every page; "full": from FULL_WIDTH columns on; "page": in HTML only.
    since: Literal["narrow", "full", "page"] = "narrow"


class _Section(NamedTuple):
    title: str
    columns: tuple[_Column, ...]
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


def _text(attribute: str) -> Callable[[Any], str]:
    return lambda row: str(getattr(row, attribute)) or "-"


def _step(row: Any) -> str:
    return str(row.worst_step) if row.worst_step >= 0 else "-"


def _seconds(row: RoundingRow) -> str:
    if row.status == "rejected":
        return "-"
    # At most six characters below 1000 s: 9.9 ms, 99 ms, 0.1 s.
    if row.seconds >= 0.0995:
        return f"{row.seconds:.1f} s"
    return f"{1e3 * row.seconds:.0f} ms" if row.seconds >= 0.00995 else f"{1e3 * row.seconds:.1f} ms"


_ROUNDING = (
    _Column("backend", _text("backend"), left=True),
    _Column("mode", _text("mode"), left=True),
    _Column("error", _number("componentwise_error")),
    _Column("2-norm", _number("relative_error"), since="full"),
    _Column("inf-norm", _number("norm_inf_error"), since="page"),
    _Column("/bound", _number("error_over_bound")),
    _Column("bound", _text("bound_kind"), left=True, since="page"),
    _Column("at step", _step, since="page"),
    _Column("tier", _text("oracle"), left=True),
    _Column("radius", _number("radius"), since="full"),
    _Column("covered", _text("coverage"), left=True, since="page"),
    _Column("time", _seconds),
    _Column("verdict", _text("status"), left=True),
    _Column("reason", _text("reason"), left=True, since="page"),
)

_ERRORS = (
    _Column("error", _number("max_error")),
    _Column("2-norm", _number("relative_error")),
    _Column("at step", _step),
)


def _sections(report: Report, width: int | None) -> Iterator[_Section]:
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
        yield _Section(f"Rounding, {dtype}: each backend against the exact value of the same mode", columns, rows)
    if report.truncation:
        mode = _Column("mode", _text("mode"), left=True)
        yield _Section("Truncation: each mode against liquid, both by the oracle", (mode, *_ERRORS), report.truncation)
    if report.discretization:
        method = _Column("method", _text("method"), left=True)
        title = "Discretisation: liquid by each method against the continuous model (Eq. 10)"
        yield _Section(title, (method, *_ERRORS), report.discretization)


def _remarks(report: Report, width: int | None) -> list[str]:
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


def _wrap(lines: list[str], width: int) -> list[str]:
    # Long words stay whole: they are paths and names, which people copy.
    return [
        part
        for line in lines
        for part in textwrap.wrap(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    ]


_STYLES = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "rejected": "dim"}


def _css(cell: str, column: _Column) -> str:
    classes = [*(["left"] if column.left else []), *([cell] if column.header == "verdict" else [])]
    return f" class='{' '.join(classes)}'" if classes else ""


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>liquid-ssm verification</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem; }
h2 { font-size: 1.05rem; margin: 1.8rem 0 0.4rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.15rem 0.7rem; text-align: right; border-bottom: 1px solid #8884; vertical-align: top; }
th { border-bottom: 2px solid #8888; }
.left { text-align: left; }
.pass { color: #1a7f37; } .fail { color: #d1242f; font-weight: bold; }
.inconclusive { color: #9a6700; } .rejected { color: #888; }
</style>
</head>
<body>
<h1>liquid-ssm verification</h1>
@BODY@
</body>
</html>
"""
