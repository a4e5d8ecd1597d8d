"""What a start costs: the import, and the first compiled call with an empty and with a filled cache."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass

from .limits import compiled_backend

HEAVY = ("scipy", "mpmath", "torch", "numba", "pykeops")
CACHE_VARIABLE = "LIQUID_SSM_CACHE_DIR"

IMPORT = (
    "import numpy, sys, time; t = time.process_time(); import liquid_ssm; t = time.process_time() - t; "
    f"print(t, *(name for name in {HEAVY!r} if name in sys.modules))"
)
# Forward and backward of work W; the first figure is the first call alone.
FIRST = (
    "import time; from liquid_ssm.bench.shapes import WORK; from liquid_ssm.bench.subjects import call, subject; "
    "from liquid_ssm.bench.limits import compiled_backend; from liquid_ssm.problem import ModeSpec; "
    "one = subject(WORK, 'float32'); spec = ModeSpec('liquid'); t = time.perf_counter(); "
    "backend = compiled_backend()[0]; call(one, spec, backend, 'forward')(); s = time.perf_counter(); "
    "call(one, spec, backend, 'backward')(); print(s - t, time.perf_counter() - s)"
)


@dataclass(frozen=True)
class StartUp:
    """What a start costs.

    Attributes:
        import_seconds: processor time that `import liquid_ssm` adds to `import numpy`, the best of several processes.
        loaded: which of the heavy packages the import loaded.
        first_cold, first_warm: seconds of the first compiled forward call, imports of the compiler included, with an
            empty on-disk cache and in the next process.
        backward_cold, backward_warm: the first backward call after it.
        reason: why there is no compiled call, else empty.
    """

    import_seconds: float
    loaded: tuple[str, ...]
    first_cold: float | None = None
    first_warm: float | None = None
    backward_cold: float | None = None
    backward_warm: float | None = None
    reason: str = ""


def _run(code: str, **variables: str) -> list[str]:
    done = subprocess.run(
        # -P: a folder liquid_ssm in the working directory must not hide the installed package.
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        check=False,
        timeout=300,
    )
    if done.returncode:
        raise RuntimeError(f"a child process ended with code {done.returncode}: {done.stderr.strip()[-400:]}")
    return done.stdout.split()


def start_up(processes: int = 7) -> StartUp:
    """Measure in fresh processes.

    Raises:
        RuntimeError: a child process failed; its message is in the error.
    """
    found = [_run(IMPORT) for _ in range(processes)]
    # Other processes and a cold file cache only ever add.
    seconds, loaded = min(float(words[0]) for words in found), tuple(found[0][1:])
    backend, reason = compiled_backend()
    if backend is None:
        return StartUp(seconds, loaded, reason=reason)
    with tempfile.TemporaryDirectory() as folder:
        cold, warm = ([float(word) for word in _run(FIRST, **{CACHE_VARIABLE: folder})] for _ in range(2))
    return StartUp(seconds, loaded, cold[0], warm[0], cold[1], warm[1])
