"""`steps.csv`: rows of steps, cut off where a run goes on."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from liquid_ssm.errors import CheckpointError
from liquid_ssm.train.steps import StepFile

HEADER = "step,epoch,loss,lr\n"


def filled(path: Path, first: int, last: int) -> StepFile:
    """A file that is open, with the rows of some steps added."""
    file = StepFile(path)
    file.open(first - 1)
    for step in range(first, last + 1):
        file.add(step, (step - 1) // 3, 1 / step, 0.1 * step)
    return file


def test_rows_hold_every_digit(tmp_path: Path) -> None:
    filled(tmp_path / "new" / "steps.csv", 1, 3).close()
    assert (tmp_path / "new" / "steps.csv").read_text() == (
        HEADER + "1,0,1.0,0.1\n2,0,0.5,0.2\n3,0,0.3333333333333333,0.30000000000000004\n"
    )


# Of 10 steps that are there, a run goes on after none, after the last but one, and after the last.
@pytest.mark.parametrize("steps", [0, 9, 10])
def test_what_goes_on_is_the_same_file(steps: int, tmp_path: Path) -> None:
    path, whole = tmp_path / "cut.csv", tmp_path / "whole.csv"
    filled(path, 1, 10).close()
    filled(whole, 1, 14).close()
    file = StepFile(path)
    file.open(steps)
    file.close()
    assert path.read_text().splitlines() == whole.read_text().splitlines()[: 1 + steps]
    filled(path, steps + 1, 14).close()
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("torn", ["4", "4,1,0.25", "\0\0\0\n"])
def test_a_row_that_a_power_cut_has_torn_is_cut_off(torn: str, tmp_path: Path) -> None:
    path = tmp_path / "steps.csv"
    filled(path, 1, 3).close()
    whole = path.read_text()
    path.write_text(whole + torn)
    file = StepFile(path)
    file.open(4)
    file.close()
    assert path.read_text() == whole


def test_rows_are_on_disk_after_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr("liquid_ssm.train.steps.os.fsync", lambda _: synced.append(path.read_text()))
    path = tmp_path / "steps.csv"
    file = filled(path, 1, 1)
    file.sync()
    assert synced == [HEADER + "1,0,1.0,0.1\n"]
    file.close()


def test_without_an_open_file_nothing_is_written(tmp_path: Path) -> None:
    file = StepFile(tmp_path / "steps.csv")
    file.add(1, 0, 1.0, 1.0)
    file.sync()
    file.close()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = filled(tmp_path / "steps.csv", 1, 2)
    monkeypatch.setattr("liquid_ssm.train.steps.os.fsync", fsync)
    with pytest.raises(CheckpointError, match=r"steps\.csv cannot be written: No space left on device\. Make room"):
        file.sync()
    file.close()
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match="cannot be written: Is a directory"):
        StepFile(tmp_path / "folder").open(0)
