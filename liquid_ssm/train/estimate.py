"""How long a training would take on this machine: an estimate from short trials of single steps, kept on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from math import inf
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..cache_folder import cache_folder
from ..environment import package_version
from ..machine import cpu_model
from ..nn.build import BASELINES, ModelConfig, build

if TYPE_CHECKING:
    from ..tasks.task import Task
    from .presets import Preset

# Training samples of the published data, split as by default.
TRAINING_SAMPLES = {
    "listops": 96_000,
    "imdb": 22_500,
    "aan": 147_086,
    "cifar": 45_000,
    "pathfinder": 160_000,
    "pathx": 160_000,
    "bidmc-hr": 5_564,
    "bidmc-rr": 5_564,
    "bidmc-spo2": 5_564,
    "scifar": 45_000,
    "sc35": 84_843,
    "sc10": 24_482,
    "digits": 1_077,
}
# Symbols where the data decide, about.
VOCABULARIES = {"listops": 18, "imdb": 135, "aan": 98}

# A trial grows until it takes the first time [s] and twice the work takes nearly twice as long, or it takes the second:
# what a call costs before it computes is then little of it.
_LONG_ENOUGH, _TOO_LONG = 0.1, 0.5
_NEARLY_TWICE = 1.6
_FIRST_LENGTH, _LENGTH = 64, 1024


class _Trial(NamedTuple):
    """A step of one layer: its time [s], rows and steps of the sequences."""

    seconds: float
    rows: int
    length: int


@dataclass(frozen=True)
class Estimate:
    """What a training takes.

    Attributes:
        seconds_per_step: of one optimiser step at full length, batch and depth, on one core [s].
        steps: of all epochs.
        trial: what was timed, in words.
    """

    seconds_per_step: float
    steps: int
    trial: str

    @property
    def seconds(self) -> float:
        """Of all steps, without validation, on one core [s]."""
        return self.seconds_per_step * self.steps


def task_config(task: Task, preset: Preset, model: str | None = None) -> ModelConfig:
    """The model that a preset has for a task; where data decide the vocabulary, of the published size."""
    return preset.model_config(
        model,
        n_inputs=VOCABULARIES.get(task.name, 128) if task.n_inputs is None else task.n_inputs,
        n_outputs=task.n_outputs,
        tokens=task.tokens,
        pair=task.pair,
    )


def estimate(task: Task, preset: Preset, model: str | None = None) -> Estimate:
    """The time of a training on the published number of samples.

    A step (forward, backward, AdamW) of the real model but with one layer is timed on fewer and shorter sequences, and
    scaled by depth · batch · length.  What counts is processor time of one thread, which other processes on the machine
    do not change; n cores are at best n times as fast.  Work is taken to be linear in the length: the logarithm of an
    FFT, and the square of a Transformer's attention, are left out beyond the trial, and so are loading and validation.
    State-space layers compute with the first backend that can; a selection may find a faster one.
    """
    config = replace(task_config(task, preset, model), n_layers=1, pair=False, dropout=0.0)
    if config.kind not in (*BASELINES, "ltc"):
        config = replace(config, options={**config.options, "backend": "first"})
    rows = preset.batch_size * (2 if task.pair else 1)
    trial = _kept(config, rows, task.length)
    seconds = preset.n_layers * trial.seconds * (rows * task.length) / (trial.rows * trial.length)
    steps = preset.epochs * -(-TRAINING_SAMPLES[task.name] // preset.batch_size)
    words = (
        f"one layer of H = {config.n_channels}, N = {config.n_state}, {trial.rows} sequences of {trial.length} steps: "
        f"{trial.seconds:.3g} s of one core"
    )
    return Estimate(seconds, steps, words)


def _kept(config: ModelConfig, rows: int, length: int) -> _Trial:
    """The trial, from the cache if this machine has made it before."""
    key: dict[str, Any] = {
        "config": config.as_dict(),
        "rows": rows,
        "length": length,
        "cpu": cpu_model(),
        "versions": {name: package_version(name) for name in ("liquid-ssm", "torch", "numba")},
    }
    name = sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:24]
    path = cache_folder() / "estimates" / f"{name}.json"
    # A cache that is damaged or cannot be read is made again.
    with suppress(OSError, ValueError, TypeError, KeyError):
        held = _Trial(*json.loads(path.read_text(encoding="utf-8"))["trial"])
        if held.seconds > 0 and 1 <= held.rows <= rows and 1 <= held.length <= length:
            return held
    found = _trial(config, rows, length)
    with suppress(OSError):
        _keep(path, {**key, "trial": found})
    return found


def _keep(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(json.dumps(document, default=str), encoding="utf-8")
    os.replace(new, path)


def _trial(config: ModelConfig, rows: int, length: int) -> _Trial:
    """A step of few short sequences; longer, then more of them, until it takes long enough."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            model = build(config).train()
            return _grown(model, config, rows, length)
    finally:
        torch.set_num_threads(threads)


def _grown(model: Any, config: ModelConfig, rows: int, length: int) -> _Trial:
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6)
    b, n = 1, min(length, _FIRST_LENGTH)
    # The first compiles what there is to compile.
    _step_time(model, optimiser, config, b, n)
    seconds, before = _step_time(model, optimiser, config, b, n), inf
    while (b, n) != (rows, length) and not _settled(seconds, before):
        if n < min(length, _LENGTH) or b == rows:
            n = min(2 * n, length)
        else:
            b = min(2 * b, rows)
        seconds, before = _step_time(model, optimiser, config, b, n), seconds
    return _Trial(seconds, b, n)


def _settled(seconds: float, before: float) -> bool:
    return seconds > _TOO_LONG or (seconds > _LONG_ENOUGH and seconds > _NEARLY_TWICE * before)


def _step_time(model: Any, optimiser: torch.optim.Optimizer, config: ModelConfig, rows: int, length: int) -> float:
    shape = (rows, length)
    u = torch.randint(config.n_inputs, shape) if config.tokens else torch.randn(*shape, config.n_inputs)
    start = process_time()
    optimiser.zero_grad()
    model(u).square().mean().backward()
    optimiser.step()
    return process_time() - start
