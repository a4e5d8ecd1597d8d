"""The result of a verification: rows of numbers, and the same rows as text, rich tables, JSON, HTML and plots.

The three kinds of error stay in three tables; no number is made from more than one of them.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from .errors import ParameterError
from .report_tables import FULL_WIDTH, remarks, sections, wrap

if TYPE_CHECKING:
    from rich.console import Console

    from .curves import Curves

Status = Literal["pass", "fail", "inconclusive", "rejected"]
STATUSES: tuple[str, ...] = get_args(Status)

SCHEMA = "liquid-ssm/report"
SCHEMA_VERSION = 1

_STYLES = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "rejected": "dim"}


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
        curves: the data of the plots, where `verify` was asked for them.
        command: the command line that made this report; empty if none did.
    """

    rounding: tuple[RoundingRow, ...]
    truncation: tuple[TruncationRow, ...] = ()
    discretization: tuple[DiscretizationRow, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    problem: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    curves: Curves | None = None
    command: str = ""

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
        for section in sections(self, width):
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
            blocks.append("\n".join([*wrap([section.title], width), *lines]))
        said = wrap(remarks(self, width), width)
        return "\n\n".join([*blocks, *(["\n".join(said)] if said else []), "\n".join(wrap([self.verdict], width))])

    def print(self, console: Console) -> None:
        """The tables on a rich console: with colour and fitted to its width on a terminal, else `table()`."""
        if not console.is_terminal:
            console.file.write(self.table() + "\n")
            return
        from rich.table import Table
        from rich.text import Text

        for section in sections(self, console.width):
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
        for line in remarks(self, console.width):
            console.print(Text(line, style=_STYLES.get(line.partition(":")[0], "dim")))
        console.print()
        console.print(Text(self.verdict, style="bold green" if self.passed else "bold red"))

    def to_json(self, path: str | PathLike[str] | None = None) -> str:
        """The report as strict JSON (RFC 8259), and written to `path` if one is given.

        Keys: `schema`, `schema_version` (raised when a key changes its meaning or goes), `passed`, `verdict`,
        `problem`, `environment`, `notes`, `command`, and `rounding`, `truncation`, `discretization`: lists of objects
        whose keys are the attributes of the rows; `curves`: an object whose keys are the attributes of `Curves`, null
        where they were not computed.  JSON has no NaN and no infinity: such a number is one of the strings
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
            "command": self.command,
            "curves": None if self.curves is None else asdict(self.curves),
        }
        text = dump_json(document)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    def to_html(self, path: str | PathLike[str], plots: bool = True) -> None:
        """Write the report as one HTML file that needs no other file and no network.

        Args:
            path: the file.
            plots: draw the plots into the page. Those of errors, times and signals need the data that
                `verify(..., curves=True)` computes; without it the page has the plot of the tables' own numbers.

        Raises:
            ParameterError: plots are wanted and matplotlib is not installed; the message has the command.
        """
        from .report_page import page

        # A file name that is not valid UTF-8 reaches this as lone surrogates.
        Path(path).write_text(page(self, plots), encoding="utf-8", errors="backslashreplace")

    def to_plots(self, folder: str | PathLike[str]) -> list[Path]:
        """Write every plot as PNG and as SVG into a folder, which is made if need be.

        Returns:
            The files.

        Raises:
            ParameterError: matplotlib is not installed; the message has the command that installs it.
        """
        from .report_plots import write

        return write(self, Path(folder))


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
