"""What the tasks whose inputs are text have in common, on a small one: a word in a line, and its class."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from liquid_ssm.data_folder import GENERATED, Generated, write_generated
from liquid_ssm.errors import DataError
from liquid_ssm.tasks.task import CLASSIFICATION, Task
from liquid_ssm.tasks.token_data import TokenData, named_files
from liquid_ssm.tasks.token_store import Row

FILES = {"train": "train.txt", "validation": "eval.txt", "test": "test.txt"}
LINES = {"train": "ab0 bbb1", "validation": "abc0", "test": "b1 a0 cab1"}


class Words(TokenData):
    task = Task("words", "Words", CLASSIFICATION, 4, None, 2, expected="words/train.txt, eval.txt, test.txt")
    level = "characters"
    places = ("words", "words-v1")
    published: ClassVar = {"train": 2, "validation": 1, "test": 3}
    source = "counted by hand"
    reads = 0

    def _files(self) -> Mapping[str, Path]:
        return named_files(self._place(FILES.values()), FILES.values(), self._wanted())

    def _rows(self, part: str) -> Iterator[Row]:
        type(self).reads += 1
        for line in self._files()[FILES[part]].read_text().split():
            yield Row((line[:-1],), int(line[-1]))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(Words, "reads", 0)
    (tmp_path / "data" / "words").mkdir(parents=True)
    for part, lines in LINES.items():
        (tmp_path / "data" / "words" / FILES[part]).write_text(lines)
    return tmp_path / "data"


def test_symbols_of_training_number_all_parts(folder: Path) -> None:
    data = Words(folder)
    data.setup()
    # b four times, a once; c is in no training text.
    assert data.description() == {
        "task": "words",
        "n_inputs": 5,
        "n_outputs": 2,
        "level": "characters",
        "max_length": 4,
        "vocabulary": ["<pad>", "<unk>", "<eos>", "b", "a"],
    }
    assert data.validation[0].u.tolist() == [4, 3, 1, 2]
    assert [data.test[i].target for i in range(3)] == [1, 0, 1]


def test_symbols_that_are_cut_off_do_not_count(folder: Path) -> None:
    (folder / "words" / "train.txt").write_text("aaab0 aab1")
    assert Words(folder).description()["vocabulary"][3:] == ["a", "b"]
    (folder / "words" / "train.txt").write_text("aaab0 aa1")
    assert Words(folder).description()["vocabulary"][3:] == ["a"]


def test_the_size_of_the_vocabulary_is_known_before_setup(folder: Path) -> None:
    assert Words(folder).n_inputs == 5


def test_files_are_read_once_and_then_mapped(folder: Path) -> None:
    checked = Words(folder).check()
    assert (checked.counts, checked.files, checked.sums) == ({"train": 2, "validation": 1, "test": 3}, 3, 0)
    # Counted and then written.
    assert Words.reads == 6
    data = Words(folder)
    data.check()
    data.setup()
    assert Words.reads == 6
    assert data.test[2].u.tolist() == [1, 4, 3, 2]


def test_a_copy_elsewhere_shares_the_tokens_and_a_changed_file_does_not(folder: Path, tmp_path: Path) -> None:
    Words(folder).check()
    folder.rename(tmp_path / "moved")
    Words(tmp_path / "moved").check()
    assert Words.reads == 6
    (tmp_path / "moved" / "words" / "test.txt").write_text("b1 a0 cab0")
    data = Words(tmp_path / "moved")
    data.setup()
    assert Words.reads == 12
    assert data.test[2].target == 0


def test_damaged_tokens_are_made_again(folder: Path, tmp_path: Path) -> None:
    Words(folder).check()
    (tokens,) = (tmp_path / "cache" / "tokens").glob("words-*/test.tokens")
    content = bytearray(tokens.read_bytes())
    content[0] = 0
    tokens.write_bytes(content)
    data = Words(folder)
    data.setup()
    assert data.test[0].u.tolist() == [3, 2]
    assert Words.reads == 12


def test_counts_are_compared_with_tokens_of_the_cache_too(folder: Path) -> None:
    Words(folder).check()
    write_generated(folder, Generated("words", 0, "1", {"train": 5, "validation": 1, "test": 3}), [])
    with pytest.raises(DataError, match="holds 2 train, 1 validation, 3 test; expected 5 train"):
        Words(folder).setup()


def test_a_generators_mark_beside_the_folder_counts_where_it_is_of_this_task(folder: Path) -> None:
    (folder / "words" / "test.txt").write_text("b1")
    inner = folder / "words"
    with pytest.raises(DataError, match=r"expected 2 train, 1 validation, 3 test .counted by hand"):
        Words(inner).check()
    about = {"task": "others", "seed": 0, "version": "1", "counts": {"train": 2, "validation": 1, "test": 1}}
    (folder / GENERATED).write_text(json.dumps(about))
    with pytest.raises(DataError, match="counted by hand"):
        Words(inner).check()
    (folder / GENERATED).write_text(json.dumps({**about, "task": "words"}))
    assert Words(inner).check().generated == Generated(**{**about, "task": "words"})


def test_what_was_found_instead_is_listed(folder: Path, tmp_path: Path) -> None:
    for i in range(10):
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / f"{i}.zip").write_text("")
    with pytest.raises(
        DataError,
        match=r"holds no data of Words: found 0\.zip, 1\.zip, .*7\.zip, …\. Expected there: words/train\.txt, .*below "
        "words/ or words-v1/ there",
    ):
        Words(tmp_path / "other").check()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="found nothing"):
        Words(tmp_path / "empty").check()
