"""A model, its loss, its optimiser and its metrics, as Lightning runs them."""

from __future__ import annotations

from math import nan
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torchmetrics import MeanMetric, MeanSquaredError, Metric
from torchmetrics.classification import MulticlassAccuracy

from ..errors import ParameterError, UnstableRecurrence
from ..nn.optim import parameter_groups
from ..tasks.batch import Batch
from ..tasks.task import CLASSIFICATION, Task
from .presets import Preset
from .schedule import Schedule


class Diverged(ArithmeticError):
    """The loss of a training step is not finite."""


class Measured(nn.Module):
    """Loss and metric over all samples of a part, on all processes together.

    Args:
        task: decides the metric.
        batch_means: the published form instead: means over batches, each of which counts the same.
    """

    def __init__(self, task: Task, batch_means: bool = False) -> None:
        super().__init__()
        self.batch_means = batch_means
        self.loss = MeanMetric()
        exact: Metric
        if task.kind == CLASSIFICATION:
            exact = MulticlassAccuracy(task.n_outputs, average="micro")
        else:
            exact = MeanSquaredError(squared=False)
        self.metric = exact
        self.mean = MeanMetric()

    def update(self, loss: torch.Tensor, y: torch.Tensor, target: torch.Tensor) -> None:
        """Take up a batch: its mean loss, outputs and targets."""
        self.loss.update(loss.detach().float(), 1 if self.batch_means else len(target))
        value = self.metric(y.detach().float(), target) if self.batch_means else None
        if value is None:
            self.metric.update(y.detach().float(), target)
        else:
            self.mean.update(value)

    def found(self) -> tuple[float, float]:
        """Loss and metric so far; then nothing is so far."""
        metric = self.mean if self.batch_means else self.metric
        values = float(self.loss.compute()), float(metric.compute())
        for each in (self.loss, self.metric, self.mean):
            each.reset()
        return values


class Learner(LightningModule):
    """AdamW with rates of their own for Λ, P, B and δt, a schedule by step, exact metrics.

    Args:
        model: called as model(u, lengths=…, rate=…).
        task, preset: what is learned and how.
        steps_per_epoch: of the training data.
        batch_means: of `Measured`.

    Attributes:
        results: loss and metric by part, of the last pass over it.
        loss: of the last training step, over all processes.
    """

    def __init__(
        self, model: nn.Module, task: Task, preset: Preset, steps_per_epoch: int, *, batch_means: bool = False
    ) -> None:
        super().__init__()
        self.model, self.task, self.preset, self.steps_per_epoch = model, task, preset, steps_per_epoch
        self.training_loss = MeanMetric()
        # In a checkpoint within an epoch: the loss of its steps so far.
        self.training_loss.persistent(True)
        self.measured: Any = nn.ModuleDict({part: Measured(task, batch_means) for part in ("validation", "test")})
        self.results: dict[str, tuple[float, float]] = {}
        self.loss = nan
        self._failure: ArithmeticError | None = None

    def forward(self, batch: Batch) -> torch.Tensor:
        try:
            y: torch.Tensor = self.model(batch.u, lengths=batch.lengths, rate=batch.rate)
        except ParameterError as error:
            # What was computed before is refused for what training has made of the parameters.
            if self.global_step and torch.isfinite(batch.u).all():
                raise Diverged(
                    f"after {self.global_step} steps the model cannot be computed any more; lower lr or ssm_lr, or set "
                    f"clip=1. {error}"
                ) from error
            raise
        return y

    def criterion(self, y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean over the samples: cross-entropy, or the square error."""
        if self.task.kind == CLASSIFICATION:
            return nn.functional.cross_entropy(y.float(), target)
        return nn.functional.mse_loss(y.float(), target.float().view_as(y))

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        failure: ArithmeticError | None = None
        try:
            loss = self.criterion(self(batch), batch.target)
            if not torch.isfinite(loss):
                failure = Diverged(
                    f"the loss of step {self.global_step + 1} is {float(loss)}; lower lr or ssm_lr, or set clip=1."
                )
        except (UnstableRecurrence, Diverged) as error:
            failure = error
        count = len(batch.target) if batch.counts else 0
        total = 0.0 if failure else float(loss.detach()) * count
        together, total = self._together(count, total, failure)
        self.loss = total / together
        self.training_loss.update(self.loss, together)
        # Processes average their gradients, whatever the size of their shares.
        return loss * (count * self.trainer.world_size / together)

    def _together(self, count: int, total: float, failure: ArithmeticError | None) -> tuple[float, float]:
        """Samples and sum of losses over all processes; where one of them fails, all do, and none waits for it."""
        if self.trainer.world_size > 1:
            own = torch.tensor([count, total, failure is not None], dtype=torch.float64, device=self.device)
            count, total, failed = self.trainer.strategy.reduce(own, reduce_op="sum").tolist()
            if failed and failure is None:
                failure = Diverged(f"training broke down in another process, in step {self.global_step + 1}.")
        if failure is not None:
            raise failure
        return count, total

    def validation_step(self, batch: Batch, index: int) -> None:
        self._measure("validation", batch)

    def test_step(self, batch: Batch, index: int) -> None:
        self._measure("test", batch)

    def on_validation_epoch_start(self) -> None:
        self.results.pop("validation", None)

    def on_test_epoch_start(self) -> None:
        self.results.pop("test", None)

    def on_validation_epoch_end(self) -> None:
        self.finish("validation")

    def on_test_epoch_end(self) -> None:
        self.finish("test")

    def configure_optimizers(self) -> Any:
        preset = self.preset
        groups = parameter_groups(
            self.model, lr=preset.lr, weight_decay=preset.weight_decay, ssm_lr=preset.ssm_lr
        )  # fmt: skip
        optimiser = torch.optim.AdamW(groups)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, Schedule(preset, self.steps_per_epoch, preset.epochs))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _measure(self, part: str, batch: Batch) -> None:
        try:
            y = self(batch)
        except (UnstableRecurrence, Diverged) as error:
            # At the end of the part, where no other process waits for this one.
            self._failure = error
            return
        if batch.counts:
            target = batch.target if self.task.kind == CLASSIFICATION else batch.target.float().view_as(y)
            self.measured[part].update(self.criterion(y, target), y, target)

    def finish(self, part: str) -> tuple[float, float]:
        """Loss and metric of the pass over a part that has just ended, on all processes."""
        if part not in self.results:
            failure, self._failure = self._failure, None
            self._together(1, 0.0, failure)
            self.results[part] = self.measured[part].found()
        return self.results[part]
