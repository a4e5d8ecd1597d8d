"""The whole suite on a backend that is not ours: `certify("module:Class")`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter

from ..environment import environment
from ..errors import ParameterError, unknown_name
from ..problem import DTYPES
from .properties import PROPERTIES
from .runner import Outcome, Runner

Progress = Callable[[int, int, str], None]

DEFAULT_EXAMPLES = 25
DEFAULT_TIME_LIMIT = 60.0


@dataclass(frozen=True)
class ConformanceReport:
    """What came of all checks of one backend.

    Attributes:
        target, name: "module:Class" and what the backend calls itself.
        outcomes: one per check, in the order in which they were run.
        max_examples, time_limit: how hard was tried.
        seconds: for all of it.
    """

    target: str
    name: str
    outcomes: tuple[Outcome, ...]
    max_examples: int
    time_limit: float
    seconds: float

    @property
    def failures(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.status != "pass")

    @property
    def passed(self) -> bool:
        """Whether there were checks and all of them passed."""
        return bool(self.outcomes) and not self.failures

    @property
    def verdict(self) -> str:
        """One line."""
        failed, total = len(self.failures), len(self.outcomes)
        if not self.outcomes:
            return f"{self.name}: nothing was checked; no check fits what it claims and what was asked for"
        if self.passed:
            return f"{self.name}: all {total} checks passed"
        kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(o.kind for o in self.failures).items())
        return f"{self.name}: REJECTED, {failed} of {total} checks failed ({kinds})"

    def table(self) -> str:
        """One line per property: checks passed, examples tried, time; then the first failure of each property."""
        rows = [("property", "passed", "examples", "time", "statement")]
        for name in dict.fromkeys(outcome.check.property for outcome in self.outcomes):
            these = [outcome for outcome in self.outcomes if outcome.check.property == name]
            good = sum(outcome.status == "pass" for outcome in these)
            tried, seconds = sum(o.examples for o in these), sum(o.seconds for o in these)
            rows.append((name, f"{good}/{len(these)}", str(tried), f"{seconds:.1f} s", _STATEMENTS.get(name, "")))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[4]]) for row in rows]
        shown: set[str] = set()
        for outcome in self.failures:
            if outcome.check.property not in shown:
                shown.add(outcome.check.property)
                lines += ["", f"FAILED ({outcome.kind}): {outcome.check}", outcome.message]
        return "\n".join(lines)

    def to_json(self) -> str:
        """Every outcome, with the environment."""
        from ..report import dump_json

        return dump_json(
            {
                "backend": self.name,
                "target": self.target,
                "passed": self.passed,
                "verdict": self.verdict,
                "max_examples": self.max_examples,
                "time_limit": self.time_limit,
                "seconds": self.seconds,
                "checks": [
                    {**asdict(o.check), **{k: v for k, v in asdict(o).items() if k != "check"}} for o in self.outcomes
                ],
                "environment": environment(),
            }
        )


_STATEMENTS = {item.name: item.statement for item in PROPERTIES}


def certify(
    target: str,
    *,
    max_examples: int = DEFAULT_EXAMPLES,
    time_limit: float = DEFAULT_TIME_LIMIT,
    properties: Sequence[str] | None = None,
    dtypes: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> ConformanceReport:
    """Run every property on a backend, in a process of its own.

    Args:
        target: "module:Class": an adapter (`liquid_ssm.testing.adapter.AdapterBackend` says what it has) or a class
            of `liquid_ssm.backend.Backend`; importable from the working directory or installed.
        max_examples: drawn per check; some properties take a small multiple.
        time_limit: seconds per check; a check that takes longer has failed, and the run goes on.
        properties, dtypes: only these; None for all.
        progress: called with (checks done, checks in all, what comes next).

    Raises:
        ParameterError: the target cannot be loaded or is no backend, an unknown name, a limit outside its range.
    """
    if max_examples < 1:
        raise ParameterError(f"max_examples is {max_examples}; at least 1 is needed.")
    for kind, given, allowed in (("property", properties, tuple(_STATEMENTS)), ("dtype", dtypes, DTYPES)):
        for name in given or ():
            if name not in allowed:
                raise unknown_name(kind, name, allowed)
    started = perf_counter()
    outcomes: list[Outcome] = []
    with Runner(target, time_limit=time_limit) as runner:
        loaded = runner.load()
        if isinstance(loaded, Outcome):
            outcomes.append(loaded)
            loaded = []
        wanted = [c for c in loaded if c.property in (properties or _STATEMENTS) and c.dtype in (dtypes or DTYPES)]
        for done, check in enumerate(wanted):
            if progress is not None:
                progress(done, len(wanted), str(check))
            outcomes.append(runner.run(check, max_examples))
        if progress is not None:
            progress(len(wanted), len(wanted), "done")
        name = runner.name
    seconds = perf_counter() - started
    return ConformanceReport(target, name, tuple(outcomes), max_examples, time_limit, seconds)
