"""Labelled texts on disk: folders of each class with a file for each text, or a table with the columns text, label."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import BackendUnavailable, DataError
from .separated import separated

CLASSES = ("neg", "pos")
TABLES = ("parquet", "csv")
# As they are called in the files of the Hugging Face hub.
SHARDS = "-*-of-*.parquet"

_NAME = re.compile(r"(\d+)_(\d+)\.txt")
# Reviews with 5 or 6 of 10 stars are not in the set.
_RATINGS = {"neg": range(1, 5), "pos": range(7, 11)}
_LABELS = {"0": 0, "1": 1, "neg": 0, "pos": 1, "negative": 0, "positive": 1}
_ROWS_AT_ONCE = 256


def review_files(place: Path, name: str) -> dict[str, Path]:
    """The files of a set, by their name below `place`; none where it is in neither form.

    Args:
        place: holds the folder `name` with `pos` and `neg`, or the table `name`.
        name: train or test.

    Raises:
        DataError: a class is missing, or a file is called as no review is.
    """
    if not (place / name).is_dir():
        tables = [place / f"{name}.{form}" for form in TABLES if (place / f"{name}.{form}").is_file()]
        return {path.name: path for path in tables[:1] or sorted(place.glob(f"{name}{SHARDS}"))}
    files = {}
    for label in CLASSES:
        folder = place / name / label
        if not folder.is_dir():
            raise DataError(f"{folder} is missing; the download is incomplete, get the data again.")
        for path in folder.iterdir():
            if path.name.startswith("."):
                continue
            match, ratings = _NAME.fullmatch(path.name), _RATINGS[label]
            if match is None or int(match[2]) not in ratings:
                raise DataError(
                    f"{path}: reviews in {name}/{label} are called ID_RATING.txt, with ratings from {ratings[0]} to "
                    f"{ratings[-1]}. Remove what is no review, or get the data again."
                )
            files[f"{name}/{label}/{path.name}"] = path
    return files


def read_reviews(files: Mapping[str, Path]) -> Iterator[tuple[str, int]]:
    """Text and class of each review of a set.  Those of folders are in the order of their ids, the classes in turn, so
    that the first few hold both.

    Raises:
        DataError: the file, and in a table the line or row, that is damaged.
    """
    for key in sorted(files, key=_by_id):
        path = files[key]
        try:
            if path.suffix != ".txt":
                for where, text, label in _parquet(path) if path.suffix == ".parquet" else _csv(path):
                    yield _whole(f"{path}, {where}", text), _class(f"{path}, {where}", label)
                continue
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 ({error.reason}); get it again.") from None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from None
        yield _whole(str(path), text), CLASSES.index(path.parent.name)


def _by_id(key: str) -> tuple[int, str]:
    return (int(key.rpartition("/")[2].partition("_")[0]) if key.endswith(".txt") else 0, key)


def _whole(where: str, text: object) -> str:
    if not isinstance(text, str) or not text or "\0" in text:
        what = "holds bytes of value 0" if isinstance(text, str) and text else "is empty"
        raise DataError(f"{where}: the text {what}. The file is damaged; get it again.")
    return text


def _class(where: str, label: object) -> int:
    found = _LABELS.get(str(label))
    if found is None:
        raise DataError(f"{where}: label {str(label)[:40]!r}; expected 0 (negative) or 1 (positive).")
    return found


def _csv(path: Path) -> Iterator[tuple[str, object, object]]:
    rows = separated(path, csv.excel)
    _, header = next(rows, (0, []))
    text, label = _columns(path, header)
    for line, fields in rows:
        if len(fields) != len(header):
            raise DataError(f"{path}, line {line}: {len(fields)} columns instead of {len(header)}; get it again.")
        yield f"line {line}", fields[text], fields[label]


def _parquet(path: Path) -> Iterator[tuple[str, object, object]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise BackendUnavailable(
            f"{path} needs pyarrow, which is not installed. Run: pip install pyarrow, or give the same table as CSV"
        ) from None
    row = 0
    try:
        with parquet.ParquetFile(path) as file:
            _columns(path, file.schema_arrow.names)
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=["text", "label"]):
                for values in batch.to_pylist():
                    row += 1
                    yield f"row {row}", values["text"], values["label"]
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is damaged after row {row} ({error}); get it again.") from None


def _columns(path: Path, header: list[str]) -> tuple[int, int]:
    if "text" not in header or "label" not in header:
        raise DataError(f"{path} has the columns {', '.join(header)[:80] or 'none'}; expected text and label.")
    return header.index("text"), header.index("label")
