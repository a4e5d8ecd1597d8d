"""Scans and cascades of diagonal systems: arrays in, tiles of work to the threads, arrays out."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from liquid_ssm.backend import Gradients
from liquid_ssm.finite import all_finite
from liquid_ssm.systems import DiagonalSystem

from .._memory_order import MemoryOrder
from .cascade import cascade_tiles
from .cascade_adjoint import cascade_adjoint_tiles
from .scan import COMPONENTS, scan_tiles
from .scan_adjoint import scan_adjoint_tiles
from .threads import share
from .tiles import Layout, choose_layout

Array = npt.NDArray[Any]

# Packed parameters of systems that are still in use; a few layouts each (training and inference, say).
_packs: WeakKeyDictionary[DiagonalSystem, dict[Any, Array]] = WeakKeyDictionary()
_KEPT = 4
# Shorter scans are not worth the two conversions of their states.
SCALED_STEPS = 16
SMALLEST_SCALE = 2.0**-30


def packed(system: DiagonalSystem, layout: Layout, dtype: Any, scaled: bool = False) -> Array:
    """(packs, depth · COMPONENTS · W): what `scan_tiles` reads, made once for a system and layout.

    Accuracy: exact, but for C ∘ B̄ of the scaled form: a product in float64, rounded once to a narrower `dtype`.
    """
    known = _packs.setdefault(system, {})
    key = (layout, np.dtype(dtype), scaled)
    if key not in known:
        C = system.C.astype(np.complex128) * system.B_bar if scaled else system.C
        planes = [part for p in (system.A_bar, system.B_bar, C) for part in (p.real, p.imag)]
        if len(known) >= _KEPT:
            known.pop(next(iter(known)), None)
        known[key] = np.ascontiguousarray(layout.packed(planes, dtype)).reshape(
            layout.packs, layout.depth * COMPONENTS * layout.lanes
        )
    return known[key]


class Tiles:
    """One call's rows, laid out.

    Args:
        system: diagonal, in the precision of u.
        u: (batch, H, L), read where it is in either `MemoryOrder`, in which outputs and gradients are then written.
        state_dtype: real dtype to compute in, None for u's.
        pieces: into how many pieces of equal length each row is cut, from its beginning.
        scaled: states are x / B̄.
    """

    def __init__(
        self,
        system: DiagonalSystem,
        u: Array,
        state_dtype: npt.DTypeLike | None = None,
        pieces: int = 1,
        scaled: bool = False,
    ) -> None:
        self.system, self.shape = system, u.shape
        batch, n_channels, length = u.shape
        self.dtype = np.dtype(u.dtype if state_dtype is None else state_dtype)
        self.kind = np.result_type(self.dtype, np.complex64) if system.is_complex else self.dtype
        self.memory = MemoryOrder.of(u)
        self.u = self.memory.flat(u)
        self.layout = choose_layout(batch * n_channels * pieces, n_channels, system.n_modes, self.dtype, pieces)
        self.scaled = scaled
        self.packs = packed(system, self.layout, self.dtype, scaled)
        self.length = length // pieces
        piece = np.arange(pieces) * self.length * self.memory.apart
        starts = (self.memory.starts()[:, None] + piece).reshape(-1)
        self.offsets = starts[self.layout.row_of_lane]

    @property
    def steps(self) -> tuple[int, int]:
        """What kernels are told of time: steps of a row, and numbers from one step to the next in memory."""
        return self.length, self.memory.apart

    def each(self, kernel: Any, threads: int, packs: Array, *arguments: Any) -> None:
        """kernel(packs, offsets, rows, group, u, *arguments, first, end) for all tiles, shared out to threads."""
        layout = self.layout
        given = packs, self.offsets, layout.rows, layout.group, self.u, *arguments
        share(lambda first, end: kernel(*given, first, end), layout.tiles, threads)

    def planes(self, states: Array | None) -> Array:
        """States (rows, M), or None for rest, as `scan_tiles` has them: (tiles, depth · 2 · W)."""
        layout = self.layout
        return layout.state_in(states, self.dtype).reshape(layout.tiles, layout.depth * 2 * layout.lanes)

    def rows(self, planes: Array, kind: npt.DTypeLike | None = None) -> Array:
        """The inverse of `planes`, in the dtype of states or in `kind`."""
        layout = self.layout
        split = planes.reshape(layout.tiles, layout.depth, 2, layout.lanes)
        return layout.state_out(split, self.kind if kind is None else kind)

    def orders_in(self, states: Array | None, order: int) -> Array:
        """(batch, order, H, M), or None for rest, as `cascade_tiles` has them: (tiles, depth · order · 2 · W)."""
        layout = self.layout
        planes = np.zeros((layout.tiles, layout.depth, order, 2, layout.lanes), self.dtype)
        if states is not None:
            for p in range(order):
                planes[:, :, p] = layout.state_in(states[:, p].reshape(layout.rows, self.system.n_modes), self.dtype)
        return planes.reshape(layout.tiles, layout.depth * order * 2 * layout.lanes)

    def orders_out(self, planes: Array, order: int, kind: npt.DTypeLike | None = None) -> Array:
        """The inverse of `orders_in`, in the dtype of states or in `kind`."""
        kind = self.kind if kind is None else kind
        layout, (batch, n_channels, _) = self.layout, self.shape
        split = planes.reshape(layout.tiles, layout.depth, order, 2, layout.lanes)
        states = np.empty((batch, order, n_channels, self.system.n_modes), kind)
        for p in range(order):
            states[:, p] = layout.state_out(split[:, :, p], kind).reshape(states[:, p].shape)
        return states

    def gradients(self, sums: Array) -> dict[str, Array]:
        """Gradients by name, in the dtypes of the parameters, from the sums of every tile."""
        layout = self.layout
        split = sums.reshape(layout.tiles, layout.depth, COMPONENTS, layout.lanes)
        parts = layout.unpacked(split) if layout.rows else np.zeros((COMPONENTS, *self.system.C.shape))
        found = {}
        for i, (name, parameter) in enumerate(self.system.parameters.items()):
            gradient = np.empty(parameter.shape, parameter.dtype)
            gradient.real = parts[2 * i]
            if np.iscomplexobj(gradient):
                gradient.imag = parts[2 * i + 1]
            found[name] = gradient
        return found


def run_scan(tiles: Tiles, states: Array, *, liquid: bool, threads: int) -> Array:
    """y of all rows, in the shape that `tiles` were made for; `states` are replaced by the final ones."""
    y = tiles.memory.empty(tiles.u.dtype)
    given = tiles.memory.flat(y), states, *tiles.steps, tiles.system.weight, liquid, tiles.scaled
    tiles.each(scan_tiles, threads, tiles.packs, *given)
    return y


def scan(
    system: DiagonalSystem,
    u: Array,
    state: Array | None,
    *,
    liquid: bool,
    threads: int,
    state_dtype: npt.DTypeLike | None = None,
) -> tuple[Array, Array]:
    """Eq. 11, or Eq. 2 without `liquid`: y (batch, H, L) and the final state (batch, H, M)."""
    if can_scale(system, u, state_dtype):
        found = _scaled_scan(system, u, state, liquid, threads)
        if found is not None:
            return found
    tiles = Tiles(system, u, state_dtype)
    states = tiles.planes(_rows(state))
    y = run_scan(tiles, states, liquid=liquid, threads=threads)
    return y, tiles.rows(states).reshape(u.shape[0], *system.C.shape)


def can_scale(system: DiagonalSystem, u: Array, state_dtype: npt.DTypeLike | None) -> bool:
    """Whether a scan keeps z = x / B̄ for x, which saves B̄ u: 8 operations per mode and step instead of 10.

    For float32 only, since the two conversions of the state are made in float64.  With |B̄| <= 1 what underflows in z
    is smaller still in x, and with |B̄| not tiny z is in range where x is.
    """
    if u.dtype != np.float32 or state_dtype not in (None, "float32") or u.shape[-1] < SCALED_STEPS:
        return False
    size = np.abs(system.B_bar)
    return bool(size.size and size.min() >= SMALLEST_SCALE and size.max() <= 1)


def _scaled_scan(
    system: DiagonalSystem, u: Array, state: Array | None, liquid: bool, threads: int
) -> tuple[Array, Array] | None:
    """`scan` with scaled states; None if one of them left the range of float32, which x need not have done."""
    tiles = Tiles(system, u, scaled=True)
    B_bar = system.B_bar.astype(np.complex128)
    with np.errstate(over="ignore", invalid="ignore"):
        states = tiles.planes(None if state is None else _rows((state / B_bar).astype(np.complex64)))
        y = run_scan(tiles, states, liquid=liquid, threads=threads)
        # An infinite or undefined number in a state stays there, so the final states tell of all steps.
        if not all_finite(states):
            return None
        z = tiles.rows(states, np.complex64).reshape(u.shape[0], *system.C.shape)
        final = z * B_bar
    return y, np.ascontiguousarray(final if system.is_complex else final.real, tiles.kind)


def _rows(state: Array | None) -> Array | None:
    """(batch, H, M) as (batch · H, M)."""
    return None if state is None else state.reshape(state.shape[0] * state.shape[1], state.shape[2])


def scan_vjp(
    system: DiagonalSystem,
    u: Array,
    state: Array | None,
    grad_y: Array | None,
    grad_state: Array | None,
    *,
    liquid: bool,
    threads: int,
    state_dtype: npt.DTypeLike | None = None,
) -> Gradients:
    """Adjoint of `scan`; the gradient of the state is (batch, H, M)."""
    tiles = Tiles(system, u, state_dtype)
    layout = tiles.layout
    states, adjoints = tiles.planes(_rows(state)), tiles.planes(_rows(grad_state))
    grad_u = tiles.memory.empty(u.dtype)
    sums = np.zeros((layout.tiles, layout.depth * COMPONENTS * layout.lanes))
    tiles.each(
        scan_adjoint_tiles,
        threads,
        tiles.packs,
        tiles.memory.cotangent(grad_y, u.dtype),
        tiles.memory.flat(grad_u),
        states,
        adjoints,
        sums,
        *tiles.steps,
        system.weight,
        liquid,
    )
    return Gradients(tiles.gradients(sums), grad_u, tiles.rows(adjoints).reshape(u.shape[0], *system.C.shape))


def cascade(
    system: DiagonalSystem,
    u: Array,
    states: Array | None,
    *,
    order: int,
    chain: bool,
    threads: int,
    state_dtype: npt.DTypeLike | None = None,
) -> tuple[Array, Array]:
    """Eq. 12, or the chains of Eq. 14: y (batch, H, L) and the final states (batch, order, H, M)."""
    tiles = Tiles(system, u, state_dtype)
    planes = tiles.orders_in(states, order)
    y = tiles.memory.empty(u.dtype)
    given = tiles.memory.flat(y), planes, order, chain, *tiles.steps, system.weight
    tiles.each(cascade_tiles, threads, tiles.packs, *given)
    return y, tiles.orders_out(planes, order)


def cascade_vjp(
    system: DiagonalSystem,
    u: Array,
    states: Array | None,
    grad_y: Array | None,
    grad_states: Array | None,
    *,
    order: int,
    chain: bool,
    threads: int,
    state_dtype: npt.DTypeLike | None = None,
) -> Gradients:
    """Adjoint of `cascade`; the gradient of the states is (batch, order, H, M)."""
    tiles = Tiles(system, u, state_dtype)
    layout = tiles.layout
    planes, adjoints = tiles.orders_in(states, order), tiles.orders_in(grad_states, order)
    grad_u = tiles.memory.empty(u.dtype)
    sums = np.zeros((layout.tiles, layout.depth * COMPONENTS * layout.lanes))
    tiles.each(
        cascade_adjoint_tiles,
        threads,
        tiles.packs,
        tiles.memory.cotangent(grad_y, u.dtype),
        tiles.memory.flat(grad_u),
        planes,
        adjoints,
        sums,
        order,
        chain,
        *tiles.steps,
        system.weight,
    )
    return Gradients(tiles.gradients(sums), grad_u, tiles.orders_out(adjoints, order))
