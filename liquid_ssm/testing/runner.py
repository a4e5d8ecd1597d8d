"""Runs the checks of a foreign backend in another process, with a time limit, and goes on whatever happens there."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Thread
from time import monotonic
from types import TracebackType
from typing import IO, Any, Self

from ..errors import ParameterError
from .suite import Check

_GRACE = 10.0  # seconds that a process may take beyond its limit to say where it hangs
_START = 120.0  # seconds for Python, NumPy and the oracle to be imported on a loaded machine
_LAST_WORDS = 2000  # characters that are shown of what a process wrote before it died
_KEPT = 2**18  # bytes of it that are read, room for the tracebacks of many threads
_FRAMES = 10
_TIMEOUT = re.compile(r"Timeout \([0-9:.]+\)!\n")  # how faulthandler begins
# faulthandler writes no character beyond ASCII.
_HERE = str(Path(__file__).parent).encode("ascii", "backslashreplace").decode("ascii")
SHORTEST, LONGEST = 0.01, 1e6  # seconds: timers take neither 0 nor infinity
PATIENCE = 3  # hangs after which the limit is cut
CUT = 0.1


@dataclass(frozen=True)
class Outcome:
    """What came of one check.

    Attributes:
        status: `pass` or `fail`.
        kind: why it failed: `violated` (a property), `raised`, `type`, `shape`, `dtype`, `not finite`, `mutated`,
            `not repeatable`, `hang`, `crash`; empty for a pass.
        message: what was seen, and on which example.
        seconds, examples: time taken and examples tried.
    """

    check: Check
    status: str
    kind: str = ""
    message: str = ""
    seconds: float = 0.0
    examples: int = 0


class Runner:
    """A backend, by its "module:Class", in a process of its own; a context manager.

    Args:
        target: "module:Class".
        time_limit: seconds for one check (and for loading).  After three hangs the rest get a tenth of it.

    Raises:
        ParameterError: the limit is out of range; from `load`, the target is no backend.
    """

    def __init__(self, target: str, *, time_limit: float = 60.0) -> None:
        if not SHORTEST <= time_limit <= LONGEST:
            raise ParameterError(f"time_limit is {time_limit}; it must be from {SHORTEST:g} to {LONGEST:g} seconds.")
        self.target, self.time_limit = target, time_limit
        self.name = target
        self.hangs = 0
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process, if there is one, and those that the backend started."""
        if self._process is not None:
            _kill(self._process)
            assert self._process.stdin is not None
            with suppress(OSError):  # it may hold what the process did not live to read
                self._process.stdin.close()
            self._reader.join(_GRACE)
            self._errors.close()
            self._folder.cleanup()
            self._process = None

    def load(self) -> list[Check] | Outcome:
        """The checks for what the backend claims; an `Outcome` if it hangs or crashes while it is loaded."""
        self._start()
        self._send({"target": self.target, "path": sys.path, "limit": self.time_limit})
        reply = self._receive(self.time_limit + _START)
        if reply is None:
            return self._lost(Check("load", "-", "-", "-"), self.time_limit, "")
        if "error" in reply:
            self.close()
            raise ParameterError(reply["error"])
        self.name = reply["name"]
        return [Check(**fields) for fields in reply["checks"]]

    def run(self, check: Check, max_examples: int) -> Outcome:
        """Try one check; a process that hung or crashed before is started again."""
        if self._process is None:
            try:
                loaded = self.load()
            except ParameterError as error:
                return Outcome(check, "fail", "crash", f"{check.property}: it cannot be loaded again: {error}")
            if isinstance(loaded, Outcome):
                return Outcome(check, loaded.status, loaded.kind, loaded.message, loaded.seconds)
        limit = self.time_limit * (1 if self.hangs < PATIENCE else CUT)
        self._send({"check": asdict(check), "max_examples": max_examples, "limit": limit})
        example, until = "", monotonic() + limit + _GRACE
        while (reply := self._receive(until - monotonic())) is not None:
            if "status" in reply:
                return Outcome(check, **reply)
            example = reply["example"]
        return self._lost(check, limit, example)

    def _start(self) -> None:
        self.close()
        # Both live until `close`.  A pipe would fill up if the backend prints much.
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._folder = tempfile.TemporaryDirectory(prefix="liquid-ssm-", ignore_cleanup_errors=True)
        # -P: a folder liquid_ssm in the working directory must not hide the installed package; -u: what was printed
        # before a crash is not lost.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-u", "-m", "liquid_ssm.testing.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": self._folder.name},
            start_new_session=True,  # a group of its own, so that the backend's processes can be ended with it
        )
        self._replies: queue.Queue[str | None] = queue.Queue()
        self._ended = False
        self._reader = Thread(target=_forward, args=(self._process.stdout, self._replies), daemon=True)
        self._reader.start()

    def _send(self, content: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(OSError):  # it is gone, which `_receive` finds out
            self._process.stdin.write(json.dumps(content) + "\n")
            self._process.stdin.flush()

    def _receive(self, timeout: float) -> dict[str, Any] | None:
        """The next reply, or None if the process ended or the time is over."""
        try:
            line = self._replies.get(timeout=max(0.0, timeout))
        except queue.Empty:
            return None
        self._ended = line is None or not line.endswith("\n")  # half a line: it died while it wrote
        reply: dict[str, Any] | None = None if line is None or self._ended else json.loads(line)
        return reply

    def _lost(self, check: Check, limit: float, example: str) -> Outcome:
        """The outcome of a check during which the process fell silent or ended; the process is gone afterwards."""
        assert self._process is not None
        if self._ended:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE)
        code = self._process.poll()
        _kill(self._process)
        said = _tail(self._errors, _KEPT)
        self.close()
        hung = (code is None and not self._ended) or _TIMEOUT.search(said) is not None
        if hung:
            self.hangs += 1
            lines = [f"{check.property}: did not finish within {limit:g} s.", *_where(said)]
        else:
            lines = [f"{check.property}: the process {_ending(code)}."]
            lines += ["its last words:", said[-_LAST_WORDS:].strip()] if said.strip() else []
        if example:
            lines.append(f"example: {example}")
        return Outcome(check, "fail", "hang" if hung else "crash", "\n".join(lines), limit if hung else 0.0)


def _kill(process: subprocess.Popen[str]) -> None:
    """End a process and, where there are process groups, those that it started."""
    if sys.platform != "win32":
        with suppress(OSError):  # nobody is left in the group
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def _ending(code: int | None) -> str:
    if code is None:
        return "stopped answering"
    if code >= 0:
        return f"died with exit code {code}"
    with suppress(ValueError):
        return f"died of {signal.Signals(-code).name}"
    return f"died of signal {-code}"


def _tail(file: IO[bytes], size: int) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - size))
    return file.read().decode("utf-8", "replace")


def _where(said: str) -> list[str]:
    """The innermost frames of the traceback that faulthandler left of our thread, down to the suite's own."""
    *_, traceback = _TIMEOUT.split(said)
    ours = f'  File "{_HERE}'
    threads = [
        [line for line in thread.splitlines() if line.startswith("  File")]
        for thread in re.split(r"^(?:Current thread|Thread) .*$", traceback, flags=re.MULTILINE)
    ]
    # The thread that runs the suite; if it is so deep that faulthandler cut it off, the last, the process's first.
    frames = next((lines for lines in threads if any(line.startswith(ours) for line in lines)), threads[-1])
    end = next((i for i, line in enumerate(frames) if line.startswith(ours)), len(frames))
    return ["it was in (innermost first):", *frames[: min(end, _FRAMES)]] if frames else []


def _forward(stream: IO[str], replies: queue.Queue[str | None]) -> None:
    with stream:
        for line in stream:
            replies.put(line)
    replies.put(None)
