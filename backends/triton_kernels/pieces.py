"""The scan of few rows, parallel in time: pieces of a sequence are rows of their own.

Two passes: each piece from rest, with the product of its transitions; from these, one piece after the other, the state
in which each begins; then each piece once more, from that state.  About 2.2 times the operations of one pass, by as
many programs as there are pieces.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from .configurations import Configuration, forward_configurations, piece_configuration
from .recurrence import load_state, load_system, outputs, run, store_state
from .recurrences import recurrence
from .rows import Rows
from .steps import LIQUID, advance, folded, unfolded

Tensor = torch.Tensor


@triton.jit
def summary_step(x, product, u, system, KIND: tl.constexpr):  # type: ignore[no-untyped-def]
    """The state after one input, and the product of the transitions so far."""
    x = advance(x, u, system, KIND, 1, 0, True)
    tr = system[0]
    ti = system[1]
    if KIND == LIQUID:
        tr = tr + system[2] * u
        ti = ti + system[3] * u
    return x, (tr * product[0] - ti * product[1], tr * product[1] + ti * product[0])


@triton.jit
def summary_steps(x, product, u, system, LOG: tl.constexpr, KIND: tl.constexpr):  # type: ignore[no-untyped-def]
    """2^LOG of them, `u` as `folded` gives it."""
    inputs = unfolded(u, LOG)
    for t in tl.static_range(1 << LOG):
        x, product = summary_step(x, product, inputs[t], system, KIND)
    return x, product


@triton.jit
def summary_kernel(  # type: ignore[no-untyped-def]
    u_ptr,
    p_ptr,
    end_ptr,
    product_ptr,
    H,
    M,
    rows,
    pieces,
    stride,
    length,
    KIND: tl.constexpr,
    ROWS: tl.constexpr,
    MODES: tl.constexpr,
    LOG: tl.constexpr,
):
    """Each row from rest: its last state and the product of its transitions, (2, rows, M); as `recurrence_kernel`."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    m = tl.program_id(1) * MODES + tl.arange(0, MODES)
    is_row = row < rows
    mask = is_row[:, None] & (m < M)[None, :]
    sequence = row // pieces
    system = load_system(p_ptr, sequence % H, m, mask, M, H * M, 0)
    zero = system[0] * 0
    x = (zero, zero)
    product = (zero + 1, zero)
    u_row = u_ptr + sequence * stride + row % pieces * length

    STEPS: tl.constexpr = 1 << LOG
    t = tl.arange(0, STEPS)
    whole = length // STEPS * STEPS
    for start in range(0, whole, STEPS):
        now = tl.load(u_row[:, None] + start + t[None, :], is_row[:, None], 0.0)
        x, product = summary_steps(x, product, folded(now, ROWS, LOG), system, LOG, KIND)
    for k in range(whole, length):
        single = tl.load(u_row + k, is_row, 0.0)[:, None]
        x, product = summary_step(x, product, single, system, KIND)
    places = row[:, None] * M + m[None, :]
    plane = tl.cast(rows, tl.int64) * M
    store_state(end_ptr, x, places, mask, plane, 1)
    store_state(product_ptr, product, places, mask, plane, 1)


@triton.jit
def carry_kernel(end_ptr, product_ptr, x_ptr, start_ptr, M, sequences, pieces, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    """x ← product · x + end, piece after piece, for SIZE modes of any sequences; every piece's first state is stored.

    Args:
        end_ptr, product_ptr: (2, sequences · pieces, M).
        x_ptr: (2, sequences, M), the states before the first piece.
        start_ptr: as `end_ptr`; written.
    """
    i = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    count = tl.cast(sequences, tl.int64) * M
    mask = i < count
    x = load_state(x_ptr, i, mask, count, 1)
    first = i // M * pieces * M + i % M
    plane = count * pieces
    for piece in range(0, pieces):
        places = first + piece * M
        store_state(start_ptr, x, places, mask, plane, 1)
        pr, pi = load_state(product_ptr, places, mask, plane, 1)
        er, ei = load_state(end_ptr, places, mask, plane, 1)
        x = (pr * x[0] - pi * x[1] + er, pr * x[1] + pi * x[0] + ei)


def scan_in_pieces(
    system: Any,
    u: Tensor,
    states: Tensor | None,
    *,
    liquid: bool,
    pieces: int,
    configuration: Configuration | None = None,
    empty: Any = torch.empty,
) -> tuple[Tensor, Tensor]:
    """`recurrence` of a diagonal system, sequences in `pieces` pieces of L // pieces steps; what is left comes last.

    Accuracy: a scan whose states are passed on in the order of time after every L // pieces steps (docs/bounds.md,
    Scans).
    """
    kind = "liquid" if liquid else "linear"
    rows = Rows(system, u, kind, 1, pieces)
    before = Rows(system, u[..., :0], kind, 1)
    if configuration is None:
        configuration = forward_configurations(rows.count, rows.n_modes)[0]
    dtype, device = rows.u.dtype, rows.u.device
    ends, products, starts = (empty((2, rows.count, rows.n_modes), dtype=dtype, device=device) for _ in range(3))
    summary = piece_configuration(configuration)
    grid = (triton.cdiv(rows.count, summary.rows), summary.mode_blocks(rows.n_modes))
    summary_kernel[grid](
        rows.u,
        rows.planes,
        ends,
        products,
        rows.n_channels,
        rows.n_modes,
        rows.count,
        pieces,
        rows.stride,
        rows.length,
        KIND=rows.form["KIND"],
        **summary.options(),
    )
    size = 128
    carry_kernel[(triton.cdiv(before.count * rows.n_modes, size),)](
        ends,
        products,
        before.states_in(states),
        starts,
        rows.n_modes,
        before.count,
        pieces,
        SIZE=size,
        num_warps=4,
        enable_fp_fusion=True,
    )
    parts = outputs(rows, configuration, empty)
    run(rows, starts, configuration, y=parts)
    last = starts.view(2, before.count, pieces, rows.n_modes)[:, :, -1].contiguous()
    final = before.states_out(last)
    whole = rows.length * pieces
    if whole < rows.stride:
        tail, final = recurrence(system, u[..., whole:], final, kind=kind, empty=empty)
        y = parts.sum(0) if len(parts) > 1 else parts[0]
        y[..., whole:] = tail
        return y, final
    return parts.sum(0) if len(parts) > 1 else parts[0], final
