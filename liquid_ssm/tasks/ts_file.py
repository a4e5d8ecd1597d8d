"""The `.ts` files of the UEA and UCR archives of time series, for regression: one series a line, read as a stream."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import DataError

# Characters of a number, far above what a float64 needs, and of a line of the header.
_WIDEST_NUMBER = 64
_WIDEST_HEADER = 1 << 20
# Samples are float32.
_LARGEST = float(np.finfo(np.float32).max)
# What the form that is read here needs of a tag that is there.
_NEEDED = {"@timestamps": "false", "@equallength": "true", "@targetlabel": "true", "@classlabel": "false"}


class Series(NamedTuple):
    """One line of a `.ts` file.

    Attributes:
        values: (length, dimensions) float64, finite.
        target: the number to predict, finite.
    """

    values: npt.NDArray[np.float64]
    target: float


def read_ts(path: Path, *, dimensions: int, length: int) -> Iterator[Series]:
    """Read a file whose series all have the same length and a number as target.

    The header has one tag a line, in any case (`@problemName`, `@timeStamps`, `@missing`, `@univariate`, `@dimensions`,
    `@equalLength`, `@seriesLength`, `@targetLabel`; others say nothing here), and ends with `@data`; then every line is
    the values of each dimension, separated by commas, and the target, separated by colons.  Lines that are empty or
    start with # or % are skipped.

    Args:
        path: the file.
        dimensions: of every series.
        length: of every dimension [steps].

    Raises:
        DataError: the file cannot be read, or a line is not of this form or holds a value that is missing (`?`) or not
            finite; the message names file, line, dimension and place.
    """
    try:
        with path.open("rb") as file:
            number = _read_header(path, file, dimensions, length)
            longest = (dimensions * length + 2) * _WIDEST_NUMBER
            while line := file.readline(longest + 1):
                number += 1
                if len(line) > longest:
                    raise _damaged(path, number, f"has more than {longest:,} characters")
                if text := _content(line):
                    yield _series(path, number, text, dimensions, length, cut=not line.endswith(b"\n"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None


def _read_header(path: Path, file: BinaryIO, dimensions: int, length: int) -> int:
    """The number of the line of `@data`."""
    found: dict[str, str] = {}
    number = 0
    while line := file.readline(_WIDEST_HEADER):
        number += 1
        if not (text := _content(line)):
            continue
        tag, _, value = text.decode("latin-1").partition(" ")
        tag, value = tag.lower(), value.strip()
        if not tag.startswith("@"):
            raise _damaged(
                path, number, f"is {tag[:40]!r}; expected a tag such as @seriesLength, and @data before data"
            )
        if tag in found:
            raise _damaged(path, number, f"says {tag} a second time")
        if tag == "@data":
            _check_header(path, found, dimensions, length)
            return number
        found[tag] = value
    what = "is empty" if number == 0 else f"ends in line {number}, before @data"
    raise DataError(f"{path} {what}; it is no .ts file, or the download is incomplete.")


def _check_header(path: Path, found: dict[str, str], dimensions: int, length: int) -> None:
    needed = {
        **_NEEDED,
        "@univariate": str(dimensions == 1).lower(),
        "@dimensions": str(dimensions),
        "@serieslength": str(length),
    }
    for tag, value in needed.items():
        given = found.get(tag)
        if given is not None and given.split(" ")[0].lower() != value:
            raise DataError(f"{path}: the header says {tag} {given[:40]}; expected {value}. It is another set.")
    if "@targetlabel" not in found:
        raise DataError(f"{path}: the header has no @targetLabel, so it is no set for regression.")


def _content(line: bytes) -> bytes:
    """The line without blanks around it; nothing for a comment."""
    text = line.strip()
    return b"" if text.startswith((b"#", b"%")) else text


def _series(path: Path, number: int, text: bytes, dimensions: int, length: int, *, cut: bool) -> Series:
    *columns, target = text.split(b":")
    # A line without an end is the last one, and may be where a download broke off.
    hint = "; the file ends there, so the download may be incomplete" if cut else ""
    if len(columns) != dimensions:
        raise _damaged(
            path, number, f"has {len(columns)} dimensions and a target; expected {dimensions} and a target{hint}"
        )
    values = np.empty((length, dimensions))
    for i, column in enumerate(columns):
        numbers = column.split(b",")
        if len(numbers) != length:
            raise _damaged(path, number, f"has {len(numbers):,} values in dimension {i + 1}; expected {length:,}{hint}")
        try:
            values[:, i] = list(map(float, numbers)) if b"_" not in column else math.nan
        except ValueError:
            values[:, i] = math.nan
        if not (np.abs(values[:, i]) <= _LARGEST).all():
            raise _damaged(path, number, _first_bad(numbers, i))
    label = _number(target)
    if not abs(label) <= _LARGEST:
        raise _damaged(path, number, f"has the target {_shown(target)}; expected a finite number of float32{hint}")
    return Series(values, label)


def _first_bad(numbers: list[bytes], dimension: int) -> str:
    k = next(k for k, each in enumerate(numbers) if not abs(_number(each)) <= _LARGEST)
    what = "a missing value (?)" if numbers[k].strip() == b"?" else _shown(numbers[k])
    return f"has {what} as value {k + 1:,} of dimension {dimension + 1}; expected a finite number of float32"


def _number(text: bytes) -> float:
    """NaN where it is none."""
    try:
        # Python's numbers may have underscores, which no file has.
        return float(text) if b"_" not in text else math.nan
    except ValueError:
        return math.nan


def _shown(text: bytes) -> str:
    return repr(text[:40].decode("latin-1"))


def _damaged(path: Path, number: int, what: str) -> DataError:
    return DataError(f"{path}, line {number}, {what}. The file is damaged or of another kind; get it again.")
