"""Numbers that count the operations they take part in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass
class Tally:
    """Operations so far, each between two counted numbers or a counted and a plain one."""

    additions: int = 0
    multiplications: int = 0

    def numbers(self, values: Iterable[Any]) -> list[Counted]:
        """The values as numbers that are counted here."""
        return [Counted(value, self) for value in values]


class Counted:
    """A value of any ring; sums and products are entered in a tally.

    Operations with the plain integers 0 and 1, which code over a ring starts from, are free: the result is known.
    """

    __slots__ = ("tally", "value")

    def __init__(self, value: Any, tally: Tally) -> None:
        self.value = value
        self.tally = tally

    def __add__(self, other: Any) -> Counted:
        if not isinstance(other, Counted) and other == 0:
            return self
        self.tally.additions += 1
        return Counted(self.value + _plain(other), self.tally)

    __radd__ = __add__

    def __neg__(self) -> Counted:
        return Counted(-self.value, self.tally)

    def __sub__(self, other: Any) -> Any:
        return self + -other

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def __mul__(self, other: Any) -> Any:
        if not isinstance(other, Counted) and other == 0:
            return 0
        if not isinstance(other, Counted) and other == 1:
            return self
        self.tally.multiplications += 1
        return Counted(self.value * _plain(other), self.tally)

    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        return bool(self.value == _plain(other))

    __hash__ = None  # type: ignore[assignment]  # equal to plain numbers, which hash differently


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Counted) else value
