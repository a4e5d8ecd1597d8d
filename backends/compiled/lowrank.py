"""Recurrences on "diagonal plus low rank" systems: arrays in, tiles of work to the threads, arrays out."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from liquid_ssm.backend import Gradients
from liquid_ssm.systems import DPLRSystem

from .. import _kept
from .._memory_order import MemoryOrder
from .lowrank_adjoint import lowrank_adjoint_tiles
from .lowrank_forward import CHAIN, LINEAR, LIQUID, STEPS, TRUNCATED, lowrank_tiles
from .lowrank_sweep import FACTORS, PER_RANK
from .simd import lanes
from .threads import share
from .tiles import Layout

Array = npt.NDArray[Any]
Kind = Literal["linear", "liquid", "truncated", "chain"]

_CODES = {"linear": LINEAR, "liquid": LIQUID, "truncated": TRUNCATED, "chain": CHAIN}

# Cores that a layout should keep busy.
_CORES = 8


def layout_of(rows: int, n_channels: int, n_modes: int, rank: int, dtype: npt.DTypeLike) -> Layout:
    """The layout that takes the least time on `_CORES` cores, by operations and by what a step waits for.

    Nothing can begin before the functionals are complete: about 30 cycles after the last mode, and 8 for each halving
    of the lanes of a row that they are summed over.
    """
    n_lanes = lanes(dtype)
    groups = [1 << i for i in range(n_lanes.bit_length()) if 1 << i <= max(1, n_modes)]
    layouts = [Layout(rows, n_channels, n_modes, n_lanes, group) for group in groups]

    def time(layout: Layout) -> float:
        waits = 30 + 8 * (layout.group.bit_length() - 1)
        return max(1.0, layout.tiles / _CORES) * (layout.depth * (10 + 4 * rank) + waits)

    return min(layouts, key=time)


class Tiles:
    """One call's rows, laid out.

    Args:
        system: in the precision of u.
        u: (batch, H, L), read where it is in either `MemoryOrder`, in which outputs and gradients are then written.
        kind, order: of the recurrence.
        state_dtype: real dtype to compute in, None for u's.
    """

    def __init__(self, system: DPLRSystem, u: Array, kind: Kind, order: int, state_dtype: npt.DTypeLike | None) -> None:
        self.system, self.shape, self.order = system, u.shape, order
        batch, n_channels, self.length = u.shape
        self.dtype = np.dtype(u.dtype if state_dtype is None else state_dtype)
        complex_state = any(np.iscomplexobj(p) for p in system.parameters.values())
        self.kind = np.result_type(self.dtype, np.complex64) if complex_state else self.dtype
        # A system without a low-rank part gets one that is zero.
        self.rank = max(1, system.rank)
        self.layout = layout_of(batch * n_channels, n_channels, system.n_modes, self.rank, self.dtype)
        self.memory = MemoryOrder.of(u)
        self.offsets = self.memory.starts()[self.layout.row_of_lane]
        self.arguments = (
            self.offsets,
            self.layout.rows,
            self.layout.group,
            self.rank,
            system.conjugate_pairs,
            order,
            _CODES[kind],
            self.memory.flat(u),
        )

    @property
    def steps(self) -> tuple[int, int]:
        """What kernels are told of time: steps of a row, and numbers from one step to the next in memory."""
        return self.length, self.memory.apart

    def room_for_blocks(self, keeps: bool = True) -> Array:
        """Room for the states before every block of time if a backward pass will ask for them, else (0, 0)."""
        if not (keeps and _kept.is_recording()):
            return np.empty((0, 0), self.dtype)
        states = np.empty(self._of_blocks, self.dtype)
        _kept.keep(states)
        return states

    def kept_blocks(self, keeps: bool = True) -> Array:
        """Those states as the forward pass of the same arguments has left them, or (0, 0)."""
        found = _kept.kept(self._of_blocks, self.dtype) if keeps else None
        return np.empty((0, 0), self.dtype) if found is None else found

    @property
    def _of_blocks(self) -> tuple[int, int]:
        layout = self.layout
        return layout.tiles, -(-self.length // STEPS) * self.order * layout.depth * 2 * layout.lanes

    @property
    def components(self) -> int:
        """Real numbers per mode and channel in a packed system."""
        return FACTORS + PER_RANK * self.rank

    def packs(self, *, adjoint: bool = False) -> Array:
        """(packs, depth · components · W): Λ̄, B̄, C, P̄, Q̄, with the factor 2 of conjugate pairs in C and Q̄.

        The adjoint system has conj(Λ̄), conj(B̄), conj(C), and P̄ and Q̄ exchanged.
        """
        system, layout = self.system, self.layout
        turned = np.conj if adjoint else np.asarray
        values = [turned(system.Lambda_bar), turned(system.B_bar), turned(system.weight * system.C)]
        nothing = np.zeros((self.rank - system.rank, *system.C.shape))
        for P, Q in zip((*system.P_bar, *nothing), (*system.Q_bar, *nothing), strict=True):
            values += (system.weight * Q, P) if adjoint else (P, system.weight * Q)
        planes = [part for value in values for part in (value.real, value.imag)]
        return np.ascontiguousarray(layout.packed(planes, self.dtype)).reshape(layout.packs, -1)

    def states_in(self, states: Array | None) -> Array:
        """(batch, order, H, M), or None for rest, as (tiles, order · depth · 2 · W)."""
        layout = self.layout
        planes = np.zeros((layout.tiles, self.order, layout.depth, 2, layout.lanes), self.dtype)
        if states is not None:
            for p in range(self.order):
                planes[:, p] = layout.state_in(states[:, p].reshape(layout.rows, self.system.n_modes), self.dtype)
        return planes.reshape(layout.tiles, self.order * layout.depth * 2 * layout.lanes)

    def states_out(self, planes: Array) -> Array:
        """The inverse of `states_in`."""
        layout, (batch, n_channels, _) = self.layout, self.shape
        split = planes.reshape(layout.tiles, self.order, layout.depth, 2, layout.lanes)
        states = np.empty((batch, self.order, n_channels, self.system.n_modes), self.kind)
        for p in range(self.order):
            states[:, p] = layout.state_out(split[:, p], self.kind).reshape(states[:, p].shape)
        return states

    def gradients(self, totals: Array) -> dict[str, Array]:
        """Gradients by name, in the dtypes of the parameters, from the sums of every tile."""
        system, layout = self.system, self.layout
        parts = layout.unpacked(totals.reshape(layout.tiles, layout.depth, self.components, layout.lanes))
        whole = parts[0::2] + 1j * parts[1::2]
        factors = whole[FACTORS // 2 :].reshape(self.rank, 2, *system.C.shape)[: system.rank]
        found = {
            "Lambda_bar": whole[0],
            "P_bar": -factors[:, 0],
            "Q_bar": -system.weight * factors[:, 1],
            "B_bar": whole[1],
            "C": system.weight * whole[2],
        }
        return {name: _like(parameter, found[name]) for name, parameter in system.parameters.items()}


def _like(parameter: Array, gradient: Array) -> Array:
    """The gradient in the parameter's dtype, the real part for a real parameter."""
    part = gradient if np.iscomplexobj(parameter) else gradient.real
    return np.ascontiguousarray(part, dtype=parameter.dtype)


def lowrank_run(
    system: DPLRSystem,
    u: Array,
    state: Array | None,
    *,
    order: int,
    kind: Kind,
    threads: int,
    state_dtype: npt.DTypeLike | None = None,
    keeps: bool = False,
) -> tuple[Array, Array]:
    """y (batch, H, L) in u's dtype and final states (batch, order, H, M), s_r = weight · Re Σ_m conj(Q̄_rm) x_m.

    `linear` Eq. 2: x_k = Ā x_{k-1} + w_k, Ā x = Λ̄∘x − Σ_r P̄_r s_r, w_k = B̄ u_k; `liquid` Eq. 11: Ā + diag(w_k) for Ā;
    `truncated` Eq. 12 and the `chain` of Eq. 14 as in `liquid_ssm.backend.Backend.cascade`.  Without conjugate pairs
    s_r = Σ_m conj(Q̄_rm) x_m.

    Args:
        system: in u's precision.
        u: (batch, H, L), real.
        state: (batch, order, H, M), or None for rest.
        order: 1 for `linear` and `liquid`.
        threads: changes no result.
        state_dtype: real dtype to compute in, None for u's.
        keeps: whether the states between blocks are left for `lowrank_vjp` of the same arguments if one follows.

    Accuracy:
        Fused: Λ̄ x, the fed w x and, where s is complex, P̄ s are formed whole, one fused multiply-add per part; P̄_0 s_0
        with real s, u x and the drive are fused into the sum, in the order Λ̄ x, P̄_0 s_0, Σ_{r>0} P̄_r s_r, fed, B̄ u.
        The output and real s_r are sums over modes, one of real and one of imaginary parts, joined at the end, complex
        s_r sums of whole products: at most M additions behind a term.  So the bound of `dplr` in docs/bounds.md
        holds with fused=True, pairwise=False.
    """
    tiles = Tiles(system, u, kind, order, state_dtype)
    packs, states, y = tiles.packs(), tiles.states_in(state), tiles.memory.empty(u.dtype)
    given = packs, *tiles.arguments, tiles.memory.flat(y), states, tiles.room_for_blocks(keeps), *tiles.steps
    share(lambda first, end: lowrank_tiles(*given, first, end), tiles.layout.tiles, threads)
    return y, tiles.states_out(states)


def lowrank_vjp(
    system: DPLRSystem,
    u: Array,
    state: Array | None,
    grad_y: Array | None,
    grad_state: Array | None,
    *,
    order: int,
    kind: Kind,
    threads: int,
    state_dtype: npt.DTypeLike | None = None,
    keeps: bool = False,
) -> Gradients:
    """Adjoint of `lowrank_run` with these arguments; the gradient of the state is (batch, order, H, M).

    Memory: per thread all states and cotangents of 64 steps of the rows of a tile, and one state per 64 steps where
    the forward pass has not kept those.

    Accuracy: sums over time run over 64 steps in the dtype of the computation and over blocks and rows in float64.
    """
    tiles = Tiles(system, u, kind, order, state_dtype)
    layout = tiles.layout
    packs, turned_packs = tiles.packs(), tiles.packs(adjoint=True)
    states, cotangents = tiles.states_in(state), tiles.states_in(grad_state)
    grad_u = tiles.memory.empty(u.dtype)
    of_y = tiles.memory.cotangent(grad_y, u.dtype)
    totals = np.zeros((layout.tiles, layout.depth * tiles.components * layout.lanes))
    kept = tiles.kept_blocks(keeps)

    def work(first: int, end: int) -> None:
        lowrank_adjoint_tiles(
            packs,
            turned_packs,
            *tiles.arguments,
            of_y,
            tiles.memory.flat(grad_u),
            states,
            kept,
            cotangents,
            totals,
            *tiles.steps,
            first,
            end,
        )

    share(work, layout.tiles, threads)
    return Gradients(tiles.gradients(totals), grad_u, tiles.states_out(cotangents))
