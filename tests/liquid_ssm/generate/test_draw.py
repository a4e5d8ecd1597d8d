"""Draws that stay the same, and the folder that a generator writes into."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from liquid_ssm.errors import ParameterError
from liquid_ssm.generate.draw import Draw, at_least, new_folder


def test_draws_are_those_of_pythons_random_by_seed() -> None:
    reference = random.Random(4)
    draw = Draw(4)
    assert [draw.uniform() for _ in range(3)] == [reference.random() for _ in range(3)]
    assert draw.below(10) == int(reference.random() * 10)


def test_ranges_include_their_ends_and_nothing_else() -> None:
    draw = Draw(0)
    # A value of 4 is not drawn in 400 draws with probability 0.75^400 < 1e-49.
    assert {draw.below(4) for _ in range(400)} == {0, 1, 2, 3}
    assert {draw.within(2, 5) for _ in range(400)} == {2, 3, 4, 5}
    assert {draw.choice("abcd") for _ in range(400)} == set("abcd")


def test_shuffled_items_are_the_same_items_in_any_order() -> None:
    draw = Draw(0)
    items = (1, 2, 3)
    # Each of 6 orders, 600 draws: one is missing with probability below 6 (5/6)^600 < 1e-46.
    assert len({tuple(draw.shuffled(items)) for _ in range(600)}) == 6
    assert items == (1, 2, 3)
    assert draw.shuffled([]) == []


def test_a_folder_is_new_or_empty(tmp_path: Path) -> None:
    assert new_folder(tmp_path / "a" / "b").is_dir()
    assert new_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    with pytest.raises(ParameterError, match="a' is not empty; give a new folder"):
        new_folder(tmp_path / "a")
    (tmp_path / "file").write_text("")
    with pytest.raises(ParameterError, match="file' cannot be made: File exists"):
        new_folder(tmp_path / "file")


def test_numbers_are_named() -> None:
    at_least(1, train=1)
    with pytest.raises(ParameterError, match="test is 0; at least 1 is needed"):
        at_least(1, train=1, test=0)
