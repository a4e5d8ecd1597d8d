"""`TaskData`: what every task's data have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import Dataset

from ..data_folder import Generated, read_generated
from ..errors import DataError, ParameterError, unknown_name
from .batch import Sample, collate
from .order import BatchOrder, ResumableLoader
from .task import DROP_LAST, SHARED_DEVIATIONS, Task

Said = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Checked:
    """What a check of the data found.

    Attributes:
        counts: samples by part.
        files: how many were read.
        sums: how many of them agreed with a known check sum.
        generated: what made the data, None for data that do not say they are stand-ins.
    """

    counts: Mapping[str, int]
    files: int
    sums: int = 0
    generated: Generated | None = None


class TaskData(LightningDataModule, ABC):
    """The data of one task: loaders of `Batch`, and a check of everything before anything is trained.

    Args:
        data: folder that holds what `task.expected` lists; None for a task whose data come with a package.
        batch_size: samples of a training step, over all processes.
        eval_batch_size: of validation and test; None for `batch_size`.
        workers: processes that load.
        seed: of the order of the training samples.  Splits do not depend on it.
        as_published: names of deviations to switch back to the published pipeline, of `task.deviations` and
            `SHARED_DEVIATIONS`; `("all",)` for all of them.
        limit: most samples by part, the first of each; for trials.

    Attributes:
        task: what it is.
        train, validation, test: data sets of `Sample`, after `setup`.
        n_inputs: features, or size of the vocabulary, after `setup`.

    Raises:
        DataError: the folder is missing.
        ParameterError: a number or name outside its range.
    """

    task: ClassVar[Task]
    needs_folder: ClassVar[bool] = True
    train: Dataset[Sample]
    validation: Dataset[Sample]
    test: Dataset[Sample]

    def __init__(
        self,
        data: str | Path | None,
        *,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        workers: int = 0,
        seed: int = 0,
        as_published: Collection[str] = (),
        limit: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        for name, value in {"batch_size": batch_size, "eval_batch_size": eval_batch_size}.items():
            if value is not None and value < 1:
                raise ParameterError(f"{name} is {value}; at least 1 is needed.")
        if workers < 0:
            raise ParameterError(f"workers is {workers}; 0 loads in the process itself.")
        for part, most in (limit or {}).items():
            if part not in ("train", "validation", "test"):
                raise unknown_name("part of the data", part, ("train", "validation", "test"))
            if most is not None and most < 1:
                raise ParameterError(f"limit of {part} is {most}; at least 1 sample is needed.")
        known = {**SHARED_DEVIATIONS, **self.task.deviations}
        wanted = set(known) if "all" in as_published else set(as_published)
        for name in sorted(wanted - set(known)):
            raise unknown_name(f"deviation of {self.task.name}", name, ("all", *known))
        self.folder = self._folder(data)
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.workers, self.seed, self.as_published = workers, seed, frozenset(wanted)
        self.limit = dict(limit or {})
        # Of the samples handed out: the step size is this many times that of training.
        self.every = 1

    @abstractmethod
    def check(self, said: Said | None = None) -> Checked:
        """Read everything that a run would read: layout, counts, check sums where they are known, every file.

        Args:
            said: told (done, total, what) as it goes on.

        Raises:
            DataError: what is missing, damaged or of another version: the file, what was found, what was expected.
        """

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Make `train`, `validation` and `test`; what is in files stays there until a sample is asked for."""

    @property
    @abstractmethod
    def n_inputs(self) -> int:
        """Features of a step, or the size of the vocabulary."""

    @property
    def generated(self) -> Generated | None:
        """What made the data, where they are stand-ins that say so."""
        return None if self.folder is None else read_generated(self.folder)

    def description(self) -> dict[str, Any]:
        """What a model file keeps of the data: enough to read inputs for it again, such as a vocabulary."""
        return {"task": self.task.name, "n_inputs": self.n_inputs, "n_outputs": self.task.n_outputs}

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled, by seed and epoch."""
        return self._loader(self.train, self.batch_size, seed=self.seed, drop_last=False)

    def val_dataloader(self) -> ResumableLoader:
        """Every sample, in order."""
        return self._loader(self.validation, self.eval_batch_size, seed=None, drop_last=DROP_LAST in self.as_published)

    def test_dataloader(self) -> ResumableLoader:
        """Every sample, in order."""
        return self._loader(self.test, self.eval_batch_size, seed=None, drop_last=DROP_LAST in self.as_published)

    def _loader(self, samples: Any, batch_size: int, *, seed: int | None, drop_last: bool) -> ResumableLoader:
        rank, ranks = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        if batch_size % ranks:
            raise ParameterError(f"batch_size is {batch_size}; it is shared by {ranks} processes, so a multiple of it.")
        order = BatchOrder(
            len(samples), batch_size // ranks, seed=seed, drop_last=drop_last, rank=rank, ranks=ranks
        )  # fmt: skip
        loader = ResumableLoader(
            samples,
            batch_sampler=order,
            collate_fn=partial(collate, rate=float(self.every)),
            num_workers=self.workers,
            persistent_workers=False,
            # Its own: making an iterator must not draw from torch's generator, whose state is part of a checkpoint.
            generator=torch.Generator().manual_seed(self.seed),
        )
        loader.order = order
        return loader

    def _folder(self, data: str | Path | None) -> Path | None:
        if data is None:
            if self.needs_folder:
                raise DataError(f"{self.task.title} needs its data: give their folder with --data. {self._wanted()}")
            return None
        folder = Path(data)
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise DataError(f"data folder {str(folder)!r} {what}. {self._wanted()}")
        return folder

    def _wanted(self) -> str:
        return f"Expected there: {self.task.expected}." if self.task.expected else ""


def limited(samples: Any, most: int | None) -> Any:
    """The first `most` samples; all for None."""
    return samples if most is None or most >= len(samples) else torch.utils.data.Subset(samples, range(most))
