"""Hypothesis strategies for systems, inputs, modes, and whole examples.

Hypothesis draws structure, sizes, scales and seeds; NumPy fills the arrays, so examples stay small to shrink
and long arrays cost nothing to draw.  What is drawn first is simplest, so that a failure shrinks towards small
round numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from ..continuous import ContinuousSystem
from ..problem import CORRELATIONS, ModeSpec
from ..systems import DenseSystem, DiagonalSystem, DPLRSystem, MIMOSystem, System
from .example import Array, Example

DISCRETE_STRUCTURES = ("diagonal", "dplr", "dense", "mimo")

_FORMS: dict[str, tuple[str, str, bool]] = {
    "s4": ("s4", "all", False),
    "liquid": ("liquid", "all", False),
    "truncated": ("truncated", "all", False),
    **{
        f"{mode}-{correlations}{'-window' if window else ''}": (mode, correlations, window)
        for mode in ("kb", "pb")
        for correlations in CORRELATIONS
        for window in (False, True)
    },
}
FORMS = tuple(_FORMS)

# Powers of two scale every float exactly; these stay inside the range of either dtype, the last ones below its
# normal numbers.
_HUGE = {"float32": 2.0**40, "float64": 2.0**300}
_TINY = {"float32": 2.0**-100, "float64": 2.0**-900}
_SUBNORMAL = {"float32": 2.0**-140, "float64": 2.0**-1060}
_INPUT_KINDS = ("constant", "impulse", "alternating", "noise", "sparse")


def forms(structure: str) -> tuple[str, ...]:
    """The modes of a structure, each with the options that make it another algorithm."""
    return tuple(name for name, (mode, _, _) in _FORMS.items() if structure != "mimo" or mode not in ("kb", "pb"))


@st.composite
def specs(draw: st.DrawFn, form: str, *, max_order: int = 4, max_window: int = 12) -> ModeSpec:
    """Modes of one form, one of `FORMS`."""
    mode, correlations, windowed = _FORMS[form]
    if mode in ("s4", "liquid"):
        return ModeSpec(mode)
    order = draw(st.integers(1, max_order))
    if mode == "truncated":
        return ModeSpec(mode, order)
    return ModeSpec(mode, order, correlations, draw(st.integers(order, max_window)) if windowed else None)


@st.composite
def mode_specs(draw: st.DrawFn, structure: str, *, max_order: int = 4, max_window: int = 12) -> ModeSpec:
    """Modes that a structure has, with their options."""
    form = draw(st.sampled_from(forms(structure)))
    return draw(specs(form, max_order=max_order, max_window=max_window))


def plain_system(structure: str, *, n_channels: int = 1, n_modes: int = 1, conjugate_pairs: bool = True) -> System:
    """A discrete system of round numbers: B̄ = ½, C = 1, Ā = ½ and in coupled structures ¼ or less beside it."""
    H, M = n_channels, n_modes
    half, one = np.full((H, M), 0.5 + 0j), np.ones((H, M), complex)
    if structure == "diagonal":
        return DiagonalSystem(half, half, one, conjugate_pairs=conjugate_pairs)
    if structure == "mimo":
        return MIMOSystem(half[0], half.T, one, conjugate_pairs=conjugate_pairs)
    if structure == "dense":
        return DenseSystem(np.tile(0.5 * np.eye(M) + 0.25 * np.eye(M, k=1) + 0j, (H, 1, 1)), half, one)
    if structure == "dplr":
        low_rank = np.full((1, H, M), 0.25 / max(1, M) + 0j)
        return DPLRSystem(half, low_rank, low_rank, half, one, conjugate_pairs=conjugate_pairs)
    raise _unknown(structure)


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
    raise _unknown(structure)


def discretized_system(
    structure: str,
    *,
    n_channels: int = 2,
    n_modes: int = 3,
    seed: int = 0,
    dt: float = 1e-3,
    method: str = "bilinear",
    conjugate_pairs: bool = True,
) -> Any:
    """What discretisation makes of a random continuous system: |ā| near 1 and |b̄| near dt for small steps.

    Args:
        dt: step size, from 1e-6 (slow) to 1 (stiff) [time].
        method: `bilinear` or `zoh`, which makes `dense` systems of `dplr` ones.
    """
    rng = np.random.default_rng(seed)
    H, M = n_channels, n_modes

    def normal(*shape: int) -> Array:
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    Lambda = -np.exp(rng.normal(size=(H, M))) + 1j * np.pi * np.arange(M)
    B, C, step = normal(H, M), normal(H, M), np.asarray(dt)
    if structure == "dense":
        skew = rng.normal(size=(H, M, M))
        A = skew - np.swapaxes(skew, 1, 2) - np.exp(rng.normal(size=(H, M)))[:, :, None] * np.eye(M)
        return ContinuousSystem.dense(A, B, C, step).discretize(method)
    if structure == "mimo":
        return ContinuousSystem(Lambda[0], normal(M, H), C, step, conjugate_pairs=conjugate_pairs).discretize(method)
    if structure not in ("diagonal", "dplr"):
        raise _unknown(structure)
    P = 0.5 * normal(1, H, M) if structure == "dplr" else None
    return ContinuousSystem(Lambda, B, C, step, P, conjugate_pairs=conjugate_pairs).discretize(method)


def _unknown(structure: str) -> ValueError:
    return ValueError(f"unknown structure {structure!r}; allowed: {', '.join(DISCRETE_STRUCTURES)}")


@st.composite
def systems(
    draw: st.DrawFn, structures: tuple[str, ...] = DISCRETE_STRUCTURES, *, max_channels: int = 3, max_modes: int = 5
) -> Any:
    """Discrete systems of the given structures: round numbers, random ones, and discretised ones."""
    structure = draw(st.sampled_from(structures))
    sizes: dict[str, Any] = {
        "n_channels": draw(st.integers(1, max_channels)),
        "n_modes": draw(st.integers(1, max_modes)),
        "conjugate_pairs": structure != "dense" and draw(st.sampled_from([True, False])),
    }
    kind = draw(st.sampled_from(["plain", "random", "discretized"]))
    if kind == "plain":
        return plain_system(structure, **sizes)
    seed = draw(st.integers(0, 2**32 - 1))
    if kind == "discretized":
        dt = 10.0 ** draw(st.sampled_from([0, -1, -3, -6]))
        # zoh makes a dense system of a dplr one
        method = "bilinear" if structure == "dplr" else draw(st.sampled_from(["bilinear", "zoh"]))
        return discretized_system(structure, seed=seed, dt=dt, method=method, **sizes)
    return random_system(
        structure,
        seed=seed,
        decay=draw(st.sampled_from([0.0, 1e-4, 0.1, 3.0])),
        drive=draw(st.sampled_from([1e-6, 1e-3, 0.1, 0.5])),
        rank=draw(st.integers(1, 2)) if structure == "dplr" else 1,
        **sizes,
    )


@st.composite
def inputs(
    draw: st.DrawFn,
    n_channels: int,
    *,
    dtype: str = "float64",
    max_length: int = 40,
    max_batch: int = 2,
    min_length: int = 0,
    min_batch: int = 0,
) -> Any:
    """Inputs (batch, H, L): constants, impulses, alternating signs, noise; large, tiny, subnormal, zero."""
    batch, length = draw(st.integers(min_batch, max_batch)), draw(st.integers(min_length, max_length))
    kind = draw(st.sampled_from(_INPUT_KINDS))
    # Mostly large enough for the liquid term to be seen.
    faint = st.sampled_from([1e-12, _TINY[dtype], _SUBNORMAL[dtype], 0.0])
    scale = draw(st.one_of(*map(st.just, [1.0, 3.0, 0.3, 1e-3]), faint))
    u = np.zeros((batch, n_channels, length))
    if kind in ("noise", "sparse"):
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        u = rng.normal(size=u.shape)
        if kind == "sparse":
            u = u * (rng.random(u.shape) < 0.2)
    elif kind == "constant":
        u = u + 1
    elif kind == "impulse" and length:
        u[..., draw(st.integers(0, length - 1))] = 1
    elif kind == "alternating":
        u = u + (-1.0) ** np.arange(length)
    return (scale * u).astype(dtype)


@st.composite
def states(draw: st.DrawFn, system: System, batch: int) -> Array:
    """Linear states x_{-1} of a system: ones, or random."""
    shape = (batch, system.n_modes) if system.structure == "mimo" else (batch, system.n_channels, system.n_modes)
    kind = np.result_type(system.dtype, np.complex64)
    if draw(st.booleans()):
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        return np.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(kind)
    return np.ones(shape, kind)


@st.composite
def examples(
    draw: st.DrawFn,
    structure: str,
    form: str,
    dtype: str,
    *,
    with_state: bool = False,
    min_length: int = 0,
    max_length: int = 24,
    min_batch: int = 0,
    max_modes: int = 3,
    max_order: int = 4,
) -> Example:
    """Whole problems of one structure, one of its `forms`, and one dtype; small, so that many can be tried.

    Args:
        with_state: draw a linear state x_{-1} as well.
    """
    system = draw(systems((structure,), max_channels=2, max_modes=max_modes)).astype(dtype)
    spec = draw(specs(form, max_order=max_order))
    # Now and then only: the property `empty` tries every mode with nothing.
    least = 0 if draw(st.integers(0, 15)) == 15 else 1
    u = draw(
        inputs(
            system.n_channels,
            dtype=dtype,
            max_length=max_length,
            min_length=max(min_length, least),
            min_batch=max(min_batch, least),
        )
    )
    if spec.mode in ("s4", "liquid", "truncated") and draw(st.integers(0, 9)) == 9:
        # The same products B̄ u from a signal at the top of the range.
        huge = _HUGE[dtype]
        system = type(system)(
            **{**system.parameters, "B_bar": system.B_bar * system.dtype.type(1 / huge)},
            conjugate_pairs=system.conjugate_pairs,
        )
        u = u * u.dtype.type(huge)
    state = draw(states(system, u.shape[0])) if with_state else None
    return Example(system, u, spec, state, draw(st.integers(0, 2**16)))
