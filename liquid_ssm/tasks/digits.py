"""Sequential 8 × 8 digits of scikit-learn: a task whose data come with a package."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import TensorDataset

from .batch import Sample
from .data import Checked, Said, TaskData, limited
from .task import CLASSIFICATION, Task


class _Digits(TensorDataset):
    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        u, labels = self.tensors
        return Sample(u[index], int(labels[index]))


class Digits(TaskData):
    """1797 images, pixels row by row as 64 numbers; 60/20/20 % of every class for training, validation and test.

    Pixels are standardised by the mean and deviation of all training pixels.
    """

    task = Task(
        name="digits",
        title="sequential digits",
        kind=CLASSIFICATION,
        length=64,
        n_inputs=1,
        n_outputs=10,
        classes=tuple("0123456789"),
        expected="nothing; scikit-learn brings the data",
        part="test",
    )
    needs_folder = False

    @property
    def n_inputs(self) -> int:
        return 1

    def check(self, said: Said | None = None) -> Checked:
        self.setup()
        return Checked({part: len(getattr(self, part)) for part in ("train", "validation", "test")}, files=0)

    def setup(self, stage: str | None = None) -> None:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        labels = digits.target
        train, rest = train_test_split(np.arange(len(labels)), test_size=0.4, stratify=labels, random_state=0)
        validation, test = train_test_split(rest, test_size=0.5, stratify=labels[rest], random_state=0)
        pixels = digits.images[train]
        u = ((digits.images - pixels.mean()) / pixels.std()).reshape(len(labels), 64, 1)
        for part, rows in (("train", train), ("validation", validation), ("test", test)):
            samples = _Digits(torch.tensor(u[rows], dtype=torch.float32), torch.tensor(labels[rows]))
            setattr(self, part, limited(samples, self.limit.get(part)))
