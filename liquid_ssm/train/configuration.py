"""The typed configuration of a run: preset, then file, then options; every key known, every value checked."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from math import inf
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ..errors import ParameterError, require_whole, unknown_name
from .presets import Preset, get_preset

PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed")
ACCELERATORS = ("cpu", "cuda")


@dataclass(frozen=True)
class Configuration:
    """All that decides a run but the machine.

    Args:
        task: a name in `liquid_ssm.tasks.TASKS`.
        preset: of the task; None for its first.
        model: one of `liquid_ssm.nn.MODEL_NAMES`; None for that of the preset.
        settings: values in place of the preset's; then those of the preset, too.
        data: folder of the data.
        seeds: one run each: initial parameters, order of the samples, dropout.
        budget: parameters; n_channels becomes the width that comes nearest.
        as_published, limit, workers: as in `TaskData`.
        clip: largest 2-norm of the gradient; None for no clipping, as published.
        precision: of Lightning: `32-true`, `64-true`, `bf16-mixed`, `16-mixed`; the recurrences stay in float32.
        ema: decay of an average of the weights, which is then what is validated and kept, such as 0.999; None for none.
        patience: epochs without a better validation after which a run stops; None for all epochs.
        save_every: steps between checkpoints within an epoch; None for one at the end of each.
        accelerator, devices: `cpu` or `cuda`, and the number of processes that share each batch.
        threads: of torch in each process; None for torch's own choice.
        backend: of the state-space layers, as in `SSMLayer`.

    Raises:
        ParameterError: an unknown name, or a value that is not allowed.
    """

    task: str
    preset: str | None = None
    model: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    seeds: tuple[int, ...] = (0,)
    budget: int | None = None
    as_published: tuple[str, ...] = ()
    limit: Mapping[str, int] = field(default_factory=dict)
    workers: int = 0
    clip: float | None = None
    precision: str = "32-true"
    ema: float | None = None
    patience: int | None = None
    save_every: int | None = None
    accelerator: str = "cpu"
    devices: int = 1
    threads: int | None = None
    backend: str = "auto"

    def __post_init__(self) -> None:
        for each in fields(self):
            object.__setattr__(self, each.name, _checked(each.name, getattr(self, each.name), _TYPES[each.name]))
        for name, allowed in (("precision", PRECISIONS), ("accelerator", ACCELERATORS)):
            if getattr(self, name) not in allowed:
                raise unknown_name(name, getattr(self, name), allowed)
        for name, least in {
            "budget": 1,
            "workers": 0,
            "patience": 1,
            "save_every": 1,
            "devices": 1,
            "threads": 1,
        }.items():
            value = getattr(self, name)
            if value is not None:
                require_whole(name, value, least)
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise ParameterError(f"seeds are {list(self.seeds)}; give different whole numbers from 0, at least one.")
        if self.clip is not None and not 0 < self.clip < inf:
            raise ParameterError(f"clip is {self.clip}; give a positive norm, or leave it out for no clipping.")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ParameterError(f"ema is {self.ema}; it is a decay between 0 and 1, such as 0.999.")
        object.__setattr__(self, "preset", get_preset(self.task, self.preset).name)
        preset = get_preset(self.task, self.preset).override(**self.settings)
        object.__setattr__(self, "model", self.model or preset.model)
        # All of them, so that a run does not change with what a later version takes for the preset.
        full = {name: getattr(preset, name) for name in _SETTINGS}
        object.__setattr__(self, "settings", {**full, "options": dict(preset.options)})
        if self.resolved.batch_size % self.devices:
            raise ParameterError(
                f"batch_size is {self.resolved.batch_size} and devices {self.devices}; the batch is shared, so give a "
                "multiple."
            )

    @property
    def resolved(self) -> Preset:
        """The preset with the settings."""
        return get_preset(self.task, self.preset).override(**self.settings)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON has them."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return found


_TYPES: dict[str, Any] = get_type_hints(Configuration)
_SETTINGS: dict[str, Any] = {
    name: kind for name, kind in get_type_hints(Preset).items() if name not in ("task", "name", "notes", "model")
}
# Decided by options of their own.
_KEYS = (*(name for name in _TYPES if name != "settings"), *_SETTINGS)


def configuration(file: str | Path | None = None, **given: Any) -> Configuration:
    """A configuration from a file and from values that go before it.

    Args:
        file: TOML or JSON; its keys are those of `Configuration`, and settings of a preset such as `lr`.
        given: the same keys; None for those that are not given.

    Raises:
        ParameterError: the file cannot be read, or holds a key or value that is not allowed.
    """
    values = {} if file is None else _read(Path(file))
    # As a run's own `configuration.json` has them.
    inner = _checked("settings", values.pop("settings", {}), _TYPES["settings"])
    values = {**inner, **values}
    values |= {name: value for name, value in given.items() if value is not None}
    own: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for name, value in values.items():
        if name in _SETTINGS:
            settings[name] = _checked(name, value, _SETTINGS[name])
        elif name in _KEYS:
            own[name] = value
        else:
            raise unknown_name("setting", name, _KEYS)
    if "task" not in own:
        raise ParameterError("no task is given; name one, as in: liquid-ssm train digits. --list prints them.")
    return Configuration(settings=settings, **own)


def from_texts(texts: Sequence[str]) -> dict[str, Any]:
    """Values of `NAME=VALUE`, each as JSON has it, or as text where it is none.

    Raises:
        ParameterError: text of another form, an unknown name, or one that is given twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, mark, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not mark or not name:
            raise ParameterError(f"--set {text!r} is not of the form NAME=VALUE, such as --set lr=0.004.")
        if name not in _KEYS:
            raise unknown_name("setting", name, _KEYS)
        if name in found:
            raise ParameterError(f"--set gives {name} twice; give it once.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value.strip()
    return found


def restored(document: Mapping[str, Any]) -> Configuration:
    """The configuration that `as_dict` made."""
    names = [each.name for each in fields(Configuration)]
    for name in document:
        if name not in names:
            raise unknown_name("setting", name, names)
    return Configuration(**document)


def with_place(found: Configuration, **place: Any) -> Configuration:
    """The same run with other values of what does not decide its numbers, those that are not None."""
    return replace(found, **{name: value for name, value in place.items() if value is not None})


def _read(path: Path) -> dict[str, Any]:
    if path.suffix not in (".toml", ".json"):
        raise ParameterError(f"--config {str(path)!r}: the name of a .toml or .json file is needed.")
    try:
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise ParameterError(f"--config {str(path)!r} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise ParameterError(f"--config {str(path)!r} is no {path.suffix[1:].upper()}: {error}.") from None
    if not isinstance(found, dict):
        raise ParameterError(f"--config {str(path)!r} holds a {type(found).__name__}; a table of settings is needed.")
    return found


_SAID = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _checked(name: str, value: Any, kind: Any) -> Any:
    """The value as the type has it: lists become tuples, whole numbers numbers."""
    if get_origin(kind) is UnionType:
        if value is None:
            return None
        kind = next(each for each in get_args(kind) if each is not type(None))
    origin = get_origin(kind)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ParameterError(f"{name} is {value!r}; give a list.")
        return tuple(_checked(name, item, get_args(kind)[0]) for item in value)
    if origin is not None:
        if not isinstance(value, Mapping):
            raise ParameterError(f"{name} is {value!r}; give a table of names and values.")
        inner = get_args(kind)[1]
        return {
            str(key): value if inner is Any else _checked(f"{name}.{key}", value, inner) for key, value in value.items()
        }
    fits = isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))
    if not fits:
        raise ParameterError(f"{name} is {value!r}; give {_SAID[kind]}.")
    return float(value) if kind is float else value
