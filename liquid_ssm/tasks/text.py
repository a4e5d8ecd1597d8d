"""Text as whole numbers: a vocabulary of characters or words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

PAD, UNK, EOS = "<pad>", "<unk>", "<eos>"
SPECIALS = (PAD, UNK, EOS)
# A text as its characters, or a list of words.
Document = str | Sequence[str]


class Vocabulary:
    """Symbols by number: `<pad>` 0, `<unk>` 1, `<eos>` 2, then what a training set holds.

    Args:
        symbols: all of them, in order of their numbers.
    """

    def __init__(self, symbols: Iterable[str]) -> None:
        self.symbols = tuple(symbols)

    @classmethod
    def of_counts(cls, counts: Mapping[str, int], min_frequency: int = 1) -> Vocabulary:
        """The most frequent symbol first, equally frequent ones by their characters, as torchtext orders them.

        Args:
            counts: how often a symbol occurs.
            min_frequency: rarer ones are `<unk>`.
        """
        kept = [symbol for symbol, count in counts.items() if count >= min_frequency]
        return cls((*SPECIALS, *sorted(kept, key=lambda symbol: (-counts[symbol], symbol))))

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest unsigned type that holds every number."""
        return np.min_scalar_type(len(self) - 1)

    def encode(self, document: Document, max_length: int) -> NDArray[Any]:
        """Numbers of the first `max_length` - 1 symbols, and `<eos>`.

        Args:
            document: a string is characters, a list is words.
            max_length: most numbers [steps].

        Returns:
            (length,) of the type `dtype`.
        """
        head = document[: max_length - 1]
        found = np.empty(len(head) + 1, self.dtype)
        if isinstance(head, str):
            codes = np.frombuffer(head.encode("utf-32-le"), "<u4")
            found[:-1] = self._of_codes[np.minimum(codes, len(self._of_codes) - 1)]
        else:
            number, unknown = self._numbers.get, SPECIALS.index(UNK)
            found[:-1] = [number(word, unknown) for word in head]
        found[-1] = SPECIALS.index(EOS)
        return found

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {symbol: i for i, symbol in enumerate(self.symbols)}

    @cached_property
    def _of_codes(self) -> NDArray[Any]:
        """Numbers by code point; the last entry stands for all beyond the largest one."""
        codes = {ord(symbol): i for i, symbol in enumerate(self.symbols) if len(symbol) == 1}
        table = np.full(max(codes, default=-1) + 2, SPECIALS.index(UNK), self.dtype)
        table[list(codes)] = list(codes.values())
        return table
