"""Checkpoints: complete or not there, of this run or refused; generators' states."""

from __future__ import annotations

import errno
import os
import pickle
import random
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from liquid_ssm.errors import CheckpointError
from liquid_ssm.train.checkpoints import (
    VERSION,
    Keeper,
    WholeFiles,
    continued,
    generator_states,
    read_checkpoint,
    restore_generators,
    versions,
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
    said = {
        "version": VERSION, "package": versions()["liquid-ssm"], "versions": versions(), "notes": [],
        "configuration": {"task": "digits", "seed": 0}, **changes,
    }  # fmt: skip
    torch.save({"liquid_ssm": said, "global_step": 7, "state_dict": {"w": torch.ones(2)}}, path)
    return path


def test_a_checkpoint_of_this_run_is_read(tmp_path: Path) -> None:
    held = read_checkpoint(kept(tmp_path / "a.ckpt"), {"task": "digits", "seed": 0})
    assert torch.equal(held["state_dict"]["w"], torch.ones(2))


def test_a_checkpoint_of_another_run_or_version_is_refused(tmp_path: Path) -> None:
    path = kept(tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"is of another run: seed was 0, now 1"):
        read_checkpoint(path, {"task": "digits", "seed": 1})
    for held, wanted, said in (({"seed": 0, "ema": 0.5}, {"seed": 0}, "was 0.5, now None"),
                               ({"seed": 0}, {"seed": 0, "ema": 0.5}, "was None, now 0.5")):  # fmt: skip
        with pytest.raises(CheckpointError, match=f"is of another run: ema {said}"):
            read_checkpoint(kept(path, configuration=held), wanted)
    kept(path, version=VERSION + 1, package="1.2.3")
    for other_version in (False, True):
        with pytest.raises(CheckpointError, match=rf"has format {VERSION + 1}, written by liquid-ssm 1\.2\.3"):
            read_checkpoint(path, {"task": "digits", "seed": 0}, other_version=other_version)


def test_another_version_of_the_package_goes_on_only_when_it_is_asked_to(tmp_path: Path) -> None:
    path = kept(tmp_path / "a.ckpt", package="1.2.3", versions={**versions(), "liquid-ssm": "1.2.3"})
    here = versions()["liquid-ssm"]
    with pytest.raises(CheckpointError, match=rf"by liquid-ssm 1\.2\.3, and this is {here}, .*by --other-version"):
        read_checkpoint(path, {"task": "digits", "seed": 0})
    held = read_checkpoint(path, {"task": "digits", "seed": 0}, other_version=True)
    assert [note.split(";")[0] for note in continued(held)] == [
        f"after 7 steps liquid-ssm changed from 1.2.3 to {here}"
    ]
    # That is all that is passed over.
    with pytest.raises(CheckpointError, match="is of another run"):
        read_checkpoint(path, {"task": "digits", "seed": 1}, other_version=True)


def test_changes_of_packages_are_kept_and_said(tmp_path: Path) -> None:
    same = {"task": "digits", "seed": 0}
    assert continued(read_checkpoint(kept(tmp_path / "a.ckpt"), same)) == []
    path = kept(tmp_path / "b.ckpt", versions={**versions(), "torch": "2.0", "lightning": "2.1"}, notes=["before"])
    before, of_torch, of_lightning = continued(read_checkpoint(path, same))
    assert before == "before"
    assert of_torch.startswith(f"after 7 steps torch changed from 2.0 to {versions()['torch']}; from there on")
    assert "lightning changed from 2.1" in of_lightning


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


@pytest.mark.parametrize(("metric", "better"), [("accuracy", 0.6), ("rmse", 0.4)])
def test_only_a_better_number_is_the_best(metric: str, better: float, tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, metric, {}, lambda *_: None)
    assert [value for value in (nan, inf, -inf, 0.5) if keeper._is_better(value)] == [0.5]
    keeper.best = (0.5, 0)
    assert [value for value in (nan, inf, -inf, 0.4, 0.5, 0.6) if keeper._is_better(value)] == [better]


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
