"""Sequential 8 × 8 digits, a training run of seven models under one script: accuracy on the test set, time per epoch.

Run: python benchmarks/digits.py --json PATH [--plot PATH.svg]

Data: scikit-learn's 1797 digits, pixels row by row as a sequence of L = 64 numbers; for L = 1024 every pixel is
repeated 4 times in both directions first (nearest neighbour).  60/20/20 % for training, validation and test,
stratified, the same for every model and seed.  Everything but the rates of Λ, P, B and δt
(`liquid_ssm.nn.parameter_groups`) is the same for every model, and no number was chosen by a result: one learning rate,
one schedule, the last epoch counts.
"""

from __future__ import annotations

import argparse
import math
import os
from bisect import bisect_left
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

# Read as torch loads: threads that spin while they wait make steps this small ten times slower on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from digits_report import draw, summary, text
from torch import nn

from liquid_ssm.environment import environment, package_version
from liquid_ssm.errors import UnstableRecurrence
from liquid_ssm.nn import LSTM, MODELS, SequenceModel, Transformer, parameter_groups
from liquid_ssm.report import dump_json

CLASSES, SIDE = 10, 8
LENGTHS = (64, 1024)
# Of each length: as many as a run of everything in half an hour on two cores has time for.
EPOCHS = {64: 20, 1024: 7}
STATE_SPACE = ("liquid_s4", "liquid_s4_pb", "s4_legs", "s4d_lin", "s5")
HEADS = 2
TITLES = {name: MODELS[name].title for name in STATE_SPACE} | {"lstm": "LSTM", "transformer": "Transformer"}


@dataclass(frozen=True)
class Settings:
    """What is the same for every model.

    Attributes:
        budget: parameters; each model has the width that comes nearest.
        n_layers: state-space blocks, layers of the LSTM, of the encoder.
        n_state: N of the state-space layers.
        batch: rows of a step; of an epoch's order, the rest that is no whole batch is left out.
        lr, ssm_lr: largest rates, of all parameters and of Λ, P, B, δt.
        warmup: share of the steps in which the rate rises to them, linearly; then it falls to 0 as a cosine.
        clip: largest 2-norm of the gradient.
    """

    budget: int = 10_000
    n_layers: int = 2
    n_state: int = 32
    batch: int = 16
    lr: float = 2e-3
    ssm_lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip: float = 1.0
    split_seed: int = 0
    threads: int = 2
    backend: str = "auto"


class Part(NamedTuple):
    """Sequences (rows, L, 1), standardised by the mean and deviation of all training pixels, and labels (rows,)."""

    u: torch.Tensor
    labels: torch.Tensor


def split(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices for training, validation and test, 60/20/20 % of every class."""
    from sklearn.model_selection import train_test_split

    train, rest = train_test_split(np.arange(len(labels)), test_size=0.4, stratify=labels, random_state=seed)
    validation, test = train_test_split(rest, test_size=0.5, stratify=labels[rest], random_state=seed)
    return train, validation, test


def sequences(images: np.ndarray, length: int) -> np.ndarray:
    """Images (rows, 8, 8), each pixel repeated to make squares of `length` pixels, row by row: (rows, length, 1)."""
    factor = math.isqrt(length) // SIDE
    if factor < 1 or length != (SIDE * factor) ** 2:
        raise ValueError(f"length is {length}; squares of multiples of {SIDE} are possible: 64, 256, 576, 1024, ...")
    return images.repeat(factor, axis=1).repeat(factor, axis=2).reshape(len(images), length, 1)


def data(length: int, seed: int) -> tuple[Part, Part, Part]:
    """Training, validation and test at that length."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    parts = split(digits.target, seed)
    pixels = digits.images[parts[0]]
    u = sequences((digits.images - pixels.mean()) / pixels.std(), length)
    return tuple(  # type: ignore[return-value]
        Part(torch.tensor(u[rows], dtype=torch.float32), torch.tensor(digits.target[rows])) for rows in parts
    )


def make(name: str, width: int, settings: Settings) -> nn.Module:
    """A model of that width: features between layers."""
    if name in STATE_SPACE:
        return SequenceModel(
            1, CLASSES, n_layers=settings.n_layers, n_channels=width, pooling="mean",
            layer=lambda features: MODELS[name](features, settings.n_state, backend=settings.backend),
        )  # fmt: skip
    shape = {"n_layers": settings.n_layers, "n_channels": width}
    return LSTM(1, CLASSES, **shape) if name == "lstm" else Transformer(1, CLASSES, heads=HEADS, **shape)


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def width_of(name: str, settings: Settings) -> int:
    """The width whose number of parameters is nearest to the budget; the Transformer's in steps of 4, for its heads."""
    unit = 4 if name == "transformer" else 1

    def count(k: int) -> int:
        return size(make(name, k * unit, settings))

    # Every model has more than 2 k² parameters of a width k, and more the wider it is.
    above = bisect_left(range(1, 2 + math.isqrt(settings.budget)), settings.budget, key=count) + 1
    return unit * min((k for k in (above - 1, above) if k), key=lambda k: abs(count(k) - settings.budget))


def scheduled(settings: Settings, steps: int) -> Callable[[int], float]:
    """The rate by step, in units of the largest."""
    warm = max(1, round(settings.warmup * steps))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    return factor


@torch.no_grad()
def accuracy(model: nn.Module, part: Part) -> float:
    model.eval()
    right = (model(part.u).argmax(1) == part.labels).double().mean()
    model.train()
    return float(right)


def train(name: str, length: int, seed: int, epochs: int, settings: Settings, parts: tuple[Part, Part, Part]) -> dict:
    """One run, as a row of the results.  The test set is looked at once, after the last epoch."""
    learned, validation, test = parts
    width = width_of(name, settings)
    torch.manual_seed(seed)
    model = make(name, width, settings)
    order = torch.Generator().manual_seed(seed)
    # One group, at lr, for a model without state-space layers.
    groups = parameter_groups(model, lr=settings.lr, weight_decay=settings.weight_decay, ssm_lr=settings.ssm_lr)
    optimiser = torch.optim.AdamW(groups)
    n_batches = len(learned.labels) // settings.batch
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, scheduled(settings, epochs * n_batches))
    row: dict[str, Any] = {
        "model": name, "title": TITLES[name], "length": length, "seed": seed, "width": width, "parameters": size(model),
        "epochs": epochs, "failure": None, "validation_accuracy": None, "test_accuracy": None,
        "seconds_per_epoch": None, "validation_curve": [], "loss_curve": [], "seconds": [],
    }  # fmt: skip
    try:
        # What a first call compiles and selects is no training.
        trial = deepcopy(model)
        nn.functional.cross_entropy(trial(learned.u[: settings.batch]), learned.labels[: settings.batch]).backward()
        for _ in range(epochs):
            start, losses = perf_counter(), []
            shuffled = torch.randperm(len(learned.labels), generator=order)
            for rows in shuffled[: n_batches * settings.batch].view(n_batches, settings.batch):
                optimiser.zero_grad()
                loss = nn.functional.cross_entropy(model(learned.u[rows]), learned.labels[rows])
                loss.backward()
                norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
                if not torch.isfinite(norm):
                    raise FloatingPointError(f"the norm of the gradient is {float(norm)}")
                optimiser.step()
                scheduler.step()
                losses.append(float(loss.detach()))
            row["seconds"].append(perf_counter() - start)
            row["loss_curve"].append(float(np.mean(losses)))
            row["validation_curve"].append(accuracy(model, validation))
        row["test_accuracy"] = accuracy(model, test)
    except (UnstableRecurrence, FloatingPointError) as failure:
        # A run that breaks down is a result, too.
        row["failure"] = f"{type(failure).__name__}: {failure}"
        return row
    row |= {"validation_accuracy": row["validation_curve"][-1], "seconds_per_epoch": median(row["seconds"])}
    return row


def run(
    path: Path,
    *,
    models: tuple[str, ...] = tuple(TITLES),
    lengths: tuple[int, ...] = LENGTHS,
    seeds: tuple[int, ...] = (0, 1, 2),
    epochs: int | None = None,
    settings: Settings | None = None,
    parts: Callable[[int, int], tuple[Part, Part, Part]] = data,
    command: str = "",
) -> dict[str, Any]:
    """All runs; the document is written after each of them, so that one that is stopped keeps what it has."""
    settings = settings or Settings()
    torch.set_num_threads(settings.threads)
    chosen = {str(length): epochs or EPOCHS[length] for length in lengths}
    about = {**asdict(settings), "epochs": chosen, "seeds": list(seeds), "models": list(models), "command": command}
    where = environment() | {"scikit-learn": package_version("scikit-learn")}
    rows: list[dict[str, Any]] = []
    document: dict[str, Any] = {"environment": where, "settings": about, "rows": rows, "summary": []}
    for length in lengths:
        loaded = parts(length, settings.split_seed)
        about.setdefault("samples", [len(part.labels) for part in loaded])
        for seed in seeds:
            for name in models:
                rows.append(train(name, length, seed, chosen[str(length)], settings, loaded))
                said = rows[-1]["failure"] or f"test {rows[-1]['test_accuracy']:.4f}"
                print(f"L = {length}, seed {seed}, {name}, {rows[-1]['parameters']} parameters: {said}", flush=True)
                document["summary"] = summary(rows)
                path.write_text(dump_json(document) + "\n", encoding="utf-8")
    return document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True, type=Path, help="where the results go")
    parser.add_argument("--plot", type=Path, help="where a plot goes, in the format of its suffix (needs matplotlib)")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, choices=LENGTHS)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--models", nargs="+", default=tuple(TITLES), choices=tuple(TITLES))
    parser.add_argument("--epochs", type=int, help=f"instead of {EPOCHS} by length")
    parser.add_argument("--backend", default="auto", help="of the state-space layers (default auto)")
    given = parser.parse_args()
    if given.epochs is not None and given.epochs < 1:
        parser.error(f"epochs is {given.epochs}; at least 1")
    for path in (given.json, given.plot):
        if path is not None and not path.parent.is_dir():
            parser.error(f"there is no folder {path.parent}; make it first")
    command = "python benchmarks/digits.py" + "".join(
        f" --{key} {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in vars(given).items()
        if key not in ("json", "plot") and value != parser.get_default(key)
    )
    start = perf_counter()
    document = run(
        given.json, models=tuple(given.models), lengths=tuple(given.lengths), seeds=tuple(given.seeds),
        epochs=given.epochs, settings=Settings(backend=given.backend), command=command,
    )  # fmt: skip
    print(text(document))
    print(f"{perf_counter() - start:.0f} s")
    if given.plot is not None:
        draw(document, given.plot)


if __name__ == "__main__":
    main()
