"""`steps.csv`: loss and learning rate of every optimiser step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import BinaryIO

from ..errors import CheckpointError

STEPS = "steps.csv"
_HEADER = b"step,epoch,loss,lr\n"


class StepFile:
    """A row per step, written as it is done: a run of any length holds none of them in memory.

    `sync` comes before a checkpoint, so that all rows up to its step are on disk; who goes on from it begins with
    `open`, which cuts the later ones off.  What is written is then what a run without a stop writes.

    Args:
        path: of the file.

    Raises:
        CheckpointError: from every method, where the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def open(self, steps: int) -> None:
        """Go on after the rows of the first `steps` steps, which are all that stay; a new file where there is none."""
        self.close()
        with self._writing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self._file = self.path.open("r+b" if self.path.exists() else "w+b")
            if file.readline() != _HEADER:
                file.seek(0)
                file.write(_HEADER)
            end = file.tell()
            while (row := file.readline()).endswith(b"\n") and _step(row) <= steps:
                end = file.tell()
            file.truncate(end)
            file.seek(end)

    def add(self, step: int, epoch: int, loss: float, lr: float) -> None:
        """The row of a step, the first of which is 1; nothing where the file is not open."""
        if self._file is not None:
            with self._writing():
                self._file.write(f"{step},{epoch},{loss!r},{lr!r}\n".encode())

    def sync(self) -> None:
        """All rows so far are on disk."""
        if self._file is not None:
            with self._writing():
                self._file.flush()
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write what is left."""
        file, self._file = self._file, None
        if file is not None:
            with self._writing():
                file.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CheckpointError(
                f"{self.path} cannot be written: {error.strerror}. Make room or choose another folder, and go on with "
                "--resume."
            ) from error


def _step(row: bytes) -> float:
    """Of a row; infinite where it is none, as after a power cut."""
    number = row.partition(b",")[0]
    return int(number) if number.isdigit() else inf
