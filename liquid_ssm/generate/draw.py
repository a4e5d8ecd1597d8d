"""What the generators of text share: an empty folder, numbers in range, draws that stay the same in all versions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from ..errors import ParameterError

T = TypeVar("T")


class Draw:
    """Random choices from a seed.  Only `random()` of Python's generator is used, whose numbers Python guarantees."""

    def __init__(self, seed: int) -> None:
        self.uniform = random.Random(seed).random

    def below(self, n: int) -> int:
        """0 … n - 1."""
        return int(self.uniform() * n)

    def within(self, least: int, most: int) -> int:
        """Both ends included."""
        return least + self.below(most - least + 1)

    def choice(self, items: Sequence[T]) -> T:
        """One of them."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """All of them (Fisher and Yates)."""
        found = list(items)
        for i in range(len(found) - 1, 0, -1):
            j = self.below(i + 1)
            found[i], found[j] = found[j], found[i]
        return found


def new_folder(folder: Path) -> Path:
    """Make the folder.

    Raises:
        ParameterError: it holds something already, is no folder, or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ParameterError(f"{str(folder)!r} is not empty; give a new folder, so that no data are mixed up.")
    except OSError as error:
        raise ParameterError(f"{str(folder)!r} cannot be made: {error.strerror}. Choose another place.") from None
    return folder


def at_least(least: int, **numbers: int) -> None:
    """Check whole numbers by name.

    Raises:
        ParameterError: one of them is smaller.
    """
    for name, number in numbers.items():
        if number < least:
            raise ParameterError(f"{name} is {number}; at least {least} is needed.")
