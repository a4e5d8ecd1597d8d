"""Trained models on disk: those of a run, a seed, a model's folder or a Lightning checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch

from ..errors import CheckpointError, LiquidSSMError
from ..nn.build import ModelConfig, build
from ..nn.model_file import DESCRIPTION, TENSORS, load_model


@dataclass(frozen=True)
class Checkpoint:
    """A model from a run, with what is known about it.

    Attributes:
        path: of the model's folder, or of the Lightning checkpoint.
        name: for people, such as `seed-0`.
        model: in evaluation mode.
        config, about: as `liquid_ssm.nn.load_model` gives them.
    """

    path: Path
    name: str
    model: Any
    config: ModelConfig
    about: dict[str, Any]

    @property
    def task(self) -> str:
        """The name of the task that the model was trained for."""
        found = self.about.get("task")
        found = found.get("task") if isinstance(found, Mapping) else found
        if not isinstance(found, str):
            raise CheckpointError(f"{self.path} does not say which task it was trained for; save it with `train`.")
        return found


def open_checkpoints(path: str | Path) -> list[Checkpoint]:
    """The models of a run folder (one per seed), a seed's folder, a model's folder, or a Lightning checkpoint.

    Of a seed it is the one of the best validation epoch, `model/`.  A `.ckpt` is read without running anything that it
    holds.

    Raises:
        CheckpointError: there is no model, or it is damaged or of another version.
    """
    where = Path(path)
    if where.is_file() and where.name in (TENSORS, DESCRIPTION):
        where = where.parent
    if where.is_file():
        return [_lightning(where)]
    if not where.is_dir():
        raise CheckpointError(f"{where} does not exist; give a run's folder, a seed's, a model's, or a .ckpt file.")
    if (where / DESCRIPTION).exists() or (where / TENSORS).exists():
        return [_model(where, where.name)]
    if (where / "model").is_dir():
        return [_model(where / "model", where.name)]
    seeds = [folder for folder in where.glob("seed-*") if (folder / "model").is_dir()]
    if not seeds:
        raise CheckpointError(
            f"{where} holds no model: no {DESCRIPTION}, no model/ and no seed-*/model/. A run writes the latter after "
            "its first validation."
        )
    # seed-10 after seed-9
    return [_model(folder / "model", folder.name) for folder in sorted(seeds, key=lambda f: (len(f.name), f.name))]


def _model(folder: Path, name: str) -> Checkpoint:
    found = load_model(folder)
    return Checkpoint(folder, name, found.model, found.config, found.about)


def _lightning(path: Path) -> Checkpoint:
    """A model from a training checkpoint, whose description is in it or in the model folder beside it."""
    if path.suffix != ".ckpt":
        raise CheckpointError(
            f"{path} is no model that is read here: give a folder with {DESCRIPTION} and {TENSORS}, or a .ckpt of "
            "`liquid-ssm train`. Other formats hold Python objects, which are not read, because that can run code."
        )
    if not is_zipfile(path):
        raise CheckpointError(f"{path} is damaged or no checkpoint of a training; take another, or train again.")
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged, or holds Python objects beside numbers and plain values. They are not read, because "
            f"that can run code ({str(error).splitlines()[0]}). Evaluate the folder model/ of the same seed."
        ) from None
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is damaged or no checkpoint ({said}); take another, or train again.") from None
    if not isinstance(held, Mapping) or not isinstance(held.get("state_dict"), Mapping):
        raise CheckpointError(f"{path} is no checkpoint of a training: it holds no state_dict.")
    config, about = _description(path, held)
    state = {
        name.removeprefix("model."): tensor for name, tensor in held["state_dict"].items() if name.startswith("model.")
    }
    with torch.random.fork_rng(devices=[]):
        model = build(config)
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{path} holds another model than the one described beside it: {error}") from None
    return Checkpoint(path, path.stem, model.eval(), config, about)


def _description(path: Path, held: Mapping[str, Any]) -> tuple[ModelConfig, dict[str, Any]]:
    said = held.get("liquid_ssm")
    if isinstance(said, Mapping) and isinstance(said.get("config"), Mapping):
        try:
            return ModelConfig(**said["config"]), dict(said.get("about") or {})
        except (TypeError, LiquidSSMError) as error:
            raise CheckpointError(f"{path} describes no model of this version: {error}") from None
    for folder in (path.parent.parent / name for name in ("model", "last-model")):
        if (folder / DESCRIPTION).is_file():
            found = load_model(folder)
            return found.config, found.about
    raise CheckpointError(
        f"{path} does not say what model it is of, and there is no model folder beside it; evaluate it where the run "
        "wrote it."
    )
