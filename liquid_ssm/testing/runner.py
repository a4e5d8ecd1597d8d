"""Runs the checks of a foreign backend in another process, with a time limit, and goes on whatever happens there."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from threading import Thread
from time import monotonic
from types import TracebackType
from typing import IO, Any, Self

from ..errors import ParameterError
from .suite import Check

_GRACE = 10.0  # seconds that a process may take beyond its limit to say where it hangs
_START = 120.0  # seconds for Python, NumPy and the oracle to be imported on a loaded machine
_TAIL = 2000  # characters of a process's last words
_FRAMES = 10
_TIMEOUT = "Timeout ("  # how faulthandler begins
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
        ParameterError: from `load`, if the target is no backend.
    """

    def __init__(self, target: str, *, time_limit: float = 60.0) -> None:
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
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout, self._errors):
                if stream is not None:
                    stream.close()
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
            loaded = self.load()
            if isinstance(loaded, Outcome):
                return Outcome(check, loaded.status, loaded.kind, loaded.message)
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
        # Closed by `close`; a pipe would fill up if the backend prints much.
        self._errors: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        # -P: a folder liquid_ssm in the working directory must not hide the installed package.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "liquid_ssm.testing.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
        )
        self._replies: queue.Queue[str | None] = queue.Queue()
        self._ended = False
        Thread(target=_forward, args=(self._process.stdout, self._replies), daemon=True).start()

    def _send(self, content: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(content) + "\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it is gone, which `_receive` finds out

    def _receive(self, timeout: float) -> dict[str, Any] | None:
        """The next reply, or None if the process ended or the time is over."""
        try:
            line = self._replies.get(timeout=max(0.0, timeout))
        except queue.Empty:
            return None
        self._ended = line is None
        reply: dict[str, Any] | None = None if line is None else json.loads(line)
        return reply

    def _lost(self, check: Check, limit: float, example: str) -> Outcome:
        """The outcome of a check during which the process fell silent or ended; the process is gone afterwards."""
        assert self._process is not None
        silent = self._process.poll() is None and not self._ended
        self._process.kill()
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read()
        self.close()
        hung = silent or _TIMEOUT in said
        if hung:
            self.hangs += 1
            lines = [f"{check.property}: did not finish within {limit:g} s.", *_where(said)]
        else:
            lines = [f"{check.property}: the process died with exit code {code}."]
            lines += ["its last words:", said[-_TAIL:].strip()] if said.strip() else []
        if example:
            lines.append(f"example: {example}")
        return Outcome(check, "fail", "hang" if hung else "crash", "\n".join(lines), limit if hung else 0.0)


def _where(said: str) -> list[str]:
    """The innermost frames of the traceback that faulthandler left, down to ours."""
    frames = [line.strip() for line in said.partition(_TIMEOUT)[2].splitlines() if line.startswith("  File")]
    ours = next((i for i, line in enumerate(frames) if "liquid_ssm" in line and "testing" in line), len(frames))
    return ["it was in (innermost first):", *(f"  {line}" for line in frames[: min(ours, _FRAMES)])] if frames else []


def _forward(stream: IO[str], replies: queue.Queue[str | None]) -> None:
    try:
        for line in stream:
            replies.put(line)
    except ValueError:
        pass  # closed while it was read
    replies.put(None)
