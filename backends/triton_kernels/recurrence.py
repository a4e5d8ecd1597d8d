"""Every recurrence forwards: one program per block of rows and all their modes, states in registers from end to end."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from .configurations import Configuration
from .rows import Rows
from .steps import FACTORS, PER_RANK, advance, folded, forward, forward_read, read, summed


@triton.jit
def load_system(p_ptr, channel, m, mask, M, plane, RANK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The tiles of a system (steps.py); modes that do not exist are zero and stay so."""
    system = ()
    for i in tl.static_range(FACTORS + PER_RANK * RANK):
        part = tl.load(p_ptr + i * plane + channel[:, None] * M + m[None, :], mask, 0.0)
        system = system + (part,)  # noqa: RUF005
    return system


@triton.jit
def load_state(x_ptr, places, mask, plane, ORDER: tl.constexpr):  # type: ignore[no-untyped-def]
    """A state from its 2 · ORDER planes."""
    x = ()
    for i in tl.static_range(2 * ORDER):
        x = x + (tl.load(x_ptr + i * plane + places, mask, 0.0),)  # noqa: RUF005
    return x


@triton.jit
def store_state(x_ptr, x, places, mask, plane, ORDER: tl.constexpr):  # type: ignore[no-untyped-def]
    """A state into its 2 · ORDER planes."""
    for i in tl.static_range(2 * ORDER):
        tl.store(x_ptr + i * plane + places, x[i], mask)


@triton.jit
def recurrence_kernel(  # type: ignore[no-untyped-def]
    u_ptr,
    p_ptr,
    x_ptr,
    y_ptr,
    kept_ptr,
    H,
    M,
    rows,
    pieces,
    stride,
    length,
    KIND: tl.constexpr,
    ORDER: tl.constexpr,
    RANK: tl.constexpr,
    PAIRED: tl.constexpr,
    WRITE_Y: tl.constexpr,
    KEPT: tl.constexpr,
    ROWS: tl.constexpr,
    MODES: tl.constexpr,
    LOG: tl.constexpr,
):
    """Block (program 0) of ROWS rows and block (program 1) of MODES modes.

    Args:
        u_ptr: (sequences, stride); row r has the `length` inputs from r % pieces · length of sequence r // pieces.
        p_ptr: (planes, H, M) the system.
        x_ptr: (2 · ORDER, rows, M) the states before the first input; replaced by the final ones.
        y_ptr: (blocks of modes, sequences, stride), what each block adds to y; only if WRITE_Y.
        kept_ptr: (⌈length / KEPT⌉, 2 · ORDER, rows, M) the states before every KEPT-th input; only if KEPT > 0,
            which must be a multiple of 2^LOG.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    m = tl.program_id(1) * MODES + tl.arange(0, MODES)
    is_row = row < rows
    mask = is_row[:, None] & (m < M)[None, :]
    sequence = row // pieces
    system = load_system(p_ptr, sequence % H, m, mask, M, H * M, RANK)
    places = row[:, None] * M + m[None, :]
    plane = tl.cast(rows, tl.int64) * M
    x = load_state(x_ptr, places, mask, plane, ORDER)
    first = sequence * stride + row % pieces * length
    u_row = u_ptr + first
    y_row = y_ptr + first + tl.program_id(1).to(tl.int64) * (rows // pieces) * stride

    STEPS: tl.constexpr = 1 << LOG
    t = tl.arange(0, STEPS)
    whole = length // STEPS * STEPS
    # The next block's inputs are on their way while this one is computed: one warp has nothing else to wait with.
    ahead = tl.load(u_row[:, None] + t[None, :], is_row[:, None] & (t < whole)[None, :], 0.0)
    for start in range(0, whole, STEPS):
        if KEPT > 0:  # noqa: SIM102  # a constant, by which Triton leaves the rest out
            if start % KEPT == 0:
                store_state(kept_ptr + start // KEPT * 2 * ORDER * plane, x, places, mask, plane, ORDER)
        now = folded(ahead, ROWS, LOG)
        after = start + STEPS + t
        ahead = tl.load(u_row[:, None] + after[None, :], is_row[:, None] & (after < whole)[None, :], 0.0)
        if WRITE_Y:
            x, y = forward_read(x, now, system, LOG, KIND, ORDER, RANK, PAIRED)
            y = summed(y, ROWS, MODES, LOG)
            tl.store(y_row[:, None] + start + t[None, :], y, is_row[:, None])
        else:
            x = forward(x, now, system, LOG, KIND, ORDER, RANK, PAIRED)
    if KEPT > 0:  # noqa: SIM102
        if whole < length and whole % KEPT == 0:
            store_state(kept_ptr + whole // KEPT * 2 * ORDER * plane, x, places, mask, plane, ORDER)
    for k in range(whole, length):
        single = tl.load(u_row + k, is_row, 0.0)[:, None]
        x = advance(x, single, system, KIND, ORDER, RANK, PAIRED)
        if WRITE_Y:
            tl.store(y_row + k, tl.sum(read(x, system, KIND, ORDER), 1), is_row)
    store_state(x_ptr, x, places, mask, plane, ORDER)


def run(
    rows: Rows,
    states: torch.Tensor,
    configuration: Configuration,
    *,
    y: torch.Tensor | None = None,
    kept: torch.Tensor | None = None,
    interval: int = 0,
) -> None:
    """Launch the recurrence of all rows; nothing is launched where there are none.

    Args:
        states: (2 · order, rows, M), replaced by the final ones.
        y: (blocks of modes, batch, H, L), or None where no output is wanted.
        kept: (⌈L / interval⌉, 2 · order, rows, M) for the states before every `interval`-th input; a multiple of a
            block's steps.

    Accuracy:
        Products and sums in the order of docs/bounds.md, multiply-adds contracted or not as the compiler likes; the sum
        over modes in an order that depends on the configuration.
    """
    if rows.count == 0 or rows.length == 0 or rows.n_modes == 0:
        if y is not None:
            y.zero_()
        return
    nothing = states
    grid = (triton.cdiv(rows.count, configuration.rows), configuration.mode_blocks(rows.n_modes))
    recurrence_kernel[grid](
        rows.u,
        rows.planes,
        states,
        nothing if y is None else y,
        nothing if kept is None else kept,
        rows.n_channels,
        rows.n_modes,
        rows.count,
        rows.pieces,
        rows.stride,
        rows.length,
        **rows.form,
        WRITE_Y=y is not None,
        KEPT=interval,
        **configuration.options(coupled=rows.rank > 0),
    )


def outputs(rows: Rows, configuration: Configuration, empty: Any = torch.empty) -> torch.Tensor:
    """Room for what every block of modes adds to y."""
    shape = (configuration.mode_blocks(rows.n_modes), *rows.shape)
    return empty(shape, dtype=rows.u.dtype, device=rows.u.device)  # type: ignore[no-any-return]
