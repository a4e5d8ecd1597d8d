"""Rows of separated values, with what damaged files do."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from liquid_ssm.errors import DataError
from liquid_ssm.tasks.separated import separated


def read(path: Path, content: bytes) -> list[tuple[int, list[str]]]:
    path.write_bytes(content)
    return list(separated(path, csv.excel_tab))


def test_rows_and_their_lines(tmp_path: Path) -> None:
    content = b'a\tb\r\n"x\ny"\t"say ""so"""\nlast\tone'
    assert read(tmp_path / "t", content) == [(1, ["a", "b"]), (3, ["x\ny", 'say "so"']), (4, ["last", "one"])]


def test_fields_longer_than_pythons_own_limit(tmp_path: Path) -> None:
    usual = csv.field_size_limit()
    long = "x" * (usual + 1)
    assert read(tmp_path / "t", long.encode() + b"\tb\n") == [(1, [long, "b"])]
    assert csv.field_size_limit() == usual


def test_what_is_not_utf8_is_named_with_the_line_before(tmp_path: Path) -> None:
    # Text is decoded in blocks, so the good lines fill more than one.
    good = b"a\tb\n" * 10_000
    with pytest.raises(DataError, match=r"t is not UTF-8 after line [1-9]\d* "):
        read(tmp_path / "t", good + b"\xff\tb\n")


def test_a_field_without_an_end_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liquid_ssm.tasks.separated._LONGEST", 1000)
    with pytest.raises(DataError, match=r"t is damaged after line 1 .field larger than field limit"):
        read(tmp_path / "t", b'a\tb\n"open\t' + b"x\n" * 1000)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        list(separated(tmp_path / "gone", csv.excel))
