"""Loss, metrics and optimiser of a training."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from liquid_ssm.errors import ParameterError
from liquid_ssm.nn import ModelConfig, SSMLayer, build
from liquid_ssm.tasks import get_task
from liquid_ssm.tasks.batch import Batch
from liquid_ssm.tasks.task import REGRESSION
from liquid_ssm.train.learner import Diverged, Learner, Measured
from liquid_ssm.train.presets import get_preset

TASK = get_task("digits").task


def test_the_metric_counts_every_sample_once() -> None:
    exact, means = Measured(TASK), Measured(TASK, batch_means=True)
    y = torch.eye(10)
    for rows, right in ((8, 8), (2, 0)):
        target = torch.arange(rows) if right else (torch.arange(rows) + 1)
        for measured in (exact, means):
            measured.update(torch.tensor(float(rows)), y[:rows], target)
    # 8 of 10 samples are right; of the batches all and none are.
    assert exact.found() == pytest.approx(((8 * 8 + 2 * 2) / 10, 0.8))
    assert means.found() == pytest.approx(((8 + 2) / 2, 0.5))
    assert exact.loss.update_count == 0


def test_the_error_of_a_regression_is_the_root_over_all_samples() -> None:
    measured = Measured(replace(TASK, kind=REGRESSION, n_outputs=1))
    measured.update(torch.tensor(1.0), torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[1.0], [2.0], [5.0]]))
    measured.update(torch.tensor(1.0), torch.tensor([[0.0]]), torch.tensor([[4.0]]))
    # √((0 + 0 + 4 + 16)/4), not the mean of √(4/3) and 4.
    assert measured.found()[1] == pytest.approx(5**0.5, rel=2**-22)


def learner(model: Any = None, **changes: Any) -> Learner:
    config = ModelConfig("liquid", 1, 10, n_layers=1, n_channels=4, n_state=4, options={"backend": "first"})
    return Learner(model or build(config), TASK, get_preset("digits").override(**changes), 5)


def test_state_space_parameters_have_their_own_rate_and_no_decay() -> None:
    found = learner(lr=0.5, ssm_lr=0.25, weight_decay=0.125, warmup_steps=0)
    groups = {group["name"]: group for group in found.configure_optimizers()["optimizer"].param_groups}
    assert {group["initial_lr"] for name, group in groups.items() if name != "ordinary"} == {0.25}
    assert {group["weight_decay"] for name, group in groups.items() if name != "ordinary"} == {0.0}
    assert (groups["ordinary"]["initial_lr"], groups["ordinary"]["weight_decay"]) == (0.5, 0.125)
    counted = sum(p.numel() for group in groups.values() for p in group["params"])
    assert counted == sum(p.numel() for p in found.model.parameters())


def test_a_loss_that_is_not_finite_stops_with_a_reason() -> None:
    class Infinite(nn.Module):
        def forward(self, u: torch.Tensor, **_: Any) -> torch.Tensor:
            return torch.full((len(u), 10), torch.nan)

    found = learner(Infinite())
    found._trainer = SimpleNamespace(world_size=1, global_step=0)
    with pytest.raises(Diverged, match=r"the loss of step 1 is nan; lower lr or ssm_lr, or set clip=1"):
        found.training_step(Batch(torch.zeros(2, 3, 1), torch.zeros(2, dtype=torch.long)), 0)


def test_the_gradient_of_a_share_counts_by_its_size() -> None:
    class Constant(nn.Module):
        def forward(self, u: torch.Tensor, **_: Any) -> torch.Tensor:
            return torch.zeros(len(u), 10)

    found = learner(Constant())
    # Another process with 6 samples and a sum of losses of 4 joins.
    others = torch.tensor([6.0, 4.0, 0.0], dtype=torch.float64)
    strategy = SimpleNamespace(reduce=lambda own, reduce_op: own + others)
    found._trainer = SimpleNamespace(world_size=2, global_step=0, strategy=strategy)
    batch = Batch(torch.zeros(2, 3, 1), torch.zeros(2, dtype=torch.long))
    loss = found.training_step(batch, 0)
    # Ten equal outputs: log 10 per sample.  Processes average, so that theirs and ours are over all 8 samples.
    assert float(loss) == pytest.approx(2 * 2 / 8 * math.log(10), rel=2**-20)
    assert found.loss == pytest.approx((2 * math.log(10) + 4) / 8, rel=2**-20)


def test_numbers_within_the_model_that_are_not_finite_are_divergence_once_it_has_learned() -> None:
    class Refusing(nn.Module):
        def forward(self, u: torch.Tensor, **_: Any) -> torch.Tensor:
            raise ParameterError("u is not finite")

    found = learner(Refusing())
    batch = Batch(torch.zeros(2, 3, 1), torch.zeros(2, dtype=torch.long))
    found._trainer = SimpleNamespace(world_size=1, global_step=3)
    with pytest.raises(Diverged, match=r"after 3 steps the model cannot be computed any more.* u is not finite"):
        found(batch)
    # It is no divergence before the first step, nor where the data are the reason.
    with pytest.raises(ParameterError):
        found(batch._replace(u=torch.full((2, 3, 1), torch.nan)))
    found._trainer.global_step = 0
    with pytest.raises(ParameterError):
        found(batch)


def test_recurrences_stay_in_float32_under_mixed_precision() -> None:
    found, seen = learner(), []

    def look(module: SSMLayer, u: torch.Tensor, *_: Any, **__: Any) -> Any:
        seen.append(u.dtype)
        return original(module, u, *_, **__)

    original = SSMLayer._directions
    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
        patch.setattr(SSMLayer, "_directions", look)
        y = found(Batch(torch.randn(2, 6, 1), torch.zeros(2, dtype=torch.long)))
    assert y.dtype == torch.bfloat16
    assert seen == [torch.float32]
