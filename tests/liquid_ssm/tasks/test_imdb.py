"""IMDB: generated reviews through the real loader, and a validation set that the test set has no part in."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from pathlib import Path

import pytest

from liquid_ssm.data_folder import CHECK_SUMS, GENERATED
from liquid_ssm.errors import DataError
from liquid_ssm.generate.text import generate_imdb
from liquid_ssm.tasks.imdb import IMDB, TEST_AS_VALIDATION
from liquid_ssm.tasks.token_store import TokenSamples

TRAIN, TEST = 60, 20


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "new"
    generate_imdb(folder, seed=5, train=TRAIN, test=TEST)
    return folder


@pytest.fixture
def folder(generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path / "cache"))
    shutil.copytree(generated, tmp_path / "data")
    (tmp_path / "data" / CHECK_SUMS).unlink()
    return tmp_path / "data"


def texts(folder: Path, name: str) -> list[tuple[str, int]]:
    found = []
    for path in sorted((folder / "aclImdb" / name).glob("*/*.txt")):
        found.append((path.read_text(encoding="utf-8"), ("neg", "pos").index(path.parent.name)))
    return found


def decoded(samples: TokenSamples, symbols: list[str]) -> list[tuple[str, int]]:
    found = []
    for i in range(len(samples)):
        u, target = samples[i]
        assert u[-1] == 2
        found.append(("".join(symbols[token] for token in u[:-1]), target))
    return found


def masked(text: str, symbols: list[str], length: int = 4095) -> str:
    return "".join(c if c in symbols else "<unk>" for c in text[:length])


def test_validation_is_a_tenth_of_training_with_the_same_share_of_each_class(folder: Path) -> None:
    data = IMDB(folder)
    assert dict(data.check().counts) == {"train": 54, "validation": 6, "test": 20}
    data.setup()
    symbols = data.description()["vocabulary"]
    train, validation, test = (decoded(part, symbols) for part in (data.train, data.validation, data.test))
    assert Counter(target for _, target in validation) == {0: 3, 1: 3}
    assert Counter(target for _, target in train) == {0: 27, 1: 27}
    # Together they are the published training set, each review once.
    assert Counter(train + validation) == Counter((masked(t, symbols), label) for t, label in texts(folder, "train"))
    assert Counter(test) == Counter((masked(t, symbols), label) for t, label in texts(folder, "test"))


def test_the_published_split_validates_on_the_test_set(folder: Path) -> None:
    # Tokens of the other split are in the cache.
    IMDB(folder).check()
    data = IMDB(folder, as_published=[TEST_AS_VALIDATION])
    assert dict(data.check().counts) == {"train": 60, "validation": 20, "test": 20}
    data.setup()
    symbols = data.description()["vocabulary"]
    assert decoded(data.validation, symbols) == decoded(data.test, symbols)
    assert Counter(decoded(data.train, symbols)) == Counter(
        (masked(t, symbols), label) for t, label in texts(folder, "train")
    )


def test_the_deviation_is_named() -> None:
    assert list(IMDB.task.deviations) == ["imdb-test-as-validation"]


def test_the_split_is_the_same_every_time_and_does_not_depend_on_the_seed(folder: Path) -> None:
    def validation(seed: int) -> list[tuple[str, int]]:
        data = IMDB(folder, seed=seed)
        data.setup()
        return decoded(data.validation, data.description()["vocabulary"])

    first = validation(0)
    # Read again, not from the cache.
    shutil.rmtree(folder.parent / "cache")
    assert validation(1) == first


def test_symbols_are_those_of_training_that_occur_15_times(folder: Path) -> None:
    # Held out of training: neither the test set nor validation counts.
    data = IMDB(folder)
    data.setup()
    symbols = data.description()["vocabulary"]
    shown = {text for text, _ in decoded(data.train, symbols)}
    counts = Counter(c for text, _ in texts(folder, "train") if masked(text, symbols) in shown for c in text[:4095])
    assert set(symbols[3:]) == {c for c, count in counts.items() if count >= 15}
    assert [counts[c] for c in symbols[3:]] == sorted((counts[c] for c in symbols[3:]), reverse=True)


def test_a_symbol_is_kept_from_its_fifteenth_time_on(folder: Path) -> None:
    def symbols(times: int) -> list[str]:
        for path in (folder / "aclImdb" / "train").glob("*/*.txt"):
            text = path.read_text(encoding="utf-8").replace("Ω", "")
            path.write_text(text, encoding="utf-8")
        path = folder / "aclImdb" / "train" / "pos"
        review = next(p for p in path.iterdir() if p.name.startswith("0_"))
        review.write_text("Ω" * times, encoding="utf-8")
        data = IMDB(folder, as_published=["all"])
        data.setup()
        return data.description()["vocabulary"]

    assert "Ω" not in symbols(14)
    assert "Ω" in symbols(15)


def test_the_first_4095_characters_are_kept(folder: Path) -> None:
    path = next((folder / "aclImdb" / "test" / "neg").glob("0_*.txt"))
    path.write_text("e" * 4095 + "a" * 100, encoding="utf-8")
    data = IMDB(folder)
    data.setup()
    symbols = data.description()["vocabulary"]
    u, target = data.test[0]
    assert (len(u), target) == (4096, 0)
    assert [symbols[i] for i in u] == ["e"] * 4095 + ["<eos>"]


def test_a_few_samples_hold_both_classes(folder: Path) -> None:
    data = IMDB(folder, limit={"train": 6, "test": 2})
    data.setup()
    assert {data.train[i].target for i in range(6)} == {0, 1}
    assert {data.test[i].target for i in range(2)} == {0, 1}


def test_tables_are_read_like_folders(folder: Path, tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    shutil.copy(folder / GENERATED, tables)
    for name in ("train", "test"):
        with (tables / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["text", "label"])
            rows.writerows(texts(folder, name))
    data, ours = IMDB(tables), IMDB(folder)
    assert dict(data.check().counts) == {"train": 54, "validation": 6, "test": 20}
    data.setup()
    ours.setup()
    symbols = data.description()["vocabulary"]
    assert Counter(decoded(data.test, symbols)) == Counter((masked(t, symbols), i) for t, i in texts(folder, "test"))
    assert Counter(target for _, target in decoded(data.validation, symbols)) == {0: 3, 1: 3}


@pytest.mark.parametrize("name", ["aclImdb", "imdb", "."])
def test_the_folders_may_lie_in_the_folder_or_below(folder: Path, name: str) -> None:
    (folder / "aclImdb").rename(folder / "moved")
    if name == ".":
        for path in (folder / "moved").iterdir():
            path.rename(folder / path.name)
    else:
        (folder / "moved").rename(folder / name)
    assert IMDB(folder).check().counts["test"] == 20


def test_incomplete_folders_are_counted(folder: Path) -> None:
    next((folder / "aclImdb" / "train" / "neg").iterdir()).unlink()
    with pytest.raises(DataError, match=r"holds 59 train, 20 test; expected 60 train, 20 test"):
        IMDB(folder).check()
    shutil.rmtree(folder / "aclImdb" / "test")
    with pytest.raises(DataError, match="the set test is missing"):
        IMDB(folder).check()


def test_classes_are_of_equal_size(folder: Path) -> None:
    path = next((folder / "aclImdb" / "train" / "neg").iterdir())
    path.rename(folder / "aclImdb" / "train" / "pos" / "999_9.txt")
    with pytest.raises(DataError, match="train holds 29 neg and 31 pos; both classes have as many reviews"):
        IMDB(folder).check()


def test_without_a_generator_the_published_sizes_are_expected(folder: Path) -> None:
    (folder / GENERATED).unlink()
    with pytest.raises(DataError, match=r"expected 25,000 train, 25,000 test .the sizes of the published set"):
        IMDB(folder).check()


def test_a_damaged_review_is_named_before_training(folder: Path) -> None:
    path = next((folder / "aclImdb" / "test" / "pos").glob("7_*.txt"))
    path.write_bytes(b"good until \xff\xfe")
    for act in (lambda: IMDB(folder).check(), lambda: IMDB(folder).setup()):
        with pytest.raises(DataError, match=rf"{path.name} is not UTF-8"):
            act()
