"""The command `liquid-ssm train`.

Exit codes: 0 every seed was trained and tested, 1 a seed broke down, 2 usage or input error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import check_target, progress, write_json
from ..errors import BackendUnavailable, ParameterError
from .options import JsonOption, QuietOption

if TYPE_CHECKING:
    from .configuration import Configuration

SEED_FAILED = 1
_LIST_WIDTH = 120
_WHAT, _HOW = "What is trained", "How and where"


def train(
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="See --list.")] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Print tasks, presets, data, the paper's figures, sizes, estimated times.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="With --list: without estimates of time.")] = False,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="liquid, truncated, pb, kb, s4, s4d, s5, liquid-s5, lstm, transformer, or a model of liquid_ssm.nn. "
            "Default: that of the preset.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="paper, published or small.", rich_help_panel=_WHAT)
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="DIR", help="The task's data.", rich_help_panel=_WHAT)] = None,
    config: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="TOML or JSON; options go before it.", rich_help_panel=_WHAT),
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any setting of the configuration or the preset, such as lr=0.004; repeatable.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="K,K,…", help="One run each. Default: 0.", rich_help_panel=_WHAT)
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(metavar="N", help="Parameters; the width that comes nearest is taken.", rich_help_panel=_WHAT),
    ] = None,
    as_published: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Deviation to switch back, or all; repeatable.", rich_help_panel=_WHAT),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART=N", help="Only the first N samples of train, validation or test.", rich_help_panel=_WHAT
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Folder of the run, new or empty. Default: runs/TASK-MODEL.", rich_help_panel=_HOW
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Go on with the run in this folder, from its last checkpoint.", rich_help_panel=_HOW
        ),
    ] = None,
    other_version: Annotated[
        bool,
        typer.Option(
            "--other-version",
            help="With --resume: go on from checkpoints of another version of this package, too.",
            rich_help_panel=_HOW,
        ),
    ] = False,
    backend: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the state-space layers. Default: auto.", rich_help_panel=_HOW)
    ] = None,
    devices: Annotated[
        int | None, typer.Option(metavar="N", help="Processes that share each batch.", rich_help_panel=_HOW)
    ] = None,
    accelerator: Annotated[str | None, typer.Option(metavar="NAME", help="cpu or cuda.", rich_help_panel=_HOW)] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Of torch, in each process.", rich_help_panel=_HOW)
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes that load data.", rich_help_panel=_HOW)
    ] = None,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Do not read all data first.", rich_help_panel=_HOW)
    ] = False,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train a model on a task, for one seed or several, and test it on all samples."""
    check_target("--json", json)
    # Read as torch loads: threads that spin while they wait make small steps ten times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    _need_packages()
    if list_:
        _list(task, model, quick, json, quiet)
        return
    from .configuration import configuration, from_texts, with_place

    place = {"data": data, "devices": devices, "accelerator": accelerator, "threads": threads, "workers": workers}
    numbers = None if seeds is None else _seeds(seeds)
    if resume is not None:
        fixed = {
            "TASK": task, "--model": model, "--preset": preset, "--config": config, "--set": set, "--budget": budget,
            "--as-published": as_published, "--limit": limit, "--run": run, "--backend": backend,
        }  # fmt: skip
        decided = [name for name, value in fixed.items() if value]
        if decided:
            raise ParameterError(f"--resume goes on with what was begun; leave out {', '.join(decided)}.")
        from .run import resume as begun

        folder = Path(resume)
        found = with_place(begun(folder), seeds=numbers, **place)
    else:
        if other_version:
            raise ParameterError("--other-version is about what --resume goes on with; leave it out.")
        options = {
            "task": task, "model": model, "preset": preset, "seeds": numbers, "budget": budget, "backend": backend,
            "as_published": as_published or None, "limit": _limits(limit) if limit else None, **place,
        }  # fmt: skip
        given = {name: value for name, value in options.items() if value is not None}
        found = configuration(config, **{**from_texts(set or []), **given})
        folder = Path(run or f"runs/{found.task}-{found.model or found.resolved.model}")
    _run(folder, found, json, quiet, new=resume is None, check=not no_check, other_version=other_version)


def _run(folder: Path, found: Configuration, json: str | None, quiet: bool, **how: bool) -> None:
    from ..report import dump_json
    from .run import first_process
    from .run import train as work

    first = first_process()
    out = sys.stderr if json == "-" else sys.stdout
    with progress(quiet or not first) as step:
        terminal = sys.stderr.isatty()
        said = None if step is None else step if terminal else _sparse(step)
        document = work(
            found,
            folder,
            **how,
            said=said,
            every_step=terminal,
            told=None if quiet or not first else lambda line: print(line, file=out, flush=True),
        )
    if first:
        if not quiet:
            _show(document, folder, out)
        write_json(dump_json(document), json)
    if document["summary"]["failed"]:
        raise typer.Exit(SEED_FAILED)


def _show(document: Mapping[str, Any], folder: Path, out: Any) -> None:
    """The table of results, and what they may be compared with."""
    from rich.console import Console
    from rich.table import Table

    summary = document["summary"]
    table = Table("metric", "mean", "standard deviation")
    for name, found in summary.items():
        if isinstance(found, Mapping):
            deviation = "–" if found["deviation"] is None else f"{found['deviation']:.4f}"
            table.add_row(name, f"{found['mean']:.4f}", deviation)
    compared = document["paper"]["comparison"]
    if table.row_count and compared is not None:
        # In the unit of the rows above.
        figure = compared["figure"] / 100 if compared["unit"] == "%" else compared["figure"]
        table.add_row(f"the paper's {compared['name']}, {document['paper']['part']}", f"{figure:.4f}", "–")
    console = Console(file=out)
    if table.row_count:
        console.print(table)
    if summary["failed"]:
        print(f"{summary['failed']} of {summary['seeds']} seeds broke down.", file=out)
    if document["data"]["generated"] is not None:
        print("The data are generated: a stand-in, not to be compared with published figures.", file=out)
    elif document["paper"]["figures"]:
        figures = ", ".join(f"{name} {value:g}" for name, value in document["paper"]["figures"].items())
        print(f"The paper's figures, {document['paper']['part']}: {figures}", file=out)
    print(f"run: {folder}", file=out)


def _list(task: str | None, model: str | None, quick: bool, json: str | None, quiet: bool) -> None:
    from .listing import rows, show, to_json

    with progress(quiet) as step:
        found = rows(None if task is None else [task], model=model, time=not quick, said=step)
    write_json(to_json(found), json)
    if json != "-":
        from rich.console import Console

        # On a narrow terminal lines wrap; a number that is cut off would be a wrong one.
        show(found, Console(width=max(Console().width, _LIST_WIDTH)))


def _need_packages() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("torch", "lightning", "torchmetrics", "safetensors") if find_spec(name) is None]
    if missing:
        raise BackendUnavailable(
            f"train needs {', '.join(missing)}, not installed. Run: pip install 'liquid-ssm[train]'"
        )


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ParameterError(f"--seeds {text!r}; give whole numbers with commas between them, such as 0,1,2.") from None


def _limits(texts: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for text in texts:
        part, _, value = text.partition("=")
        if not value.isdecimal():
            raise ParameterError(f"--limit {text!r} is not of the form PART=N, such as train=1000.")
        found[part] = int(value)
    return found


def _sparse(step: Any) -> Any:
    from ..data_folder import sparse

    return sparse(step)
