"""Everything that one run measured, and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import ParameterError
from ..report import dump_json
from ..timing import Timing
from .accuracy import Accuracy
from .latency import Latency
from .limits import Limits
from .memory import Peak
from .rows import Row
from .shapes import Shape
from .startup import StartUp
from .targets import Target

# How the reason of a row begins whose call returned something wrong.
ERROR = "error: "
SCHEMA = "liquid-ssm/bench"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
        settings: grid, backends, modes, dtype, threads, budget.
        environment: versions, processor, threads.
        limits: what every row is compared with, the highest of what was measured.
        limits_measured: each measurement of the run, in its order.
        rows: times over the shapes; also rows that were not measured, with the reason.
        kernels: times of convolution kernels alone.
        accuracy: errors in units of their bounds, per backend, mode and dtype.
        steps, peaks, start_up, targets: of the grids `targets` and `full`; `steps` of `quick` too.
        notes: what a reader should know, one sentence each.
        operators: times of the differentiable torch operators, of the grid `operators`.
    """

    settings: Mapping[str, Any]
    environment: Mapping[str, str]
    limits: Limits
    limits_measured: tuple[Limits, ...]
    rows: tuple[Row, ...]
    kernels: tuple[Row, ...] = ()
    accuracy: tuple[Accuracy, ...] = ()
    steps: tuple[Latency, ...] = ()
    peaks: tuple[Peak, ...] = ()
    start_up: StartUp | None = None
    targets: tuple[Target, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)
    operators: tuple[Row, ...] = ()

    @property
    def errors(self) -> tuple[str, ...]:
        """What was computed and is wrong: a line for each row with NaN."""
        rows: list[Row | Latency] = [*self.rows, *self.kernels, *self.operators, *self.steps]
        found = [row for row in rows if row.reason.startswith(ERROR)]
        return tuple(f"{row.subject}, {row.mode}, {row.shape.label}: {row.reason}" for row in found)

    def to_json(self) -> str:
        """Strict JSON; `schema_version` is raised when a key changes its meaning or goes."""
        return dump_json({"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> Result:
        """The result that `to_json` wrote.

        Raises:
            ParameterError: it is another kind of document, or of another version.
        """
        found = json.loads(text)
        if not isinstance(found, dict) or found.get("schema") != SCHEMA:
            given = found.get("schema") if isinstance(found, dict) else type(found).__name__
            raise ParameterError(f"schema is {given!r}; a benchmark has {SCHEMA!r}. Give what `bench --json` wrote.")
        if found["schema_version"] != SCHEMA_VERSION:
            raise ParameterError(
                f"schema_version is {found['schema_version']}; this version reads {SCHEMA_VERSION}. Measure again."
            )
        start = found["start_up"]
        return cls(
            found["settings"],
            found["environment"],
            Limits(**found["limits"]),
            tuple(Limits(**item) for item in found["limits_measured"]),
            tuple(_read(Row, item) for item in found["rows"]),
            tuple(_read(Row, item) for item in found["kernels"]),
            tuple(Accuracy(**item) for item in found["accuracy"]),
            tuple(_read(Latency, item) for item in found["steps"]),
            tuple(_read(Peak, item) for item in found["peaks"]),
            None if start is None else StartUp(**{**start, "loaded": tuple(start["loaded"])}),
            tuple(Target(**item) for item in found["targets"]),
            tuple(found["notes"]),
            tuple(_read(Row, item) for item in found.get("operators", ())),
        )


def _read(kind: Any, item: dict[str, Any]) -> Any:
    item = {**item, "shape": Shape(**item["shape"])}
    if item.get("seconds") is not None:
        item["seconds"] = Timing(**item["seconds"])
    return kind(**item)
