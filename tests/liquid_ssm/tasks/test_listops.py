"""ListOps: generated files through the real loader, an evaluator of our own, and damage that is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from liquid_ssm.data_folder import CHECK_SUMS, GENERATED
from liquid_ssm.errors import DataError
from liquid_ssm.generate.listops import generate_listops
from liquid_ssm.tasks.listops import ListOps, value

COUNTS = {"train": 60, "validation": 8, "test": 7}


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "new"
    generate_listops(folder, seed=3, **COUNTS, min_length=20, max_length=120)
    return folder


@pytest.fixture
def folder(generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path / "cache"))
    shutil.copytree(generated, tmp_path / "data")
    # Damage is to be found in the files themselves.
    (tmp_path / "data" / CHECK_SUMS).unlink()
    return tmp_path / "data"


def lines(folder: Path, part: str = "train") -> list[str]:
    return (folder / "listops" / f"basic_{part}.tsv").read_text().splitlines()


def damage(folder: Path, number: int, change: Callable[[str], str], part: str = "train") -> None:
    found = lines(folder, part)
    found[number - 1] = change(found[number - 1])
    (folder / "listops" / f"basic_{part}.tsv").write_text("\n".join(found) + "\n")


def test_every_token_is_that_of_its_source(folder: Path) -> None:
    data = ListOps(folder)
    assert dict(data.check().counts) == COUNTS
    data.setup()
    symbols = data.description()["vocabulary"]
    assert symbols[:3] == ["<pad>", "<unk>", "<eos>"]
    assert set(symbols[3:]) == {"[MIN", "[MAX", "[MED", "[SM", "X", *"0123456789"}
    assert data.n_inputs == len(symbols) == 18
    for part, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        samples = getattr(data, part)
        assert len(samples) == COUNTS[part]
        for sample, line in zip((samples[i] for i in range(len(samples))), lines(folder, name)[1:], strict=True):
            source, target = line.split("\t")
            words = source.replace("(", "").replace(")", "").replace("]", "X").split()
            assert [symbols[i] for i in sample.u] == [*words, "<eos>"]
            assert sample.target == int(target)


def test_the_first_words_are_kept_where_there_are_more_than_2047(folder: Path) -> None:
    arguments = ["1"] * 3000
    source = "( " * 3001 + "[MAX 1 ) " + " ) ".join(arguments[1:]) + " ) ] )"
    damage(folder, 2, lambda _: f"{source}\t1")
    data = ListOps(folder)
    data.setup()
    symbols = data.description()["vocabulary"]
    assert [symbols[i] for i in data.train[0].u] == ["[MAX", *["1"] * 2046, "<eos>"]


def test_batches_are_padded_and_say_how_long_they_are(folder: Path) -> None:
    data = ListOps(folder, batch_size=60)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert batch.u.dtype == torch.int64
    assert batch.lengths is not None
    for row, length in zip(batch.u, batch.lengths, strict=True):
        assert row[length - 1] == 2
        assert not row[length:].any()
        assert (row[:length] > 1).all()


def test_processes_that_load_hand_out_the_same(folder: Path) -> None:
    plain, helped = ListOps(folder, batch_size=16), ListOps(folder, batch_size=16, workers=2)
    plain.setup()
    helped.setup()
    for ours, theirs in zip(plain.train_dataloader(), helped.train_dataloader(), strict=True):
        assert torch.equal(ours.u, theirs.u)


def test_a_limit_takes_the_first(folder: Path) -> None:
    data = ListOps(folder, limit={"train": 5})
    data.setup()
    assert [data.train[i].target for i in range(len(data.train))] == [
        int(line.split("\t")[1]) for line in lines(folder)[1:6]
    ]
    assert len(data.test) == 7


@pytest.mark.parametrize("name", ["listops", "listops-1000", "."])
def test_the_files_may_lie_in_the_folder_or_below(folder: Path, name: str) -> None:
    (folder / "listops").rename(folder / "moved")
    if name == ".":
        for path in (folder / "moved").iterdir():
            path.rename(folder / path.name)
    else:
        (folder / "moved").rename(folder / name)
    assert dict(ListOps(folder).check().counts) == COUNTS


def test_the_inner_folder_of_generated_data_is_as_good(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dict(ListOps(folder / "listops").check().counts) == COUNTS
    monkeypatch.chdir(folder / "listops")
    assert dict(ListOps(".").check().counts) == COUNTS


@pytest.mark.parametrize(
    ("number", "change", "said"),
    [
        (1, lambda line: "Source,Target", r"line 1, is .*expected the columns Source and Target"),
        (7, lambda line: line[: len(line) // 2], r"line 7: 1 columns instead of Source and Target"),
        (8, lambda line: line + "\t1", r"line 8: 3 columns"),
        (9, lambda line: line[:-1] + str((int(line[-1]) + 1) % 10), r"line 9: Source has the value \d, and Target is"),
        (10, lambda line: line[:-1] + "x", r"line 10: Target is 'x'; expected a digit"),
        (11, lambda line: line[:-1] + "11", r"line 11: Target is '\d*11'; expected a digit"),
        (12, lambda line: line.replace("]", "}", 1), r"line 12: Source has the word '}'; allowed: \[MIN, "),
        (13, lambda line: line.replace("(", "", 1), r"line 13: Source has \d+ \( and \d+ \)"),
        (14, lambda line: line.replace(" ]", "", 1), r"line 14: Source"),
        (15, lambda line: "", r"line 15: 1 columns"),
        (16, lambda line: "\0" * 40, r"line 16: 1 columns"),
        (17, lambda line: line.replace("[", "\u00e9", 1), r"line 17: Source has bytes that are not ASCII"),
    ],
)
def test_a_damaged_line_is_named(folder: Path, number: int, change: Callable[[str], str], said: str) -> None:
    damage(folder, number, change)
    with pytest.raises(DataError, match=rf"basic_train\.tsv, {said}"):
        ListOps(folder).check()
    # A run would not start either.
    with pytest.raises(DataError, match=rf"basic_train\.tsv, {said}"):
        ListOps(folder).setup()


def test_damage_in_the_last_part_is_found(folder: Path) -> None:
    damage(folder, 8, lambda line: line[:-1] + str((int(line[-1]) + 1) % 10), part="test")
    with pytest.raises(DataError, match=r"basic_test\.tsv, line 8"):
        ListOps(folder).check()


def test_damage_after_the_tokens_were_kept_is_found(folder: Path) -> None:
    ListOps(folder).check()
    damage(folder, 9, lambda line: line[:-1] + str((int(line[-1]) + 1) % 10))
    with pytest.raises(DataError, match=r"basic_train\.tsv, line 9"):
        ListOps(folder).setup()


def test_sums_name_a_file_first(generated: Path, folder: Path) -> None:
    shutil.copy(generated / CHECK_SUMS, folder)
    assert ListOps(folder).check().sums == 3
    damage(folder, 9, lambda line: line.replace("3", "4", 1))
    with pytest.raises(DataError, match=r"basic_train\.tsv is not the file that SHA256SUMS lists"):
        ListOps(folder).check()


def test_expressions_without_parentheses_are_the_same(folder: Path) -> None:
    before = ListOps(folder)
    before.setup()
    path = folder / "listops" / "basic_train.tsv"
    path.write_text(path.read_text().replace("( ", "").replace(" )", ""))
    data = ListOps(folder)
    data.setup()
    assert data.train[4].u.tolist() == before.train[4].u.tolist()


def test_missing_rows_are_counted(folder: Path) -> None:
    path = folder / "listops" / "basic_val.tsv"
    path.write_text("\n".join(lines(folder, "val")[:-1]) + "\n")
    with pytest.raises(
        DataError, match=r"holds 60 train, 7 validation, 7 test; expected 60 train, 8 validation, 7 tes"
    ):
        ListOps(folder).check()


def test_files_without_a_generator_are_the_published_ones_or_none(folder: Path) -> None:
    ListOps(folder).setup()
    (folder / GENERATED).unlink()
    with pytest.raises(
        DataError,
        match=r"expected 96,000 train, 2,000 validation, 2,000 test .the sizes of Long Range Arena.*GENERATED",
    ):
        ListOps(folder).check()


def test_a_part_without_rows_is_named(folder: Path) -> None:
    (folder / "listops" / "basic_test.tsv").write_text("Source\tTarget\n")
    with pytest.raises(DataError, match="the test part holds no samples"):
        ListOps(folder).check()


def test_missing_files_are_named(folder: Path) -> None:
    (folder / "listops" / "basic_val.tsv").unlink()
    with pytest.raises(DataError, match=r"basic_val\.tsv missing; the download is incomplete"):
        ListOps(folder).check()
    shutil.rmtree(folder / "listops")
    (folder / GENERATED).unlink()
    (folder / "notes.txt").write_text("")
    with pytest.raises(
        DataError, match=r"holds no data of ListOps: found notes\.txt\. Expected there: listops/basic_t"
    ):
        ListOps(folder).check()


def test_the_check_tells_how_far_it_is(folder: Path) -> None:
    told: list[str] = []
    ListOps(folder).check(lambda done, total, what: told.append(f"{done}/{total} {what}"))
    assert "3/3 reading basic_val.tsv" in told
    assert "0/6 checking train" in told
    assert "3/6 keeping the tokens in the cache" in told


# An evaluator that shares nothing with the loader's: values of a tree, by NumPy, instead of a stack.
Tree = int | tuple[str, list["Tree"]]


def of_tree(tree: Tree) -> int:
    if isinstance(tree, int):
        return tree
    operator, arguments = tree
    values = np.array([of_tree(argument) for argument in arguments])
    by_name = {"[MIN": np.min, "[MAX": np.max, "[MED": np.median, "[SM": lambda array: array.sum() % 10}
    return int(by_name[operator](values))


def words(tree: Tree) -> list[str]:
    if isinstance(tree, int):
        return [str(tree)]
    return [tree[0], *(word for argument in tree[1] for word in words(argument)), "X"]


trees: st.SearchStrategy[Tree] = st.recursive(
    st.integers(0, 9),
    lambda inner: st.tuples(st.sampled_from(["[MIN", "[MAX", "[MED", "[SM"]), st.lists(inner, min_size=1, max_size=6)),
)


@given(trees)
def test_values_are_those_of_the_tree(tree: Tree) -> None:
    assert value(words(tree)) == of_tree(tree)


@pytest.mark.parametrize(
    "text", ["", "1 2", "X", "[MAX X", "[MAX 1", "1 X", "[MAX 1 X X", "[MAX 1 X 2", "10", "[MOD 1 X"]
)
def test_what_is_no_expression_has_no_value(text: str) -> None:
    with pytest.raises(ValueError, match="Source"):
        value(text.split())


def test_the_generated_mark_must_fit(folder: Path) -> None:
    about = json.loads((folder / GENERATED).read_text())
    about["counts"]["train"] = 61
    (folder / GENERATED).write_text(json.dumps(about))
    with pytest.raises(DataError, match=r"holds 60 train.* expected 61 train.*says so.*Generate the folder again"):
        ListOps(folder).check()
