"""What a trained model does on data: exact metrics over all samples, by class, at other rates, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch.utils.data import DataLoader

from ..errors import DataError, ParameterError, unknown_name
from ..tasks import get_task
from ..tasks.batch import Batch, collate
from ..tasks.task import CLASSIFICATION, SHARED_DEVIATIONS, Task
from .published_rate import with_published_rate
from .recurrence import Recurrence, by_step, compared, in_float64, require_step
from .trained import Checkpoint

PARTS = ("test", "validation", "train")
# Of what a data set says of itself, what a model depends on.
_SAME = ("n_inputs", "n_outputs", "level", "vocabulary", "classes")


@dataclass(frozen=True)
class ClassRow:
    """One class: shares are NaN where there is nothing to take a share of."""

    name: str
    precision: float
    recall: float
    support: int


@dataclass(frozen=True)
class Evaluation:
    """A model on one part of the data.

    Attributes:
        name, path: of the checkpoint.
        task, part, every: what it was run on: each `every`-th step, with all step sizes `every` times as large.
        published_rate: the step sizes of the liquid term stayed those of training.
        metric: its name, `accuracy` (share) or `rmse`.
        value: of the metric, over all samples.
        n_samples: their number.
        classes: rows of the table; empty for regression.
        confusion: counts, by true class and by found class.
        outputs, targets: (n_samples, n_outputs), and classes (n_samples,) or numbers.
        recurrent: None where the model was not run by step.
    """

    name: str
    path: str
    task: str
    part: str
    every: int
    metric: str
    value: float
    n_samples: int
    outputs: torch.Tensor
    targets: torch.Tensor
    classes: tuple[ClassRow, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    recurrent: Recurrence | None = None
    published_rate: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain values, without the outputs."""
        found = {key: value for key, value in vars(self).items() if key not in ("outputs", "targets")}
        found["classes"] = [vars(row) for row in self.classes]
        if self.recurrent is not None:
            found["recurrent"] = {**vars(self.recurrent), "same": self.recurrent.same}
        return found


def open_data(checkpoint: Checkpoint, folder: str | Path | None, **options: Any) -> Any:
    """The data of the checkpoint's task, set up, with the vocabulary that the model was trained with.

    Args:
        checkpoint: decides the task, and which deviations of its data from the published pipeline are switched back;
            metrics are exact in any case.
        folder: as `--data`.
        options: more of what the task's data take, such as `batch_size`.

    Raises:
        DataError: the data are missing or damaged, or not those that the model is for.
    """
    task = get_task(checkpoint.task)
    training = checkpoint.about.get("training")
    published = training.get("as_published", ()) if isinstance(training, Mapping) else ()
    wanted = task.task.deviations if "all" in (published or ()) else published or ()
    known = [name for name in wanted if name in task.task.deviations and name not in SHARED_DEVIATIONS]
    data = task(folder, as_published=known, **options)
    data.setup()
    trained = checkpoint.about.get("task")
    if isinstance(trained, Mapping):
        here = data.description()
        for name in _SAME:
            if name in trained and name in here and _plain(trained[name]) != _plain(here[name]):
                raise DataError(
                    f"{task.task.title}: {name} of the data is {_short(here[name])}, but the model was trained with "
                    f"{_short(trained[name])}. Give the data that it was trained on."
                )
    return data


def evaluate(
    checkpoint: Checkpoint,
    data: Any,
    *,
    part: str = "test",
    every: int = 1,
    recurrent: bool = False,
    published_rate: bool = False,
    device: str = "cpu",
    said: Callable[[int, int, str], None] | None = None,
) -> Evaluation:
    """Run a model on all samples of a part.

    Args:
        checkpoint: the model.
        data: as `open_data` gives it.
        part: `test`, `validation` or `train`.
        every: each how manieth step of a sample is looked at; all step sizes are this many times those of training,
            in the liquid term, too.  2 is the paper's zero-shot test at half the sampling rate.
        recurrent: also run the model step by step, and compare.
        published_rate: at other rates than 1 as the published code, whose liquid term forgets the rate; `pb` only.
        device: for torch.
        said: told (done, total, what) after each batch.

    Raises:
        ParameterError: a part or a number outside its range, every-th steps of tokens, or a model that cannot be run
            by step.
    """
    task: Task = data.task
    if part not in PARTS:
        raise unknown_name("part", part, PARTS)
    if every < 1:
        raise ParameterError(f"every is {every}; 1 takes every step, 2 every second.")
    if every > 1 and task.tokens:
        raise ParameterError(f"every is {every}, but {task.title} is text: symbols that are left out are not sampled.")
    if recurrent:
        require_step(checkpoint.config)
        if published_rate:
            raise ParameterError("the published form of a rate has no steps; leave --recurrent or --as-published out.")
    model = checkpoint.model if not published_rate else with_published_rate(checkpoint.model)
    model = model.to(device).eval()
    what = _what(checkpoint.name, part, every, published_rate)
    outputs: list[torch.Tensor] = []
    targets: list[torch.Tensor] = []
    stepped: list[torch.Tensor] = []
    difference = bound = 0.0
    # Every sample in order: evaluation drops none, whatever training did.
    batches = DataLoader(getattr(data, part), data.eval_batch_size, collate_fn=collate, num_workers=data.workers)
    with torch.no_grad():
        for i, batch in enumerate(batches):
            batch = _thinned(_on(batch, device), every)
            outputs.append(model(batch.u, lengths=batch.lengths, rate=batch.rate).cpu())
            targets.append(batch.target.cpu())
            if recurrent:
                if not stepped:
                    difference, bound = in_float64(model, batch, checkpoint.config)
                stepped.append(by_step(model, batch).cpu())
            if said is not None:
                said(i + 1, len(batches), what)
    if not outputs:
        raise DataError(f"{task.title}: the {part} part is empty.")
    y, target = torch.cat(outputs), torch.cat(targets)
    value, classes, confusion = measure(task, y, target)
    found = Evaluation(
        name=checkpoint.name,
        path=str(checkpoint.path),
        task=task.name,
        part=part,
        every=every,
        metric=task.metric,
        value=value,
        n_samples=len(target),
        outputs=y,
        targets=target,
        classes=classes,
        confusion=confusion,
        published_rate=published_rate,
    )
    if not recurrent:
        return found
    step_by_step = torch.cat(stepped)
    again = measure(task, step_by_step, target)[0]
    return replace(found, recurrent=compared(task, y, step_by_step, again, difference, bound))


def measure(
    task: Task, outputs: torch.Tensor, targets: torch.Tensor
) -> tuple[float, tuple[ClassRow, ...], tuple[tuple[int, ...], ...]]:
    """The metric over all samples; for classes also their rows and the confusion counts (true, found).

    Args:
        task: decides the metric.
        outputs: (n_samples, n_outputs).
        targets: (n_samples,) classes, or numbers of the outputs' shape.
    """
    if task.kind != CLASSIFICATION:
        from torchmetrics.regression import MeanSquaredError

        error = MeanSquaredError(squared=False).set_dtype(torch.float64)
        return float(error(outputs.double(), targets.double().view_as(outputs))), (), ()
    from torchmetrics.classification import MulticlassConfusionMatrix

    n_classes = task.n_outputs
    counts = MulticlassConfusionMatrix(n_classes)(outputs.argmax(1), targets).long()
    confusion = tuple(tuple(row) for row in counts.tolist())
    names = task.classes or tuple(map(str, range(n_classes)))
    return int(counts.diagonal().sum()) / len(targets), class_rows(names, confusion), confusion


def class_rows(names: Sequence[str], confusion: Sequence[Sequence[int]]) -> tuple[ClassRow, ...]:
    """Precision, recall and support of each class, from counts by true and by found class."""
    found = [sum(row[k] for row in confusion) for k in range(len(names))]
    return tuple(
        ClassRow(name, _share(row[k], found[k]), _share(row[k], sum(row)), sum(row))
        for k, (name, row) in enumerate(zip(names, confusion, strict=True))
    )


def _what(name: str, part: str, every: int, published_rate: bool) -> str:
    rate = f", every {every}" if every > 1 else ""
    return f"{name}, {part}{rate}{', as published' if published_rate else ''}"


def _share(part: int, whole: int) -> float:
    return part / whole if whole else nan


def _thinned(batch: Batch, every: int) -> Batch:
    """Each `every`-th step, the first among them."""
    if every == 1:
        return batch
    pair = batch.lengths.ndim == 2 if batch.lengths is not None else batch.u.ndim == 4
    u = batch.u[:, :, ::every] if pair else batch.u[:, ::every]
    lengths = None if batch.lengths is None else -(-batch.lengths // every)
    return batch._replace(u=u.contiguous(), lengths=lengths, rate=batch.rate * every)


def _on(batch: Batch, device: str) -> Batch:
    def moved(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(device)

    lengths = None if batch.lengths is None else moved(batch.lengths)
    return batch._replace(u=moved(batch.u), target=moved(batch.target), lengths=lengths)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"{len(value)} symbols" if len(value) > 8 else str(list(value))
    return repr(value)


def mean_and_deviation(values: Iterable[float]) -> tuple[float, float | None]:
    """Over seeds; the deviation is that of a sample (n − 1), None for one value."""
    held = list(values)
    return fmean(held), stdev(held) if len(held) > 1 else None
