"""Checkpoints: complete or not there, of this run or refused; generators' states."""

from __future__ import annotations

import errno
import os
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from liquid_ssm.errors import CheckpointError
from liquid_ssm.train.checkpoints import (
    VERSION,
    WholeFiles,
    generator_states,
    read_checkpoint,
    restore_generators,
    write_whole,
)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("liquid_ssm.train.checkpoints.os.fsync", fsync)


def test_a_full_disk_leaves_the_last_good_file(tmp_path: Path, full_disk: None) -> None:
    target = tmp_path / "last.ckpt"
    target.write_bytes(b"good")
    with pytest.raises(CheckpointError, match=r"No space left on device; the last good one, .*last\.ckpt, is still"):
        WholeFiles().save_checkpoint({"state_dict": {}}, target)
    assert target.read_bytes() == b"good"
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_full_disk_with_nothing_before(tmp_path: Path, full_disk: None) -> None:
    with pytest.raises(CheckpointError, match=r"No space left on device\. Make room .* --resume"):
        write_whole(tmp_path / "new" / "last.ckpt", b"x")
    assert not list((tmp_path / "new").iterdir())


def kept(path: Path, **changes: Any) -> Path:
    said = {"version": VERSION, "package": "1.2.3", "configuration": {"task": "digits", "seed": 0}, **changes}
    torch.save({"liquid_ssm": said, "state_dict": {"w": torch.ones(2)}}, path)
    return path


def test_a_checkpoint_of_this_run_is_read(tmp_path: Path) -> None:
    held = read_checkpoint(kept(tmp_path / "a.ckpt"), {"task": "digits", "seed": 0})
    assert torch.equal(held["state_dict"]["w"], torch.ones(2))


def test_a_checkpoint_of_another_run_or_version_is_refused(tmp_path: Path) -> None:
    path = kept(tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"is of another run: seed was 0, now 1"):
        read_checkpoint(path, {"task": "digits", "seed": 1})
    kept(path, version=VERSION + 1)
    with pytest.raises(CheckpointError, match=rf"has format {VERSION + 1}, written by liquid-ssm 1\.2\.3"):
        read_checkpoint(path, {"task": "digits", "seed": 0})


class Code:
    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps(Code())])
def test_what_is_damaged_or_holds_code_is_not_read(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged or no checkpoint"):
        read_checkpoint(tmp_path / "a.ckpt", {})
    torch.save({"liquid_ssm": Code()}, tmp_path / "b.ckpt")
    with pytest.raises(CheckpointError, match="is damaged or no checkpoint"):
        read_checkpoint(tmp_path / "b.ckpt", {})
    assert not (tmp_path / "ran").exists()


def test_generators_go_on_where_they_were(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return float(torch.rand(())), float(np.random.rand()), random.random()

    draw()
    # As a checkpoint has them.
    torch.save(generator_states(), tmp_path / "states")
    first = draw()
    assert draw() != first
    restore_generators(torch.load(tmp_path / "states", weights_only=True))
    assert draw() == first
