"""Rows of a file of separated values, read one at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError

# Python's own limit of a field, 131,072 characters, is less than some documents have.
_LONGEST = 1 << 26


def separated(path: Path, dialect: type[csv.Dialect]) -> Iterator[tuple[int, list[str]]]:
    """The number of a row's last line and its fields.

    Raises:
        DataError: it cannot be read, is not UTF-8, or has a field without an end.
    """
    usual = csv.field_size_limit(_LONGEST)
    line = 0
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file, dialect)
            for row in rows:
                line = rows.line_num
                yield line, row
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 after line {line} ({error.reason}); get it again.") from None
    except csv.Error as error:
        raise DataError(f"{path} is damaged after line {line} ({error}); get it again.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    finally:
        csv.field_size_limit(usual)
