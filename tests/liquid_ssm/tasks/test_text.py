"""Vocabularies of characters and words."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liquid_ssm.tasks.text import SPECIALS, Vocabulary


def test_the_most_frequent_symbol_comes_first_and_ties_are_alphabetical() -> None:
    found = Vocabulary.of_counts({"d": 2, "a": 2, "c": 5, "b": 1})
    assert found.symbols == ("<pad>", "<unk>", "<eos>", "c", "a", "d", "b")


def test_rare_symbols_are_unknown() -> None:
    found = Vocabulary.of_counts({"a": 15, "b": 14}, min_frequency=15)
    assert found.symbols == (*SPECIALS, "a")
    assert found.encode("abab", 10).tolist() == [3, 1, 3, 1, 2]


@pytest.mark.parametrize("document", ["abc", ["a", "b", "c"]])
def test_the_end_mark_counts_and_is_never_cut_off(document: str | list[str]) -> None:
    found = Vocabulary((*SPECIALS, "a", "b", "c"))
    assert found.encode(document, 4).tolist() == [3, 4, 5, 2]
    assert found.encode(document, 3).tolist() == [3, 4, 2]
    assert found.encode(document, 1).tolist() == [2]
    assert found.encode(document[:0], 3).tolist() == [2]


def test_characters_beyond_and_below_the_known_ones_are_unknown() -> None:
    found = Vocabulary((*SPECIALS, "b", "d"))
    assert found.encode("abcde\U0010ffff\0", 100).tolist() == [1, 3, 1, 4, 1, 1, 1, 2]
    assert Vocabulary(SPECIALS).encode("ab", 100).tolist() == [1, 1, 2]


def test_a_special_symbol_in_a_text_is_characters() -> None:
    found = Vocabulary.of_counts(Counter("<pad>"))
    assert 0 not in found.encode("<pad>", 100)


@given(st.text(), st.text(max_size=5), st.integers(1, 30))
def test_characters_and_their_list_are_the_same(known: str, more: str, max_length: int) -> None:
    found = Vocabulary.of_counts(Counter(known))
    text = known + more
    expected = [found.symbols.index(c) if c in known else 1 for c in text[: max_length - 1]] + [2]
    assert found.encode(text, max_length).tolist() == expected
    assert found.encode(list(text), max_length).tolist() == expected


@pytest.mark.parametrize(
    ("symbols", "dtype"), [(253, np.uint8), (254, np.uint16), (65_533, np.uint16), (65_534, np.uint32)]
)
def test_numbers_take_as_few_bytes_as_they_need(symbols: int, dtype: type) -> None:
    characters = [chr(0x10000 + i) for i in range(symbols)]
    found = Vocabulary((*SPECIALS, *characters))
    assert found.dtype == dtype
    encoded = found.encode(characters[-1], 2)
    assert encoded.dtype == dtype
    assert encoded.tolist() == [symbols + 2, 2]
