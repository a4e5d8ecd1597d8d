"""Labelled texts in folders and in tables."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from liquid_ssm.errors import BackendUnavailable, DataError
from liquid_ssm.tasks.reviews import read_reviews, review_files


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for label, ratings in (("neg", (1, 4, 2)), ("pos", (10, 7, 8))):
        (tmp_path / "train" / label).mkdir(parents=True)
        for i, rating in enumerate(ratings):
            # Ids as numbers, not as text: 2, 11, 20.
            name = f"{2 + 9 * i}_{rating}.txt"
            (tmp_path / "train" / label / name).write_text(f"{label} {i} é", encoding="utf-8")
    return tmp_path


def read(place: Path) -> list[tuple[str, int]]:
    return list(read_reviews(review_files(place, "train")))


def test_classes_take_turns_in_the_order_of_ids(place: Path) -> None:
    assert read(place) == [
        ("neg 0 é", 0),
        ("pos 0 é", 1),
        ("neg 1 é", 0),
        ("pos 1 é", 1),
        ("neg 2 é", 0),
        ("pos 2 é", 1),
    ]


def test_hidden_files_are_no_reviews(place: Path) -> None:
    (place / "train" / "pos" / ".DS_Store").write_bytes(b"\0")
    assert len(read(place)) == 6


@pytest.mark.parametrize("name", ["5_5.txt", "5_6.txt", "5_1.txt", "5_11.txt", "5.txt", "x_7.txt", "5_7.txt.part"])
def test_a_name_that_no_positive_review_has(place: Path, name: str) -> None:
    (place / "train" / "pos" / name).write_text("x")
    with pytest.raises(DataError, match=r"reviews in train/pos are called ID_RATING\.txt, with ratings from 7 to 10"):
        read(place)


def test_a_name_that_no_negative_review_has(place: Path) -> None:
    (place / "train" / "neg" / "5_7.txt").write_text("x")
    with pytest.raises(DataError, match=r"5_7\.txt: reviews in train/neg .* ratings from 1 to 4"):
        read(place)


def test_a_missing_class_is_named(place: Path) -> None:
    (place / "train" / "pos").rename(place / "elsewhere")
    with pytest.raises(DataError, match="train/pos is missing"):
        read(place)


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "the text is empty"), (b"a\0b", "bytes of value 0"), (b"a\xff", "is not UTF-8")]
)
def test_a_damaged_review_is_named(place: Path, content: bytes, said: str) -> None:
    (place / "train" / "pos" / "11_7.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"11_7\.txt:? .*{said}"):
        read(place)


def test_there_may_be_neither_form(tmp_path: Path) -> None:
    assert review_files(tmp_path, "train") == {}


def table(tmp_path: Path, content: str) -> Path:
    (tmp_path / "train.csv").write_text(content, encoding="utf-8", newline="")
    return tmp_path


def test_a_table_of_any_columns_with_text_and_label(tmp_path: Path) -> None:
    content = 'id,label,text\n1,0,plain\n2,pos,"with, a ""quote"" and\na line"\n3,1,last\n4,negative,é\n'
    assert read(table(tmp_path, content)) == [
        ("plain", 0), ('with, a "quote" and\na line', 1), ("last", 1), ("é", 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "has the columns none; expected text and label"),
        ("a,b\n1,2\n", "has the columns a, b; expected text and label"),
        ("text,label\nx,0\ny,2\n", "line 3: label '2'; expected 0 .negative. or 1"),
        ("text,label\nx,0\ny\n", "line 3: 1 columns instead of 2"),
        ("text,label\nx,0\n,1\n", "line 3: the text is empty"),
        ("text,label\nx,0\na\0,1\n", "line 3: the text holds bytes of value 0"),
    ],
)
def test_a_damaged_table_is_named(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(DataError, match=rf"train\.csv,? {said}"):
        read(table(tmp_path, content))


def parquet(path: Path, **columns: list[Any]) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path)


def test_parquet_in_one_file_or_several(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet(tmp_path / "train-00000-of-00002.parquet", text=["a", "b"], label=[0, 1])
    parquet(tmp_path / "train-00001-of-00002.parquet", text=["c"] * 300, label=[1] * 300)
    assert read(tmp_path) == [("a", 0), ("b", 1), *[("c", 1)] * 300]
    parquet(tmp_path / "train.parquet", text=["only"], label=[1])
    assert read(tmp_path) == [("only", 1)]


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    path = tmp_path / "train.parquet"
    parquet(path, text=["a"], labels=[0])
    with pytest.raises(DataError, match=r"has the columns text, labels; expected text and label"):
        read(tmp_path)
    parquet(path, text=["a", None], label=[0, 1])
    with pytest.raises(DataError, match=r"train\.parquet, row 2: the text is empty"):
        read(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"train\.parquet is damaged after row 0"):
        read(tmp_path)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    usual = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return usual(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BackendUnavailable, match=r"needs pyarrow, which is not installed. Run: pip install pyarrow"):
        read(tmp_path)
