"""The cascade `chain` restricted to the newest inputs: arrays in, pieces of work to the threads, arrays out.

Diagonal systems: by maps that grow, O(P²) per step and mode.  Low rank: every output's window is run as a row of its
own, O(window) per step, since the map of a run of inputs would be a full matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from liquid_ssm.backend import Gradients
from liquid_ssm.systems import DiagonalSystem, DPLRSystem

from .diagonal import Tiles, cascade, cascade_vjp
from .lowrank import lowrank_run, lowrank_vjp
from .scan import COMPONENTS
from .threads import share
from .window_maps import window_tiles
from .window_maps_adjoint import window_adjoint_tiles

Array = npt.NDArray[Any]

# Steps of a piece of work, at least: a piece reads one window before its own.
PIECE = 512
# Numbers of inputs, outputs and states of the windows that are run at once.
AT_ONCE = 1 << 20


def windowed_chain(system: DiagonalSystem | DPLRSystem, u: Array, order: int, window: int, threads: int) -> Array:
    """y_k = weight · Re(C v^order_k) of a chain that starts at rest `window` inputs before k.

    Args:
        system: in u's precision.
        u: (batch, H, L).
        order: number of recurrences >= 1.
        window: steps >= 1.
        threads: at most so many; no result depends on it.

    Returns:
        (batch, H, L).

    Accuracy:
        Diagonal: a word of ā's and inputs passes per input of its window at most one real product and two fused
        multiply-adds, where two parts meet 2·order of these and an addition, then complex products for c b̄ and the
        read-out, whose modes are added up in any order.  Low rank: `lowrank_run` over `window` steps.
        Both within docs/bounds.md, Correlations, `kb`.

    References:
        Eq. 14 with all indices in the newest L̃ inputs.
    """
    # The kernels of windows read row after row.
    u = np.ascontiguousarray(u)
    if window >= u.shape[-1]:
        return _whole(system, u, order, threads)
    if isinstance(system, DPLRSystem):
        y = np.empty(u.shape, u.dtype)
        for start, stop, windows in _windows(system, u, order, window):
            outputs, _ = lowrank_run(system, windows, None, order=order, kind="chain", threads=threads)
            y[..., start:stop] = _by_step(outputs[..., -1], stop - start)
        return y
    tiles = Tiles(system, u)
    layout = tiles.layout
    y = np.empty(u.shape, u.dtype)
    at_once = -(-PIECE // window)
    blocks = -(-u.shape[-1] // window)

    def work(first: int, end: int) -> None:
        window_tiles(
            tiles.packs,
            tiles.offsets,
            layout.rows,
            layout.group,
            tiles.u,
            y.reshape(-1),
            order,
            window,
            u.shape[-1],
            system.weight,
            at_once,
            first,
            end,
        )

    share(work, layout.tiles * -(-blocks // at_once), threads)
    return y


def windowed_chain_vjp(
    system: DiagonalSystem | DPLRSystem, u: Array, grad_y: Array | None, order: int, window: int, threads: int
) -> Gradients:
    """Adjoint of `windowed_chain`; there is no state.

    Memory: diagonal, per thread 8·order + 5 vectors per input of a window; low rank as `AT_ONCE` says, at least
    the windows of one step.

    Accuracy: sums over time run over 64 steps in u's precision and beyond in float64.  docs/bounds-gradients.md.
    """
    if grad_y is None:
        zeros = {name: np.zeros(p.shape, p.dtype) for name, p in system.parameters.items()}
        return Gradients(zeros, np.zeros(u.shape, u.dtype), None)
    u = np.ascontiguousarray(u)
    if window >= u.shape[-1]:
        return _whole_vjp(system, u, grad_y, order, threads)
    if isinstance(system, DPLRSystem):
        return _lowrank_vjp(system, u, grad_y, order, window, threads)
    tiles = Tiles(system, u)
    layout = tiles.layout
    cotangents = np.ascontiguousarray(grad_y).reshape(-1)
    grad_u = np.empty(u.shape, u.dtype)
    totals = np.zeros((layout.tiles, layout.depth * COMPONENTS * layout.lanes))

    def work(first: int, end: int) -> None:
        window_adjoint_tiles(
            tiles.packs,
            tiles.offsets,
            layout.rows,
            layout.group,
            tiles.u,
            cotangents,
            grad_u.reshape(-1),
            totals,
            order,
            window,
            u.shape[-1],
            system.weight,
            first,
            end,
        )

    share(work, layout.tiles, threads)
    parts = np.zeros((COMPONENTS, *system.C.shape))
    if layout.rows:
        parts = layout.unpacked(totals.reshape(layout.tiles, layout.depth, COMPONENTS, layout.lanes))
    of_a, of_cb = parts[0] + 1j * parts[1], parts[2] + 1j * parts[3]
    found = {"A_bar": of_a, "B_bar": np.conj(system.C) * of_cb, "C": np.conj(system.B_bar) * of_cb}
    gradients = {name: _like(p, found[name]) for name, p in system.parameters.items()}
    return Gradients(gradients, grad_u, None)


def _whole(system: DiagonalSystem | DPLRSystem, u: Array, order: int, threads: int) -> Array:
    """A window that no input leaves."""
    if isinstance(system, DPLRSystem):
        return lowrank_run(system, u, None, order=order, kind="chain", threads=threads)[0]
    return cascade(system, u, None, order=order, chain=True, threads=threads)[0]


def _whole_vjp(system: DiagonalSystem | DPLRSystem, u: Array, grad_y: Array, order: int, threads: int) -> Gradients:
    if isinstance(system, DPLRSystem):
        found = lowrank_vjp(system, u, None, grad_y, None, order=order, kind="chain", threads=threads)
    else:
        found = cascade_vjp(system, u, None, grad_y, None, order=order, chain=True, threads=threads)
    return Gradients(found.parameters, found.u, None)


def _lowrank_vjp(system: DPLRSystem, u: Array, grad_y: Array, order: int, window: int, threads: int) -> Gradients:
    sums = {name: np.zeros(p.shape, np.result_type(p.dtype, np.float64)) for name, p in system.parameters.items()}
    batch, n_channels, length = u.shape
    # Entry k + s is input s of the window that ends at k.
    grad_u = np.zeros((batch, n_channels, length + window - 1))
    for start, stop, windows in _windows(system, u, order, window):
        cotangents = np.zeros(windows.shape, u.dtype)
        cotangents[..., -1] = grad_y[..., start:stop].transpose(2, 0, 1).reshape(windows.shape[:2])
        found = lowrank_vjp(system, windows, None, cotangents, None, order=order, kind="chain", threads=threads)
        for name in sums:
            sums[name] += found.parameters[name]
        for s in range(window):
            grad_u[..., start + s : stop + s] += _by_step(found.u[..., s], stop - start)
    gradients = {name: _like(p, sums[name]) for name, p in system.parameters.items()}
    return Gradients(gradients, grad_u[..., window - 1 :].astype(u.dtype), None)


def _windows(system: DPLRSystem, u: Array, order: int, window: int) -> Iterator[tuple[int, int, Array]]:
    """Blocks of output steps: first, end, and their windows (steps · batch, H, window), zeros before u_0."""
    batch, n_channels, length = u.shape
    if batch == 0:
        return
    padded = np.concatenate([np.zeros((batch, n_channels, window - 1), u.dtype), u], axis=-1)
    windows = np.moveaxis(np.lib.stride_tricks.sliding_window_view(padded, window, axis=-1), 2, 0)
    numbers = batch * n_channels * max(window, 2 * order * system.n_modes)
    steps = max(1, AT_ONCE // max(1, numbers))
    for start in range(0, length, steps):
        stop = min(start + steps, length)
        yield start, stop, np.array(windows[start:stop]).reshape((stop - start) * batch, n_channels, window)


def _by_step(values: Array, steps: int) -> Array:
    """(steps · batch, H) as (batch, H, steps)."""
    return np.moveaxis(values.reshape(steps, -1, values.shape[-1]), 0, -1)


def _like(parameter: Array, gradient: Array) -> Array:
    """In the parameter's dtype, whose real part alone counts if it is real."""
    part = gradient if np.iscomplexobj(parameter) else gradient.real
    return np.ascontiguousarray(part, dtype=parameter.dtype)
