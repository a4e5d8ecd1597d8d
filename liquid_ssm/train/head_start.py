"""Where a regression starts: outputs with mean and deviation of the training targets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.data import Dataset, Subset

from ..errors import DataError
from ..tasks.batch import Sample
from ..tasks.window_store import Windows


def start_from_targets(head: nn.Linear, train: Dataset[Sample]) -> None:
    """Scale the head's first outputs by the deviation of the training targets, and shift them by their mean.

    A target that is large beside its deviation, such as a heart rate of 87 ± 18 per minute, is first learned as a
    constant, for which a small learning rate needs as many steps as everything else does.  The model stays one linear
    map of features: nothing has to be undone where it is used.

    Args:
        head: of outputs (batch, 1), changed in place.
        train: training part, windows or the first of them.

    Raises:
        DataError: targets that are not finite.
    """
    targets = _targets(train)
    if not np.isfinite(targets).all():
        raise DataError(f"{np.count_nonzero(~np.isfinite(targets))} targets of the training part are not finite.")
    with torch.no_grad():
        # Targets that are all the same say nothing about a scale.
        scale = float(targets.std()) or 1.0
        head.weight.mul_(scale)
        head.bias.mul_(scale).add_(float(targets.mean()))


def _targets(samples: Dataset[Sample]) -> npt.NDArray[np.float64]:
    if isinstance(samples, Subset):
        return _targets(samples.dataset)[list(samples.indices)]
    assert isinstance(samples, Windows)
    return samples.targets()
