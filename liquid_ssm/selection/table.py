"""The candidates of a selection as a table that fits a width: numbers in columns, reasons wrapped and never cut."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ..certificate import Candidate
from .explanation import duration, relative, spread


class _Column(NamedTuple):
    header: str
    cell: Callable[[Candidate], str]


_NAMES = (_Column("candidate", lambda c: c.name), _Column("status", lambda c: c.status))
_NUMBERS = (
    _Column("error", lambda c: relative(c.error)),
    _Column("bound", lambda c: relative(c.bound)),
    _Column("/bound", lambda c: relative(c.error_over_bound)),
    _Column("time", lambda c: duration(c.seconds)),
    _Column("spread", spread),
    _Column("compile", lambda c: duration(c.compile_seconds) if (c.compile_seconds or 0) >= _COMPILES else "-"),
)
# What a first call takes longer than this [s] is no noise.
_COMPILES = 0.05
# These are left out, the last one first, where the table is wider than the page.
_OPTIONAL = 2
# Reasons have at least this many characters in a line, however narrow the page is.
_NARROWEST = 24


def table(candidates: Sequence[Candidate], width: int | None = None, page: int = 100) -> Iterator[tuple[str, str]]:
    """The lines of the table, each with the status of the candidate that it is about, "" for headers.

    A candidate with numbers has its reason below them, one without has it in their place.

    Args:
        candidates: in their order.
        width: of the terminal, to which columns are left out; None for all columns.
        page: the width to which reasons are wrapped where there is no terminal.
    """
    columns, widths = _fitting(candidates, width)
    start = sum(widths[:2]) + 4
    end = max(width or page, start + _NARROWEST)
    yield _line([c.header for c in columns], widths), ""
    yield _line(["-" * size for size in widths], widths), ""
    for candidate in candidates:
        cells = [column.cell(candidate) for column in columns]
        reason = textwrap.wrap(candidate.reason or "-", end - start, break_long_words=False, break_on_hyphens=False)
        if candidate.error is None and candidate.seconds is None:
            first, *reason = reason
            yield f"{_line(cells[:2], widths).ljust(start)}{first}", candidate.status
        else:
            yield _line(cells, widths), candidate.status
        for line in reason:
            yield " " * start + line, candidate.status
    left_out = [c.header for c in _NUMBERS if c not in columns]
    if left_out:
        yield f"left out on a page this narrow: {' and '.join(left_out)}; --json has everything", ""


def _fitting(candidates: Sequence[Candidate], width: int | None) -> tuple[list[_Column], list[int]]:
    columns = [*_NAMES, *_NUMBERS]
    for _ in range(_OPTIONAL + 1):
        widths = [max(len(c.header), *(len(c.cell(one)) for one in candidates)) for c in columns]
        if width is None or sum(widths) + 2 * len(widths) - 2 <= width or len(columns) == 2 + len(_NUMBERS) - _OPTIONAL:
            break
        columns.pop()
    return columns, widths


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Names to the left, numbers to the right."""
    pairs = zip(cells, widths, strict=False)
    return "  ".join(cell.ljust(size) if k < 2 else cell.rjust(size) for k, (cell, size) in enumerate(pairs)).rstrip()
