"""What the commands share: output paths that are checked first, JSON, progress on standard error."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ParameterError


def check_target(option: str, path: str | None) -> None:
    """Refuse a path that cannot be written before the time is spent."""
    if path is None or path == "-":
        return
    target = Path(path)
    if not path or target.is_dir():
        raise ParameterError(f"{option} {path!r} is a directory; give the name of a file.")
    if not target.parent.is_dir():
        raise ParameterError(f"{option} {path!r}: there is no directory {str(target.parent)!r}; create it first.")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise ParameterError(f"{option} {path!r} cannot be written: permission denied. Choose another place.")


def check_folder(option: str, path: str | None) -> None:
    """Refuse a folder that cannot be written into before the time is spent; it may be new."""
    if path is None:
        return
    folder = Path(path)
    if not path or (folder.exists() and not folder.is_dir()):
        raise ParameterError(f"{option} {path!r} is not a folder; give the name of a folder, which may be new.")
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ParameterError(f"{option} {path!r} cannot be written: permission denied. Choose another place.")


@contextmanager
def writing(option: str, path: str | None) -> Iterator[None]:
    """Turn a failure to write into an error that names the option."""
    try:
        yield
    except OSError as error:
        raise ParameterError(f"{option} {path!r} cannot be written: {error.strerror}. Choose another place.") from None


def write_json(text: str, path: str | None) -> None:
    """Write to a file, or to standard output for `-`; nothing for None."""
    if path == "-":
        print(text)
    elif path is not None:
        with writing("--json", path):
            Path(path).write_text(text + "\n", encoding="utf-8")


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[int, int, str], None] | None]:
    """A bar on a terminal, else one line per step; both on standard error."""
    if quiet:
        yield None
        return
    if not sys.stderr.isatty():
        started = time.monotonic()

        def line(done: int, total: int, what: str) -> None:
            elapsed = time.monotonic() - started
            print(f"[{done:>{len(str(total))}}/{total}] {elapsed:6.1f} s  {what}", file=sys.stderr, flush=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)
