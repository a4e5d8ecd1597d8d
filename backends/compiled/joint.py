"""`kb` over adjacent index tuples as one recurrence: all orders share Ā and C, so their drives are added up.

x_k = ā x_{k-1} + Σ_p b̄^p c_p(k), c_p(k) = u_k u_{k-1} … u_{k-p+1}, y_k = weight · Re(C x_k) (Eq. 14).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from liquid_ssm.systems import DiagonalSystem

from .adjacent import multiply, read_with_earlier
from .caching import compiled, inlined
from .diagonal import Tiles, can_scale
from .scan import STEPS, clear, difference, linear_step
from .simd import fma, load, splat, store, width
from .tiles import write_signal

Array = npt.NDArray[Any]


@inlined
def _drive(first, second, third, b1, b2, b3, scaled, real):  # type: ignore[no-untyped-def]
    """One part of Σ_p B̄^p c_p for three orders; divided by B̄, the first order is c_1 = u itself, which is real."""
    if scaled:
        return fma(b2, second, fma(b3, third, first)) if real else fma(b2, second, b3 * third)
    return fma(b1, first, fma(b2, second, b3 * third))


@inlined
def _two_modes(pack, o, products, steps, order, state, s, real, imaginary, scaled):  # type: ignore[no-untyped-def]
    """Two modes beside each other over one block, in registers; order 3."""
    w = width(state)
    ar, ai, cr, ci = load(pack, o), load(pack, o + w), load(pack, o + 2 * w), load(pack, o + 3 * w)
    br, bi, dr, di = load(pack, o + 4 * w), load(pack, o + 5 * w), load(pack, o + 6 * w), load(pack, o + 7 * w)
    er, ei = load(pack, o + 8 * w), load(pack, o + 9 * w)
    o += 10 * w
    Ar, Ai, Cr, Ci = load(pack, o), load(pack, o + w), load(pack, o + 2 * w), load(pack, o + 3 * w)
    Br, Bi, Dr, Di = load(pack, o + 4 * w), load(pack, o + 5 * w), load(pack, o + 6 * w), load(pack, o + 7 * w)
    Er, Ei = load(pack, o + 8 * w), load(pack, o + 9 * w)
    xr, xi, Xr, Xi = load(state, s), load(state, s + w), load(state, s + 2 * w), load(state, s + 3 * w)
    for t in range(steps):
        at = 3 * t * w
        first, second, third = load(products, at), load(products, at + w), load(products, at + 2 * w)
        wr = _drive(first, second, third, br, dr, er, scaled, True)
        wi = _drive(first, second, third, bi, di, ei, scaled, False)
        xr, xi = linear_step(ar, ai, wr, wi, xr, xi)
        wr = _drive(first, second, third, Br, Dr, Er, scaled, True)
        wi = _drive(first, second, third, Bi, Di, Ei, scaled, False)
        Xr, Xi = linear_step(Ar, Ai, wr, wi, Xr, Xi)
        store(real, t * w, fma(Cr, Xr, fma(cr, xr, load(real, t * w))))
        store(imaginary, t * w, fma(Ci, Xi, fma(ci, xi, load(imaginary, t * w))))
    store(state, s, xr)
    store(state, s + w, xi)
    store(state, s + 2 * w, Xr)
    store(state, s + 3 * w, Xi)


@inlined
def _one_mode(pack, o, products, steps, order, state, s, real, imaginary, scaled):  # type: ignore[no-untyped-def]
    """One mode over one block, any order; the drive begins with the highest order, the smallest as a rule."""
    w = width(state)
    ar, ai, cr, ci = load(pack, o), load(pack, o + w), load(pack, o + 2 * w), load(pack, o + 3 * w)
    powers, last = o + 4 * w, order - 1
    xr, xi = load(state, s), load(state, s + w)
    nothing = splat(state.dtype.type(0))
    for t in range(steps):
        # Divided by B̄, the first order is c_1 = u itself.
        wr, wi = load(products, t * order * w) if scaled else nothing, nothing
        for lower in range(last if scaled else order):
            p = last - lower
            product = load(products, (t * order + p) * w)
            wr = fma(load(pack, powers + 2 * p * w), product, wr)
            wi = fma(load(pack, powers + (2 * p + 1) * w), product, wi)
        xr, xi = linear_step(ar, ai, wr, wi, xr, xi)
        store(real, t * w, fma(cr, xr, load(real, t * w)))
        store(imaginary, t * w, fma(ci, xi, load(imaginary, t * w)))
    store(state, s, xr)
    store(state, s + w, xi)


@compiled
def joint_tiles(  # type: ignore[no-untyped-def]
    packs, offsets, rows, group, u, y, states, order, length, apart, weight, scaled, first, end
):
    """Tiles `first` … `end` - 1.

    Args:
        packs: (packs, depth · (4 + 2 · order) · W): Ā, C, then B̄^p for p = 1 … order; `scaled`: Ā, C ∘ B̄, B̄^(p-1).
        others: as in `scan_tiles`.
    """
    n_packs = packs.shape[0]
    w = width(states)
    depth = states.shape[1] // (2 * w)
    per_tile = w // group
    components = 4 + 2 * order
    inputs = np.empty((STEPS + order - 1) * w, states.dtype)
    products = np.empty(STEPS * order * w, states.dtype)
    real = np.empty(STEPS * w, states.dtype)
    imaginary = np.empty(STEPS * w, states.dtype)
    block = np.empty(w * w, states.dtype)
    for tile in range(first, end):
        pack, state, places = packs[tile % n_packs], states[tile], offsets[tile]
        n_rows = min(per_tile, rows - tile * per_tile)
        for start in range(0, length, STEPS):
            steps = min(STEPS, length - start)
            read_with_earlier(u, places, start, steps, apart, order - 1, inputs)
            multiply(inputs, products, steps, order)
            clear(real, steps)
            clear(imaginary, steps)
            v = 0
            if order == 3:
                while v + 2 <= depth:
                    _two_modes(
                        pack, v * components * w, products, steps, order, state, v * 2 * w, real, imaginary, scaled
                    )
                    v += 2
            while v < depth:
                _one_mode(pack, v * components * w, products, steps, order, state, v * 2 * w, real, imaginary, scaled)
                v += 1
            difference(real, imaginary, steps, weight)
            write_signal(real, steps, group, n_rows, y, places, start, apart, block)


def powers_of(B_bar: Array, order: int) -> list[Array]:
    """B̄^p for p = 1 … order, in complex128."""
    powers = [B_bar.astype(np.complex128)]
    for _ in range(order - 1):
        powers.append(powers[-1] * powers[0])
    return powers


def of_input(B_bar: Array, of_powers: Array) -> Array:
    """The gradient of B̄ (H, M) in its dtype, Σ_p p conj(B̄^{p-1}) times that of B̄^p, (order, H, M)."""
    total = of_powers[0]
    for p, power in enumerate(powers_of(B_bar, len(of_powers))[:-1], start=2):
        total = total + p * np.conj(power) * of_powers[p - 1]
    return np.ascontiguousarray(total if np.iscomplexobj(B_bar) else total.real, dtype=B_bar.dtype)


def joint_scan(
    system: DiagonalSystem, u: Array, *, order: int, threads: int, state_dtype: npt.DTypeLike | None = None
) -> Array:
    """y (batch, H, L) from rest.

    States are divided by B̄ where `diagonal.can_scale` allows: for order 3, 10 operations per mode and step, not 12.

    Accuracy: B̄^p is computed in float64 and rounded once; c_p has p - 1 products behind it, the drive is a chain of
    at most `order` multiply-adds, to which Ā x is accumulated.
    """
    scaled = can_scale(system, u, state_dtype)
    tiles = Tiles(system, u, state_dtype)
    y, states = tiles.memory.empty(u.dtype), tiles.planes(None)
    powers = powers_of(system.B_bar, order)
    C = system.C * powers[0] if scaled else system.C
    packs = packed_orders(tiles, C, [np.ones_like(powers[0]), *powers[:-1]] if scaled else powers)
    tiles.each(joint_tiles, threads, packs, tiles.memory.flat(y), states, order, *tiles.steps, system.weight, scaled)
    return y


def packed_orders(tiles: Tiles, C: Array, powers: list[Array]) -> Array:
    """(packs, depth · (4 + 2 · order) · W): Ā, C and the powers."""
    layout = tiles.layout
    planes = [part for p in (tiles.system.A_bar, C, *powers) for part in (p.real, p.imag)]
    return layout.packed(planes, tiles.dtype).reshape(layout.packs, layout.depth * len(planes) * layout.lanes)
