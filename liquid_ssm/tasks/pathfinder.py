"""Pathfinder and Path-X: are two discs on the same dashed contour?"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import Dataset

from ..data_folder import check_sums, sparse
from ..errors import DataError
from .batch import Sample
from .data import Checked, Said, TaskData, limited
from .generated_folder import generated_above
from .images import check_counts, scaled, split_rows
from .task import CLASSIFICATION, Task

KIND = "curv_contour_length_14"
PUBLISHED = 200_000
_PLACES = ("", "pathfinder", "lra_release", "lra_release/lra_release")
_MEAN, _STD = (0.5,), (0.5,)
# Images that are checked between two reports, and threads that do so.
_BLOCK, _THREADS = 1000, 8
# Numbers of metadata files among which gaps are looked for.
_MOST_GAPS = 10_000


class _Pathfinder(TaskData):
    """Images and metadata of Long Range Arena's release (Linsley et al. 2018; Tay et al. 2020), or generated ones.

    Only the kind `curv_contour_length_14` is used.  80, 10 and 10 % are for training, validation and test.  Images stay
    in their files until they are asked for.
    """

    side: ClassVar[int]

    def __init__(self, data: str | Path | None, **options: Any) -> None:
        super().__init__(data, **options)
        assert self.folder is not None
        self.folder = generated_above(self.folder, self.task.name)
        self._opened: _Listed | None = None

    @property
    def n_inputs(self) -> int:
        return 1

    def check(self, said: Said | None = None) -> Checked:
        assert self.folder is not None
        listed, tell = self._listed(), sparse(said)
        rows = self._rows(listed)
        sums = check_sums(self.folder, tell)
        count = len(listed.names)
        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
            for first in range(0, count, _BLOCK):
                images = _Files(listed, torch.arange(first, min(first + _BLOCK, count)), self.side)
                # A list of a block, not an iterator over all: every image waits in the pool's queue.
                list(pool.map(images.pixels, range(len(images))))
                tell(first + len(images), count, "checking images")
        counts = {part: len(found) for part, found in rows.items()}
        return Checked(counts, files=count + listed.files, sums=sums, generated=self.generated)

    def setup(self, stage: str | None = None) -> None:
        listed = self._listed()
        for part, rows in self._rows(listed).items():
            setattr(self, part, limited(_Files(listed, rows, self.side), self.limit.get(part)))

    def description(self) -> dict[str, Any]:
        shape = {"height": self.side, "width": self.side}
        return {**super().description(), **shape, "mean": list(_MEAN), "std": list(_STD)}

    def _listed(self) -> _Listed:
        if self._opened is None:
            self._opened = _read_metadata(self._place())
        return self._opened

    def _rows(self, listed: _Listed) -> dict[str, torch.Tensor]:
        found, published = (_sizes(count) for count in (len(listed.names), PUBLISHED))
        check_counts(listed.place, found, published, self.generated, listed.hint)
        return split_rows(found)

    def _place(self) -> Path:
        """The folder with `imgs` and `metadata`.

        Raises:
            DataError: there is none.
        """
        assert self.folder is not None
        size = f"pathfinder{self.side}"
        sized = [self.folder / below / size for below in _PLACES]
        place = next((each for each in (*sized, self.folder) if (each / KIND).is_dir()), None)
        if place is None:
            at = next((each for each in sized if each.is_dir()), self.folder)
            found = sorted(path.name for path in at.iterdir())
            listed = ", ".join(found[:8]) + (", …" if len(found) > 8 else "") if found else "nothing"
            raise DataError(f"{at} holds no data of {self.task.title}: found {listed}. {self._wanted()}")
        for name in ("metadata", "imgs"):
            if not (place / KIND / name).is_dir():
                raise DataError(f"{place / KIND / name} is missing; the download is incomplete. {self._wanted()}")
        return place / KIND


def _task(name: str, title: str, side: int, paper: dict[str, float]) -> Task:
    return Task(
        name=name,
        title=title,
        kind=CLASSIFICATION,
        length=side * side,
        n_inputs=1,
        n_outputs=2,
        classes=("separate", "connected"),
        expected=f"pathfinder/pathfinder{side}/{KIND} with imgs/K/sample_N.png and metadata/K.npy",
        paper=paper,
    )


class Pathfinder(_Pathfinder):
    """Images of 32 × 32 pixels, (1024, 1)."""

    side = 32
    task = _task(
        "pathfinder",
        "Pathfinder",
        side,
        {"pb": 94.8, "s4": 94.20, "s4d_legs": 93.06, "s4d_inv": 93.78, "s5": 87.57, "transformer": 71.40},
    )


class PathX(_Pathfinder):
    """Images of 128 × 128 pixels, (16384, 1)."""

    side = 128
    task = _task("pathx", "Path-X", side, {"pb": 96.66, "s4": 96.35, "s4d_legs": 91.95, "s4d_inv": 92.80, "s5": 85.25})


class _Listed(NamedTuple):
    """What the metadata list.

    Attributes:
        place: folder of `imgs` and `metadata`.
        names: (images,) names of files below it, in bytes: 200,000 paths would be a burden to every worker.
        labels: (images,) 0 or 1.
        files: of metadata.
        hint: what may be missing.
    """

    place: Path
    names: npt.NDArray[np.bytes_]
    labels: npt.NDArray[np.int64]
    files: int
    hint: str


class _Files(Dataset[Sample]):
    """Images, each read when it is asked for."""

    def __init__(self, listed: _Listed, rows: torch.Tensor, side: int) -> None:
        self.listed, self.rows, self.side = listed, rows, side

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        return Sample(scaled(self.pixels(index), _MEAN, _STD), int(self.listed.labels[int(self.rows[index])]))

    def pixels(self, index: int) -> torch.Tensor:
        """(side², 1) uint8, row by row.

        Raises:
            DataError: the file is missing, damaged or of another size.
        """
        path = self.listed.place / self.listed.names[int(self.rows[index])].decode()
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise DataError(f"{path} is missing, which the metadata list; the download is incomplete.") from None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from None
        try:
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                size = image.size
                # Its check sums; only then are its pixels read, from the start.
                image.verify()
            if size == (self.side, self.side):
                with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                    return torch.from_numpy(np.array(image.convert("L")).reshape(-1, 1))
        # A damaged file raises nearly anything.
        except Exception as error:
            what = "it is empty" if not content else str(error) or type(error).__name__
            raise DataError(f"{path} is damaged or no PNG image: {what}. Get it again.") from None
        raise DataError(f"{path} has {size[0]} × {size[1]} pixels; expected {self.side} × {self.side}.")


def _sizes(count: int) -> dict[str, int]:
    tenth = int(0.1 * count)
    return {"train": count - 2 * tenth, "validation": tenth, "test": tenth}


def _read_metadata(place: Path) -> _Listed:
    """All metadata of a kind, in the order of their numbers.

    Raises:
        DataError: what is missing or damaged, by file and line.
    """
    numbers: dict[int, Path] = {}
    for path in (place / "metadata").glob("*.npy"):
        # Other systems' marks of a file, such as ._0.npy.
        if path.name.startswith("."):
            continue
        if not (path.stem.isascii() and path.stem.isdigit()):
            raise DataError(f"{path} is no file of metadata; expected names such as 0.npy, by number.")
        numbers[int(path.stem)] = path
    if not numbers:
        raise DataError(f"{place / 'metadata'} holds no metadata; expected 0.npy, 1.npy and so on.")
    labels: dict[str, int] = {}
    for number in sorted(numbers):
        for line, name, label in _lines(numbers[number]):
            if name in labels:
                raise DataError(f"{numbers[number]}, line {line}: {name} is listed a second time.")
            labels[name] = label
    gaps = [f"{number}.npy" for number in range(min(max(numbers), _MOST_GAPS)) if number not in numbers]
    hint = f"Not in {place / 'metadata'}: {', '.join(gaps[:8])}{', …' if len(gaps) > 8 else ''}. " if gaps else ""
    names = np.array([name.encode() for name in labels])
    return _Listed(place, names, np.array(list(labels.values()), np.int64), len(numbers), hint)


def _lines(path: Path) -> Iterator[tuple[int, str, int]]:
    """Number, file and label of each line.  The published files are text, whatever their name says."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    if content.startswith(b"\x93NUMPY"):
        raise DataError(f"{path} is an array of NumPy; expected text, as in the release of Long Range Arena.")
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError:
        raise DataError(f"{path} is damaged: it holds bytes that are no ASCII text. Get it again.") from None
    for line, row in enumerate(text.splitlines(), start=1):
        fields = row.split()
        if len(fields) < 4:
            what = f"{row:.60} has {len(fields)} columns"
            raise DataError(f"{path}, line {line}: {what}; expected folder, file, number, label and more.")
        folder, file, _, label, *_ = fields
        name = PurePosixPath(folder, file)
        if name.is_absolute() or ".." in name.parts or "\0" in str(name):
            raise DataError(f"{path}, line {line}: {str(name)!r:.60} is no file below {path.parent.parent}.")
        if label not in ("0", "1"):
            raise DataError(f"{path}, line {line}: label {label!r:.40}; expected 0 or 1.")
        yield line, str(name), int(label)
