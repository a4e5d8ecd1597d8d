"""Functions that are compiled once: machine code is kept on disk and found again by later processes.

Numba keeps machine code beside the source, which a read-only install forbids, and renews it only when the function's
own file changes, although our kernels are inlined into each other across files.  Here it is kept in the user's cache
folder, in a folder of its own for these sources, this Numba and this Python.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from time import perf_counter, time
from typing import Any

import llvmlite
import numba
from numba.core import event

ENVIRONMENT_VARIABLE = "LIQUID_SSM_CACHE_DIR"
# Machine code of sources and versions that were not used for so long is deleted.
KEPT_SECONDS = 30 * 24 * 3600

_log = logging.getLogger("liquid_ssm")
_compiled_files: set[str] = set()


def fingerprint() -> str:
    """A name that changes with the sources of the kernels and with what compiles them."""
    digest = hashlib.sha256()
    for name in (numba.__version__, llvmlite.__version__, sys.version, sys.byteorder):
        digest.update(name.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def cache_folder() -> Path | None:
    """Where machine code is kept, or None if that cannot be written to.

    `LIQUID_SSM_CACHE_DIR` names another place than the user's cache folder.
    """
    from platformdirs import user_cache_path

    base = os.environ.get(ENVIRONMENT_VARIABLE)
    folder = (Path(base) if base else user_cache_path("liquid-ssm")) / "compiled" / fingerprint()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        os.utime(folder)
    except OSError as error:
        _log.warning(
            "compiled kernels cannot be kept in %s (%s), so every process compiles them again; set %s to a folder "
            "that can be written to",
            folder,
            error,
            ENVIRONMENT_VARIABLE,
        )
        return None
    for other in folder.parent.iterdir():
        with suppress(OSError):  # another process may delete it at the same time
            if other != folder and other.stat().st_mtime < time() - KEPT_SECONDS:
                shutil.rmtree(other)
    return folder


def compiled(function: Callable[..., Any]) -> Any:
    """A kernel that Python calls: compiled for the dtypes it is first called with, without the interpreter's lock."""
    _compiled_files.add(function.__code__.co_filename)
    folder = cache_folder()
    # Numba reads the folder when the function is decorated, and only then.
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder) if folder else before
    try:
        return numba.njit(nogil=True, cache=folder is not None, error_model="numpy")(function)
    finally:
        numba.config.CACHE_DIR = before


def inlined(function: Callable[..., Any]) -> Any:
    """A part of a kernel, compiled into it."""
    _compiled_files.add(function.__code__.co_filename)
    return numba.njit(forceinline=True, error_model="numpy")(function)


class _Stopwatch(event.Listener):
    """How long Numba has compiled in this process, whatever it compiled."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth, self._start = 0, 0.0

    def on_start(self, started: Any) -> None:
        # A function that is called by another one is compiled while that is.  Numba compiles in one thread at a time.
        if self._depth == 0:
            self._start = perf_counter()
        self._depth += 1

    def on_end(self, ended: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.seconds += perf_counter() - self._start


def compile_seconds() -> float:
    """Seconds that Numba has compiled in this process; what is found on disk costs none."""
    return _stopwatch.seconds


class _Announcer(event.Listener):
    """Says on a terminal that kernels are being compiled, since the first call then takes seconds."""

    def __init__(self) -> None:
        self.announced = False

    def on_start(self, started: Any) -> None:
        dispatcher = started.data.get("dispatcher")
        function = getattr(dispatcher, "py_func", None)
        if self.announced or function is None or function.__code__.co_filename not in _compiled_files:
            return
        self.announced = True
        if sys.stderr.isatty():
            kept = cache_folder()
            where = f"kept in {kept}" if kept else "for this process only"
            print(f"liquid-ssm: compiling kernels, once, for some seconds ({where})", file=sys.stderr, flush=True)
        _log.info("compiling kernels (%s)", function.__qualname__)

    def on_end(self, ended: Any) -> None:
        """Nothing more to say."""


_stopwatch = _Stopwatch()
event.register("numba:compile", _stopwatch)
event.register("numba:compile", _Announcer())
