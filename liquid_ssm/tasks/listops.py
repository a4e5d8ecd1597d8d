"""ListOps: nested MIN, MAX, MED and sum modulo 10 of digits; the value has to be found from the text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ..errors import DataError
from .task import CLASSIFICATION, Task
from .token_data import TokenData, named_files
from .token_store import Row

FILES = {"train": "basic_train.tsv", "validation": "basic_val.tsv", "test": "basic_test.tsv"}
HEADER = b"Source\tTarget"
# Closing brackets are X in the published vocabulary; parentheses say nothing that the brackets do not.
CLOSE = "X"

_REDUCED = str.maketrans({"(": None, ")": None, "]": CLOSE})
_DIGITS = {str(digit): digit for digit in range(10)}


def _median(values: list[int]) -> int:
    """The mean of the middle two, rounded down, for an even number of values, as int(numpy.median(…)) is."""
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) // 2


_OPERATORS: dict[str, Callable[[list[int]], int]] = {
    "[MIN": min,
    "[MAX": max,
    "[MED": _median,
    "[SM": lambda values: sum(values) % 10,
}


class ListOps(TokenData):
    """ListOps of Long Range Arena (Nangia and Bowman 2018; Tay et al. 2020): the published files, or generated ones.

    Every expression is evaluated when the files are first read, and compared with its target.
    """

    task = Task(
        name="listops",
        title="ListOps",
        kind=CLASSIFICATION,
        length=2048,
        n_inputs=None,
        n_outputs=10,
        classes=tuple(_DIGITS),
        expected="listops/basic_train.tsv, basic_val.tsv and basic_test.tsv, with the columns Source and Target",
        paper={"pb": 62.75, "s4": 59.60, "s4d_legs": 60.47, "s4d_inv": 60.18, "s5": 61.00, "transformer": 36.37},
    )
    level = "words"
    places = ("listops", "listops-1000")
    published: ClassVar = {"train": 96_000, "validation": 2_000, "test": 2_000}
    source = "the sizes of Long Range Arena"

    def _files(self) -> Mapping[str, Path]:
        return named_files(self._place(FILES.values()), FILES.values(), self._wanted())

    def _rows(self, part: str) -> Iterator[Row]:
        path = self._place(FILES.values()) / FILES[part]
        try:
            with path.open("rb") as file:
                header = file.readline().rstrip(b"\r\n")
                if header != HEADER:
                    raise DataError(
                        f"{path}, line 1, is {_short(header)}; expected the columns Source and Target, separated by a "
                        "tabulator."
                    )
                for number, line in enumerate(file, start=2):
                    try:
                        yield _row(line)
                    except ValueError as error:
                        raise DataError(
                            f"{path}, line {number}: {error}. The file is damaged or of another version; get it again."
                        ) from None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from None


def value(words: Sequence[str]) -> int:
    """The value of an expression.

    Args:
        words: operators, digits and `X` for each closing bracket.

    Raises:
        ValueError: they are not one whole expression.
    """
    open_lists: list[tuple[str, list[int]]] = [("", [])]
    for word in words:
        digit = _DIGITS.get(word)
        if digit is not None:
            open_lists[-1][1].append(digit)
        elif word in _OPERATORS:
            open_lists.append((word, []))
        elif word == CLOSE:
            operator, values = open_lists.pop()
            if not values or not open_lists:
                raise ValueError("the brackets of Source are not balanced")
            open_lists[-1][1].append(_OPERATORS[operator](values))
        else:
            raise ValueError(f"Source has the word {_short(word)}; allowed: {', '.join(_OPERATORS)}, ], ( ) and digits")
    if len(open_lists) != 1 or len(open_lists[0][1]) != 1:
        raise ValueError("Source is not one whole expression")
    return open_lists[0][1][0]


def _row(line: bytes) -> Row:
    columns = line.rstrip(b"\r\n").split(b"\t")
    if len(columns) != 2:
        raise ValueError(f"{len(columns)} columns instead of Source and Target")
    if not columns[0].isascii():
        raise ValueError("Source has bytes that are not ASCII")
    source = columns[0].decode("ascii")
    target = columns[1].decode("ascii", "replace")
    if target not in _DIGITS:
        raise ValueError(f"Target is {_short(target)}; expected a digit")
    words = source.translate(_REDUCED).split()
    found = value(words)
    if found != _DIGITS[target]:
        raise ValueError(f"Source has the value {found}, and Target is {target}")
    # Two leaves, one pair of parentheses, as in every binary tree; published expressions without any are allowed.
    opened, closed = source.count("("), source.count(")")
    if opened != closed or opened not in (0, len(words) - 1):
        raise ValueError(f"Source has {opened} ( and {closed} ); expected {len(words) - 1} of each")
    return Row((words,), found)


def _short(text: str | bytes) -> str:
    return repr(text if len(text) <= 40 else text[:40]) + ("…" if len(text) > 40 else "")
