"""The command `liquid-ssm bench`.

Exit codes: 0 measured (whatever the figures are), 1 a call returned NaN, 2 usage or input error.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..console import check_folder, check_target, progress, write_json
from ..problem import DTYPES, MODES

NOT_A_NUMBER = 1

_MEASURED = "What is measured"
_OUTPUT = "Output"

GRID_HELP = (
    "quick (about a minute), targets (some minutes), full (up to half an hour), or operators: the differentiable torch "
    "operators next to eager torch, KeOps and torch's own scan (some minutes)."
)


def bench(
    grid: Annotated[str, typer.Option(metavar="NAME", help=GRID_HELP, rich_help_panel=_MEASURED)] = "quick",
    backend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A backend that `liquid-ssm info` lists; repeatable.", rich_help_panel=_MEASURED
        ),
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help=f"{', '.join(MODES)}; repeatable.", rich_help_panel=_MEASURED),
    ] = None,
    dtype: Annotated[
        str, typer.Option(metavar="NAME", help=f"{' or '.join(DTYPES)}.", rich_help_panel=_MEASURED)
    ] = "float32",
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Threads of the backends that take a number, of scipy.fft and of torch. Default: every usable core.",
            rich_help_panel=_MEASURED,
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Begin no further row after this time; the rest is listed as not measured. Default: no end.",
            rich_help_panel=_MEASURED,
        ),
    ] = None,
    json: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="PATH",
            help="Write JSON; - for standard output, which then carries nothing else.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    plots: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Write PNG files into this folder; needs matplotlib.", rich_help_panel=_OUTPUT
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no tables.", rich_help_panel=_OUTPUT)
    ] = False,
) -> None:
    """Measure how fast it is here: every backend and mode next to the limits of this machine and to FFT convolution."""
    check_target("--json", json)
    if plots is not None:
        from .plots import need_matplotlib

        need_matplotlib()
    check_folder("--plots", plots)
    from .plots import draw
    from .run import bench as run
    from .tables import text

    with progress(quiet) as step:
        result = run(
            grid,
            backends=backend or None,
            modes=mode or None,
            dtype=dtype,
            threads=threads,
            budget=budget,
            progress=step,
        )
    write_json(result.to_json(), json)
    if not quiet and json != "-":
        print(text(result))
    if plots is not None:
        for path in draw(result, Path(plots)):
            print(f"plot: {path}", file=sys.stderr)
    for line in result.errors:
        print(line, file=sys.stderr)
    if result.errors:
        raise typer.Exit(NOT_A_NUMBER)
