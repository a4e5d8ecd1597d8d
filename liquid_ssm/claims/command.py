"""The command `liquid-ssm claims`.

Exit codes: 0 every verdict is the recorded one, 1 one is not, 2 usage or input error.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import check_target, progress, write_json

if TYPE_CHECKING:
    from .claim import Entry

AS_RECORDED, CHANGED = 0, 1


def claims(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="Claims such as equation-12; default: the whole ledger.", show_default=False),
    ] = None,
    json: Annotated[
        str | None,
        typer.Option(
            "--json", metavar="PATH", help="Write JSON; - for standard output, which then carries nothing else."
        ),
    ] = None,
) -> None:
    """Check the paper's claims: a verdict, computed now, for each equation, line of Algorithm 1 and appendix."""
    check_target("--json", json)
    from .evaluation import changed, evaluate, select, to_json

    select(ids)
    with progress(quiet=False) as report:
        entries = evaluate(ids, report)
    news = changed(entries)
    if json != "-":
        print_table(entries)
    for entry, expected in news:
        print(f"{entry.id}: the verdict is {entry.ruling!r}, recorded is {expected!r}", file=sys.stderr)
    write_json(to_json(entries), json)
    raise typer.Exit(CHANGED if news else AS_RECORDED)


def print_table(entries: list[Entry]) -> None:
    """Id, equation, verdict and key number of each entry: lines of a table, on a terminal wrapped to its width."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if console.is_terminal:
        table = Table("id, equation", "verdict, key number", box=None, padding=(0, 2, 1, 0), header_style="bold")
        for entry in entries:
            # Text, not str: rich would read brackets as markup.
            name, verdict = Text(entry.id), Text(entry.ruling, "bold red" if entry.ruling == "fails" else "bold")
            verdict.append(entry.verdict.removeprefix(entry.ruling), "not bold default")
            table.add_row(name.append(f"\n{entry.equation}", "dim"), verdict.append(f"\n{key_number(entry)}", "dim"))
        console.print(table)
    else:
        # The verdict, of any length, comes last.
        rows = [("id", "equation", "key number", "verdict")]
        rows += [(entry.id, entry.equation, key_number(entry), entry.verdict) for entry in entries]
        # Columns, not characters: B̄ is two characters in one column.
        widths = [max(map(cell_len, column)) for column in list(zip(*rows, strict=True))[:-1]]
        rows.insert(1, ("-" * widths[0], "-" * widths[1], "-" * widths[2], "-------"))
        for row in rows:
            cells = [cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=False)]
            print("  ".join([*cells, row[-1]]))
    counts = {word: sum(entry.verdict.startswith(word) for entry in entries) for word in ("holds", "fails")}
    conditional = sum(entry.verdict.startswith("holds if") for entry in entries)
    rest = len(entries) - sum(counts.values())
    summary = f"{len(entries)} claims: {counts['holds'] - conditional} hold, {conditional} hold under a condition, "
    print(
        f"{'' if console.is_terminal else chr(10)}{summary}{counts['fails']} fail"
        + (f", {rest} cannot be decided by computing" if rest else "")
    )


def key_number(entry: Entry) -> str:
    """The first number of the evidence, with its name."""
    name, value = next(iter(entry.evidence.items()))
    return (
        f"{name.replace('_', ' ')} = {value:,}" if isinstance(value, int) else f"{name.replace('_', ' ')} = {value:.3g}"
    )
