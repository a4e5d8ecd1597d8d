"""Files of CIFAR-10's Python version, which are pickles, read without running anything that they hold."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import DataError

SIDE, CHANNELS = 32, 3
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_PIXELS = SIDE * SIDE * CHANNELS


class Batch(NamedTuple):
    """Images of a file.

    Attributes:
        pixels: (images, 1024, 3) uint8, row by row; red, green, blue.
        labels: (images,) 0 to 9.
    """

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


def read_batch(path: Path, md5: str | None) -> Batch:
    """The images of `data_batch_1` to `data_batch_5` or `test_batch`.

    Args:
        path: of the file.
        md5: that of the published file, compared before anything is read; None for a file that is not one of them.

    Raises:
        DataError: the file is missing, another one, damaged, or holds anything but numbers and names.
    """
    found = _read(path, md5)
    if "fine_labels" in found:
        raise DataError(f"{path} is of CIFAR-100; expected CIFAR-10.")
    pixels, labels = found.get("data"), found.get("labels")
    if not isinstance(pixels, _Array) or pixels.kind not in ("u1", "uint8") or pixels.shape[1:] != (_PIXELS,):
        what = f"an array of {pixels.kind} of shape {pixels.shape}" if isinstance(pixels, _Array) else "no array"
        raise _damaged(path, f"its entry data is {what}; expected uint8 of shape (images, {_PIXELS})")
    count = pixels.shape[0]
    if pixels.fortran or len(pixels.raw) != count * _PIXELS:
        raise _damaged(path, f"{len(pixels.raw):,} bytes of pixels instead of {count * _PIXELS:,}, row by row")
    if not isinstance(labels, list) or len(labels) != count:
        what = f"{len(labels):,} labels" if isinstance(labels, list) else "no list of labels"
        raise _damaged(path, f"{what} for {count:,} images")
    for i, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < len(CLASSES):
            raise _damaged(path, f"the label of image {i}, counted from 0, is {label!r:.40}; expected 0 to 9")
    planes = np.frombuffer(pixels.raw, np.uint8).reshape(count, CHANNELS, SIDE * SIDE)
    return Batch(np.ascontiguousarray(planes.transpose(0, 2, 1)), np.array(labels, np.int64))


def check_names(path: Path, md5: str | None) -> None:
    """Check that `batches.meta` names the classes of CIFAR-10.

    Raises:
        DataError: as `read_batch`.
    """
    names = _read(path, md5).get("label_names")
    texts = [_text(name) for name in names] if isinstance(names, list) else names
    if texts != list(CLASSES):
        raise _damaged(path, f"its label_names are {texts!r:.80}; expected {', '.join(CLASSES)}")


class _Array:
    """What a pickle says about an array.  No array is made of it: NumPy trusts what it unpickles."""

    shape: tuple[int, ...] = ()
    kind, fortran, raw = "", False, b""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        self._set(raw, kind, shape, bool(fortran))

    def _set(self, raw: Any, kind: Any, shape: Any, fortran: bool) -> None:
        if not (isinstance(raw, (bytes, bytearray)) and isinstance(kind, _Kind) and isinstance(shape, tuple)):
            raise pickle.UnpicklingError("it holds an array of objects, or none of the usual form")
        if not all(type(n) is int and n >= 0 for n in shape):
            raise pickle.UnpicklingError("it holds an array of no shape")
        self.raw, self.kind, self.shape, self.fortran = bytes(raw), kind.name, shape, fortran


class _Kind:
    """What a pickle says about a dtype."""

    def __init__(self, name: Any = "", *_: Any) -> None:
        self.name = _text(name)

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like, which single bytes do not have."""


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(raw: Any, kind: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array._set(raw, kind, shape, order != "C")
    return array


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it holds text of encoding {encoding!r:.40}")
    return text.encode("latin-1")


# Everything that such a file may call, by the names in it: Python 2 and 3, NumPy 1 and 2.
_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


class _Reader(pickle.Unpickler):
    """Makes numbers, text, lists and dictionaries, and of all other things only the stand-ins above."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(
                f"it asks for {f'{module}.{name}':.80}, which no batch of CIFAR-10 does; nothing of it was run"
            )
        return _ALLOWED[module, name]


def _read(path: Path, md5: str | None) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing; the download is incomplete.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    if md5 is not None and (found := hashlib.md5(content, usedforsecurity=False).hexdigest()) != md5:
        raise _damaged(path, f"its MD5 is {found}, that of the published file {md5}")
    try:
        entries = _Reader(io.BytesIO(content), encoding="bytes").load()
    # A damaged pickle raises nearly anything.
    except Exception as error:
        raise _damaged(path, str(error) or type(error).__name__) from None
    if not isinstance(entries, dict):
        raise _damaged(path, "it does not hold a dictionary")
    return {_text(key): value for key, value in entries.items()}


def _text(name: Any) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else str(name)


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{path} is damaged or no file of CIFAR-10's Python version: {what}. Get it again.")
