"""One time step of a scan on a diagonal system: states stay complex numbers in memory, lanes are modes."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from liquid_ssm.systems import DiagonalSystem

from .caching import compiled, inlined
from .diagonal import packed
from .scan import COMPONENTS, linear_step, liquid_step
from .simd import fma, lanes, load, load_pairs, splat, store_pairs, total, width
from .threads import share
from .tiles import Layout

Array = npt.NDArray[Any]
# u (batch, H, 1) and the state before it give y (batch, H, 1), the state after it, no sums and inputs, and whether all
# of that is finite.
Advance = Callable[[Array, Array, None, None], tuple[Array, Array, None, None, bool]]

# Rows that a thread takes at a time: one step of fewer is done before another thread has begun.
ROWS_AT_ONCE = 2048

COMPLEX: dict[Any, Any] = {
    np.dtype("float32"): np.dtype("complex64"),
    np.dtype("float64"): np.dtype("complex128"),
}
# Parameters with lanes for modes, of systems that are still in use.
_known: WeakKeyDictionary[DiagonalSystem, dict[np.dtype[Any], Array]] = WeakKeyDictionary()


@inlined
def _advance(pack, o, now, state, at, real, imaginary, liquid):  # type: ignore[no-untyped-def]
    """W modes of one row: their new states, in place, and the output's two sums."""
    w = width(state)
    ar, ai, br, bi = load(pack, o), load(pack, o + w), load(pack, o + 2 * w), load(pack, o + 3 * w)
    xr, xi = load_pairs(state, at)
    if liquid:
        xr, xi = liquid_step(ar, ai, br, bi, now, xr, xi)
    else:
        xr, xi = linear_step(ar, ai, br * now, bi * now, xr, xi)
    store_pairs(state, at, xr, xi)
    return fma(load(pack, o + 4 * w), xr, real), fma(load(pack, o + 5 * w), xi, imaginary)


@compiled
def step_rows(packs, u, y, states, n_channels, modes, weight, liquid, at, first, end):  # type: ignore[no-untyped-def]
    """Rows `first` … `end` - 1 of one step; can be called from compiled code.

    One-dimensional arrays throughout: a view of a row would cost as much as the row's arithmetic.

    Args:
        packs: (H · depth · COMPONENTS · W) parameters with lanes for modes (`Layout` with group = W).
        u, y: inputs and outputs of row r at entry at + r; y is written.
        states: (rows · 2 · M) real and imaginary parts in turn; replaced by the new ones.
        modes: M.
        weight: 1 or 2.

    Returns:
        whether outputs and new states are finite: what is not so in a state makes its output so, for 0 times infinity
        is no number.
    """
    w = width(states)
    whole = modes // w
    # Modes that do not fill a vector go through a buffer, so that no row is read or written beyond its end.
    rest = 2 * (modes - whole * w)
    per_channel = (whole + (rest > 0)) * COMPONENTS * w
    buffer = np.zeros(2 * w, states.dtype)
    zero = splat(states.dtype.type(0))
    nothing = y.dtype.type(0)
    trace = nothing
    channel = first % n_channels
    for row in range(first, end):
        pack, state = channel * per_channel, row * 2 * modes
        channel = channel + 1 if channel + 1 < n_channels else 0
        now = splat(states.dtype.type(u[at + row]))
        real, imaginary = zero, zero
        for v in range(whole):
            o = pack + v * COMPONENTS * w
            real, imaginary = _advance(packs, o, now, states, state + 2 * v * w, real, imaginary, liquid)
        if rest:
            o, last = pack + whole * COMPONENTS * w, state + 2 * whole * w
            for i in range(rest):
                buffer[i] = states[last + i]
            real, imaginary = _advance(packs, o, now, buffer, 0, real, imaginary, liquid)
            for i in range(rest):
                states[last + i] = buffer[i]
        y[at + row] = weight * total(real - imaginary)
        trace += y[at + row] * nothing
    return trace == 0


@compiled
def step_loop(packs, inputs, outputs, states, rows, n_channels, modes, weight, liquid):  # type: ignore[no-untyped-def]
    """Step after step in compiled code: inputs and outputs (steps · rows)."""
    for at in range(0, inputs.shape[0], rows):
        step_rows(packs, inputs, outputs, states, n_channels, modes, weight, liquid, at, 0, rows)


def step(
    system: DiagonalSystem,
    u: Array,
    state: Array | None,
    *,
    liquid: bool,
    threads: int,
    state_dtype: npt.DTypeLike | None = None,
) -> tuple[Array, Array]:
    """One step of `diagonal.scan`: u (batch, H, 1) and the state before it give y (batch, H, 1) and the state after it.

    Accuracy: the new state is, bit for bit, that of a scan over several steps.
    """
    if state is None:
        state = np.zeros((*u.shape[:2], system.n_modes))
    advance = prepared(system, u.shape, u.dtype, liquid=liquid, threads=threads, state_dtype=state_dtype)
    y, after, *_ = advance(u, state, None, None)
    return y, after if system.is_complex else np.ascontiguousarray(after.real)


def prepared(
    system: DiagonalSystem,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    *,
    liquid: bool,
    threads: int,
    state_dtype: npt.DTypeLike | None = None,
) -> Advance:
    """`step` for inputs of one shape and dtype, from states that are given, to complex ones."""
    wide = dtype if state_dtype is None else np.dtype(state_dtype)
    constants = max(1, shape[1]), system.n_modes, system.weight, liquid, 0
    return advancing(step_rows, (_packs(system, wide), constants), shape, dtype, wide, threads)


def each_row(kernel: Any, given: tuple[Any, ...], rows: int, threads: int) -> bool:
    """kernel(*given, first, end) for all rows: whether it found all finite that it wrote."""
    if rows <= ROWS_AT_ONCE:
        finite: bool = kernel(*given, 0, rows)
        return finite
    found: list[bool] = []
    share(lambda first, end: found.append(kernel(*given, first, end)), rows, threads, ROWS_AT_ONCE)
    return all(found)


def advancing(
    kernel: Any,
    parameters: tuple[Array, tuple[Any, ...]],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    wide: np.dtype[Any],
    threads: int,
) -> Advance:
    """One step by a kernel for rows: kernel(packs, u, y, states, *constants, first, end) -> whether all is finite.

    Args:
        parameters: packs and constants.
        shape, dtype: of u.
        wide: real dtype of states.
    """
    packs, constants = parameters
    kind, rows = COMPLEX[wide], shape[0] * shape[1]

    def advance(u: Array, state: Array, sums: None, earlier: None) -> tuple[Array, Array, None, None, bool]:
        numbers, y = np.array(state, kind, order="C"), np.empty(shape, dtype)
        inputs, outputs, states = np.ascontiguousarray(u).reshape(-1), y.reshape(-1), numbers.reshape(-1).view(wide)
        finite = each_row(kernel, (packs, inputs, outputs, states, *constants), rows, threads)
        return y, numbers, None, None, finite

    return advance


def _packs(system: DiagonalSystem, dtype: np.dtype[Any]) -> Array:
    known = _known.setdefault(system, {})
    if dtype not in known:
        known[dtype] = _new_packs(system, dtype)
    return known[dtype]


def _new_packs(system: DiagonalSystem, dtype: np.dtype[Any]) -> Array:
    n_lanes = lanes(dtype)
    return packed(
        system, Layout(system.n_channels, system.n_channels, system.n_modes, n_lanes, n_lanes), dtype
    ).reshape(-1)


def seconds_per_step(system: DiagonalSystem, batch: int, steps: int) -> float:
    """Seconds that one `liquid` step takes inside compiled code, on one thread, inputs of size 0.1; after a warm-up."""
    rows, dtype = batch * system.n_channels, system.dtype
    inputs = np.random.default_rng(0).normal(scale=0.1, size=steps * rows).astype(dtype)
    outputs, states = np.full(steps * rows, np.nan, dtype), np.zeros(2 * rows * system.n_modes, dtype)
    arguments = (states, rows, system.n_channels, system.n_modes, system.weight, True)
    packs = _packs(system, dtype)
    step_loop(packs, inputs[:rows], outputs[:rows], *arguments)
    start = perf_counter()
    step_loop(packs, inputs, outputs, *arguments)
    seconds = (perf_counter() - start) / steps
    if not np.isfinite(outputs).all():
        raise ArithmeticError("the compiled step loop returned NaN or infinite outputs")
    return seconds
