"""Models of runs: where they are found, and what is not read."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
import torch

from liquid_ssm.errors import CheckpointError
from liquid_ssm.nn import load_model
from liquid_ssm.train.trained import Checkpoint, open_checkpoints


def test_a_run_a_seed_a_model_and_a_checkpoint_are_the_same_model(run_folder):
    seed = run_folder / "seed-2"
    both = open_checkpoints(run_folder)
    # By number, not by letter.
    assert [one.name for one in both] == ["seed-2", "seed-10"]
    places = (seed, seed / "model", seed / "model" / "model.json", seed / "model" / "model.safetensors",
              seed / "checkpoints" / "last.ckpt")  # fmt: skip
    for place in places:
        (one,) = open_checkpoints(place)
        assert one.config == both[0].config
        assert one.task == "digits"
        assert not one.model.training
        for name, tensor in one.model.state_dict().items():
            assert torch.equal(tensor, both[0].model.state_dict()[name])
    assert not torch.equal(both[0].model.head.weight, both[1].model.head.weight)


def test_a_checkpoint_may_say_itself_what_it_is(run_folder, tmp_path):
    held = torch.load(run_folder / "seed-2" / "checkpoints" / "last.ckpt", weights_only=True)
    known = load_model(run_folder / "seed-2" / "model")
    held["liquid_ssm"] = {"config": known.config.as_dict(), "about": known.about}
    torch.save(held, tmp_path / "alone.ckpt")
    (one,) = open_checkpoints(tmp_path / "alone.ckpt")
    assert (one.config, one.about, one.name) == (known.config, known.about, "alone")
    held["liquid_ssm"]["config"]["n_chanels"] = 3
    torch.save(held, tmp_path / "alone.ckpt")
    with pytest.raises(CheckpointError, match="n_chanels"):
        open_checkpoints(tmp_path / "alone.ckpt")


def refused(path: Path, *said: str) -> None:
    with pytest.raises(CheckpointError) as error:
        open_checkpoints(path)
    for words in said:
        assert words in str(error.value)


def test_what_is_missing_or_no_model_is_said(run_folder, tmp_path):
    refused(tmp_path / "nothing", "does not exist")
    refused(tmp_path, "holds no model")
    (tmp_path / "seed-0").mkdir()
    refused(tmp_path, "after its first validation")
    for name in ("model.pt", "model.pkl"):
        (tmp_path / name).write_bytes(b"")
        refused(tmp_path / name, "no model that is read here", "can run code")
    shutil.copy(run_folder / "seed-2" / "checkpoints" / "last.ckpt", tmp_path / "last.ckpt")
    refused(tmp_path / "last.ckpt", "does not say what model it is of")


def test_a_pickle_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "run",)

    torch.save({"state_dict": {}, "hyper_parameters": Evil()}, tmp_path / "evil.ckpt")
    refused(tmp_path / "evil.ckpt", "Python objects", "can run code")
    (tmp_path / "old.ckpt").write_bytes(pickle.dumps(Evil()))
    refused(tmp_path / "old.ckpt", "old.ckpt is damaged")
    assert not (tmp_path / "run").exists()


def test_damaged_checkpoints_and_those_of_other_models_are_named(run_folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(run_folder / "seed-2", run / "seed-2")
    path = run / "seed-2" / "checkpoints" / "last.ckpt"
    content = path.read_bytes()
    for broken in (b"", content[: len(content) // 2], b"hello"):
        path.write_bytes(broken)
        refused(path, "last.ckpt", "damaged")
    torch.save([1, 2], path)
    refused(path, "no state_dict")
    torch.save({"state_dict": {"model.head.bias": torch.zeros(3)}}, path)
    refused(path, "holds another model", "head.bias")


def test_a_model_that_does_not_know_its_task_is_refused(run_folder):
    (known,) = open_checkpoints(run_folder / "seed-2")
    with pytest.raises(CheckpointError, match="which task"):
        _ = Checkpoint(known.path, "x", known.model, known.config, {}).task
    assert Checkpoint(known.path, "x", known.model, known.config, {"task": "imdb"}).task == "imdb"
