"""A folder of data: what a generator says about it, check sums, progress that is told now and then."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from liquid_ssm.data_folder import (
    CHECK_SUMS,
    GENERATED,
    Generated,
    check_sums,
    read_generated,
    sha256,
    sparse,
    write_generated,
)
from liquid_ssm.errors import DataError

ABOUT = Generated("listops", 3, "0.1", {"train": 2, "test": 1}, {"max_args": 4}, {"tool": "1.0"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "b.bin").write_bytes(b"second")
    (tmp_path / "a.bin").write_bytes(b"first")
    write_generated(tmp_path, ABOUT, [tmp_path / "below" / "b.bin", tmp_path / "a.bin"])
    return tmp_path


def test_what_is_written_is_read(folder: Path) -> None:
    assert read_generated(folder) == ABOUT
    digest = {name: hashlib.sha256(content).hexdigest() for name, content in {"a": b"first", "b": b"second"}.items()}
    # As `sha256sum a.bin below/b.bin` writes it.
    assert (folder / CHECK_SUMS).read_text() == f"{digest['a']}  a.bin\n{digest['b']}  below/b.bin\n"


def test_a_folder_without_marks_is_not_generated(tmp_path: Path) -> None:
    assert read_generated(tmp_path) is None
    assert check_sums(tmp_path) == 0


def test_the_sum_of_a_file_of_many_blocks(tmp_path: Path) -> None:
    content = bytes(range(256)) * (3 << 13) + b"rest"
    (tmp_path / "long").write_bytes(content)
    assert sha256(tmp_path / "long") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"task": "x"}', '{"task": "x", "seed": 0, "version": "1", "more": 1}', "\udcff"],
)
def test_a_damaged_mark_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / GENERATED).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=rf"{GENERATED} is damaged .* generate the folder again"):
        read_generated(tmp_path)


@pytest.mark.parametrize("counts", [{"train": "2"}, {"train": -1}, {"train": True}, 5])
def test_counts_are_whole_numbers(tmp_path: Path, counts: object) -> None:
    (tmp_path / GENERATED).write_text(json.dumps({"task": "x", "seed": 0, "version": "1", "counts": counts}))
    with pytest.raises(DataError, match="damaged"):
        read_generated(tmp_path)


def test_sums_are_compared(folder: Path) -> None:
    told: list[tuple[int, int, str]] = []
    assert check_sums(folder, lambda *step: told.append(step)) == 2
    assert told == [(1, 2, "a.bin"), (2, 2, "below/b.bin")]


def test_binary_and_capital_sums_are_sums(folder: Path) -> None:
    sums = (folder / CHECK_SUMS).read_text().replace("  a.bin", " *a.bin")
    lines = [line[:64].upper() + line[64:] for line in sums.splitlines()]
    (folder / CHECK_SUMS).write_text("\n".join(lines))
    assert check_sums(folder) == 2


def test_a_changed_file_is_named(folder: Path) -> None:
    # One bit in the middle.
    (folder / "below" / "b.bin").write_bytes(b"secone")
    with pytest.raises(DataError, match=r"b\.bin is not the file that SHA256SUMS lists"):
        check_sums(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "a.bin").unlink()
    with pytest.raises(DataError, match=r"a\.bin is missing, which SHA256SUMS lists"):
        check_sums(folder)


@pytest.mark.parametrize("line", ["no sum", "0" * 64 + " a.bin", "0" * 63 + "  a.bin", "0" * 64 + "  "])
def test_a_line_that_is_no_sum_is_named(folder: Path, line: str) -> None:
    with (folder / CHECK_SUMS).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=r"line 3, is .* expected a SHA-256, two blanks and a name"):
        check_sums(folder)


def test_sums_that_are_no_text_are_named(folder: Path) -> None:
    (folder / CHECK_SUMS).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=f"{CHECK_SUMS} cannot be read"):
        check_sums(folder)


@pytest.mark.parametrize("total", [1, 3, 100, 250, 12_345])
def test_sparse_progress_is_at_most_a_hundred_steps_and_the_end(total: int) -> None:
    told: list[int] = []
    step = sparse(lambda done, _, __: told.append(done))
    for done in range(1, total + 1):
        step(done, total, "")
    assert told == sorted(set(told))
    assert told[-1] == total
    assert min(total, 100) <= len(told) <= 101


def test_sparse_progress_that_nobody_hears() -> None:
    sparse(None)(1, 2, "")
