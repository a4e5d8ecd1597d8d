"""Options that `train`, `evaluate` and `plot` have in common."""

from __future__ import annotations

from typing import Annotated

import typer

OUTPUT = "Output"

JsonOption = Annotated[
    str | None,
    typer.Option(
        "--json",
        metavar="PATH",
        help="Write JSON; - for standard output, which then carries nothing else.",
        rich_help_panel=OUTPUT,
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.", rich_help_panel=OUTPUT)]
