"""Stand-ins of IMDB and AAN: their layouts, and that the class can be learnt from the text."""

from __future__ import annotations

import ast
import csv
from collections import Counter
from pathlib import Path

import pytest

from liquid_ssm.data_folder import check_sums, read_generated
from liquid_ssm.errors import ParameterError
from liquid_ssm.generate import text
from liquid_ssm.generate.text import generate_aan, generate_imdb


@pytest.fixture(scope="module")
def imdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imdb")
    generate_imdb(folder, seed=1, train=200, test=100)
    return folder


@pytest.fixture(scope="module")
def aan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aan")
    generate_aan(folder, seed=1, train=200, validation=30, test=21)
    return folder


def reviews(folder: Path, name: str) -> list[tuple[str, str, int]]:
    """Text, class and stars."""
    return [
        (path.read_text(encoding="utf-8"), path.parent.name, int(path.stem.split("_")[1]))
        for path in sorted((folder / "aclImdb" / name).glob("*/*"))
    ]


def pairs(folder: Path, name: str) -> list[list[str]]:
    with (folder / "aan" / f"new_aan_pairs.{name}.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, csv.excel_tab))


def verdict(review: str) -> int:
    """Sentences of praise less sentences of blame, by rules that are written down here again."""
    good, bad = set(text._GOOD), set(text._BAD)
    total = 0
    for sentence in review.replace("<br /><br />", " ").replace("!", ".").split("."):
        words = sentence.lower().split()
        sign = -1 if "not" in words or "never" in words else 1
        total += sign * (sum(word in good for word in words) - sum(word in bad for word in words))
    return total


def test_reviews_lie_in_the_published_folders(imdb: Path) -> None:
    for name, count in (("train", 200), ("test", 100)):
        for label in ("pos", "neg"):
            files = list((imdb / "aclImdb" / name / label).iterdir())
            assert sorted(int(path.name.split("_")[0]) for path in files) == list(range(count // 2))
            assert all(path.suffix == ".txt" for path in files)
    assert check_sums(imdb) == 300


def test_the_class_is_that_of_the_majority_of_sentences(imdb: Path) -> None:
    for review, label, stars in reviews(imdb, "train") + reviews(imdb, "test"):
        assert (verdict(review) > 0) == (label == "pos")
        assert verdict(review) != 0
        assert stars in (range(7, 11) if label == "pos" else range(1, 5))


def test_a_clearer_verdict_has_more_stars(imdb: Path) -> None:
    clear = {1: [], 0: []}
    for review, _, stars in reviews(imdb, "train"):
        clear[stars in (1, 10)].append(abs(verdict(review)) / len(review))
    assert sum(clear[1]) / len(clear[1]) > sum(clear[0]) / len(clear[0])


def test_words_without_negations_are_not_enough(tmp_path: Path) -> None:
    generate_imdb(tmp_path / "x", train=100, test=2, negated=1.0)
    # With every sentence negated the words say the opposite.
    for review, label, _ in reviews(tmp_path / "x", "train"):
        words = Counter(review.lower().replace(".", " ").replace("!", " ").replace("<br", " ").split())
        praise = sum(words[word] for word in text._GOOD) - sum(words[word] for word in text._BAD)
        assert (praise > 0) == (label == "neg")


def test_pairs_lie_in_the_published_files(aan: Path) -> None:
    for name, count in (("train", 200), ("eval", 30), ("test", 21)):
        found = pairs(aan, name)
        assert len(found) == count
        for row in found:
            assert len(row) == 5
            assert row[0] in ("0", "1")
            # Byte literals of Python.
            assert all(isinstance(ast.literal_eval(field), bytes) for field in row[3:])
        assert sum(row[0] == "1" for row in found) == count // 2
    assert check_sums(aan) == 3


def test_related_papers_share_words_that_unrelated_ones_do_not(aan: Path) -> None:
    common = set(text._COMMON)
    for row in pairs(aan, "train") + pairs(aan, "test"):
        first, second = (set(ast.literal_eval(field).decode().split()) - common for field in row[3:])
        assert first
        assert second
        if row[0] == "0":
            assert not first & second
    related = [row for row in pairs(aan, "train") if row[0] == "1"]
    sharing = sum(
        bool((set(ast.literal_eval(a).split()) & set(ast.literal_eval(b).split())) - {w.encode() for w in common})
        for *_, a, b in related
    )
    # A paper of 60 words has 8.7 of its topic's 12 words on average; another of 60 avoids 8 of them with probability
    # (1 - 8 / 48)^60 < 2e-5, and longer ones less often.
    assert sharing == len(related)


def test_topics_share_no_words_with_each_other_or_with_common_ones() -> None:
    assert len(set(text._WORDS)) == len(text._WORDS)
    assert not set(text._WORDS) & set(text._COMMON)


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(imdb: Path, aan: Path, tmp_path: Path) -> None:
    for folder, make, options in (
        (imdb, generate_imdb, {"train": 200, "test": 100}),
        (aan, generate_aan, {"train": 200, "validation": 30, "test": 21}),
    ):
        make(tmp_path / make.__name__, seed=1, **options)
        make(tmp_path / f"{make.__name__}-other", seed=2, **options)
        # Sums of all files.
        sums = (folder / "SHA256SUMS").read_text()
        assert (tmp_path / make.__name__ / "SHA256SUMS").read_text() == sums
        assert not set(sums.split()[::2]) & set(
            (tmp_path / f"{make.__name__}-other" / "SHA256SUMS").read_text().split()
        )


def test_what_was_asked_is_written_beside(imdb: Path, aan: Path) -> None:
    about = read_generated(imdb)
    assert about is not None
    assert (about.task, about.seed, about.counts) == ("imdb", 1, {"train": 200, "test": 100})
    assert about.options == {"min_sentences": 4, "max_sentences": 16, "negated": 0.3}
    about = read_generated(aan)
    assert about is not None
    assert (about.task, about.seed, about.counts) == ("aan", 1, {"train": 200, "validation": 30, "test": 21})
    assert about.options == {"topics": 20, "min_words": 60, "max_words": 240, "topic_share": 0.25}


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (generate_imdb, {"train": 3}, "train is 3; an even number is needed"),
        (generate_imdb, {"test": 0}, "test is 0; at least 2"),
        (generate_imdb, {"seed": -1}, "seed is -1; at least 0"),
        (generate_imdb, {"min_sentences": 0}, "min_sentences is 0; at least 1"),
        (generate_imdb, {"max_sentences": 3}, "max_sentences is 3, less than min_sentences, 4"),
        (generate_imdb, {"negated": 1.5}, "negated is 1.5; a probability from 0 to 1"),
        (generate_imdb, {"negated": float("nan")}, "negated is nan; a probability"),
        (generate_aan, {"train": 0}, "train is 0; at least 1"),
        (generate_aan, {"topics": 1}, "topics is 1; at least 2"),
        (generate_aan, {"topics": 10_000}, r"topics is 10000; at most \d+ have words of their own"),
        (generate_aan, {"max_words": 59}, "max_words is 59, less than min_words, 60"),
        (generate_aan, {"topic_share": 0.0}, "topic_share is 0.0; a probability above 0"),
        (generate_aan, {"topic_share": float("nan")}, "topic_share is nan; a probability"),
    ],
)
def test_options_out_of_range_are_named_before_anything_is_written(tmp_path, make, options, said) -> None:
    with pytest.raises(ParameterError, match=said):
        make(tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


def test_folders_with_data_are_left_alone(imdb: Path) -> None:
    for make in (generate_imdb, generate_aan):
        with pytest.raises(ParameterError, match="is not empty"):
            make(imdb)


def test_the_most_topics_have_words() -> None:
    assert len(text._WORDS) >= text._MOST_TOPICS * 12


def test_progress_ends_with_the_last_sample(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    generate_imdb(tmp_path / "i", train=4, test=2, progress=lambda *step: told.append(step))
    assert told == [(i, 6, "train" if i < 5 else "test") for i in range(1, 7)]
    told.clear()
    generate_aan(tmp_path / "a", train=3, validation=1, test=1, progress=lambda *step: told.append(step))
    assert told[-1] == (5, 5, "test")
    assert [done for done, *_ in told] == [1, 2, 3, 4, 5]
