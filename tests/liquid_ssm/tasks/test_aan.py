"""AAN: generated pairs through the real loader."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from liquid_ssm.data_folder import CHECK_SUMS, GENERATED
from liquid_ssm.errors import DataError
from liquid_ssm.generate.text import generate_aan
from liquid_ssm.tasks.aan import AAN

COUNTS = {"train": 40, "validation": 9, "test": 8}


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "new"
    generate_aan(folder, seed=5, **COUNTS, max_words=80)
    return folder


@pytest.fixture
def folder(generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path / "cache"))
    shutil.copytree(generated, tmp_path / "data")
    (tmp_path / "data" / CHECK_SUMS).unlink()
    return tmp_path / "data"


def rows(folder: Path, part: str = "train") -> list[list[str]]:
    with (folder / "aan" / f"new_aan_pairs.{part}.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, csv.excel_tab))


def change(folder: Path, number: int, act: Callable[[list[str]], list[str]], part: str = "train") -> None:
    found = rows(folder, part)
    found[number - 1] = act(found[number - 1])
    with (folder / "aan" / f"new_aan_pairs.{part}.tsv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, csv.excel_tab).writerows(found)


def test_every_pair_is_that_of_its_row(folder: Path) -> None:
    data = AAN(folder)
    assert dict(data.check().counts) == COUNTS
    data.setup()
    symbols = data.description()["vocabulary"]
    seen = {c for row in rows(folder) for text in row[3:] for c in text}
    assert set(symbols) == {"<pad>", "<unk>", "<eos>", *seen}
    assert data.n_inputs == len(symbols)
    for part, name in (("train", "train"), ("validation", "eval"), ("test", "test")):
        samples = getattr(data, part)
        assert len(samples) == COUNTS[part]
        for sample, row in zip((samples[i] for i in range(len(samples))), rows(folder, name), strict=True):
            assert isinstance(sample.u, tuple)
            assert len(sample.u) == 2
            for u, text in zip(sample.u, row[3:], strict=True):
                assert "".join(symbols[token] for token in u[:-1]) == "".join(c if c in seen else "<unk>" for c in text)
                assert u[-1] == 2
            assert sample.target == int(row[0])


def test_batches_hold_two_documents_each(folder: Path) -> None:
    data = AAN(folder, batch_size=40)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert batch.u.shape[:2] == (40, 2)
    assert batch.u.dtype == torch.int64
    assert batch.lengths is not None
    assert batch.lengths.shape == (40, 2)
    assert (batch.u.gather(2, batch.lengths[:, :, None] - 1) == 2).all()


def test_the_first_3999_characters_are_kept(folder: Path) -> None:
    change(folder, 1, lambda row: [*row[:3], "a" * 3999 + "b" * 200_000, "a"])
    data = AAN(folder)
    data.setup()
    symbols = data.description()["vocabulary"]
    first, second = data.train[0].u
    assert [symbols[i] for i in first] == ["a"] * 3999 + ["<eos>"]
    assert [symbols[i] for i in second] == ["a", "<eos>"]


@pytest.mark.parametrize(("label", "target"), [("0.0", 0), ("1.0", 1), ("1", 1)])
def test_labels_may_be_written_as_numbers_with_a_point(folder: Path, label: str, target: int) -> None:
    change(folder, 1, lambda row: [label, *row[1:]])
    data = AAN(folder)
    data.setup()
    assert data.train[0].target == target


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda row: row[:4], "line 7: 4 columns instead of label, id1, id2, text1, text2"),
        (lambda row: [*row, "x"], "line 7: 6 columns"),
        (lambda row: ["2", *row[1:]], "line 7: label '2'; expected 0 or 1"),
        (lambda row: ["label", *row[1:]], "line 7: label 'label'"),
        (lambda row: [*row[:4], ""], "line 7: text2 is empty"),
        (lambda row: [row[0], "", *row[2:]], "line 7: id1 is empty"),
        (lambda row: [*row[:3], "a\0", row[4]], "line 7: text1 holds bytes of value 0"),
    ],
)
def test_a_damaged_row_is_named(folder: Path, act: Callable[[list[str]], list[str]], said: str) -> None:
    change(folder, 7, act, "eval")
    for run in (lambda: AAN(folder).check(), lambda: AAN(folder).setup()):
        with pytest.raises(DataError, match=rf"new_aan_pairs\.eval\.tsv, {said}"):
            run()


def test_a_half_downloaded_file_is_found(folder: Path) -> None:
    path = folder / "aan" / "new_aan_pairs.train.tsv"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"new_aan_pairs\.train\.tsv, line|expected 40 train"):
        AAN(folder).check()


def test_missing_files_are_named(folder: Path) -> None:
    (folder / "aan" / "new_aan_pairs.eval.tsv").unlink()
    with pytest.raises(DataError, match=r"new_aan_pairs\.eval\.tsv missing"):
        AAN(folder).check()


def test_without_a_generator_the_published_sizes_are_expected(folder: Path) -> None:
    (folder / GENERATED).unlink()
    with pytest.raises(DataError, match=r"expected 147,086 train, 18,090 validation, 17,437 test .*2208\.04933"):
        AAN(folder).check()
