"""The command `liquid-ssm info`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from .console import check_target, write_json
from .errors import BackendUnavailable

_WIDTH = 120


def info(
    json: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="PATH",
            help="Write JSON; - for standard output, which then carries nothing else.",
            rich_help_panel="Output",
        ),
    ] = None,
) -> None:
    """Print this machine, its threads and linear algebra, torch, Triton, KeOps, Numba, every backend, what is missing.

    At the end stands the one command that adds what is missing.
    """
    check_target("--json", json)
    from . import diagnosis
    from .environment import environment
    from .report import dump_json

    torch, problem = diagnosis.imported("torch")
    numba = diagnosis.numba()
    found: dict[str, Any] = {
        "environment": environment(),
        "machine": diagnosis.machine(),
        "threads": diagnosis.threads(torch),
        "blas": diagnosis.blas(),
        "torch": diagnosis.torch_state(torch, problem),
        "triton": diagnosis.triton(torch),
        "keops": diagnosis.keops(),
        "numba": numba,
        "cache": diagnosis.caches(),
        "backends": _backends(),
        "missing": diagnosis.missing(),
    }
    found["install"] = diagnosis.install(found["missing"])
    if json != "-":
        print(_page(found))
    write_json(dump_json(found), json)


def _backends() -> list[dict[str, object]]:
    """Every known backend, preferred first, with what it computes or why it cannot be used."""
    from .registry import backend_names, get_backend

    backends: list[dict[str, object]] = []
    for name in backend_names():
        try:
            able = get_backend(name).capabilities
        except BackendUnavailable as error:
            backends.append({"name": name, "available": False, "reason": str(error)})
        else:
            backends.append(
                {
                    "name": name,
                    "available": True,
                    "primitives": list(able.primitives),
                    "dtypes": able.dtypes,
                    "devices": able.devices,
                    "gradients": able.gradients,
                }
            )
    return backends


def _availability(entry: Mapping[str, object]) -> str:
    if not entry["available"]:
        return f"not available: {entry['reason']}"
    lists = (entry[key] for key in ("primitives", "dtypes", "devices"))
    parts = [", ".join(values) for values in lists if isinstance(values, (list, tuple))]
    return "; ".join(["available", *parts, *(["gradients"] if entry["gradients"] else [])])


def _page(found: Mapping[str, Any]) -> str:
    from .diagnosis import lines
    from .environment import PACKAGES

    versions = {name: value for name, value in found["environment"].items() if name in ("python", *PACKAGES)}
    titles = {
        "machine": "Machine",
        "threads": "Threads",
        "blas": "Linear algebra (NumPy's)",
        "torch": "torch",
        "triton": "Triton",
        "keops": "KeOps",
        "numba": "Numba",
        "cache": "Kept on disk",
    }
    groups = [("Versions", lines(versions)), *((title, lines(found[key])) for key, title in titles.items())]
    groups.append(("Backends, preferred first", [(str(b["name"]), _availability(b)) for b in found["backends"]]))
    lacking = [(entry["name"], f"would add {entry['adds']}") for entry in found["missing"]]
    groups.append(("Missing", lacking or [("nothing", "every optional package and tool is here")]))
    width = max(len(name) for _, group in groups for name, _ in group)
    page = ["\n".join([title, *_rows(group, width)]) for title, group in groups]
    if found["install"]:
        page.append("\n".join(["To add what is missing", *(f"  {command}" for command in found["install"].values())]))
    return "\n\n".join(page)


def _rows(group: Sequence[tuple[str, str]], width: int) -> list[str]:
    indent = " " * (width + 4)
    rows = []
    for name, value in group:
        # Long words stay whole: they are paths and names, which people copy.
        rows += textwrap.wrap(
            value,
            _WIDTH,
            initial_indent=f"  {name:<{width}}  ",
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [f"  {name}"]
    return rows
