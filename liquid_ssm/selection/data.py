"""The system and signal on which the contenders are verified and timed: the caller's own, or canonical ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..arrays import is_tensor
from ..compute import Array
from ..continuous import ContinuousSystem
from ..initialize import initialize
from ..problem import Problem
from .defaults import DT_MAX, DT_MIN
from .domain import measures

# Rows and channels of which every step is compared with the reference.
ROWS, CHANNELS = 2, 2
# Of all the others the first steps are, as long as batch x channels x modes is no more than this.
HEAD_STEPS = 32
_HEADS = 1 << 14
_INITIALIZATIONS = {"diagonal": "s4d-lin", "dplr": "legs", "mimo": "s5"}


@dataclass(frozen=True, eq=False)
class Data:
    """A problem with numbers.

    Attributes:
        problem: sizes and names.
        system, u: as the backends get them, NumPy arrays or tensors of the problem's dtype.
        origin: where the numbers are from, for people.
        dt: step sizes [time], where they are known.
        seed: of what is drawn.
    """

    problem: Problem
    system: Any
    u: Array
    origin: str
    dt: Any = None
    seed: int = 0
    _cast: dict[str, tuple[Any, Array]] = field(default_factory=dict)
    _shared: dict[tuple[str, str], Any] = field(default_factory=dict)

    def whole(self, dtype: str) -> tuple[Any, Array]:
        """The system and u in a dtype, of the kind that the caller has."""
        if dtype not in self._cast:
            self._cast[dtype] = (_cast(self.system, dtype), _cast(self.u, dtype))
        return self._cast[dtype]

    def shared(self, name: tuple[str, str], make: Callable[[], Any]) -> Any:
        """What the checks of several contenders need, made once: what it is and of which dtype."""
        if name not in self._shared:
            self._shared[name] = make()
        return self._shared[name]

    def few(self, dtype: str) -> tuple[Any, Array]:
        """The verified rows and channels as NumPy arrays, all steps, in a dtype."""
        system, u = self._few
        return _cast(system, dtype), _cast(u, dtype)

    def same_kind(self, system: Any, u: Array) -> tuple[Any, Array]:
        """NumPy arrays as the caller's kind, on the caller's device."""
        if not is_tensor(self.u):
            return system, u
        import torch

        return system.to_torch(self.u.device), torch.as_tensor(np.array(u), device=self.u.device)

    def picked(self, y: Array) -> Array:
        """The verified rows and channels of an output, as a NumPy array."""
        return to_numpy(y[self.rows][:, self.channels])

    def heads(self, dtype: str) -> tuple[Any, Array]:
        """The first steps of every row and channel, or of as many as are few enough, as NumPy arrays."""
        rows, channels = self._spread
        system = self.system.to_numpy()
        if self.problem.structure != "mimo":
            system = system.take(channels)
        u = to_numpy(self.u[rows][:, channels, :HEAD_STEPS])
        return _cast(system, dtype), _cast(u, dtype)

    def picked_heads(self, y: Array) -> Array:
        """The same rows, channels and steps of an output."""
        rows, channels = self._spread
        return to_numpy(y[rows][:, channels, :HEAD_STEPS])

    @cached_property
    def _spread(self) -> tuple[list[int], list[int]]:
        p = self.problem
        shared = p.structure == "mimo"
        cost = p.n_modes * (p.n_modes if p.structure in ("dense", "dplr") else 1)
        cost *= p.spec.order if p.spec.has_order else 1
        most = max(4, _HEADS // max(1, cost))
        h = p.n_channels if shared else min(p.n_channels, most)
        b = min(p.batch, max(1, most if shared else most // h))
        return (
            sorted({int(i) for i in np.linspace(0, p.batch - 1, b)}),
            sorted({int(i) for i in np.linspace(0, p.n_channels - 1, h)}),
        )

    @cached_property
    def rows(self) -> list[int]:
        """The row with the largest |u|, and the last one."""
        peaks = [float(abs(row).max()) for row in self.u] if self.problem.batch > 1 else [0.0]
        return sorted({int(np.argmax(peaks)), self.problem.batch - 1})[:ROWS]

    @cached_property
    def channels(self) -> list[int]:
        """The channel with the longest memory and the one with the largest |b̄|; all for `mimo`."""
        if self.problem.structure == "mimo":
            return list(range(self.problem.n_channels))
        radii, drives = [], []
        system = self.system.to_numpy()
        for h in range(self.problem.n_channels):
            one = system.take([h])
            radius, drive = measures(one, np.ones((1, 1, 1)), exact=True)
            radii.append(radius)
            drives.append(drive)
        return sorted({int(np.argmax(radii)), int(np.argmax(drives)), self.problem.n_channels - 1})[-CHANNELS:]

    @cached_property
    def _few(self) -> tuple[Any, Array]:
        system = self.system.to_numpy()
        if self.problem.structure != "mimo":
            system = system.take(self.channels)
        return system, self.picked(self.u)


def canonical(problem: Problem, seed: int = 0, dt_min: float = DT_MIN, dt_max: float = DT_MAX) -> Data:
    """Numbers for a problem that has none: a standard initialisation, bilinear, and normal inputs.

    dt is log-uniform [time].  The parameters are float32 numbers, as those of trained networks are, in every dtype; so
    is u.
    """
    h, m = problem.n_channels, problem.n_modes
    if problem.structure == "dense":
        continuous = _dense(h, m, dt_min, dt_max, seed)
    else:
        name = _INITIALIZATIONS[problem.structure]
        continuous = initialize(name, n_channels=h, n_state=2 * m, dt_min=dt_min, dt_max=dt_max, seed=seed)
    system: Any = continuous.discretize("bilinear").astype("float32").astype(problem.dtype)
    shape = (problem.batch, h, problem.length)
    u: Array = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32).astype(problem.dtype)
    if problem.arrays == "torch":
        import torch

        system, u = system.to_torch(problem.device), torch.as_tensor(u, device=problem.device)
    origin = f"drawn: {problem.structure} system, bilinear, dt {dt_min:g} to {dt_max:g}, normal u, seed {seed}"
    return Data(problem, system, u, origin, continuous.dt, seed)


def _dense(h: int, n: int, dt_min: float, dt_max: float, seed: int) -> ContinuousSystem:
    """Damped rotations: stable whatever their size."""
    random = np.random.default_rng(seed)
    turns = random.normal(size=(h, n, n)) * np.sqrt(n)
    matrices = (turns - turns.transpose(0, 2, 1)) / 2 - 0.5 * np.eye(n)
    dt = dt_min * (dt_max / dt_min) ** random.random(h)
    return ContinuousSystem.dense(matrices, np.ones((h, n)), random.normal(size=(h, n)) / np.sqrt(n), dt)


def _cast(value: Any, dtype: str) -> Any:
    if not is_tensor(value):
        return value.astype(dtype) if hasattr(value, "structure") else value.astype(dtype, copy=False)
    import torch

    return value.to(getattr(torch, dtype))


def extended(u: Array, steps: int) -> Array:
    """The signal's first steps, repeated if it is shorter."""
    return np.resize(u.swapaxes(0, 2), (steps, *u.shape[1::-1])).swapaxes(0, 2)


def to_numpy(array: Array) -> Array:
    """The same numbers as a NumPy array."""
    return array.detach().cpu().resolve_conj().numpy() if is_tensor(array) else np.asarray(array)
