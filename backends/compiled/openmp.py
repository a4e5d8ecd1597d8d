"""The threads on which torch computes, for other work.

GNU's OpenMP keeps torch's threads awake for some milliseconds after each of torch's operations.  A thread of ours
beside one of them gets half a core, on them it gets a whole one.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
# The threads of the parent do not exist in a child process, and its OpenMP would wait for them.
_is_child = False


def _forked() -> None:
    global _is_child
    _is_child = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def team(threads: int) -> int:
    """How many threads `run_together` has if it is to have `threads` of them; 0 where there are not so many.

    As many as torch's own operations have, since threads end and begin where that number changes.
    """
    torch = sys.modules.get("torch")
    # Its threads would end, not work, once the interpreter does.
    if torch is None or _is_child or sys.is_finalizing() or not hasattr(torch, "get_num_threads"):
        return 0
    size = int(torch.get_num_threads())
    return size if 1 < threads <= size and _parallel(torch.__file__) is not None else 0


def run_together(work: Callable[[], None], size: int) -> None:
    """Call work() on each of the `size` threads of a `team`, this one included; on fewer inside another such call.

    Raises:
        BaseException: the first that one of them raised, after all have returned.
    """
    errors: list[BaseException] = []

    def body(_: object) -> None:
        try:
            work()
        except BaseException as error:  # ctypes would print it and go on
            errors.append(error)

    parallel = _parallel(sys.modules["torch"].__file__ or "")
    assert parallel is not None
    parallel(_BODY(body), None, size, 0)
    if errors:
        raise errors[0]


@cache
def _parallel(torch_file: str) -> Any:
    """`GOMP_parallel` (GCC's libgomp) of the library that comes with this torch, or None if another OpenMP does."""
    for path in sorted((Path(torch_file).parent / "lib").glob("libgomp*.so*")):
        try:
            parallel = ctypes.CDLL(str(path)).GOMP_parallel
        except (OSError, AttributeError):
            continue
        parallel.argtypes, parallel.restype = [_BODY, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
        return parallel
    return None
