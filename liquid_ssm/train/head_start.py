"""Where a regression starts: outputs with mean and deviation of the training targets."""

from __future__ import annotations

import torch
from torch import nn

from ..errors import DataError
from ..tasks.window_store import Windows


def start_from_targets(head: nn.Linear, train: Windows) -> None:
    """Scale the head's first outputs by the deviation of the training targets, and shift them by their mean.

    A target that is large beside its deviation, such as a heart rate of 87 ± 18 per minute, is first learned as a
    constant, for which a small learning rate needs as many steps as everything else does.  The model stays one linear
    map of features: nothing has to be undone where it is used.

    Args:
        head: of outputs (batch, 1), changed in place.
        train: training part.

    Raises:
        DataError: targets that are not finite.
    """
    targets = torch.from_numpy(train.targets())
    if not torch.isfinite(targets).all():
        raise DataError(f"{train.y} holds targets that are not finite, among those of the training part.")
    # Targets that are all the same say nothing about a scale.
    scale = float(targets.std(correction=0)) or 1.0
    with torch.no_grad():
        head.weight.mul_(scale)
        head.bias.mul_(scale).add_(float(targets.mean()))
