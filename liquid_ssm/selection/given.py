"""The numbers of a problem: what the caller gives of a system and inputs, and standard ones for the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..arrays import is_tensor
from ..errors import ShapeError
from ..problem import Problem
from .auto import data_of
from .data import Data, canonical
from .defaults import DT_MAX, DT_MIN


def data_for(
    problem: Problem,
    system: Any = None,
    u: Any = None,
    *,
    seed: int = 0,
    dt_min: float = DT_MIN,
    dt_max: float = DT_MAX,
) -> Data:
    """The problem with numbers.

    Args:
        problem: sizes and names.
        system: discrete, or a `ContinuousSystem`, which is discretised by `bilinear`; None for a standard one.
        u: (batch, H, L); None for a normal distribution.
        seed, dt_min, dt_max: of what is standard.

    Raises:
        ShapeError: the data have other sizes, another structure or another dtype than the problem.
    """
    if system is None or u is None:
        standard = canonical(problem, seed, dt_min, dt_max)
        if system is None and u is None:
            return standard
    dt, origin = None, "given"
    if system is None:
        system, dt, origin = standard.system, standard.dt, f"{standard.origin}; u given"
    elif hasattr(system, "discretize"):
        dt, system = system.dt, system.discretize("bilinear")
    if u is None:
        u, origin = standard.u, f"system given, normal u, seed {seed}"
    _require_alike(problem, system, u)
    if problem.arrays == "torch":
        import torch

        dtype = getattr(torch, problem.dtype)
        u = (u if is_tensor(u) else torch.as_tensor(np.asarray(u))).to(problem.device, dtype)
        system = system.to_torch(problem.device)
    elif is_tensor(u):
        raise ShapeError("u is a torch tensor and the problem has arrays='numpy'; make it with arrays='torch'.")
    data = data_of(system, u, problem.spec, gradient=problem.gradient, state=problem.state)
    return replace(data, problem=problem, origin=origin, dt=dt, seed=seed)


def _require_alike(problem: Problem, system: Any, u: Any) -> None:
    found = {"structure": system.structure, "n_modes": system.n_modes}
    shape = tuple(np.shape(u))
    if len(shape) == 3:
        found |= dict(zip(("batch", "n_channels", "length"), shape, strict=True))
    kind = str(getattr(u, "dtype", problem.dtype)).removeprefix("torch.")
    if kind in ("float32", "float64"):
        found["dtype"] = kind
    wrong = [
        f"{name} is {getattr(problem, name)} in the problem and {value} in the data"
        for name, value in found.items()
        if getattr(problem, name) != value
    ]
    if wrong or len(shape) != 3:
        raise ShapeError(
            f"{'; '.join(wrong) or f'u has shape {shape}'}. u is (batch, H, L); make the problem from the data."
        )
