"""Hypothesis strategies for systems, inputs and modes.

Hypothesis draws structure, sizes, scales and seeds; NumPy fills the arrays, so examples stay small to shrink
and long arrays cost nothing to draw.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from ..problem import CORRELATIONS, ModeSpec
from ..systems import DenseSystem, DiagonalSystem, DPLRSystem, MIMOSystem

DISCRETE_STRUCTURES = ("diagonal", "dplr", "dense", "mimo")


def random_system(
    structure: str,
    *,
    n_channels: int = 2,
    n_modes: int = 3,
    seed: int = 0,
    decay: float = 0.1,
    drive: float = 0.3,
    rank: int = 1,
    conjugate_pairs: bool = True,
) -> Any:
    """A discrete system with |eigenvalues| between e^{-decay} and 1 and |B̄| about `drive`.

    `dplr` and `dense` transitions are scaled to spectral norm below 1.
    """
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Any:
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    H, M = n_channels, n_modes
    poles = np.exp(-decay * rng.random((H, M)) + 1j * rng.uniform(0, np.pi, (H, M)))
    B_bar, C = drive * normal(H, M), normal(H, M)
    pairs = {"conjugate_pairs": conjugate_pairs}
    if structure == "diagonal":
        return DiagonalSystem(poles, B_bar, C, **pairs)
    if structure == "mimo":
        return MIMOSystem(poles[0], drive * normal(M, H), C, **pairs)
    if structure == "dense":
        A_bar = normal(H, M, M)
        norms = np.linalg.norm(A_bar, 2, axis=(1, 2))[:, None, None] if M else 1.0
        return DenseSystem(A_bar / norms * np.exp(-decay * rng.random()), B_bar, C)
    if structure == "dplr":
        # half the poles' room is left to the low-rank part: ‖Λ̄‖ + ‖P̄‖‖Q̄‖ < 1 on the full state
        size = 0.5 * np.sqrt(1 / max(1, 4 * rank * M))
        P_bar, Q_bar = size * normal(rank, H, M) / 2, size * normal(rank, H, M) / 2
        return DPLRSystem(0.5 * poles, P_bar, Q_bar, B_bar, C, **pairs)
    raise ValueError(f"unknown structure {structure!r}; allowed: {', '.join(DISCRETE_STRUCTURES)}")


@st.composite
def systems(
    draw: st.DrawFn, structures: tuple[str, ...] = DISCRETE_STRUCTURES, *, max_channels: int = 3, max_modes: int = 5
) -> Any:
    """Discrete systems of the given structures."""
    structure = draw(st.sampled_from(structures))
    return random_system(
        structure,
        n_channels=draw(st.integers(1, max_channels)),
        n_modes=draw(st.integers(1, max_modes)),
        seed=draw(st.integers(0, 2**32 - 1)),
        decay=draw(st.sampled_from([0.0, 1e-4, 0.1, 3.0])),
        drive=draw(st.sampled_from([1e-6, 1e-3, 0.1, 0.5])),
        rank=draw(st.integers(1, 2)) if structure == "dplr" else 1,
        conjugate_pairs=False if structure == "dense" else draw(st.booleans()),
    )


@st.composite
def inputs(
    draw: st.DrawFn, n_channels: int, *, dtype: str = "float64", max_length: int = 40, max_batch: int = 2
) -> Any:
    """Inputs (batch, H, L) of many kinds: noise, constants, impulses, alternating signs, huge and tiny scales."""
    batch, length = draw(st.integers(0, max_batch)), draw(st.integers(0, max_length))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["noise", "constant", "impulse", "alternating", "sparse", "zero"]))
    scale = draw(st.sampled_from([1.0, 1e-3, 1e-12, 3.0]))
    u = np.zeros((batch, n_channels, length))
    if kind == "noise":
        u = rng.normal(size=u.shape)
    elif kind == "constant":
        u = u + rng.normal()
    elif kind == "impulse" and length:
        u[..., draw(st.integers(0, length - 1))] = 1
    elif kind == "alternating":
        u = u + (-1.0) ** np.arange(length)
    elif kind == "sparse":
        u = rng.normal(size=u.shape) * (rng.random(u.shape) < 0.2)
    return (scale * u).astype(dtype)


@st.composite
def mode_specs(draw: st.DrawFn, structure: str, *, max_order: int = 4, max_window: int = 12) -> ModeSpec:
    """Modes that a structure has, with their options."""
    modes = ["s4", "liquid", "truncated"] + (["kb", "pb"] if structure != "mimo" else [])
    mode = draw(st.sampled_from(modes))
    order = draw(st.integers(1, max_order))
    if mode not in ("kb", "pb"):
        return ModeSpec(mode, order)
    window = draw(st.none() | st.integers(order, max_window))
    return ModeSpec(mode, order, draw(st.sampled_from(CORRELATIONS)), window)
