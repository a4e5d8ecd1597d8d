"""A run: for every seed a model is trained, its best and its last weights are tested; mean and deviation over seeds."""

from __future__ import annotations

import json
import logging
import os
import random
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger

from ..environment import environment, package_version
from ..errors import CheckpointError, ParameterError, UnstableRecurrence
from ..nn.build import BASELINES, SHORT, ModelConfig, build, width_for
from ..nn.model_file import load_model, save_model
from ..report import dump_json
from ..tasks import get_task
from ..tasks.batch import Batch
from ..tasks.order import BatchOrder
from ..tasks.task import BATCH_MEANS, CLASSIFICATION, REGRESSION, Task
from .checkpoints import (
    CHECKPOINTS,
    LAST,
    Keeper,
    WholeFiles,
    WithinEpochs,
    continued,
    read_checkpoint,
    write_whole,
)
from .configuration import Configuration, restored
from .head_start import start_from_targets
from .learner import Diverged, Learner
from .presets import TARGETS

CONFIGURATION, RESULTS, RESULT = "configuration.json", "results.json", "result.json"
# What may differ between a run and its continuation: it decides where, not what.
PLACE = ("data", "workers", "seeds", "threads", "devices", "accelerator")

Said = Callable[[int, int, str], None]


def start(folder: Path, configuration: Configuration) -> None:
    """Make the folder of a run, which must be new or empty.

    Raises:
        ParameterError: it holds something.
    """
    _require_new(folder)
    write_whole(folder / CONFIGURATION, (dump_json(configuration.as_dict()) + "\n").encode())


def _require_new(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ParameterError(
            f"--run {str(folder)!r} is not empty, and nothing in it is overwritten; go on with it by --resume "
            f"{folder}, or name a new folder."
        )


def resume(folder: Path) -> Configuration:
    """The configuration of a run that is to go on.

    Raises:
        CheckpointError: the folder is none of a run, or its configuration is damaged or of another version.
    """
    path = folder / CONFIGURATION
    if not path.is_file():
        raise CheckpointError(f"--resume {str(folder)!r}: there is no {CONFIGURATION}, so it is no run's folder.")
    try:
        return restored(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged, or of another version: {error}") from None


def train(
    configuration: Configuration,
    folder: Path,
    *,
    new: bool = False,
    check: bool = True,
    every_step: bool = False,
    other_version: bool = False,
    said: Said | None = None,
    told: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train every seed that has no result yet, from where it was, and write `results.json`.

    Args:
        configuration: of the run.
        folder: of the run, as `start` made it.
        new: make it, once data and model are known to be good.
        check: read all data first.
        said: told (done, total, what) while data are checked and after each epoch.
        every_step: tell it after each step, too.
        other_version: go on from checkpoints of another version of this package, too.
        told: told one line per seed, and what must be known of the run.

    Returns:
        dict: what `results.json` holds: `configuration`, `environment`, `data`, `paper`, `notes` (what must be known of
        the run, for people), `seeds` (a result each) and `summary` (mean and standard deviation by metric).

    Raises:
        DataError, ParameterError, CheckpointError: before anything is trained, or where files cannot be written.
    """
    preset = configuration.resolved
    if new and first_process():
        _require_new(folder)
    if configuration.threads is not None:
        torch.set_num_threads(configuration.threads)
    data = _data(configuration, 0)
    if preset.head_start == TARGETS and data.task.kind != REGRESSION:
        raise ParameterError(
            f"head_start is {TARGETS!r}, but {data.task.name} has classes, not numbers, to learn; leave it out."
        )
    checked = data.check(said) if check else None
    data.setup()
    config = model_config(configuration, data)
    with torch.random.fork_rng(devices=[]):
        build(config)  # what it refuses is said before anything is written
    if new and first_process():
        start(folder, configuration)
    about = {
        "task": data.description(),
        "training": configuration.as_dict(),
        "generated": None if data.generated is None else vars(data.generated),
    }
    tell = told or (lambda line: None)
    notes = _notes(configuration, data)
    for note in notes:
        tell(note)
    results = []
    for seed in configuration.seeds:
        place = folder / f"seed-{seed}"
        result = _read_result(place / RESULT)
        if result is None:
            result = _one(
                configuration, config, seed, place, about,
                said=said, every_step=every_step, other_version=other_version, tell=tell,
            )  # fmt: skip
        results.append(result)
        tell(_line(result, data.task.metric))
    task = data.task
    document = {
        "configuration": configuration.as_dict(),
        "settings": {name: value for name, value in vars(preset).items() if name != "notes"},
        "model": config.as_dict(),
        "environment": environment() | {name: package_version(name) for name in ("lightning", "torchmetrics")},
        "data": {
            "counts": None if checked is None else dict(checked.counts),
            "generated": None if data.generated is None else vars(data.generated),
        },
        "paper": {
            "figures": dict(task.paper),
            "part": task.part,
            "comparison": None if data.generated is not None else comparison(task, config),
        },
        "notes": [
            *notes,
            *(f"seed {result['seed']}: {note}" for result in results for note in result.get("notes", ())),
        ],
        "seeds": results,
        "summary": summary(results),
    }
    if first_process():
        write_whole(folder / RESULTS, (dump_json(document) + "\n").encode())
    return document


def model_config(configuration: Configuration, data: Any) -> ModelConfig:
    """What is built: the preset's model for these data, at the width of the budget."""
    task = data.task
    config = configuration.resolved.model_config(
        configuration.model, n_inputs=data.n_inputs, n_outputs=task.n_outputs, tokens=task.tokens, pair=task.pair
    )
    if configuration.settings.get("bidirectional") and not config.bidirectional:
        raise ParameterError(f"bidirectional is true; a model {config.model!r} has no second direction. Leave it out.")
    if config.model in (*BASELINES, "ltc"):
        # Those of a preset are of state-space layers; those that are given are meant for this model.
        config = replace(config, options=configuration.settings.get("options", {}))
    else:
        config = replace(config, options={**config.options, "backend": configuration.backend})
    if configuration.budget is not None:
        config = replace(config, n_channels=width_for(config, configuration.budget))
    return config


def comparison(task: Task, config: ModelConfig) -> dict[str, Any] | None:
    """The paper's figure for a model, as `name` (of the model), `figure` and `unit`; None where it has none."""
    for name, figure in task.paper.items():
        if SHORT.get(name, name) == config.kind:
            unit = "%" if task.kind == CLASSIFICATION else "unit of the target"
            return {"name": name, "figure": figure, "unit": unit}
    return None


def summary(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation (n − 1) over the seeds that did not fail, by metric; how many failed."""
    good = [result for result in results if result["failure"] is None]
    found: dict[str, Any] = {"seeds": len(results), "failed": len(results) - len(good)}
    for name in good[0]["metrics"] if good else ():
        values = [result["metrics"][name] for result in good]
        found[name] = {"mean": fmean(values), "deviation": stdev(values) if len(values) > 1 else None}
    return found


def _notes(configuration: Configuration, data: Any) -> list[str]:
    """What must be known of a run before its results."""
    preset = configuration.resolved
    each = len(_order(configuration, data, 0))
    total = preset.epochs * each
    if preset.warmup_steps <= total:
        return []
    return [
        f"warmup_steps is {preset.warmup_steps}, but the run has {total} steps ({preset.epochs} epochs of {each}): the "
        f"learning rates rise to {total / preset.warmup_steps:.2g} of lr and ssm_lr and never fall; set warmup_steps, "
        f"such as --set warmup_steps={total // 10}."
    ]


def _order(configuration: Configuration, data: Any, seed: int) -> BatchOrder:
    """The steps of an epoch in this process."""
    ranks = configuration.devices
    return BatchOrder(len(data.train), configuration.resolved.batch_size // ranks, seed=seed, ranks=ranks)


def _data(configuration: Configuration, seed: int) -> Any:
    return get_task(configuration.task)(
        configuration.data,
        batch_size=configuration.resolved.batch_size,
        workers=configuration.workers,
        seed=seed,
        as_published=configuration.as_published,
        limit=configuration.limit,
    )


def _one(
    configuration: Configuration,
    config: ModelConfig,
    seed: int,
    folder: Path,
    about: Mapping[str, Any],
    *,
    said: Said | None,
    every_step: bool,
    other_version: bool,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Train and test one seed; a run that breaks down is a result, too."""
    preset = configuration.resolved
    # Everything that is drawn: parameters, dropout.  The order of the samples has its own.
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    model = build(config)
    data = _data(configuration, seed)
    data.setup()
    if preset.head_start == TARGETS:
        start_from_targets(model.head, data.train)
    metric = data.task.metric
    steps = len(_order(configuration, data, seed))
    learner = Learner(model, data.task, preset, steps, batch_means=BATCH_MEANS in configuration.as_published)

    # A model file is for any machine; its backend is chosen where it is used.
    anywhere = replace(config, options={name: value for name, value in config.options.items() if name != "backend"})

    def save(name: str, found: Mapping[str, Any]) -> None:
        save_model(folder / name, learner.model, anywhere, {**about, "seed": seed, "metrics": dict(found)})

    own = {name: value for name, value in configuration.as_dict().items() if name not in PLACE} | {"seed": seed}
    keeper = Keeper(
        folder,
        metric,
        {"configuration": own, "config": config.as_dict(), "about": _plain(about)},
        lambda epoch, value: save("model", {"epoch": epoch, f"validation_{metric}": value}),
        patience=configuration.patience,
        said=said,
        every_step=every_step,
    )
    last = folder / CHECKPOINTS / LAST
    before = read_checkpoint(last, own, other_version=other_version) if last.is_file() else None
    if before is not None:
        keeper.notes = continued(before)
        for note in keeper.notes:
            tell(f"seed {seed}: {note}")
    result: dict[str, Any] = {
        "seed": seed, "model": config.model, "title": config.title, "n_channels": config.n_channels,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad), "epochs": preset.epochs,
        "failure": None, "metrics": {}, "seconds_per_epoch": None, "notes": keeper.notes,
    }  # fmt: skip
    with _quiet():
        trainer = _trainer(configuration, folder, keeper, 0 if before is None else before["global_step"])
        try:
            if before is not None:
                trainer.fit(learner, datamodule=data, ckpt_path=last, weights_only=True)
            else:
                _warm_up(learner, data, configuration)
                trainer.fit(learner, datamodule=data)
            # Also where the last epoch was over before: averaged weights are those of the checkpoint.
            learner.load_state_dict(read_checkpoint(last, own, other_version=other_version)["state_dict"])
            if keeper.best is None:
                raise Diverged(f"the {metric} of the validation part was never finite; lower lr, or set clip=1.")
            last_metrics = _tested(trainer, learner, data, metric, "last_")
            if trainer.is_global_zero:
                save("last-model", last_metrics)
            learner.model.load_state_dict(load_model(folder / "model").model.state_dict())
            found = {**_tested(trainer, learner, data, metric, ""), **last_metrics}
        except SystemExit:
            if trainer.interrupted:
                # Lightning leaves with 1 after Ctrl-C, which is a result here.
                raise KeyboardInterrupt from None
            raise
        except RuntimeError as error:
            # What gloo and NCCL raise, in every process that is left.
            if configuration.devices > 1 and re.search("onnection (closed|reset)|NCCL|timed out", str(error)):
                raise CheckpointError(
                    f"a process of the {configuration.devices} has ended, and the others with it. Go on from the last "
                    f"checkpoint with --resume {folder.parent}."
                ) from None
            raise
        except (UnstableRecurrence, Diverged) as failure:
            result["failure"] = f"{type(failure).__name__}: {failure}"
        else:
            result |= {
                "metrics": found, "best_epoch": keeper.best[1], "epochs": len(keeper.rows),
                "seconds_per_epoch": median(row["seconds"] for row in keeper.rows),
            }  # fmt: skip
    if first_process():
        write_whole(folder / RESULT, (dump_json(result) + "\n").encode())
    return result


def _trainer(configuration: Configuration, folder: Path, keeper: Keeper, steps: int) -> Trainer:
    """That of a seed, of which so many steps are done."""
    callbacks: list[Any] = [keeper]
    if configuration.ema is not None:
        callbacks.append(EMAWeightAveraging(decay=configuration.ema))
    if configuration.save_every is not None:
        callbacks.append(WithinEpochs(folder / CHECKPOINTS / LAST, configuration.save_every))
    folder.mkdir(parents=True, exist_ok=True)
    return Trainer(
        accelerator=configuration.accelerator,
        devices=configuration.devices,
        strategy="ddp" if configuration.devices > 1 else "auto",
        precision=configuration.precision,  # type: ignore[arg-type]
        max_epochs=configuration.resolved.epochs,
        gradient_clip_val=configuration.clip,
        callbacks=callbacks,
        # What was logged after the checkpoint is logged again.
        logger=TensorBoardLogger(save_dir=folder, name="", version="tensorboard", purge_step=steps + 1),
        plugins=[WholeFiles()],
        default_root_dir=folder,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_model_summary=False,
        # The command's own; two live displays do not go together.
        enable_progress_bar=False,
        # BatchOrder shares the batches itself, so that no sample comes twice.
        use_distributed_sampler=False,
    )


def _tested(trainer: Trainer, learner: Learner, data: Any, metric: str, prefix: str) -> dict[str, float]:
    trainer.validate(learner, datamodule=data, verbose=False)
    trainer.test(learner, datamodule=data, verbose=False)
    return {f"{prefix}{part}_{metric}": learner.results[part][1] for part in ("validation", "test")}


def _warm_up(learner: Learner, data: Any, configuration: Configuration) -> None:
    """What a first call compiles and selects is no training: it happens here, and draws nothing."""
    states = torch.get_rng_state()
    batch: Batch = next(iter(data.train_dataloader()))
    if configuration.accelerator == "cpu" and configuration.precision == "32-true":
        torch.autograd.backward(learner.criterion(learner(batch), batch.target))
        learner.zero_grad()
    for module in learner.model.modules():
        # Running statistics have seen that batch.
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
    torch.set_rng_state(states)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's advice on this machine, which is not about the run."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in _ADVICE:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


_ADVICE = (
    ".*does not have many workers",
    ".*is smaller than the logging interval",
    ".*You called `self.log",
    ".*using `devices=1`",
    "Checkpoint directory .* exists and is not empty",
    ".*isinstance.treespec, LeafSpec.* is deprecated",
)


def _read_result(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); delete it to finish that seed again.") from None
    return found


def _line(result: Mapping[str, Any], metric: str) -> str:
    what = f"seed {result['seed']}, {result['title']}, {result['parameters']:,} parameters: "
    if result["failure"] is not None:
        return f"{what}failed: {result['failure']}"
    found = result["metrics"]
    return f"{what}validation {metric} {found[f'validation_{metric}']:.4f}, test {found[f'test_{metric}']:.4f}"


def first_process() -> bool:
    """Whether this is the process that writes, of those that share a run."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


def _plain(value: Any) -> Any:
    """Lists, dictionaries, text and numbers, which a checkpoint may hold without running anything."""
    return json.loads(dump_json(value))
