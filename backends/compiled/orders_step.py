"""One time step of all that a row has at once: the orders of `truncated` and `kb`, the sums of `pb`, windows of both.

A slot is one state of a row: its own recurrence, driven by the input or by a product of inputs, or fed by the slot
below, read out or not.  Every operation is that of the runs over many steps (`lowrank_sweep`, `cascade`), so the bounds
of docs/bounds.md hold; the sums over modes run in an order of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from liquid_ssm.problem import ModeSpec
from liquid_ssm.systems import DiagonalSystem, DPLRSystem

from .caching import compiled, inlined
from .cascade import fed_step
from .lowrank_sweep import product
from .scan import linear_step
from .simd import fma, lanes, load, load_pairs, splat, store, store_pairs, total, width
from .step import COMPLEX, each_row
from .tiles import Layout
from .windowed_step import windowed_rows

Array = npt.NDArray[Any]

# What a slot is fed with: nothing, (B̄ u) x' or u x' of the old state x' of the slot below.
ALONE, FED, CHAINED = 0, 1, 2
# When a slot is read out: never, together with the slots before it, or as the last of a sum that is added to y.
SILENT, JOINED, ENDS = 0, 1, 2
# Rows that all slots pass before the next ones: what slots share of the parameters stays in a near cache.
ROWS_OF_SLOTS = 64
# Numbers per mode of a pack: parts of Λ̄ (or Ā), C, P̄, Q̄, then of B̄^{∘p} for every p.
FIXED = 8

_packs: WeakKeyDictionary[Any, dict[Any, Array]] = WeakKeyDictionary()


@inlined
def _functional(pack, o, state, at, real, imaginary):  # type: ignore[no-untyped-def]
    """W more modes of Re Σ conj(Q̄) x."""
    w = width(state)
    xr, xi = load_pairs(state, at)
    return fma(load(pack, o + 6 * w), xr, real), fma(load(pack, o + 7 * w), xi, imaginary)


@inlined
def _advance(pack, o, b, low_rank, s, g, feed, old, at, under, below, new, to, real, imaginary):  # type: ignore[no-untyped-def]
    """W modes of one slot: the new state, and the output's two sums; arguments as in `_slot`."""
    w = width(new)
    ar, ai = load(pack, o), load(pack, o + w)
    br, bi = load(pack, o + b), load(pack, o + b + w)
    xr, xi = load_pairs(old, at)
    if low_rank:
        xr, xi = product(ar, ai, xr, xi)
        xr, xi = fma(-load(pack, o + 4 * w), s, xr), fma(-load(pack, o + 5 * w), s, xi)
        if feed == ALONE:
            xr, xi = fma(br, g, xr), fma(bi, g, xi)
        else:
            qr, qi = load_pairs(under, below)
            if feed == FED:
                zr, zi = product(br * g, bi * g, qr, qi)
                xr, xi = xr + zr, xi + zi
            else:
                xr, xi = fma(g, qr, xr), fma(g, qi, xi)
    elif feed == ALONE:
        xr, xi = linear_step(ar, ai, br * g, bi * g, xr, xi)
    else:
        qr, qi = load_pairs(under, below)
        xr, xi = fed_step(ar, ai, br * g, bi * g, xr, xi, qr, qi)
    store_pairs(new, to, xr, xi)
    return fma(load(pack, o + 2 * w), xr, real), fma(load(pack, o + 3 * w), xi, imaginary)


@inlined
def _slot(  # type: ignore[no-untyped-def]
    packs, b, stride, modes, low_rank, feed, reads, u, old, new, state, below, sums, y, channel, rows
):  # fmt: skip
    """One slot of `rows` rows of one sequence.

    Args:
        packs: of all channels; `b`: where in a pack the parts of the power of B̄ are that u is multiplied with.
        low_rank, feed: constants where this is called, so that no loop has branches.
        u: (rows) what drives the slot, or what it is fed by.
        state, below: where in `old` the first row's state of this slot and of the slot below begin.
        sums: (rows · 2 · W) outputs of the slots before that are added up with this one's; y: (rows).
        channel: of the first row.

    Returns:
        0 if all new states are finite that are not read out, else NaN.
    """
    w = width(new)
    whole = modes // w
    # Modes that do not fill a vector go through buffers, so that no row is read or written beyond its end.
    rest = 2 * (modes - whole * w)
    per_channel = (whole + (rest > 0)) * stride
    zero = splat(new.dtype.type(0))
    buffers = np.zeros(6 * w, new.dtype)
    nothing = new.dtype.type(0)
    trace, unread = nothing, zero
    last = 2 * whole * w
    o = channel * per_channel
    for row in range(rows):
        if rest:
            for i in range(rest):
                buffers[i] = old[state + last + i]
                if feed != ALONE:
                    buffers[2 * w + i] = old[below + last + i]
        g, s = splat(u[row]), zero
        if low_rank:
            real, imaginary = zero, zero
            for v in range(whole):
                real, imaginary = _functional(packs, o + v * stride, old, state + 2 * v * w, real, imaginary)
            if rest:
                real, imaginary = _functional(packs, o + whole * stride, buffers, 0, real, imaginary)
            s = splat(total(real + imaginary))
        real, imaginary = zero, zero
        for v in range(whole):
            at = 2 * v * w
            real, imaginary = _advance(
                packs, o + v * stride, b, low_rank, s, g, feed, old, state + at, old, below + at, new, state + at,
                real, imaginary,
            )  # fmt: skip
        if rest:
            real, imaginary = _advance(
                packs, o + whole * stride, b, low_rank, s, g, feed, buffers, 0, buffers, 2 * w, buffers, 4 * w,
                real, imaginary,
            )  # fmt: skip
            for i in range(rest):
                new[state + last + i] = buffers[4 * w + i]
        if reads:
            real, imaginary = load(sums, row * 2 * w) + real, load(sums, row * 2 * w + w) + imaginary
            if reads == ENDS:
                y[row] += total(real - imaginary)
                real, imaginary = zero, zero
            store(sums, row * 2 * w, real)
            store(sums, row * 2 * w + w, imaginary)
        if not reads:
            for v in range(2 * whole):
                unread = fma(zero, load(new, state + v * w), unread)
            for i in range(rest):
                trace += new[state + last + i] * nothing
        o, state, below = o + per_channel, state + 2 * modes, below + 2 * modes
    return trace + total(unread)


@compiled
def slot_rows(  # type: ignore[no-untyped-def]
    packs, slots, u, earlier, y, old, new, n_channels, modes, powers, low_rank, first, end
):
    """Rows `first` … `end` - 1 of one step.

    Args:
        packs: (H · depth · (FIXED + 2 · powers) · W) parameters with lanes for modes; 2 C and 2 Q̄ for C and Q̄.
        slots: (slots · 4) power of B̄, of the drive or of what feeds; how many inputs are multiplied; what feeds it;
            how it is read out.
        u, y: inputs and outputs of the rows; y is written.
        earlier: (rows · held) inputs before, newest last; of no length where no slot multiplies inputs.
        old, new: (batch · slots · H · 2 · M) parts of the states in turn; `new` is written.
        powers: of B̄ in a pack.

    Returns:
        whether outputs and new states are finite; of those that are read out, the outputs tell.
    """
    w = width(new)
    n_slots, held = slots.shape[0] // 4, earlier.shape[0] // max(1, u.shape[0])
    stride = (FIXED + 2 * powers) * w
    driven, out = np.empty(ROWS_OF_SLOTS, new.dtype), np.empty(ROWS_OF_SLOTS, new.dtype)
    sums = np.zeros(ROWS_OF_SLOTS * 2 * w, new.dtype)
    nothing = new.dtype.type(0)
    trace = nothing
    row = first
    while row < end:
        # Of one sequence at a time, whose slots lie beside each other.
        batch, channel = row // n_channels, row % n_channels
        count = min(n_channels - channel, end - row, ROWS_OF_SLOTS)
        out[:count] = 0
        for slot in range(n_slots):
            at = 4 * slot
            b, factors, feed, reads = (FIXED + 2 * slots[at] - 2) * w, slots[at + 1], slots[at + 2], slots[at + 3]
            state = ((batch * n_slots + slot) * n_channels + channel) * 2 * modes
            below = state - n_channels * 2 * modes
            for i in range(count):
                driven[i] = u[row + i]
                for k in range(1, factors):
                    driven[i] = driven[i] * earlier[(row + i + 1) * held - k]
            if low_rank:
                if feed == ALONE:
                    found = _slot(
                        packs, b, stride, modes, True, ALONE, reads, driven, old, new, state, below,
                        sums, out, channel, count,
                    )  # fmt: skip
                elif feed == FED:
                    found = _slot(
                        packs, b, stride, modes, True, FED, reads, driven, old, new, state, below,
                        sums, out, channel, count,
                    )  # fmt: skip
                else:
                    found = _slot(
                        packs, b, stride, modes, True, CHAINED, reads, driven, old, new, state, below,
                        sums, out, channel, count,
                    )  # fmt: skip
            elif feed == ALONE:
                found = _slot(
                    packs, b, stride, modes, False, ALONE, reads, driven, old, new, state, below,
                    sums, out, channel, count,
                )  # fmt: skip
            else:
                found = _slot(
                    packs, b, stride, modes, False, FED, reads, driven, old, new, state, below,
                    sums, out, channel, count,
                )  # fmt: skip
            trace += found
        for i in range(count):
            y[row + i] = out[i]
            trace += out[i] * nothing
        row += count
    return trace == 0


@compiled
def correlation_rows(  # type: ignore[no-untyped-def]
    factors, u, earlier, y, old, new, n_channels, order, elementary, first, end
):
    """y ← y + Σ_p β_p term_p for the rows `first` … `end` - 1, in the order of `added_correlations`.

    Args:
        factors: ((order - 1) · H) the factors β.
        earlier: (rows · (order - 1)) inputs before, newest last, for adjacent products.
        old, new: (batch · n · H) the sums, n being order for `elementary`, else order - 1; `new` is written.

    Returns:
        whether outputs and new sums are finite, of which the outputs tell: e_1 alone is not among them, and where it
        overflows, e_2 does.
    """
    w = width(new)
    n_sums = order if elementary else order - 1
    held = order - 1
    sums, now = np.zeros(order * w, new.dtype), np.zeros(w, new.dtype)
    beta, older, out = np.zeros(order * w, new.dtype), np.zeros(order * w, new.dtype), np.zeros(w, new.dtype)
    nothing = new.dtype.type(0)
    trace = nothing
    for begin in range(first, end, w):
        count = min(w, end - begin)
        for i in range(count):
            row = begin + i
            place = row // n_channels * n_sums * n_channels + row % n_channels
            now[i], out[i] = u[row], y[row]
            for p in range(n_sums):
                sums[p * w + i] = old[place + p * n_channels]
            for p in range(order - 1):
                beta[p * w + i] = factors[p * n_channels + row % n_channels]
                if not elementary:
                    older[p * w + i] = earlier[(row + 1) * held - 1 - p]
        value, added = load(now, 0), load(out, 0)
        if elementary:
            for lower in range(order - 1):
                p = order - 1 - lower
                store(sums, p * w, fma(value, load(sums, (p - 1) * w), load(sums, p * w)))
            store(sums, 0, load(sums, 0) + value)
            for p in range(1, order):
                added = fma(load(beta, (p - 1) * w), load(sums, p * w), added)
        else:
            for p in range(order - 1):
                value = value * load(older, p * w)
                running = load(sums, p * w) + value
                store(sums, p * w, running)
                added = fma(load(beta, p * w), running, added)
        store(out, 0, added)
        for i in range(count):
            row = begin + i
            place = row // n_channels * n_sums * n_channels + row % n_channels
            y[row] = out[i]
            trace += out[i] * nothing
            for p in range(n_sums):
                new[place + p * n_channels] = sums[p * w + i]
    return trace == 0


@cache
def slots_of(structure: str, spec: ModeSpec) -> Array:
    """(slots · 4): how `slot_rows` computes the linear states of a mode."""
    P = spec.order
    if spec.mode in ("s4", "pb") or P == 1 or spec.window is not None:
        rows = [(1, 1, ALONE, ENDS)]
    elif spec.mode == "truncated" or (spec.correlations == "all" and structure == "diagonal"):
        rows = [(1, 1, ALONE, JOINED), *[(1, 1, FED, JOINED)] * (P - 1)]
        rows[-1] = (*rows[-1][:3], ENDS)
    elif spec.correlations == "adjacent":
        rows = [(p, p, ALONE, ENDS) for p in range(1, P + 1)]
    else:
        rows = []
        for p in range(1, P + 1):
            rows += [(p, 1, ALONE, SILENT), *[(1, 1, CHAINED, SILENT)] * (p - 1)]
            rows[-1] = (*rows[-1][:3], ENDS)
    return np.array(rows, np.int64).reshape(-1)


def takes(system: Any, spec: ModeSpec) -> bool:
    """Whether `orders_step` computes this."""
    if spec.mode not in ("truncated", "kb", "pb") or not system.is_complex:
        return False
    if isinstance(system, DPLRSystem):
        # Its transitions do not commute: order p of `kb` runs p recurrences over a window.
        runs = spec.mode == "kb" and spec.window is not None and spec.correlations == "all" and spec.order > 1
        return system.rank == 1 and system.conjugate_pairs and not runs
    return isinstance(system, DiagonalSystem)


def orders_step(
    system: DiagonalSystem | DPLRSystem,
    u: Array,
    spec: ModeSpec,
    x: Array,
    sums: Array | None,
    inputs: Array | None,
    factors: Array | None,
    *,
    threads: int,
) -> tuple[Array, Array, Array | None, Array | None]:
    """One step of `truncated`, `kb` or `pb`: y (batch, H, 1), and x, sums and inputs after it.

    Args:
        system: one that it `takes`, in u's precision.
        u: (batch, H, 1).
        spec: one that it `takes`.
        x, sums, inputs: the state before, as in `liquid_ssm.modes.State`, contiguous and in u's precision.
        factors: of `pb`, its responses (order - 1, H); of windowed `kb` heads of kernels, (order - 1, window - 1, H).

    Accuracy: the operations are those of the runs over many steps, the sums over modes in an order of their own.
    """
    return prepared(system, u.shape, u.dtype, spec, factors, threads=threads)(u, x, sums, inputs)[:4]


def prepared(
    system: DiagonalSystem | DPLRSystem,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    spec: ModeSpec,
    factors: Array | None,
    *,
    threads: int,
) -> Callable[..., tuple[Array, Array, Array | None, Array | None, bool]]:
    """`orders_step` for inputs of one shape and dtype: a function of u, x, sums and inputs.

    It also says whether outputs and states are finite; inputs that are not make one of those so.
    """
    batch, n_channels, _ = shape
    channels, rows, modes, kind = max(1, n_channels), batch * n_channels, system.n_modes, COMPLEX[dtype]
    low_rank, elementary = isinstance(system, DPLRSystem), spec.correlations == "all"
    order, window, of_kernels = spec.order, spec.window, spec.mode == "kb"
    slots = slots_of(system.structure, spec)
    powers = int(slots[::4].max())
    packs, none = _packed(system, powers, dtype), np.empty(0, dtype)
    responses = None if factors is None else factors.reshape(-1)

    def advance(
        u: Array, x: Array, sums: Array | None, inputs: Array | None
    ) -> tuple[Array, Array, Array | None, Array | None, bool]:
        y, new_x = np.empty(shape, dtype), np.empty(x.shape, kind)
        values, outputs = np.ascontiguousarray(u).reshape(-1), y.reshape(-1)
        earlier = none if inputs is None else inputs.reshape(-1)
        old, new = x.reshape(-1).view(dtype), new_x.reshape(-1).view(dtype)
        given: tuple[Any, ...] = packs, slots, values, earlier, outputs, old, new, channels, modes, powers, low_rank
        finite = each_row(slot_rows, given, rows, threads)
        new_sums = None
        if sums is not None and responses is not None:
            new_sums = np.empty(sums.shape, dtype)
            given = (
                responses,
                values,
                earlier,
                outputs,
                sums.reshape(-1),
                new_sums.reshape(-1),
                channels,
                order,
                elementary,
            )
            finite = each_row(correlation_rows, given, rows, threads) and finite
        elif responses is not None:
            given = responses, values, earlier, outputs, channels, order, window, elementary, of_kernels
            finite = each_row(windowed_rows, given, rows, threads) and finite
        kept = None
        if inputs is not None:
            kept = np.empty(inputs.shape, dtype)
            kept[..., :-1] = inputs[..., 1:]
            kept[..., -1:] = u
        return y, new_x, new_sums, kept, finite

    return advance


def _packed(system: DiagonalSystem | DPLRSystem, powers: int, dtype: np.dtype[Any]) -> Array:
    known = _packs.setdefault(system, {})
    key = powers, dtype
    if key not in known:
        n_lanes = lanes(dtype)
        layout = Layout(system.n_channels, system.n_channels, system.n_modes, n_lanes, n_lanes)
        nothing = np.zeros(system.C.shape, system.C.dtype)
        if isinstance(system, DPLRSystem):
            values = [system.Lambda_bar, system.weight * system.C, system.P_bar[0], system.weight * system.Q_bar[0]]
        else:
            values = [system.A_bar, system.weight * system.C, nothing, nothing]
        values += [system.with_input_power(p).B_bar for p in range(1, powers + 1)]
        planes = [part for value in values for part in (value.real, value.imag)]
        known[key] = np.ascontiguousarray(layout.packed(planes, dtype)).reshape(-1)
    return known[key]
