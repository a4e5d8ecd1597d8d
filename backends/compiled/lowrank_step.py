"""One time step of a scan on a "diagonal plus low rank" system of rank 1: states stay complex numbers in memory."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from liquid_ssm.systems import DPLRSystem

from .caching import compiled, inlined
from .lowrank_sweep import DRIVE, FACTORS, OUTPUT, PER_RANK, joined, product
from .simd import fma, lanes, load, load_pairs, splat, store_pairs, total, width
from .step import Advance, advancing
from .tiles import Layout

Array = npt.NDArray[Any]

COMPONENTS = FACTORS + PER_RANK
# Parameters with lanes for modes, of systems that are still in use.
_known: WeakKeyDictionary[DPLRSystem, dict[np.dtype[Any], Array]] = WeakKeyDictionary()


@inlined
def _joined(pack, o, state, at, real, imaginary):  # type: ignore[no-untyped-def]
    """W more modes of Re Σ conj(Q̄) x."""
    w = width(state)
    xr, xi = load_pairs(state, at)
    q = o + (FACTORS + 2) * w
    return joined(load(pack, q), load(pack, q + w), xr, xi, True, real, imaginary)


@inlined
def _advance(pack, o, now, s, state, at, real, imaginary, liquid):  # type: ignore[no-untyped-def]
    """W modes of one row: their new states, in place, and the output's two sums; operations in the order of `sweep`."""
    w = width(state)
    ar, ai, br, bi = load(pack, o), load(pack, o + w), load(pack, o + DRIVE * w), load(pack, o + (DRIVE + 1) * w)
    xr, xi = load_pairs(state, at)
    if liquid:
        ar, ai = fma(br, now, ar), fma(bi, now, ai)
    xr, xi = product(ar, ai, xr, xi)
    xr = fma(-load(pack, o + FACTORS * w), s, xr)
    xi = fma(-load(pack, o + (FACTORS + 1) * w), s, xi)
    xr, xi = fma(br, now, xr), fma(bi, now, xi)
    store_pairs(state, at, xr, xi)
    return fma(load(pack, o + OUTPUT * w), xr, real), fma(load(pack, o + (OUTPUT + 1) * w), xi, imaginary)


@compiled
def lowrank_step_rows(packs, u, y, states, n_channels, modes, liquid, first, end):  # type: ignore[no-untyped-def]
    """Rows `first` … `end` - 1 of one step.

    Args:
        packs: (H · depth · COMPONENTS · W) parameters with lanes for modes; 2 C and 2 Q̄ for C and Q̄.
        u, y: inputs and outputs of the rows; y is written.
        states: (rows · 2 · M) real and imaginary parts in turn; replaced by the new ones.
        modes: M.

    Returns:
        whether outputs and new states are finite, as `step_rows`.
    """
    w = width(states)
    whole = modes // w
    # Modes that do not fill a vector go through a buffer, so that no row is read or written beyond its end.
    rest = 2 * (modes - whole * w)
    stride = COMPONENTS * w
    per_channel = (whole + (rest > 0)) * stride
    buffer = np.zeros(2 * w, states.dtype)
    zero = splat(states.dtype.type(0))
    nothing = y.dtype.type(0)
    trace = nothing
    for row in range(first, end):
        pack, state = row % n_channels * per_channel, row * 2 * modes
        last = state + 2 * whole * w
        for i in range(rest):
            buffer[i] = states[last + i]
        real, imaginary = zero, zero
        for v in range(whole):
            real, imaginary = _joined(packs, pack + v * stride, states, state + 2 * v * w, real, imaginary)
        if rest:
            real, imaginary = _joined(packs, pack + whole * stride, buffer, 0, real, imaginary)
        s = splat(total(real + imaginary))
        now = splat(states.dtype.type(u[row]))
        real, imaginary = zero, zero
        for v in range(whole):
            o = pack + v * stride
            real, imaginary = _advance(packs, o, now, s, states, state + 2 * v * w, real, imaginary, liquid)
        if rest:
            o = pack + whole * stride
            real, imaginary = _advance(packs, o, now, s, buffer, 0, real, imaginary, liquid)
            for i in range(rest):
                states[last + i] = buffer[i]
        y[row] = total(real - imaginary)
        trace += y[row] * nothing
    return trace == 0


def takes(system: DPLRSystem) -> bool:
    """Whether `lowrank_step` computes with this system."""
    return system.rank == 1 and system.conjugate_pairs and system.is_complex


def lowrank_step(
    system: DPLRSystem,
    u: Array,
    state: Array | None,
    *,
    liquid: bool,
    threads: int,
    state_dtype: npt.DTypeLike | None = None,
) -> tuple[Array, Array]:
    """One step of `lowrank_run`: u (batch, H, 1) and the state before it give y (batch, H, 1) and the state after it.

    Args:
        system: one that it `takes`, in u's precision.
        others: as in `lowrank_run`; state (batch, H, M).

    Accuracy: the operations are those of `lowrank_run`, the sums over modes in an order of their own.
    """
    if state is None:
        state = np.zeros((*u.shape[:2], system.n_modes))
    advance = prepared(system, u.shape, u.dtype, liquid=liquid, threads=threads, state_dtype=state_dtype)
    return advance(u, state, None, None)[:2]


def prepared(
    system: DPLRSystem,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    *,
    liquid: bool,
    threads: int,
    state_dtype: npt.DTypeLike | None = None,
) -> Advance:
    """`lowrank_step` for inputs of one shape and dtype, from states that are given."""
    wide = dtype if state_dtype is None else np.dtype(state_dtype)
    constants = max(1, shape[1]), system.n_modes, liquid
    return advancing(lowrank_step_rows, (_packs(system, wide), constants), shape, dtype, wide, threads)


def _packs(system: DPLRSystem, dtype: np.dtype[Any]) -> Array:
    known = _known.setdefault(system, {})
    if dtype not in known:
        n_lanes = lanes(dtype)
        layout = Layout(system.n_channels, system.n_channels, system.n_modes, n_lanes, n_lanes)
        P, Q = system.P_bar[0], system.weight * system.Q_bar[0]
        values = (system.Lambda_bar, system.B_bar, system.weight * system.C, P, Q)
        planes = [part for value in values for part in (value.real, value.imag)]
        known[dtype] = np.ascontiguousarray(layout.packed(planes, dtype)).reshape(-1)
    return known[dtype]
