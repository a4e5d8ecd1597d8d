"""Trained models on disk: safetensors and JSON, read without training code and without running anything of a file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..environment import package_version
from ..errors import BackendUnavailable, CheckpointError, LiquidSSMError, ParameterError
from ..report import dump_json
from .build import ModelConfig, build

TENSORS, DESCRIPTION = "model.safetensors", "model.json"
FORMAT, VERSION = "liquid-ssm model", 1


@dataclass(frozen=True)
class LoadedModel:
    """A model from a folder.

    Attributes:
        model: in evaluation mode, on the CPU.
        config: that built it.
        about: what was saved with it: task, vocabulary, training, metrics.
        version: of the package that saved it.
    """

    model: Any
    config: ModelConfig
    about: dict[str, Any]
    version: str = ""


def save_model(folder: str | Path, model: nn.Module, config: ModelConfig, about: Mapping[str, Any]) -> Path:
    """Write a model as `model.safetensors` and `model.json` into a folder, which may be new.

    Both are complete on disk before the first of them takes the place of an older one.

    Args:
        folder: other files in it stay.
        model: as `build(config)` made it.
        config: of the model.
        about: what else is kept; plain values, NaN and infinities as text.

    Raises:
        ParameterError: the model is not one of `config`, or `about` holds what JSON cannot.
        CheckpointError: the folder cannot be written, such as for a full disk; what was there stays.
        BackendUnavailable: safetensors is not installed.
    """
    safetensors = _safetensors()
    target = Path(folder)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        wanted = build(config).state_dict()
    different = _differences(tensors, wanted)
    if different:
        raise ParameterError(f"the model is not what its configuration builds: {different}.")
    data = safetensors.save(tensors)
    document = {
        "format": FORMAT,
        "format_version": VERSION,
        "package_version": package_version("liquid-ssm"),
        "config": config.as_dict(),
        "tensors": {"file": TENSORS, "sha256": hashlib.sha256(data).hexdigest()},
        "about": dict(about),
    }
    try:
        text = dump_json(document)
    except TypeError as error:
        raise ParameterError(f"a model file keeps plain values only: {error}.") from None
    new = {target / TENSORS: data, target / DESCRIPTION: (text + "\n").encode()}
    try:
        target.mkdir(parents=True, exist_ok=True)
        try:
            for path, content in new.items():
                _write(_beside(path), content)
            for path in new:
                os.replace(_beside(path), path)
        finally:
            for path in new:
                _beside(path).unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"{target} cannot be written: {error.strerror}. What it held before is unchanged."
        ) from None
    return target


def load_model(folder: str | Path) -> LoadedModel:
    """The model of a folder, with the outputs that it had when it was saved, bit for bit.

    Only numbers and plain values are read; nothing in the files is run.

    Raises:
        CheckpointError: a file is missing, damaged, of another version, or does not hold this model's tensors.
        BackendUnavailable: safetensors is not installed.
    """
    where = Path(folder)
    document = _document(where)
    try:
        config = ModelConfig(**document["config"])
    except (TypeError, LiquidSSMError) as error:
        raise CheckpointError(f"{where / DESCRIPTION} describes no model of this version: {error}") from None
    tensors = _tensors(where / TENSORS, document["tensors"]["sha256"])
    _require_size(where, config, tensors)
    try:
        with torch.random.fork_rng(devices=[]):
            model = build(config)
    except LiquidSSMError as error:
        raise CheckpointError(f"{where / DESCRIPTION} describes no model of this version: {error}") from None
    different = _differences(tensors, model.state_dict())
    if different:
        raise CheckpointError(f"{where / TENSORS} does not hold the model that {DESCRIPTION} describes: {different}.")
    # In place of the new ones, so that each keeps its dtype.
    model.load_state_dict(tensors, assign=True)
    return LoadedModel(model.eval(), config, document["about"], document["package_version"])


def _document(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist; a model is a folder with {DESCRIPTION} and {TENSORS}, as `liquid-ssm train` "
            "writes it."
        )
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); take another copy, or train again.") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a description of a model of this package: it has no format {FORMAT!r}.")
    if document.get("format_version") != VERSION:
        raise CheckpointError(
            f"{path} has format version {document.get('format_version')!r}, written by liquid-ssm "
            f"{document.get('package_version')}; this version reads {VERSION}. Install the version that wrote it."
        )
    tensors = document.get("tensors")
    whole = isinstance(document.get("config"), dict) and isinstance(document.get("about"), dict)
    if not whole or not isinstance(tensors, dict) or not isinstance(tensors.get("sha256"), str):
        raise CheckpointError(f"{path} is damaged: config, about or the check sum of the tensors is missing.")
    return {**document, "package_version": str(document.get("package_version"))}


def _tensors(path: Path, wanted: str) -> dict[str, torch.Tensor]:
    safetensors = _safetensors()
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist, but {DESCRIPTION} beside it does; take the whole folder.")
    try:
        data = path.read_bytes()
        found = hashlib.sha256(data).hexdigest()
        # Looked at first: what a damaged file says of itself is worth nothing.
        tensors: dict[str, torch.Tensor] = safetensors.load(data) if found == wanted else {}
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from None
    except Exception as error:  # safetensors has an error class of its own, and raises others
        raise CheckpointError(f"{path} is damaged ({error}); take another copy, or train again.") from None
    if found != wanted:
        raise CheckpointError(
            f"{path} is not the file that {DESCRIPTION} was written with: SHA-256 {found[:16]}…, expected "
            f"{wanted[:16]}…. It is damaged, or of another run; take the whole folder again."
        )
    return tensors


def _require_size(folder: Path, config: ModelConfig, tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse a description of something much larger than what the tensors hold, before it is built."""
    total = sum(tensor.numel() for tensor in tensors.values())
    state = 1 if config.kind in ("lstm", "transformer", "ltc") else config.n_state
    least = max(config.n_layers * config.n_channels, config.n_inputs, config.n_outputs, state)
    if least > total:
        raise CheckpointError(
            f"{folder / DESCRIPTION} describes a model of at least {least} numbers, but {TENSORS} holds {total}; one "
            "of the two is of another model."
        )


def _differences(given: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> str:
    """What is missing, too much, of another shape or kind; empty for none."""
    said = []
    for what, names in (
        ("missing are", wanted.keys() - given.keys()),
        ("unexpected are", given.keys() - wanted.keys()),
    ):
        if names:
            shown = ", ".join(sorted(names)[:5])
            said.append(f"{what} {shown}{f' and {len(names) - 5} more' if len(names) > 5 else ''}")
    for name in sorted(wanted.keys() & given.keys()):
        ours, theirs = wanted[name], given[name]
        if ours.shape != theirs.shape:
            said.append(f"{name} has shape {tuple(theirs.shape)} instead of {tuple(ours.shape)}")
        elif ours.is_floating_point() != theirs.is_floating_point() or ours.is_complex() != theirs.is_complex():
            said.append(f"{name} has dtype {theirs.dtype} instead of {ours.dtype}")
        if len(said) > 4:
            break
    return "; ".join(said)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.new")


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _safetensors() -> Any:
    try:
        return import_module("safetensors.torch")
    except ModuleNotFoundError as missing:
        raise BackendUnavailable(
            "model files need safetensors. Run: pip install 'liquid-ssm[safetensors]'"
        ) from missing
