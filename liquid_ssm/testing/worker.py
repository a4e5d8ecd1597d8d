"""The process in which a foreign backend runs: it may hang or crash without taking the caller along.

Started by `runner.Runner`; one JSON object per line in and out.  What the backend prints goes to standard error.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from dataclasses import asdict
from time import perf_counter
from typing import IO, Any

from ..errors import ParameterError


def main() -> None:
    # The backend must reach neither stream, whatever it reads or prints, nor the file that its place is written to.
    requests = os.fdopen(os.dup(sys.stdin.fileno()), encoding="utf-8")
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    errors = os.dup(sys.stderr.fileno())
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    os.dup2(errors, sys.stdout.fileno())
    first = json.loads(requests.readline())
    sys.path.extend(entry for entry in [os.getcwd(), *first["path"]] if entry not in sys.path)
    session = _Session(replies, errors)
    session.load(first["target"], first["limit"])
    for line in requests:
        session.run(json.loads(line))


class _Session:
    def __init__(self, replies: IO[str], errors: int) -> None:
        self._replies, self._errors = replies, errors
        self._tried = 0

    def _watch(self, limit: float) -> None:
        """Leave with a traceback of where the process is once the time is over, even inside C code."""
        faulthandler.dump_traceback_later(limit, exit=True, file=self._errors)

    def _reply(self, **content: Any) -> None:
        self._replies.write(json.dumps(content) + "\n")
        self._replies.flush()

    def load(self, target: str, limit: float) -> None:
        from .adapter import load_backend
        from .subject import Subject
        from .suite import checks

        self._watch(limit)
        try:
            backend = load_backend(target)
            missing = backend.missing_packages()
            if missing:
                raise ParameterError(f"{target} needs {', '.join(missing)}, which is not installed. {backend.install}")
        except ParameterError as error:
            self._reply(error=str(error))
            sys.exit(0)
        finally:
            faulthandler.cancel_dump_traceback_later()
        self._subject = Subject(backend)
        self._reply(name=backend.name, checks=[asdict(check) for check in checks(backend)])

    def run(self, task: dict[str, Any]) -> None:
        from .contract import BackendFault
        from .subject import PropertyViolation
        from .suite import Check, run

        check, started = Check(**task["check"]), perf_counter()
        self._tried = 0
        status, kind, message = "pass", "", ""
        self._watch(task["limit"])
        try:
            run(
                check,
                self._subject,
                max_examples=task["max_examples"],
                seen=self._seen,
                derandomize=True,
                database=None,
            )
        except PropertyViolation as violation:
            status, kind, message = "fail", "violated", str(violation)
        except BackendFault as fault:
            status, kind, message = "fail", fault.kind, str(fault)
        finally:
            faulthandler.cancel_dump_traceback_later()
        seconds = perf_counter() - started
        self._reply(status=status, kind=kind, message=message, seconds=seconds, examples=self._tried)

    def _seen(self, example: object) -> None:
        self._tried += 1
        self._reply(example=repr(example))


if __name__ == "__main__":
    main()
