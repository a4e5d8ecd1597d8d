"""CIFAR-10 pixel by pixel: grey, as Long Range Arena has it, and in colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from ..data_folder import check_sums, sparse
from ..errors import DataError
from .batch import Sample
from .cifar_batch import CHANNELS, CLASSES, SIDE, check_names, read_batch
from .data import Checked, Said, TaskData, limited
from .generated_folder import generated_above
from .images import check_counts, scaled, split_rows
from .task import CLASSIFICATION, Task

# MD5 of the published files.
TRAIN = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
}
TEST = {"test_batch": "40351d587109b95175f43aff81a1287e"}
NAMES = {"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"}
FILES = {**TRAIN, **TEST, **NAMES}
_FOLDER, _ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"
_PLACES = ("", _FOLDER, "cifar", f"cifar/{_FOLDER}")
_PUBLISHED = {"train": 45_000, "validation": 5_000, "test": 10_000}
_EXPECTED = f"{_FOLDER}/data_batch_1 to data_batch_5, test_batch and batches.meta"


class _CIFAR(TaskData):
    """The Python version of CIFAR-10 (Krizhevsky 2009), without augmentation; 10 % of train are for validation."""

    mean: ClassVar[Sequence[float]]
    std: ClassVar[Sequence[float]]

    def __init__(self, data: str | Path | None, **options: Any) -> None:
        super().__init__(data, **options)
        assert self.folder is not None
        self.folder = generated_above(self.folder, "cifar")
        self._opened: dict[str, _Images] | None = None

    @property
    def n_inputs(self) -> int:
        return len(self.mean)

    def check(self, said: Said | None = None) -> Checked:
        assert self.folder is not None
        place, generated = self._place(), self.generated
        sums = check_sums(self.folder, sparse(said))
        # Published files have been compared with their MD5.
        sums = len(FILES) if generated is None else sums
        counts = {part: len(images) for part, images in self._parts(place, said).items()}
        return Checked(counts, files=len(FILES), sums=sums, generated=generated)

    def setup(self, stage: str | None = None) -> None:
        for part, images in self._parts(self._place()).items():
            setattr(self, part, limited(images, self.limit.get(part)))

    def description(self) -> dict[str, Any]:
        shape = {"height": SIDE, "width": SIDE}
        return {**super().description(), **shape, "mean": list(self.mean), "std": list(self.std)}

    @staticmethod
    def _channels(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """What the model sees of (images, 1024, 3) colours."""
        return pixels

    def _parts(self, place: Path, said: Said | None = None) -> dict[str, _Images]:
        if self._opened is None:
            generated = self.generated
            found, labels = [], []
            for i, (name, md5) in enumerate((TRAIN | TEST).items()):
                if said is not None:
                    said(i, len(FILES), f"reading {name}")
                batch = read_batch(place / name, md5 if generated is None else None)
                found.append(torch.from_numpy(self._channels(batch.pixels)))
                labels.append(torch.from_numpy(batch.labels))
            for name, md5 in NAMES.items():
                check_names(place / name, md5 if generated is None else None)
            pixels, targets = torch.cat(found), torch.cat(labels)
            n_train, count = len(pixels) - len(found[-1]), len(pixels)
            # The published code rounds the size of train down, not that of validation.
            n_kept = int(n_train * (1 - 0.1))
            rows = split_rows({"train": n_kept, "validation": n_train - n_kept})
            rows["test"] = torch.arange(n_train, count)
            check_counts(place, {part: len(found) for part, found in rows.items()}, _PUBLISHED, generated)
            if said is not None:
                said(len(FILES), len(FILES), "reading images")
            self._opened = {part: _Images(pixels, targets, found, self.mean, self.std) for part, found in rows.items()}
        return self._opened

    def _place(self) -> Path:
        """The folder with the files.

        Raises:
            DataError: none has all of them.
        """
        assert self.folder is not None
        for below in _PLACES:
            place = self.folder / below
            missing = [name for name in FILES if not (place / name).is_file()]
            if not missing:
                return place
            if len(missing) < len(FILES):
                raise DataError(f"{place}: {', '.join(missing)} missing; the download is incomplete. {self._wanted()}")
        for place in (self.folder, self.folder / "cifar", self.folder.absolute().parent):
            if (archive := place / _ARCHIVE).is_file():
                raise DataError(f"{archive} is not unpacked. Run: tar -xzf {archive} -C {place}")
        found = sorted(path.name for path in self.folder.iterdir())
        listed = ", ".join(found[:8]) + (", …" if len(found) > 8 else "") if found else "nothing"
        raise DataError(f"{self.folder} holds no Python version of CIFAR-10: found {listed}. {self._wanted()}")


class GrayCIFAR(_CIFAR):
    """Grey pixels, (1024, 1): CIFAR of Long Range Arena (Tay et al. 2020), standardised."""

    task = Task(
        name="cifar",
        title="CIFAR",
        kind=CLASSIFICATION,
        length=SIDE * SIDE,
        n_inputs=1,
        n_outputs=len(CLASSES),
        classes=CLASSES,
        expected=_EXPECTED,
        paper={"pb": 89.50, "s4": 88.65, "s4d_legs": 88.19, "s4d_inv": 87.83, "s5": 86.14, "transformer": 42.44},
    )
    mean, std = (122.6 / 255,), (61.0 / 255,)

    @staticmethod
    def _channels(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        # The luma of ITU-R 601-2, with 16 bits and rounded, as Pillow's convert("L") and so torchvision's Grayscale.
        red, green, blue = (pixels[..., i : i + 1].astype(np.uint32) for i in range(CHANNELS))
        return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)


class SequentialCIFAR(_CIFAR):
    """Colours, (1024, 3): sCIFAR, standardised by channel."""

    task = Task(
        name="scifar",
        title="sCIFAR",
        kind=CLASSIFICATION,
        length=SIDE * SIDE,
        n_inputs=CHANNELS,
        n_outputs=len(CLASSES),
        classes=CLASSES,
        expected=_EXPECTED,
        paper={"pb": 92.02, "kb": 91.86, "s4": 91.80, "s4d_legs": 89.92, "s5": 89.66},
    )
    mean, std = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)


class _Images(Dataset[Sample]):
    """Rows of pixels in memory, which all parts and, through torch's shared memory, all workers have in common."""

    def __init__(
        self,
        pixels: torch.Tensor,
        labels: torch.Tensor,
        rows: torch.Tensor,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.pixels, self.labels, self.rows, self.mean, self.std = pixels, labels, rows, mean, std

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = int(self.rows[index])
        return Sample(scaled(self.pixels[row], self.mean, self.std), int(self.labels[row]))
