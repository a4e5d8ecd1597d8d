"""Parameter groups for any optimiser: the state-space parameters learn at rates of their own, without weight decay."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from numbers import Real
from typing import Any

import torch
from torch import nn

from ..errors import ParameterError
from .parameters import PARTS, ContinuousParameters

# C is an ordinary parameter, as in the published training.
GROUPS = ("Lambda", "P", "B", "dt")


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.0,
    ssm_lr: float | Mapping[str, float] = 1e-3,
) -> list[dict[str, Any]]:
    """Groups of a model's parameters: the ordinary ones, and Λ, P, B and δt of all its layers.

    ``torch.optim.AdamW(parameter_groups(model, lr=4e-3, weight_decay=0.01, ssm_lr={"dt": 1e-3, "Lambda": 1e-4}))``

    Args:
        model: any module; frozen parameters are left out, and each parameter is in one group.
        lr, weight_decay: of the ordinary parameters.
        ssm_lr: of Λ, P, B and δt; or by name, `Lambda`, `P`, `B`, `dt`, those left out learning at `lr`.

    Returns:
        Dictionaries with `params`, `lr`, `weight_decay` and a `name`; groups without parameters are left out.

    Raises:
        ParameterError: a name that is no group, or a rate that is no finite number from 0.
    """
    rates = dict.fromkeys(GROUPS, ssm_lr) if not isinstance(ssm_lr, Mapping) else {g: ssm_lr.get(g, lr) for g in GROUPS}
    unknown = [] if not isinstance(ssm_lr, Mapping) else [name for name in ssm_lr if name not in GROUPS]
    if unknown:
        raise ParameterError(f"ssm_lr names {', '.join(unknown)}; allowed: {', '.join(GROUPS)}.")
    for name, value in {"lr": lr, "weight_decay": weight_decay, **rates}.items():
        number = isinstance(value, (Real, torch.Tensor)) and not isinstance(value, bool)
        if not (number and 0 <= value < inf):
            raise ParameterError(f"{name} is {value!r}; give a finite number from 0.")
    groups: dict[str, dict[str, Any]] = {
        "ordinary": {"params": [], "lr": lr, "weight_decay": weight_decay, "name": "ordinary"}
    }
    groups |= {g: {"params": [], "lr": rates[g], "weight_decay": 0.0, "name": g} for g in GROUPS}
    part_of = {tensor: part for part in GROUPS for tensor in PARTS[part]}
    seen = set()
    for module in model.modules():
        own = part_of if isinstance(module, ContinuousParameters) else {}
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                groups[own.get(name, "ordinary")]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]
