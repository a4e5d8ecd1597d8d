"""Models on disk: the same bits, and every kind of damage named."""

from __future__ import annotations

import errno
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from liquid_ssm.environment import package_version
from liquid_ssm.errors import CheckpointError, ParameterError
from liquid_ssm.nn import MODEL_NAMES, ModelConfig, build, load_model, save_model
from liquid_ssm.nn import model_file as module

ABOUT = {"task": {"task": "listops", "vocabulary": ["<pad>", "é", "]"]}, "metrics": {"validation_accuracy": 0.5}}
CONFIG = ModelConfig(
    model="pb", n_layers=1, n_channels=4, n_state=4, norm="batch", order=2, options={"backend": "first"}
)


def first(model: str) -> dict[str, str]:
    """Options that spare a selection of the backend."""
    return {} if model in ("lstm", "transformer", "ltc") else {"backend": "first"}


def trained(config: ModelConfig, dtype: torch.dtype = torch.float32):
    torch.manual_seed(1)
    model = build(config).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)
    # Statistics of a batch norm are part of a model, too.
    u = torch.randint(5, (2, 2, 6)) if config.pair else torch.randn(2, 6, config.n_inputs, dtype=dtype)
    return model.train(), u, model(u)


@pytest.mark.parametrize("model", MODEL_NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loaded_model_is_the_saved_one_bit_for_bit(tmp_path, model, dtype):
    config = ModelConfig(
        model=model, n_layers=2, n_channels=4, n_state=4, n_outputs=3, norm="batch", options=first(model)
    )
    found, u, _ = trained(config, dtype)
    save_model(tmp_path / "new" / "model", found, config, ABOUT)
    torch.manual_seed(7)
    expected = torch.rand(())
    torch.manual_seed(7)
    loaded = load_model(tmp_path / "new" / "model")
    # Whoever loads a model in the middle of a run goes on with the same random numbers.
    assert torch.rand(()) == expected
    assert (loaded.config, loaded.about) == (config, ABOUT)
    assert loaded.version == package_version("liquid-ssm")
    assert not loaded.model.training
    for name, tensor in found.state_dict().items():
        other = loaded.model.state_dict()[name]
        assert other.dtype == tensor.dtype
        assert torch.equal(other, tensor)
    assert torch.equal(loaded.model(u), found.eval()(u))
    # It can be trained further.
    loaded.model.train()(u).sum().backward()
    grads = [p.grad is not None for p in loaded.model.parameters() if p.requires_grad]
    assert all(grads)


def test_the_description_is_readable_json_and_holds_all_of_the_configuration(tmp_path):
    found, _, _ = trained(CONFIG)
    save_model(tmp_path, found, CONFIG, {"a": float("nan"), "b": (1, 2)})
    held = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    assert held["format_version"] == 1
    assert held["config"] == CONFIG.as_dict()
    assert held["about"] == {"a": "nan", "b": [1, 2]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


@pytest.fixture
def folder(tmp_path) -> Path:
    found, _, _ = trained(CONFIG)
    return save_model(tmp_path / "model", found, CONFIG, ABOUT)


def described(folder: Path, **changes) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def with_tensors(folder: Path, change) -> None:
    """Other tensors, whose check sum is right."""
    import hashlib

    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    described(folder, tensors={"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})


def refused(folder: Path, *said: str) -> None:
    with pytest.raises(CheckpointError) as error:
        load_model(folder)
    for words in said:
        assert words in str(error.value)


def test_missing_files_are_named(folder, tmp_path):
    refused(tmp_path / "nothing", "model.json", "does not exist")
    (folder / "model.safetensors").unlink()
    refused(folder, "model.safetensors", "does not exist")


@pytest.mark.parametrize("at", [0, 20, -3])
def test_one_changed_byte_is_found(folder, at):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))
    refused(folder, "is not the file that model.json was written with", "damaged")


def test_half_a_file_is_found(folder):
    for name in ("model.safetensors", "model.json"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        refused(folder, name, "damaged")
        (folder / name).write_bytes(content)


def test_other_versions_and_other_files_are_named(folder):
    described(folder, format_version=2, package_version="9.9")
    refused(folder, "format version 2", "liquid-ssm 9.9", "reads 1")
    described(folder, format_version=1, format="something")
    refused(folder, "not a description of a model of this package")
    (folder / "model.json").write_text("[1]")
    refused(folder, "not a description of a model of this package")
    (folder / "model.json").write_text("[" * 100_000)
    refused(folder, "damaged")
    (folder / "model.json").write_bytes(b"\xff\xfe")
    refused(folder, "damaged")


@pytest.mark.parametrize("name", ["config", "about", "tensors"])
def test_a_description_without_one_of_its_parts_is_damaged(folder, name):
    described(folder, **{name: None})
    refused(folder, "damaged", "missing")


def test_a_configuration_of_another_version_is_refused(folder):
    described(folder, config={**CONFIG.as_dict(), "mixing": 3})
    refused(folder, "no model of this version", "mixing")
    described(folder, config={**CONFIG.as_dict(), "model": "s9"})
    refused(folder, "no model of this version", "s9")
    described(folder, config={**CONFIG.as_dict(), "model": "s5", "options": {"n_blocks": 3}})
    refused(folder, "no model of this version", "n_blocks")


def test_a_description_of_something_huge_is_refused_before_it_is_built(folder, monkeypatch):
    monkeypatch.setattr(module, "build", lambda config: pytest.fail("it was built"))
    for name in ("n_channels", "n_layers", "n_state", "n_inputs"):
        described(folder, config={**CONFIG.as_dict(), name: 10**9})
        refused(folder, "of another model")


def test_tensors_that_are_missing_or_too_much_or_of_another_shape_are_named(folder):
    with_tensors(folder, lambda tensors: tensors.pop("head.bias"))
    refused(folder, "missing are head.bias")
    with_tensors(folder, lambda tensors: tensors.update({"head.bias": torch.zeros(2), "head.scale": torch.zeros(2)}))
    refused(folder, "unexpected are head.scale")
    with_tensors(folder, lambda tensors: [tensors.pop("head.scale"), tensors.update({"head.bias": torch.zeros(3)})])
    refused(folder, "head.bias has shape (3,) instead of (2,)")
    with_tensors(folder, lambda tensors: tensors.update({"head.bias": torch.zeros(2, dtype=torch.int32)}))
    refused(folder, "head.bias has dtype torch.int32")


def test_a_pickle_in_the_place_of_tensors_is_not_run(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "run",)

    import hashlib

    path = folder / "model.safetensors"
    path.write_bytes(pickle.dumps(Evil()))
    described(folder, tensors={"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    refused(folder, "damaged")
    assert not (tmp_path / "run").exists()


def test_another_model_than_the_configuration_says_is_not_saved(tmp_path):
    found, _, _ = trained(CONFIG)
    with pytest.raises(ParameterError, match="not what its configuration builds"):
        save_model(tmp_path, found, replace(CONFIG, n_channels=5), ABOUT)
    with pytest.raises(ParameterError, match="plain values only"):
        save_model(tmp_path, found, CONFIG, {"model": found})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("full", ["model.safetensors", "model.json"])
def test_a_full_disk_leaves_the_last_model_as_it_was(folder, monkeypatch, full):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    written = module._write

    def without_room(path, content):
        if full in path.name:
            path.write_bytes(content[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(path, content)

    monkeypatch.setattr(module, "_write", without_room)
    other, _, _ = trained(replace(CONFIG, n_channels=6))
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_model(folder, other, replace(CONFIG, n_channels=6), ABOUT)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    load_model(folder)


def test_other_files_of_the_folder_stay(folder):
    (folder / "notes.txt").write_text("mine")
    found, _, _ = trained(CONFIG)
    save_model(folder, found, CONFIG, {})
    assert (folder / "notes.txt").read_text() == "mine"
    assert load_model(folder).about == {}
