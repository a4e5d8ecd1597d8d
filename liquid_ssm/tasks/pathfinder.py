"""Pathfinder and Path-X: are two discs on one dashed path?  Pixel by pixel."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from ..data_folder import GENERATED, check_sums, sparse
from ..errors import DataError
from .batch import Sample
from .data import Checked, Said, TaskData, limited
from .generated_folder import generated_above
from .images import Pixels, split_rows, standardised
from .task import CLASSIFICATION, Task

# The only one of the published levels that is used.
LEVEL = "curv_contour_length_14"
CLASSES = ("not connected", "connected")
PUBLISHED = 200_000
MEAN, DEVIATION = (0.5,), (0.5,)
# Where the folders of the sizes may be below the folder that is given, the one itself aside.
_PLACES = ("", "pathfinder", "lra_release", "lra_release/lra_release")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Listed(NamedTuple):
    """An image as the metadata list it.

    Attributes:
        name: below the folder of the level.
        label: 1 where the discs are connected.
        line: of the metadata, for messages.
    """

    name: str
    label: int
    line: str


class _Pictures(Dataset[Sample]):
    """Images that are read where they are asked for."""

    def __init__(self, folder: Path, images: list[Listed], side: int) -> None:
        self.folder, self.images, self.side = folder, images, side

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image = self.images[index]
        pixels = read_gray(self.folder / image.name, self.side, image.line)
        return Sample(standardised(pixels.reshape(-1, 1), MEAN, DEVIATION), image.label)


def _task(name: str, title: str, side: int, paper: Mapping[str, float]) -> Task:
    return Task(
        name=name,
        title=title,
        kind=CLASSIFICATION,
        length=side * side,
        n_inputs=1,
        n_outputs=len(CLASSES),
        classes=CLASSES,
        expected=f"pathfinder/pathfinder{side}/{LEVEL} with metadata/K.npy and imgs/K/sample_N.png of {side} × {side}",
        paper=paper,
    )


class Pathfinder(TaskData):
    """32 × 32 pixels, split 80/10/10."""

    side: ClassVar[int] = 32
    task = _task(
        "pathfinder",
        "Pathfinder",
        side,
        {"pb": 94.8, "s4": 94.20, "s4d_legs": 93.06, "s4d_inv": 93.78, "s5": 87.57, "transformer": 71.40},
    )

    def __init__(self, data: str | Path | None, **options: Any) -> None:
        super().__init__(data, **options)
        assert self.folder is not None
        self.folder = generated_above(self.folder, self.task.name)
        self._found: tuple[Path, list[Listed]] | None = None

    @property
    def n_inputs(self) -> int:
        return 1

    def description(self) -> dict[str, Any]:
        return {**super().description(), "mean": list(MEAN), "deviation": list(DEVIATION)}

    def check(self, said: Said | None = None) -> Checked:
        assert self.folder is not None
        sums = check_sums(self.folder, sparse(said))
        place, images = self._listed()
        tell = sparse(said)
        for i, image in enumerate(images):
            read_gray(place / image.name, self.side, image.line)
            tell(i + 1, len(images), "reading images")
        counts = {part: len(found) for part, found in self._parts().items()}
        return Checked(counts, files=len(images), sums=sums, generated=self.generated)

    def setup(self, stage: str | None = None) -> None:
        place, _ = self._listed()
        for part, images in self._parts().items():
            setattr(self, part, limited(_Pictures(place, images, self.side), self.limit.get(part)))

    def _parts(self) -> Mapping[str, list[Listed]]:
        place, images = self._listed()
        # As published: both rounded down.
        tenth = int(0.1 * len(images))
        if not tenth:
            raise DataError(f"{place} lists {len(images)} images; at least 10 are needed, a tenth of them for a test.")
        rows = split_rows([len(images) - 2 * tenth, tenth, tenth])
        parts = dict(zip(("train", "validation", "test"), ([images[i] for i in part] for part in rows), strict=True))
        return parts

    def _listed(self) -> tuple[Path, list[Listed]]:
        """The folder of the level, and all images in the order of the metadata."""
        if self._found is None:
            place = self._place()
            images = [image for path in _metadata(place, self._wanted()) for image in _lines(place, path)]
            self._check_unique(place, images)
            generated = self.generated
            wanted = PUBLISHED if generated is None else sum(generated.counts.values())
            if len(images) != wanted:
                source = (
                    f"the published number; the download is incomplete or of another version; a set of another number "
                    f"says so in {GENERATED}"
                    if generated is None
                    else f"{GENERATED} says so; generate it again"
                )
                raise DataError(f"{place / 'metadata'} lists {len(images):,} images; expected {wanted:,} ({source}).")
            self._found = place, images
        return self._found

    def _check_unique(self, place: Path, images: list[Listed]) -> None:
        first: dict[str, str] = {}
        for image in images:
            if image.name in first:
                raise DataError(
                    f"{place / image.name} is listed twice, in {first[image.name]} and in {image.line}; expected once. "
                    "The metadata are damaged; get them again."
                )
            first[image.name] = image.line

    def _place(self) -> Path:
        assert self.folder is not None
        size = f"pathfinder{self.side}"
        for below in (LEVEL, *(f"{place}/{size}/{LEVEL}".lstrip("/") for place in _PLACES)):
            if (self.folder / below).is_dir():
                return self.folder / below
        found = sorted(path.name for path in self.folder.iterdir())
        listed = ", ".join(found[:8]) + (", …" if len(found) > 8 else "") if found else "nothing"
        raise DataError(f"{self.folder} holds no {size}/{LEVEL}: found {listed}. {self._wanted()}")


class PathX(Pathfinder):
    """128 × 128 pixels, split 80/10/10."""

    side = 128
    # The text of the paper's first version says 96.54 for pb.
    task = _task("pathx", "Path-X", side, {"pb": 96.66, "s4": 96.35, "s4d_legs": 91.95, "s4d_inv": 92.80, "s5": 85.25})


def read_gray(path: Path, side: int, line: str) -> Pixels:
    """An image in gray, (side, side), after all of its check sums.

    Args:
        path: of a PNG file.
        side: its width and height.
        line: which names it in messages.

    Raises:
        DataError: the file is missing, empty, damaged or of another size.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing, which {line} lists; the download is incomplete.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    if not content:
        raise DataError(f"{path} is empty (0 bytes); expected a PNG of {side} × {side}. Unpack the archive again.")
    if not content.startswith(_SIGNATURE) or content[12:16] != b"IHDR" or len(content) < 24:
        raise DataError(f"{path} is no PNG: it begins with {content[:8]!r}. Unpack the archive again.")
    # Before Pillow makes room for them.
    width, height = struct.unpack(">II", content[16:24])
    if (width, height) != (side, side):
        raise DataError(f"{path} has {width} × {height} pixels; expected {side} × {side}. It is of another set.")
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            image.verify()
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            return np.asarray(image.convert("L"))
    except Exception as error:
        # Pillow raises many kinds for damaged files.
        raise DataError(f"{path} is damaged ({type(error).__name__}: {error}); unpack the archive again.") from None


def _metadata(place: Path, wanted: str) -> list[Path]:
    folder = place / "metadata"
    found = list(folder.glob("*.npy")) if folder.is_dir() else []
    if not found:
        raise DataError(f"{folder} holds no K.npy; the download is incomplete. {wanted}")
    if odd := sorted(path.name for path in found if not (path.stem.isascii() and path.stem.isdigit())):
        raise DataError(f"{folder / odd[0]} is not named by a number; expected K.npy. Remove what is no metadata.")
    return sorted(found, key=lambda path: int(path.stem))


def _lines(place: Path, path: Path) -> list[Listed]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    if not content:
        raise DataError(f"{path} is empty (0 bytes); expected lines of text. Unpack the archive again.")
    expected = "expected text like: imgs/0 sample_0.png 0 1 …, with the label, 0 or 1, in column 3 counted from 0"
    if content.startswith(b"\x93NUMPY"):
        raise DataError(f"{path} is an array of NumPy; {expected}, as Long Range Arena has it in spite of the name.")
    found = []
    for number, raw in enumerate(content.splitlines(), start=1):
        fields = raw.decode("ascii", "replace").split()
        if len(fields) < 4 or fields[3] not in ("0", "1"):
            shown = raw[:60].decode("ascii", "backslashreplace")
            raise DataError(f"{path}, line {number}, is {shown!r}; {expected}. Unpack the archive again.")
        name = PurePosixPath(fields[0], fields[1])
        if name.is_absolute() or ".." in name.parts:
            raise DataError(f"{path}, line {number}, names {str(name)!r}; expected a file below {place}.")
        found.append(Listed(str(name), int(fields[3]), f"{path.name}, line {number},"))
    return found
