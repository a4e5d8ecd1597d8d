"""One time step of an integrator in real arithmetic, as `split_real` has it for modes of discrete systems."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch

from ..complex_numbers import Number, Split, conj, each_part, times
from .discretize import ADAMS_BASHFORTH, discretize_driven, driven_by
from .split_real import Held


class HeldSlope(NamedTuple):
    """A `MultistepState` in real tensors."""

    x: Split
    f: Split
    interval: torch.Tensor


class ExactStep:
    """`bilinear-exact`: discretised in float64 for every input, rounded once, as layers do it.

    Args:
        structure: `diagonal`, `dplr` or `mimo`.
        dtype: of inputs and states.
    """

    complex_parts: ClassVar[tuple[str, ...]] = ("x",)
    state_type: ClassVar[type[Any]] = Held

    def __init__(self, structure: str, dtype: torch.dtype) -> None:
        self.shared, self.dtype = structure == "mimo", dtype

    def constants(self, parameters: dict[str, Number]) -> dict[str, Number]:
        """What `step` takes: Λ, B, P and δt in float64, and C."""
        return parameters | {"C": _in(self.dtype, parameters["C"])}

    def step(self, at: dict[str, Any], u: torch.Tensor, held: Any) -> tuple[torch.Tensor, Any]:
        """y_k (batch, H) and the state after it, from u_k (batch, H) and the state before it."""
        drive = driven_by(at["B"], u.to(at["dt"].dtype), shared=self.shared)
        found = discretize_driven(at["Lambda"], drive, at.get("P"), at["dt"])
        x = _in(self.dtype, found.A_bar) * held.x + _in(self.dtype, found.B_bar)
        if found.P_bar is not None and found.Q_bar is not None:
            P_bar, Q_bar = _in(self.dtype, found.P_bar), _in(self.dtype, found.Q_bar)
            for r in range(P_bar.shape[0]):
                x = x - _part_along(P_bar[r], Q_bar[r], held.x)
        return _read(at["C"], x, self.shared), Held(x)


class MultistepStep:
    """`adams-bashforth`, as `multistep.scan_multistep` does it.

    Args:
        structure, dtype: as of `ExactStep`.
        interval: the step, in units of δt.
    """

    complex_parts: ClassVar[tuple[str, ...]] = ("x", "f")
    state_type: ClassVar[type[Any]] = HeldSlope

    def __init__(self, structure: str, dtype: torch.dtype, interval: float) -> None:
        self.shared, self.dtype, self.interval = structure == "mimo", dtype, interval

    def constants(self, parameters: dict[str, Number]) -> dict[str, Number]:
        """What `step` takes: the parameters in the dtype of states."""
        return {name: _in(self.dtype, value) for name, value in parameters.items()}

    def step(self, at: dict[str, Any], u: torch.Tensor, held: Any) -> tuple[torch.Tensor, Any]:
        """y_k (batch, H) and the state after it, from u_k (batch, H) and the state before it."""
        drive = driven_by(at["B"], u, shared=self.shared)
        f = (at["Lambda"] + drive) * held.x + drive
        for r in range(at["P"].shape[0] if "P" in at else 0):
            f = f - _part_along(at["P"][r], at["P"][r], held.x)
        half = self.interval / held.interval / 2
        half = half[:, None] if self.shared else half[:, None, None]
        x = held.x + times(times(f, 1 + half) - times(held.f, half), at["dt"])
        return _read(at["C"], x, self.shared), HeldSlope(x, f, torch.full_like(held.interval, self.interval))


def arithmetic_of(layer: Any, rate: float) -> ExactStep | MultistepStep:
    """That of a layer which integrates."""
    dtype = layer.continuous.dtype
    if layer.discretization == ADAMS_BASHFORTH:
        return MultistepStep(layer.structure, dtype, rate)
    return ExactStep(layer.structure, dtype)


def _in(dtype: torch.dtype, z: Number) -> Number:
    # Copies: tensors that share memory do not go into a loop.
    return each_part(z, lambda part: part.to(dtype, copy=True))


def _part_along(P: Split, Q: Split, x: Split) -> Number:
    """P Q* x over both halves of every conjugate pair."""
    inner = conj(Q) * x
    return times(P, 2 * inner.re.sum(-1, keepdim=True))


def _read(C: Split, x: Split, shared: bool) -> torch.Tensor:
    """2 Re(C x).  No sum is a matrix product, which flags of torch may round to fewer bits."""
    x = x[..., None, :] if shared else x
    y: torch.Tensor = 2 * (C.re * x.re - C.im * x.im).sum(-1)
    return y
