"""What a run keeps as it goes: checkpoints to go on from, the best model, rows of metrics per epoch and per step."""

from __future__ import annotations

import csv
import io
import math
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from ..environment import package_version
from ..errors import CheckpointError
from .steps import STEPS, StepFile

VERSION = 2
# Whose numbers a run's continuation depends on.
PACKAGES = ("liquid-ssm", "torch", "lightning")
METRICS, CHECKPOINTS, LAST, BEST = "metrics.csv", "checkpoints", "last.ckpt", "best.ckpt"


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file in one go: a reader, and whoever comes after a crash or on a full disk, sees the old or the new.

    Raises:
        CheckpointError: it cannot be written; what was there stays.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except OSError as error:
        new.unlink(missing_ok=True)
        kept = f"; the last good one, {path}, is still there" if path.is_file() else ""
        raise CheckpointError(
            f"{path} cannot be written: {error.strerror}{kept}. Make room or choose another folder, and go on with "
            "--resume."
        ) from error


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are complete or not there."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """As `write_whole`."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_whole(Path(path), content.getvalue())


def versions() -> dict[str, str]:
    """Those that a checkpoint is compared with."""
    return {name: package_version(name) for name in PACKAGES}


def read_checkpoint(path: Path, configuration: Mapping[str, Any], *, other_version: bool = False) -> dict[str, Any]:
    """A checkpoint of this run, read without running anything that it holds.

    Args:
        path: as a run wrote it.
        configuration: of the run, of which it must be.
        other_version: take it of another version of this package, too, if that has the same format.

    Raises:
        CheckpointError: it is damaged, of another version, or of another run.
    """
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
        said = held["liquid_ssm"]
        version, package, of = said["version"], said["package"], said["configuration"]
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} is damaged or no checkpoint of `liquid-ssm train` ({said}); delete it to start that seed again."
        ) from None
    if version != VERSION:
        raise CheckpointError(
            f"{path} has format {version}, written by liquid-ssm {package}; this version has format {VERSION}. Go on "
            "with the version that wrote it."
        )
    here = package_version("liquid-ssm")
    if package != here and not other_version:
        raise CheckpointError(
            f"{path} was written by liquid-ssm {package}, and this is {here}, whose numbers may differ. Go on with the "
            "version that wrote it, or with this one by --other-version."
        )
    differing = [name for name in sorted({*of, *configuration}) if of.get(name) != configuration.get(name)]
    if differing:
        said = "; ".join(f"{name} was {of.get(name)!r}, now {configuration.get(name)!r}" for name in differing)
        raise CheckpointError(f"{path} is of another run: {said}. Start that one in a folder of its own.")
    return dict(held)


def continued(checkpoint: Mapping[str, Any]) -> list[str]:
    """The changes of packages so far, a line each, of a run that goes on from a checkpoint of `read_checkpoint`."""
    said, running = checkpoint["liquid_ssm"], versions()
    changed = [
        f"after {checkpoint['global_step']} steps {name} changed from {wrote} to {running[name]}; from there on, the "
        "numbers need not be those of a run without that change."
        for name, wrote in said["versions"].items()
        if wrote != running[name]
    ]
    return [*said["notes"], *changed]


class Keeper(Callback):
    """Writes `metrics.csv`, `steps.csv`, checkpoints and the best model of a seed, and keeps the generators' states.

    Args:
        folder: of the seed.
        metric: `accuracy` or `rmse`.
        about: what a checkpoint says of itself: configuration and model.
        save_best: writes the model that is the best so far.
        patience: epochs without a better validation after which training stops.
        said: told (steps done, steps in all, what) after each epoch, and with `every_step` after each step.

    Attributes:
        rows: one per epoch that is finished.
        best: the best validation metric so far, and its epoch.
        notes: as `continued` gives them.
    """

    def __init__(
        self,
        folder: Path,
        metric: str,
        about: Mapping[str, Any],
        save_best: Callable[[int, float], None],
        *,
        patience: int | None = None,
        said: Callable[[int, int, str], None] | None = None,
        every_step: bool = False,
    ) -> None:
        self.folder, self.metric, self.about, self.save_best = folder, metric, dict(about), save_best
        self.patience, self.said, self.every_step = patience, said, every_step
        self.rows: list[dict[str, Any]] = []
        self.best: tuple[float, int] | None = None
        self.notes: list[str] = []
        self._steps, self._lr = StepFile(folder / STEPS), 0.0
        self._seconds, self._since = 0.0, 0.0
        self._generators: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        # Lightning asks while it makes a checkpoint: the states are those of that moment.
        return {
            "rows": self.rows,
            "best": None if self.best is None else list(self.best),
            "seconds": self._spent(),
            "generators": generator_states(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])
        best = state_dict["best"]
        self.best = None if best is None else (float(best[0]), int(best[1]))
        self._seconds = float(state_dict["seconds"])
        self._generators = state_dict["generators"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        running = versions()
        checkpoint["liquid_ssm"] = {
            "version": VERSION,
            "package": running["liquid-ssm"],
            "versions": running,
            "notes": self.notes,
            **self.about,
        }
        self._steps.sync()
        for logger in trainer.loggers:
            logger.save()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A run that was killed after its last epoch goes on with its tests.
        trainer.should_stop = self._is_over()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = perf_counter()
        # Rows that were written after the checkpoint are written again.
        self._write_rows(trainer)
        if trainer.is_global_zero:
            self._steps.open(trainer.global_step)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._generators is not None:
            # Not before: what Lightning does in between may draw.
            restore_generators(self._generators)
            self._generators = None

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        # Once the step is done, its schedule is a step further.
        self._lr = float(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._steps.add(trainer.global_step, trainer.current_epoch, pl_module.loss, self._lr)
        for logger in trainer.loggers:
            logger.log_metrics({"step/loss": pl_module.loss, "step/lr": self._lr}, trainer.global_step)
        if self.every_step:
            self._say(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._steps.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._steps.close()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        # Before the callback of averaged weights takes them back.
        if trainer.state.fn == TrainerFn.FITTING:
            _, value = pl_module.finish("validation")
            if self._is_better(value):
                self.best = (value, trainer.current_epoch)
                if trainer.is_global_zero:
                    self.save_best(trainer.current_epoch, value)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        training = float(pl_module.training_loss.compute())
        pl_module.training_loss.reset()
        loss, value = pl_module.results["validation"]
        self.rows.append(
            {
                "epoch": trainer.current_epoch,
                "step": trainer.global_step,
                "training_loss": training,
                "validation_loss": loss,
                f"validation_{self.metric}": value,
                "lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
                "seconds": self._spent(),
            }
        )
        self._seconds, self._since = 0.0, perf_counter()
        self._write_rows(trainer)
        for logger in trainer.loggers:
            logger.log_metrics(
                {name: each for name, each in self.rows[-1].items() if name != "step"}, trainer.global_step
            )
        if self.best is not None and self.best[1] == trainer.current_epoch:
            trainer.save_checkpoint(self.folder / CHECKPOINTS / BEST)
        trainer.save_checkpoint(self.folder / CHECKPOINTS / LAST)
        trainer.should_stop = self._is_over()
        self._say(trainer)

    def _say(self, trainer: Trainer) -> None:
        if self.said is not None and trainer.is_global_zero:
            last = self.rows[-1] if self.rows else None
            so_far = "" if last is None else f", validation {self.metric} {last[f'validation_{self.metric}']:.4f}"
            what = f"{self.folder.name}, epoch {trainer.current_epoch + 1} of {trainer.max_epochs}{so_far}"
            self.said(trainer.global_step, int(trainer.estimated_stepping_batches), what)

    def _is_over(self) -> bool:
        if self.patience is None or self.best is None:
            return False
        return bool(self.rows[-1]["epoch"] - self.best[1] >= self.patience) if self.rows else False

    def _is_better(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.best is None:
            return True
        return value > self.best[0] if self.metric == "accuracy" else value < self.best[0]

    def _spent(self) -> float:
        return self._seconds + (perf_counter() - self._since if self._since else 0.0)

    def _write_rows(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and self.rows:
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, self.rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
            write_whole(self.folder / METRICS, text.getvalue().encode())


class WithinEpochs(Callback):
    """Checkpoints within an epoch; the last of all callbacks, since others change what they keep after each step.

    Args:
        path: of the checkpoint.
        every: steps between two of them.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.every == 0 and not trainer.is_last_batch:
            trainer.save_checkpoint(self.path)


def generator_states() -> dict[str, Any]:
    """States of the generators of torch, NumPy and Python, as numbers and tensors."""
    kind, key, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, numbers, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(kind), [int(n) for n in key], int(position), int(has_gauss), float(cached)],
        "python": [version, list(numbers), gauss],
    }


def restore_generators(states: Mapping[str, Any]) -> None:
    """Put the generators where they were."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
    kind, key, position, has_gauss, cached = states["numpy"]
    np.random.set_state((kind, np.array(key, dtype=np.uint32), position, has_gauss, cached))
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
