"""The generator of ListOps: its text against an evaluator of its own, the published layout, and its distribution."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liquid_ssm.data_folder import check_sums, read_generated
from liquid_ssm.errors import ParameterError
from liquid_ssm.generate.listops import OPERATORS, generate_listops

Node = int | str | tuple["Node", "Node"]
SMALL = {"train": 40, "validation": 5, "test": 5, "min_length": 20, "max_length": 200}


def rows(folder: Path, name: str) -> list[tuple[str, str]]:
    content = (folder / "listops" / f"basic_{name}.tsv").read_bytes().decode("ascii")
    assert content.endswith("\r\n")
    lines = content.split("\r\n")[:-1]
    assert lines[0] == "Source\tTarget"
    return [(source, target) for source, target in (line.split("\t") for line in lines[1:])]


def parsed(words: list[str], at: int = 0) -> tuple[Node, int]:
    """The binary tree of the text, `( left right )`, and where it ends."""
    if words[at] != "(":
        return (int(words[at]) if words[at].isdigit() else words[at]), at + 1
    left, at = parsed(words, at + 1)
    right, at = parsed(words, at)
    assert words[at] == ")"
    return (left, right), at + 1


def value(node: Node) -> Any:
    """By the tree: an operator takes one argument after the other, and `]` applies it."""
    if not isinstance(node, tuple):
        return node
    left, right = value(node[0]), value(node[1])
    if isinstance(left, str):
        return left, [right]
    operator, arguments = left
    if right != "]":
        return operator, [*arguments, right]
    by_name = {"[MIN": np.min, "[MAX": np.max, "[MED": np.median, "[SM": lambda values: np.sum(values) % 10}
    return int(by_name[operator](arguments))


def depth(node: Node) -> int:
    """Of the tree of lists, whose digits have depth 1; a list of n arguments is n + 1 pairs deep on the left."""
    if not isinstance(node, tuple):
        return 1
    arguments = []
    left = node[0]
    while isinstance(left, tuple):
        arguments.append(left[1])
        left = left[0]
    return 1 + max(depth(argument) for argument in arguments)


def n_args(node: Node) -> list[int]:
    if not isinstance(node, tuple):
        return []
    arguments: list[Node] = []
    left = node[0]
    while isinstance(left, tuple):
        arguments.append(left[1])
        left = left[0]
    return [len(arguments), *(n for argument in arguments for n in n_args(argument))]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    generate_listops(folder, seed=1, **SMALL)
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the published lengths, depth and numbers of arguments."""
    folder = tmp_path_factory.mktemp("published")
    generate_listops(folder, seed=2, train=300, validation=10, test=10)
    return folder


def test_every_target_is_the_value_of_its_source(small: Path, published: Path) -> None:
    for folder in (small, published):
        for name in ("train", "val", "test"):
            for source, target in rows(folder, name):
                words = source.split(" ")
                tree, end = parsed(words)
                assert end == len(words)
                assert str(value(tree)) == target


def test_text_is_a_binary_tree_with_blanks_between_words() -> None:
    # By hand: [MAX 3 4 ] is (((( [MAX 3) 4) ]).
    tree, _ = parsed(["(", "(", "(", "[MAX", "3", ")", "4", ")", "]", ")"])
    assert tree == ((("[MAX", 3), 4), "]")
    assert value(tree) == 4


def test_lengths_lie_between_and_are_not_at_the_ends(small: Path, published: Path) -> None:
    for folder, least, most in ((small, 20, 200), (published, 500, 2000)):
        for name in ("train", "val", "test"):
            for source, _ in rows(folder, name):
                assert least < len(source.replace("(", "").replace(")", "").split()) < most


def test_lists_are_no_deeper_and_longer_than_published(published: Path) -> None:
    trees = [parsed(source.split(" "))[0] for source, _ in rows(published, "train")]
    # 300 expressions of 500 symbols and more reach both ends.
    assert max(depth(tree) for tree in trees) == 10
    args = Counter(n for tree in trees for n in n_args(tree))
    assert sorted(args) == list(range(2, 11))


def test_operators_are_equally_likely_and_digits_too(published: Path) -> None:
    words = Counter(word for source, _ in rows(published, "train") for word in source.split())
    for symbols in (OPERATORS, tuple("0123456789")):
        total = sum(words[symbol] for symbol in symbols)
        share = 1 / len(symbols)
        # Six standard deviations of a binomial count: beyond it once in 5e8.
        spread = 6 * math.sqrt(total * share * (1 - share))
        assert all(abs(words[symbol] - total * share) < spread for symbol in symbols)


def test_an_argument_is_a_list_once_in_four(tmp_path: Path) -> None:
    # With a wide range of lengths above the shortest list of lists nothing is preferred at the second of two levels.
    generate_listops(tmp_path / "x", train=3000, validation=1, test=1, min_length=3, max_length=10_000, max_depth=3)
    lists = digits = 0
    for source, _ in rows(tmp_path / "x", "train"):
        left = parsed(source.split(" "))[0]
        assert isinstance(left, tuple)
        left = left[0]
        while isinstance(left, tuple):
            lists += isinstance(left[1], tuple)
            digits += not isinstance(left[1], tuple)
            left = left[0]
    total = lists + digits
    # A list of two digits, 1 / 9 · 9 / 16 of all, is drawn again where it is one of the 400 that were drawn before: of
    # about 190 among 3000 less than a quarter, and with them less than 0.6 % of the arguments.
    assert abs(lists / total - 0.25) < 6 * math.sqrt(0.25 * 0.75 / total) + 0.006


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(small: Path, tmp_path: Path) -> None:
    generate_listops(tmp_path / "again", seed=1, **SMALL)
    generate_listops(tmp_path / "other", seed=2, **SMALL)
    for name in ("train", "val", "test"):
        path = f"listops/basic_{name}.tsv"
        assert (tmp_path / "again" / path).read_bytes() == (small / path).read_bytes()
        assert (tmp_path / "other" / path).read_bytes() != (small / path).read_bytes()
    for path in ("GENERATED.json", "SHA256SUMS"):
        assert (tmp_path / "again" / path).read_bytes() == (small / path).read_bytes()


def test_no_expression_is_there_twice(tmp_path: Path) -> None:
    # Lists of two or three digits: 4 (100 + 1000) of them, of which 600 draws would repeat many.
    about = generate_listops(
        tmp_path / "x", train=400, validation=100, test=100, min_length=1, max_length=6, max_depth=2, max_args=3
    )
    found = [source for name in ("train", "val", "test") for source, _ in rows(tmp_path / "x", name)]
    assert len(found) == len(set(found)) == 600
    assert about.counts == {"train": 400, "validation": 100, "test": 100}


def test_there_may_be_too_few_expressions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liquid_ssm.generate.listops._PATIENCE", 5000)
    # Lists of two digits: 400.
    with pytest.raises(ParameterError, match=r"after 400 expressions 5,000 draws gave no other one"):
        generate_listops(
            tmp_path / "x", train=401, validation=1, test=1, min_length=1, max_length=5, max_depth=2, max_args=2
        )
    assert read_generated(tmp_path / "x") is None


def test_what_was_asked_is_written_beside(small: Path) -> None:
    about = read_generated(small)
    assert about is not None
    assert (about.task, about.seed) == ("listops", 1)
    assert about.counts == {"train": 40, "validation": 5, "test": 5}
    assert about.options == {"min_length": 20, "max_length": 200, "max_depth": 10, "max_args": 10}
    assert check_sums(small) == 3
    assert len(rows(small, "train")) == 40
    assert len(rows(small, "val")) == len(rows(small, "test")) == 5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"train": 0}, "train is 0; at least 1"),
        ({"test": -1}, "test is -1; at least 1"),
        ({"seed": -1}, "seed is -1; at least 0"),
        ({"max_depth": 1}, "max_depth is 1; at least 2"),
        ({"max_depth": 201}, "max_depth is 201; at most 200"),
        ({"max_args": 1}, "max_args is 1; at least 2"),
        ({"min_length": -1}, "min_length is -1; at least 0"),
        ({"min_length": 100, "max_length": 101}, "no length lies between min_length 100 and max_length 101"),
        # 2 + 10 (2 + 10): two levels of lists.
        ({"max_depth": 3}, "depth 3 with 10 arguments have at most 122 symbols, which is not above min_length 500"),
    ],
)
def test_options_out_of_range_are_named_before_anything_is_written(
    tmp_path: Path, options: dict[str, int], said: str
) -> None:
    with pytest.raises(ParameterError, match=said):
        generate_listops(tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


def test_a_folder_with_data_is_left_alone(small: Path) -> None:
    before = (small / "listops" / "basic_train.tsv").read_bytes()
    with pytest.raises(ParameterError, match="is not empty"):
        generate_listops(small, seed=9, **SMALL)
    assert (small / "listops" / "basic_train.tsv").read_bytes() == before


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    generate_listops(
        tmp_path / "x", train=150, validation=30, test=30, min_length=5, max_length=30,
        progress=lambda *step: told.append(step),
    )  # fmt: skip
    assert told == [(100, 210, "train"), (200, 210, "test"), (210, 210, "test")]
