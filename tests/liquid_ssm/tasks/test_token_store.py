"""Tokens in memory-mapped files: what is written is read, damage is found, unfinished ones are never seen."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from liquid_ssm.errors import DataError
from liquid_ssm.tasks import token_store
from liquid_ssm.tasks.text import Vocabulary
from liquid_ssm.tasks.token_store import Row, TokenStore, make_store, open_store, store_key

TEXTS = ["one", "", "three", "a long one"]
VOCABULARY = Vocabulary.of_counts(Counter("".join(TEXTS)))


@pytest.fixture(autouse=True)
def stores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


def rows() -> list[Row]:
    return [Row((text,), i) for i, text in enumerate(TEXTS)]


def pairs() -> list[Row]:
    return [Row((first, second), 1) for first, second in zip(TEXTS, reversed(TEXTS), strict=True)]


def made(name: str = "x") -> TokenStore:
    return make_store(name, {"train": rows, "test": pairs_of_one}, VOCABULARY, 8)


def pairs_of_one() -> list[Row]:
    return [Row(("one",), 5)]


def encoded(text: str) -> list[int]:
    return VOCABULARY.encode(text, 8).tolist()


def test_what_is_written_is_read() -> None:
    for store in (made(), open_store("x")):
        assert store is not None
        assert store.counts == {"train": 4, "test": 1}
        assert store.vocabulary.symbols == VOCABULARY.symbols
        samples = store.part("train")
        assert len(samples) == 4
        for i, text in enumerate(TEXTS):
            assert samples[i].target == i
            assert samples[i].u.dtype == torch.int64
            assert samples[i].u.tolist() == encoded(text)
        assert samples[-1].u.tolist() == encoded(TEXTS[-1])
        assert samples[-1].target == 3
        assert store.part("test")[0].target == 5
        with pytest.raises(IndexError):
            samples[4]
        with pytest.raises(IndexError):
            samples[-5]


def test_pairs_are_pairs() -> None:
    make_store("pairs", {"train": pairs}, VOCABULARY, 8)
    store = open_store("pairs")
    assert store is not None
    samples = store.part("train")
    assert len(samples) == 4
    for i in range(4):
        first, second = samples[i].u
        assert first.tolist() == encoded(TEXTS[i])
        assert second.tolist() == encoded(TEXTS[3 - i])


def test_more_than_256_symbols(stores: Path) -> None:
    text = "".join(chr(0x4E00 + i) for i in range(300))
    make_store("wide", {"train": lambda: [Row((text,), 0)]}, Vocabulary.of_counts(Counter(text)), 1000)
    store = open_store("wide")
    assert store is not None
    assert store.part("train")[0].u.tolist() == [*range(3, 303), 2]
    assert (stores / "wide" / "train.tokens").stat().st_size == 2 * 301


def test_tokens_cost_a_byte_each(stores: Path) -> None:
    made()
    assert (stores / "x" / "train.tokens").stat().st_size == sum(len(encoded(text)) for text in TEXTS)


def test_samples_are_sent_without_their_tokens() -> None:
    samples = made().part("train")
    before = len(pickle.dumps(samples))
    assert samples[2].u.tolist() == encoded("three")
    sent = pickle.dumps(samples)
    assert len(sent) == before
    assert pickle.loads(sent)[2].u.tolist() == encoded("three")


@pytest.mark.parametrize("file", ["train.tokens", "train.ends", "test.targets", "store.json"])
@pytest.mark.parametrize("damage", ["cut", "bit", "gone", "empty"])
def test_a_damaged_store_is_none_and_is_replaced(stores: Path, file: str, damage: str) -> None:
    made()
    path = stores / "x" / file
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "bit":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 0x80]) + content[middle + 1 :])
    else:
        path.write_bytes(content[:-1] if damage == "cut" else b"")
    assert open_store("x") is None
    made()
    store = open_store("x")
    assert store is not None
    assert store.part("train")[3].u.tolist() == encoded(TEXTS[3])


@pytest.mark.parametrize("about", ["[]", "{}", '{"format": 2, "sums": {}}', "null"])
def test_a_store_of_another_form_is_none(stores: Path, about: str) -> None:
    made()
    (stores / "x" / "store.json").write_text(about)
    assert open_store("x") is None


def test_rows_that_fail_leave_nothing(stores: Path) -> None:
    def failing() -> Iterator[Row]:
        yield Row(("one",), 0)
        raise DataError("damaged in the middle")

    with pytest.raises(DataError, match="damaged in the middle"):
        make_store("x", {"train": failing}, VOCABULARY, 8)
    assert open_store("x") is None
    assert list(stores.iterdir()) == []


def test_a_full_disk_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch, stores: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(token_store, "_write_number", full)
    with pytest.raises(DataError, match=r"cannot be written: No space left on device. Set LIQUID_SSM_CACHE_DIR"):
        made()
    assert list(stores.iterdir()) == []


def test_a_cache_that_is_a_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cache of tokens in .* cannot be written"):
        made()


def test_the_slower_of_two_processes_takes_the_store_of_the_faster(
    monkeypatch: pytest.MonkeyPatch, stores: Path
) -> None:
    made()
    before = (stores / "x").stat().st_ino
    # The other process has published after this one looked whether there is a store.
    usual = Path.exists
    monkeypatch.setattr(Path, "exists", lambda self: self != stores / "x" and usual(self))
    made()
    assert open_store("x") is not None
    assert (stores / "x").stat().st_ino == before
    assert [path.name for path in stores.iterdir()] == ["x"]


def test_what_a_killed_process_left_is_removed_after_a_day(stores: Path) -> None:
    stores.mkdir(parents=True)
    old, new, other = stores / ".x-old", stores / ".x-new", stores / ".z-old"
    for folder in (old, new, other):
        folder.mkdir()
        (folder / "train.tokens").write_bytes(b"half")
    for folder in (old, other):
        os.utime(folder, (time.time() - 90_000,) * 2)
    made()
    assert sorted(path.name for path in stores.iterdir()) == [".x-new", ".z-old", "x"]


def test_the_name_depends_on_contents_names_and_options(tmp_path: Path) -> None:
    told: list[str] = []

    def key(content: bytes = b"text", name: str = "a", **options: int) -> str:
        (tmp_path / "file").write_bytes(content)
        return store_key({name: tmp_path / "file"}, options, lambda _, __, what: told.append(what))

    assert key() == key()
    assert len({key(), key(b"texT"), key(name="b"), key(max_length=1), key(max_length=2)}) == 5
    assert told[0] == "reading a"


def test_a_source_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone cannot be read"):
        store_key({"a": tmp_path / "gone"}, {}, lambda *_: None)


def test_the_about_file_names_every_file(stores: Path) -> None:
    made()
    sums = json.loads((stores / "x" / "store.json").read_text())["sums"]
    assert set(sums) == {path.name for path in (stores / "x").iterdir()} - {"store.json"}
