"""Recurrences of `mimo` systems (S5): arrays in, sets of rows to the threads, arrays out."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from liquid_ssm.backend import Gradients
from liquid_ssm.systems import MIMOSystem

from .shared_state_adjoint import shared_adjoint_blocks
from .shared_state_forward import shared_blocks
from .shared_state_products import COLUMNS, ROWS
from .simd import lanes
from .threads import share

Array = npt.NDArray[Any]

# Sums of parameter gradients that are formed beside each other: no more threads than that share a backward pass.
SUMS = 32

# Packed parameters of systems that are still in use, by dtype.
_packs: WeakKeyDictionary[MIMOSystem, dict[Any, tuple[Array, Array, Array]]] = WeakKeyDictionary()


class Rows:
    """One call's rows, laid out.

    Args:
        system: in u's precision.
        u: (batch, H, L).
        order: orders of the recurrence, each with a state.
        state_dtype: real dtype to compute in, None for u's.
    """

    def __init__(self, system: MIMOSystem, u: Array, order: int, state_dtype: npt.DTypeLike | None) -> None:
        self.system, self.order, self.shape = system, order, u.shape
        self.dtype = np.dtype(u.dtype if state_dtype is None else state_dtype)
        self.kind = np.result_type(self.dtype, np.complex64) if system.is_complex else self.dtype
        self.width = lanes(self.dtype)
        self.depth = -(-system.n_modes // self.width)
        self.u = np.ascontiguousarray(u).reshape(-1)
        batch, _, length = u.shape
        # Short signals fill a block together; what a row gives does not depend on the others.
        self.together = max(1, min(batch, COLUMNS // max(1, length)))
        self.sets = -(-batch // self.together)

    def lanes_of(self, values: Array) -> Array:
        """Complex (…, M) as flat (depth, …, 2, W), zero where there is no mode."""
        padded = np.zeros((*values.shape[:-1], self.depth * self.width, 2), self.dtype)
        padded[..., : values.shape[-1], 0], padded[..., : values.shape[-1], 1] = values.real, values.imag
        split = padded.reshape(*values.shape[:-1], self.depth, self.width, 2)
        return np.ascontiguousarray(np.moveaxis(split, (-3, -1), (0, -2))).reshape(-1)

    def modes_of(self, packed: Array) -> Array:
        """The inverse of `lanes_of`, for one axis in front: (n, depth, 2, W) as complex (n, M)."""
        whole = packed[:, :, 0] + 1j * packed[:, :, 1]
        return whole.reshape(len(packed), self.depth * self.width)[:, : self.system.n_modes]

    def planes(self, matrix: Array) -> Array:
        """Complex (H, M) as flat (2, M, H padded): real and imaginary parts, zero where there is no channel."""
        n_channels, n_modes = matrix.shape
        planes = np.zeros((2, n_modes, ROWS * -(-n_channels // ROWS)), self.dtype)
        planes[0, :, :n_channels], planes[1, :, :n_channels] = matrix.real.T, matrix.imag.T
        return planes.reshape(-1)

    def packs(self) -> tuple[Array, Array, Array]:
        """A, B and C as `shared_blocks` reads them, made once for a system and dtype."""
        known = _packs.setdefault(self.system, {})
        if self.dtype not in known:
            system = self.system
            known[self.dtype] = self.lanes_of(system.A_bar), self.lanes_of(system.B_bar.T), self.planes(system.C)
        return known[self.dtype]

    def states_in(self, states: Array | None) -> Array:
        """(batch, order, M), or None for rest, as flat (batch, order, depth, 2, W)."""
        shape = (self.shape[0], self.order, self.depth, 2, self.width)
        if states is None:
            return np.zeros(shape, self.dtype).reshape(-1)
        rows = self.lanes_of(states).reshape(self.depth, *shape[:2], 2, self.width)
        return np.ascontiguousarray(np.moveaxis(rows, 0, 2)).reshape(-1)

    def states_out(self, packed: Array) -> Array:
        """The inverse of `states_in`."""
        batch, n_modes = self.shape[0], self.system.n_modes
        split = packed.reshape(batch, self.order, self.depth, 2, self.width)
        real, imaginary = (
            split[:, :, :, part].reshape(batch, self.order, self.depth * self.width)[..., :n_modes] for part in (0, 1)
        )
        states = np.empty((batch, self.order, n_modes), self.kind)
        states.real = real
        if self.system.is_complex:
            states.imag = imaginary
        return states


def shared_run(
    system: MIMOSystem,
    u: Array,
    states: Array | None,
    *,
    order: int,
    liquid: bool,
    threads: int,
    state_dtype: npt.DTypeLike | None = None,
) -> tuple[Array, Array]:
    """y (batch, H, L) in u's dtype and final states (batch, order, M).

    x^(1)_k = (Ā + liquid · diag(w_k)) x^(1)_{k-1} + w_k, w_k = B̄ u_k (Eq. 11 or 2), x^(p)_k = Ā x^(p)_{k-1} + w_k ∘
    x^(p-1)_{k-1} (Eq. 12), y_k = weight · Re(C Σ_p x^(p)_k).

    Args:
        system: in u's precision.
        u: (batch, H, L), real.
        states: (batch, order, M), or None for rest.
        order: 1 with `liquid`.
        threads: changes no result.
        state_dtype: real dtype to compute in, None for u's.

    Accuracy:
        w is a sum of H fused products per part, in the order of channels, rounded before it is added to Ā; states are
        read out by one sum of real and one of imaginary parts, in the order of modes.  So the bounds of `mimo` in
        docs/bounds.md hold with fused=None, pairwise=False.
    """
    rows = Rows(system, u, order, state_dtype)
    batch, n_channels, length = u.shape
    packs, planes, y = rows.packs(), rows.states_in(states), np.empty(u.shape, u.dtype)
    given = (batch, n_channels, length, system.n_modes, order, liquid, system.weight, rows.together)
    share(
        lambda first, end: shared_blocks(*packs, rows.u, y.reshape(-1), planes, *given, first, end), rows.sets, threads
    )
    return y, rows.states_out(planes)


def shared_vjp(
    system: MIMOSystem,
    u: Array,
    states: Array | None,
    grad_y: Array | None,
    grad_states: Array | None,
    *,
    order: int,
    liquid: bool,
    threads: int,
    state_dtype: npt.DTypeLike | None = None,
) -> Gradients:
    """Adjoint of `shared_run`; the gradient of the states is (batch, order, M).

    Memory: per thread one state per 128 steps of a row and one block; up to `SUMS` copies of the parameters in float64.

    Accuracy: sums over time run over 128 steps in the dtype of the computation and over blocks and rows in float64.
    """
    rows = Rows(system, u, order, state_dtype)
    batch, n_channels, length = u.shape
    A, B, C = rows.packs()
    read, drives = rows.lanes_of(system.weight * np.conj(system.C)), rows.planes(np.conj(system.B_bar.T))
    planes, adjoints, grad_u = rows.states_in(states), rows.states_in(grad_states), np.empty(u.shape, u.dtype)
    of_y = np.zeros(u.shape, u.dtype) if grad_y is None else np.ascontiguousarray(grad_y)
    per_sum = max(1, -(-rows.sets // SUMS))
    n_sums = -(-rows.sets // per_sum)
    padded = ROWS * -(-n_channels // ROWS)
    of_A = np.zeros((n_sums, rows.depth * 2 * rows.width))
    of_B, of_C = np.zeros((2, n_sums, rows.depth * padded * 2 * rows.width))
    given = (batch, n_channels, length, system.n_modes, order, liquid, rows.together, per_sum)

    def work(first: int, end: int) -> None:
        shared_adjoint_blocks(
            A, B, C, read, drives, rows.u, of_y.reshape(-1), grad_u.reshape(-1), planes, adjoints, of_A, of_B, of_C,
            *given, first, end,
        )  # fmt: skip

    share(work, n_sums, threads, at_once=1)
    return Gradients(_gradients(rows, of_A, of_B, of_C), grad_u, rows.states_out(adjoints))


def _gradients(rows: Rows, of_A: Array, of_B: Array, of_C: Array) -> dict[str, Array]:
    """Gradients by name, in the dtypes of the parameters, the real part for a real one."""
    system, depth, width = rows.system, rows.depth, rows.width

    def whole(sums: Array) -> Array:
        total = sums.sum(axis=0).reshape(depth, ROWS * -(-system.n_channels // ROWS), 2, width)
        return rows.modes_of(np.moveaxis(total, 0, 1))[: system.n_channels]

    A = rows.modes_of(of_A.sum(axis=0).reshape(1, depth, 2, width))[0]
    found = {"A_bar": A, "B_bar": whole(of_B).T, "C": system.weight * np.conj(whole(of_C))}
    return {
        name: np.ascontiguousarray(found[name] if np.iscomplexobj(parameter) else found[name].real, parameter.dtype)
        for name, parameter in system.parameters.items()
    }
