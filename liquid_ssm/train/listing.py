"""What can be trained: tasks, presets, data, the paper's figures, sizes and an estimate of time.  `train --list`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ..environment import environment
from ..nn.build import MODEL_NAMES, n_parameters
from ..report import dump_json
from ..tasks import TASKS, get_task
from ..tasks.task import Task
from .estimate import TRAINING_SAMPLES, Estimate, estimate, task_config
from .presets import get_preset, preset_names

if TYPE_CHECKING:
    from rich.console import Console

ABOUT_ESTIMATES = (
    "Times are estimates, good to a factor of two or three: of training steps alone, on one core of this machine (n "
    "cores are at best n times as fast), for as many samples as the published data have, from trials of a single step "
    "with one layer and short sequences. Training says more after its first epoch."
)
ABOUT_FIGURES = "Figures are the paper's, to compare with; nothing here claims them."


# Of all estimates together [s].
BUDGET = 40.0


@dataclass(frozen=True)
class Row:
    """A task with one of its presets.

    Attributes:
        task, title, preset: names.
        kind, metric: of the task: `accuracy` [%] or `rmse`.
        length: longest sequence [steps].
        expected: files below `--data`.
        paper: the paper's figures by model, of the part `part`.
        samples: of the published training data.
        model: for which parameters and time are given.
        n_layers, n_channels, n_state, batch_size, epochs: of the preset.
        parameters: numbers that are trained; of tasks with tokens for the published size of the vocabulary.
        notes: of the preset.
        deviations: from the published pipeline, which can be switched back.
        time: None where no estimate was asked for, or there was no time left for it.
    """

    task: str
    title: str
    preset: str
    kind: str
    metric: str
    length: int
    expected: str
    paper: dict[str, float]
    part: str
    samples: int
    model: str
    n_layers: int
    n_channels: int
    n_state: int
    batch_size: int
    epochs: int
    parameters: int
    notes: tuple[str, ...]
    deviations: dict[str, str]
    time: Estimate | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        found = asdict(self)
        if self.time is not None:
            found["time"] |= {"seconds": self.time.seconds, "is": "an estimate"}
        return found


def rows(
    tasks: Iterable[str] | None = None,
    *,
    model: str | None = None,
    time: bool = True,
    budget: float = BUDGET,
    said: Callable[[int, int, str], None] | None = None,
) -> list[Row]:
    """One row per task and preset.

    Args:
        tasks: names in `liquid_ssm.tasks.TASKS`; None for all of them.
        model: for which parameters and time are given, one of `liquid_ssm.nn.MODEL_NAMES`; None for that of the preset.
        time: estimate it, in about a second per row the first time; what was estimated once is kept.
        budget: seconds after which no more is estimated; the next call goes on from there.
        said: told (done, total, what) before each row.

    Raises:
        ParameterError: an unknown name.
    """
    wanted = [(name, preset) for name in (TASKS if tasks is None else tasks) for preset in preset_names(name)]
    found = []
    start = perf_counter()
    for i, (name, preset) in enumerate(wanted):
        if said is not None:
            said(i, len(wanted), f"{name}, {preset}")
        found.append(_row(get_task(name).task, preset, model, time and perf_counter() - start < budget))
    return found


def _row(task: Task, name: str, model: str | None, time: bool) -> Row:
    preset = get_preset(task.name, name)
    config = task_config(task, preset, model)
    return Row(
        task=task.name,
        title=task.title,
        preset=name,
        kind=task.kind,
        metric=task.metric,
        length=task.length,
        expected=task.expected,
        paper=dict(task.paper),
        part=task.part,
        samples=TRAINING_SAMPLES[task.name],
        model=config.model,
        n_layers=preset.n_layers,
        n_channels=preset.n_channels,
        n_state=preset.n_state,
        batch_size=preset.batch_size,
        epochs=preset.epochs,
        parameters=n_parameters(config),
        notes=preset.notes,
        deviations=dict(task.deviations),
        time=estimate(task, preset, model) if time else None,
    )


def to_json(found: Iterable[Row]) -> str:
    """The rows, where the times come from, and the names of models."""
    return dump_json(
        {
            "about_estimates": ABOUT_ESTIMATES,
            "about_figures": ABOUT_FIGURES,
            "environment": environment(),
            "models": list(MODEL_NAMES),
            "rows": [row.as_dict() for row in found],
        }
    )


def show(found: list[Row], console: Console) -> None:
    """Print a table of sizes and times, and what each task needs and the paper has for it."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Tasks and presets", title_justify="left")
    for name, right in (
        ("task", False), ("preset", False), ("model", False), ("layers/H/N", False), ("length", True), ("batch", True),
        ("epochs", True), ("parameters", True), ("s/step", True), ("time, estimated", True),
    ):  # fmt: skip
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    before = None
    for row in found:
        if before not in (None, row.task):
            table.add_section()
        cells = (
            "" if before == row.task else row.task, row.preset, row.model,
            f"{row.n_layers}/{row.n_channels}/{row.n_state}", f"{row.length:,}", str(row.batch_size), str(row.epochs),
            f"{row.parameters:,}", *(("–", "–") if row.time is None else _times(row.time)),
        )  # fmt: skip
        table.add_row(*map(Text, cells))
        before = row.task
    console.print(table)
    for row in {row.task: row for row in found}.values():
        console.print(Text(f"\n{row.task}: {row.title}", style="bold"))
        console.print(Text(f"  data      {row.expected or 'nothing'}; {row.samples:,} training samples"))
        console.print(Text(f"  paper     {_figures(row)}"))
    console.print(Text(f"\nModels: {', '.join(MODEL_NAMES)}"))
    if any(row.time is not None for row in found):
        console.print(Text(ABOUT_ESTIMATES))
    console.print(Text(ABOUT_FIGURES))
    console.print(Text("Notes of a preset on where the paper and its published configuration disagree: --json PATH."))


def _figures(row: Row) -> str:
    if not row.paper:
        return "has no such task"
    unit = " %" if row.metric == "accuracy" else ""
    what = f"{row.metric}, {row.part}"
    return f"{what}: " + "; ".join(f"{name} {value:g}{unit}" for name, value in row.paper.items())


def _times(time: Estimate) -> tuple[str, str]:
    return f"{time.seconds_per_step:.2g}", duration(time.seconds)


def duration(seconds: float) -> str:
    """Seconds in the unit in which people would say them, to two digits."""
    for unit, size in (("years", 365.25 * 86400), ("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            value = seconds / size
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
