"""Mean and deviation of clips, from sums in whole numbers that are exact in any order; kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..cache_folder import ENVIRONMENT_VARIABLE, cache_folder
from ..errors import DataError
from .waveforms import LONGEST, read_clip

FORMAT = 1
# Samples are 16-bit numbers over this.
SCALE = 32_768

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]


class ClipSums:
    """Sums over clips that are padded with zeros to 16,000 samples.

    Attributes:
        count: of the clips.
        sums, squares: (16,000,) of the samples, and of their squares, at each time; exact up to 8 billion clips.
    """

    def __init__(self) -> None:
        self.count = 0
        self.sums: Int64Array = np.zeros(LONGEST, np.int64)
        self.squares: Int64Array = np.zeros(LONGEST, np.int64)

    def add(self, clip: npt.NDArray[np.int16]) -> None:
        """Count a clip."""
        wide = clip.astype(np.int64)
        self.count += 1
        self.sums[: len(clip)] += wide
        self.squares[: len(clip)] += wide * wide

    def of_all(self) -> tuple[float, float]:
        """Mean and standard deviation of all samples, padding included, in units of full scale.

        Raises:
            DataError: all samples are equal.
        """
        n, total, squares = self.count * LONGEST, int(self.sums.sum()), sum(map(int, self.squares))
        spread = n * squares - total * total
        if spread == 0:
            raise DataError("the clips for training are silent; there is nothing to learn from them.")
        return total / n / SCALE, spread**0.5 / n / SCALE

    def of_times(self) -> tuple[Float64Array, Float64Array]:
        """Mean and standard deviation (with count - 1) at each time, in units of full scale.

        Raises:
            DataError: there are fewer than two clips.
        """
        n = self.count
        if n < 2:
            raise DataError(f"there are {n} clips for training; a deviation at each time needs at least 2.")
        # Python's whole numbers: products of sums may need more than 64 bits.
        sums, squares = self.sums.astype(object), self.squares.astype(object)
        variance = (n * squares - sums * sums).astype(np.float64) / (n * (n - 1))
        return self.sums / n / SCALE, np.sqrt(variance) / SCALE


def kept_sums(folder: Path, names: Sequence[str]) -> ClipSums:
    """Sums over the clips of these names: from the cache where no file changed in size or time, else from the files.

    Raises:
        DataError: a clip cannot be read, or the cache folder not be written to.
    """
    found = _load(_path(folder, names), len(names))
    if found is not None:
        return found
    sums = ClipSums()
    for name in names:
        sums.add(read_clip(folder / name))
    keep_sums(sums, folder, names)
    return sums


def keep_sums(sums: ClipSums, folder: Path, names: Sequence[str]) -> None:
    """Put sums over the clips of these names into the cache, in place of what may be there.

    Raises:
        DataError: the cache folder cannot be written to.
    """
    path = _path(folder, names)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, new = tempfile.mkstemp(dir=path.parent, prefix=".sums-")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, format=FORMAT, count=sums.count, sums=sums.sums, squares=sums.squares)
            os.replace(new, path)
        except BaseException:
            Path(new).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise DataError(
            f"the cache in {str(path.parent)!r} cannot be written: {error.strerror or error}. Set "
            f"{ENVIRONMENT_VARIABLE} to a folder with room."
        ) from None


def _path(folder: Path, names: Sequence[str]) -> Path:
    key = hashlib.sha256()
    for name in names:
        try:
            about = (folder / name).stat()
        except OSError as error:
            raise DataError(f"{folder / name} cannot be read: {error.strerror}.") from None
        key.update(json.dumps([name, about.st_size, about.st_mtime_ns]).encode())
    return cache_folder() / "speech" / f"{key.hexdigest()[:32]}.npz"


def _load(path: Path, count: int) -> ClipSums | None:
    try:
        # Opened here: NumPy leaves a file open that is no whole archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            found = ClipSums()
            found.count, found.sums, found.squares = int(archive["count"]), archive["sums"], archive["squares"]
            good = int(archive["format"]) == FORMAT and found.count == count
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
        return None
    shapes = {(array.shape, array.dtype) for array in (found.sums, found.squares)}
    return found if good and shapes == {((LONGEST,), np.dtype(np.int64))} else None
