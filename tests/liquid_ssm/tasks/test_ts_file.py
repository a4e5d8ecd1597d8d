"""The archive's text files: what is read is what is written, and every damage is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liquid_ssm.errors import DataError
from liquid_ssm.tasks.ts_file import read_ts

HEADER = """# A comment, not in ASCII: Größe
@problemName BIDMC32HR
@timeStamps false
@missing false
@univariate false
@dimensions 2
@equalLength true
@seriesLength 3
@targetLabel true

@data
"""
ROWS = "1,2.5,-3e-2:4,5,6:70.25\n0,0,0:-1,-1,-1:90\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def make(rows: str = ROWS, header: str = HEADER) -> Path:
        path = tmp_path / "BIDMC32HR_TRAIN.ts"
        path.write_bytes((header + rows).encode("latin-1"))
        return path

    return make


def read(path: Path, dimensions: int = 2, length: int = 3) -> list[tuple[list[list[float]], float]]:
    return [(s.values.tolist(), s.target) for s in read_ts(path, dimensions=dimensions, length=length)]


EXPECTED = [([[1, 4], [2.5, 5], [-0.03, 6]], 70.25), ([[0, -1], [0, -1], [0, -1]], 90.0)]


def test_values_are_those_of_the_text(write):
    assert read(write()) == EXPECTED


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("@timeStamps", "@TIMESTAMPS"),
        ("@dimensions 2\n", ""),
        ("@targetLabel true", "@targetlabel TRUE"),
        ("@missing false", "@missing true\n@something else"),
        ("\n", "\r\n"),
        ("@data\n", "@data\n\n  \n# between\n"),
    ],
    ids=["upper case", "fewer tags", "lower case", "unknown tag", "line ends of Windows", "blank lines"],
)
def test_headers_may_differ(write, old, new):
    assert read(write(header=HEADER.replace(old, new))) == EXPECTED


def test_a_last_line_needs_no_end(write):
    assert read(write(ROWS[:-1])) == EXPECTED


@given(
    st.lists(
        st.tuples(*[st.floats(width=32, allow_nan=False, allow_infinity=False)] * 7), min_size=1, max_size=4
    )
)  # fmt: skip
def test_numbers_of_any_size_come_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("ts") / "x.ts"
    lines = [f"{','.join(map(repr, row[:3]))}:{','.join(map(repr, row[3:6]))}:{row[6]!r}\n" for row in rows]
    path.write_text(HEADER.replace("ö", "o").replace("ß", "s") + "".join(lines), encoding="ascii")
    for series, row in zip(read_ts(path, dimensions=2, length=3), rows, strict=True):
        assert np.array_equal(series.values.T.ravel(), row[:6])
        assert series.target == row[6]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("1,?,3:4,5,6:70\n", ("line 13", "a missing value (?)", "value 2 of dimension 1")),
        ("1,2,3:4,5,nan:70\n", ("line 13", "'nan'", "value 3 of dimension 2")),
        ("1,2,3:4,5,1e39:70\n", ("line 13", "'1e39'", "float32")),
        ("1,2,3:4,inf,6:70\n", ("line 13", "'inf'", "value 2 of dimension 2")),
        ("1,2,1_0:4,5,6:70\n", ("line 13", "'1_0'", "value 3 of dimension 1")),
        ("1,two,3:4,5,6:70\n", ("line 13", "'two'")),
        ("1,2,:4,5,6:70\n", ("line 13", "''", "value 3 of dimension 1")),
        ("1,2,3:4,5,6:?\n", ("line 13", "target '?'")),
        ("1,2,3:4,5,6:nan\n", ("line 13", "target 'nan'")),
        ("1,2,3:4,5,6:\n", ("line 13", "target ''")),
        ("1,2,3:4,5,6,7:70\n", ("line 13", "4 values in dimension 2", "expected 3")),
        ("1,2,3:4,5,6:7,8,9:70\n", ("line 13", "3 dimensions and a target", "expected 2")),
        ("1,2,3:4,5,6", ("line 13", "1 dimensions and a target", "the file ends there")),
        ("1,2,3:4,5:7", ("line 13", "2 values in dimension 2", "the file ends there")),
        ("1,2,3:4,5,6:", ("line 13", "target ''", "the file ends there")),
        ("0" * 600, ("line 13", "more than 512 characters")),
        ("\0\0\0\n", ("line 13",)),
    ],
)
def test_a_damaged_line_is_named(write, bad, words):
    path = write(ROWS.splitlines(keepends=True)[0].replace("1,", "1,", 1) + bad)
    # The header has 11 lines and the first series one, so the bad one would be line 13.
    words = [word.replace("line 13", "line 13") for word in words]
    with pytest.raises(DataError) as caught:
        read(path)
    assert all(word in str(caught.value) for word in (str(path), *words)), caught.value


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("@seriesLength 3", "@seriesLength 4", ("@serieslength 4", "expected 3")),
        ("@dimensions 2", "@dimensions 1", ("@dimensions 1", "expected 2")),
        ("@univariate false", "@univariate true", ("@univariate true",)),
        ("@timeStamps false", "@timeStamps true", ("@timestamps true",)),
        ("@equalLength true", "@equalLength false", ("@equallength false",)),
        ("@targetLabel true", "@classLabel true 0 1", ("@classlabel true",)),
        ("@targetLabel true\n", "", ("no @targetLabel",)),
        ("@missing false", "@missing false\n@missing false", ("line 5", "second time")),
        ("@missing false", "1,2,3:4,5,6:7", ("line 4", "'1,2,3:4,5,6:7'")),
        ("@data\n", "", ("line 11", "'1,2.5,-3e-2:4,5,6:70.25'")),
    ],
)
def test_another_header_is_refused(write, old, new, words):
    path = write(header=HEADER.replace(old, new))
    with pytest.raises(DataError) as caught:
        read(path)
    assert all(word in str(caught.value) for word in (str(path), *words)), caught.value


@pytest.mark.parametrize("text", ["", HEADER.replace("@data\n", "")])
def test_a_file_that_ends_before_its_data_is_incomplete(write, text):
    with pytest.raises(DataError, match="download is incomplete"):
        read(write("", text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"x\.ts cannot be read: No such file"):
        read(tmp_path / "x.ts")


def test_one_dimension_needs_the_other_header(write):
    header = HEADER.replace("@univariate false\n@dimensions 2", "@univariate true")
    assert read(write("1,2,3:5\n", header), dimensions=1) == [([[1], [2], [3]], 5.0)]
