"""The recurrent mode: a model run by `step`, and whether it is the same function as on whole sequences."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..errors import ParameterError
from ..nn.build import ModelConfig
from ..nn.pair import PairModel
from ..tasks.batch import Batch
from ..tasks.task import CLASSIFICATION, Task

# In float64 the two ways of running are compared on the first samples alone.
_COMPARED = 8


@dataclass(frozen=True)
class Recurrence:
    """A model run by `step`, against the same run on whole sequences.

    Attributes:
        metric: found by step.
        largest_difference: of an output, in the model's dtype.
        float64_difference: the same in float64, on the first samples, relative to the largest output.
        float64_bound: what rounding can explain of it: 32 roundings per layer and step, each of 2⁻⁵³, all in the same
            direction, and growing tenfold on the way through the layers.
        others: samples whose class is another one, in the model's dtype.
        ties: those among them whose two largest outputs are nearer than the two ways of running differ.
    """

    metric: float
    largest_difference: float
    float64_difference: float
    float64_bound: float
    others: int = 0
    ties: int = 0

    @property
    def same(self) -> bool:
        """The two ways are one function, and give the same classes but for ties."""
        return self.float64_difference <= self.float64_bound and self.others == self.ties


def require_step(config: ModelConfig) -> None:
    """Refuse a model that cannot be run step by step.

    Raises:
        ParameterError: it sees what comes after a step.
    """
    if config.kind == "transformer":
        raise ParameterError(
            "a Transformer's attention sees the whole sequence at every step; it has no recurrent mode."
        )
    if config.bidirectional:
        raise ParameterError(
            "a bidirectional model sees the whole sequence at every step; it has no recurrent mode. Train one with "
            "bidirectional=false."
        )


def by_step(model: Any, batch: Batch) -> torch.Tensor:
    """Outputs after the last true step of each row, run one step at a time from rest.

    Args:
        model: of `build`, without second direction; in evaluation mode.
        batch: padded on the right.
    """
    pair = isinstance(model, PairModel)
    encoder = model.encoder if pair else model
    u = batch.u.flatten(0, 1) if pair else batch.u
    lengths = None if batch.lengths is None else batch.lengths.flatten()
    state: Any = None
    found: Any = None
    for k in range(u.shape[1]):
        y, state = encoder.step(u[:, k], state, batch.rate)
        found = y if lengths is None or found is None else torch.where((lengths > k)[:, None], y, found)
    outputs: torch.Tensor = model.compared(found) if pair else found
    return outputs


def compared(
    task: Task, whole: torch.Tensor, stepped: torch.Tensor, metric: float, difference: float, bound: float
) -> Recurrence:
    """The two ways of running, for all samples.

    Args:
        task: decides whether outputs are classes.
        whole, stepped: outputs (n_samples, n_outputs).
        metric: of `stepped`.
        difference, bound: of `in_float64`.
    """
    apart = (whole - stepped).abs().amax(1)
    found = Recurrence(metric, float(apart.max()), difference, bound)
    if task.kind != CLASSIFICATION:
        return found
    other = whole.argmax(1) != stepped.argmax(1)
    best = whole.topk(2, dim=1).values if whole.shape[1] > 1 else whole.expand(-1, 2)
    # Each of the two outputs may move by what the ways differ.
    ties = other & (best[:, 0] - best[:, 1] <= 2 * apart)
    return replace(found, others=int(other.sum()), ties=int(ties.sum()))


def in_float64(model: Any, batch: Batch, config: ModelConfig) -> tuple[float, float]:
    """The difference between the two ways on the first samples, relative to the largest output, and its bound."""
    u, lengths = batch.u[:_COMPARED], None if batch.lengths is None else batch.lengths[:_COMPARED]
    few = batch._replace(u=u.double() if u.is_floating_point() else u, lengths=lengths)
    fine = deepcopy(model).double()
    whole, stepped = fine(few.u, lengths=lengths, rate=few.rate), by_step(fine, few)
    size = float(whole.abs().max())
    length = u.shape[2 if config.pair else 1]
    bound = 10 * 32 * config.n_layers * length * torch.finfo(torch.float64).eps / 2
    return float((whole - stepped).abs().max()) / (size or 1.0), bound
