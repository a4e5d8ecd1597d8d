"""Windows of signals as memory-mapped files: converted once from text, or as they are in `.npy` files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from ..cache_folder import ENVIRONMENT_VARIABLE, cache_folder
from ..data_folder import sha256
from ..errors import DataError
from .batch import Sample
from .ts_file import Series

FORMAT = 1
WINDOWS, TARGETS = "x.npy", "y.npy"
_ABOUT = "windows.json"


class Windows(Dataset[Sample]):
    """Rows of a pair of `.npy` files.  They are mapped where a sample is asked for, so that workers get no copies.

    Args:
        x: file of (n, length, features) floating numbers.
        y: file of (n,) or (n, 1) targets.
        rows: which of them, in this order.
    """

    def __init__(self, x: Path, y: Path, rows: npt.NDArray[np.int64]) -> None:
        self.x, self.y, self.rows = x, y, rows
        self._mapped: tuple[Any, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": None}

    def __len__(self) -> int:
        return len(self.rows)

    def targets(self) -> npt.NDArray[np.float64]:
        """Targets of all rows (n,)."""
        found: npt.NDArray[np.float64] = np.asarray(self._arrays()[1][self.rows], np.float64).reshape(-1)
        return found

    def __getitem__(self, index: int) -> Sample:
        x, y = self._arrays()
        row = int(self.rows[index])
        with np.errstate(over="ignore"):
            window, target = (np.array(array[row], dtype=np.float32) for array in (x, y))
        if not (np.isfinite(window).all() and np.isfinite(target).all()):
            raise DataError(f"{self.x} or its targets hold values that are not finite, in window {row} from 0.")
        return Sample(torch.from_numpy(window), torch.from_numpy(target.reshape(1)))

    def _arrays(self) -> tuple[Any, Any]:
        if self._mapped is None:
            self._mapped = map_array(self.x), map_array(self.y)
        return self._mapped


def map_array(path: Path) -> npt.NDArray[Any]:
    """The array of an `.npy` file, mapped into memory; never a pickle.

    Raises:
        DataError: the file cannot be read, is damaged or holds no plain array.
    """
    try:
        with path.open("rb") as file:
            if file.read(2) == b"PK":
                raise ValueError("it is an archive")
        found: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path} is missing; the download is incomplete.") from None
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, OverflowError) as error:
        objects = "pickle" in str(error) or "Python objects" in str(error)
        why = "it holds Python objects (a pickle), which are never loaded" if objects else str(error)
        raise DataError(f"{path} is damaged or no .npy file: {why or type(error).__name__}. Get it again.") from None
    return found


def open_windows(name: str) -> Path | None:
    """The folder of converted windows of this name; None where there is none, or a damaged one."""
    folder = _store(name)
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        sums = about["sums"]
        good = about["format"] == FORMAT and set(sums) == {WINDOWS, TARGETS}
        return folder if good and all(sha256(folder / file) == sums[file] for file in sums) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def make_windows(name: str, series: Callable[[], Iterable[Series]], count: int, length: int, features: int) -> Path:
    """Write windows as float32.  The folder appears when it is whole; of two processes that write it one wins.

    Args:
        name: of the store; names the contents.
        series: exactly `count` of them.
        count, length, features: shape of the windows.

    Raises:
        DataError: the cache folder cannot be written to, or what the series raise.
    """
    target = _store(name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent, prefix=f".{name}-", ignore_cleanup_errors=True) as place:
            new = Path(place) / "windows"
            new.mkdir()
            y = np.empty(count, np.float32)
            # Not through a map: a full disk would end the process, by SIGBUS.
            with (new / WINDOWS).open("wb") as file:
                header = {"descr": "<f4", "fortran_order": False, "shape": (count, length, features)}
                np.lib.format.write_array_header_1_0(file, header)
                for k, (values, label) in enumerate(series()):
                    file.write(values.astype("<f4").tobytes())
                    y[k] = label
            np.save(new / TARGETS, y, allow_pickle=False)
            about = {"format": FORMAT, "sums": {file: sha256(new / file) for file in (WINDOWS, TARGETS)}}
            (new / _ABOUT).write_text(json.dumps(about), encoding="utf-8")
            _publish(new, target)
    except OSError as error:
        raise DataError(
            f"the cache of windows in {str(target.parent)!r} cannot be written: {error.strerror or error}. Set "
            f"{ENVIRONMENT_VARIABLE} to a folder with room."
        ) from None
    return target


def _publish(new: Path, target: Path) -> None:
    if target.exists():
        # Whoever calls has found it damaged.
        shutil.rmtree(target, ignore_errors=True)
    try:
        new.rename(target)
    except OSError:
        # Another process was faster.
        if open_windows(target.name) is None:
            raise


def _store(name: str) -> Path:
    return cache_folder() / "windows" / name
