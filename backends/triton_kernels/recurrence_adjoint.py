"""Every recurrence backwards: chunk by chunk the states are computed again, never undone, and cotangents go back.

Forwards the states before every `interval`-th input are kept.  Backwards, a program takes one chunk after the other
from the last: it keeps the state before every block of the chunk in a strip of memory that all chunks share, and then,
block by block, the states of a block in registers.  No division by a transition, so |a_k| may be 0 or above 1.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .configurations import Configuration
from .recurrence import load_state, load_system, store_state
from .rows import Rows
from .steps import (
    CHAIN,
    FACTORS,
    LIQUID,
    PER_RANK,
    TRUNCATED,
    advance,
    coupled,
    folded,
    forward,
    joined,
    overlap,
    summed,
    total,
    unfolded,
)


@triton.jit
def retreat(  # type: ignore[no-untyped-def]
    x, u, g, carry, sums, system, KIND: tl.constexpr, ORDER: tl.constexpr, RANK: tl.constexpr, PAIRED: tl.constexpr
):
    """One step back, as docs/bounds-gradients.md writes it.

    `liquid`, diagonal: 22 operations per mode, and 8 for the state after the step, which the compiler has from the step
    after it.

    Args:
        x: the state before the step.
        u, g: (rows, 1) its input and the cotangent of its output.
        carry: cotangent of the state after it, without what comes through its output; as a state.
        sums: gradients of the system so far, as `system`.

    Returns:
        carry of the step before, the sums, and of every mode the gradient of u.
    """
    sr, si = total(advance(x, u, system, KIND, ORDER, RANK, PAIRED), KIND, ORDER)
    output_r = sums[4] + g * sr
    output_i = sums[5] - g * si
    rr = g * system[4]
    ri = -(g * system[5])

    cotangents = ()
    for p in tl.static_range(ORDER):
        if KIND == CHAIN and p < ORDER - 1:
            cotangents = cotangents + (carry[2 * p], carry[2 * p + 1])  # noqa: RUF005
        else:
            cotangents = cotangents + (carry[2 * p] + rr, carry[2 * p + 1] + ri)  # noqa: RUF005

    # ∂L/∂v with v = B̄ u, and what u is multiplied with besides
    vr = cotangents[0]
    vi = cotangents[1]
    transition_r = sums[0]
    transition_i = sums[1]
    direct = vr * 0
    for p in tl.static_range(ORDER):
        cr = cotangents[2 * p]
        ci = cotangents[2 * p + 1]
        dr = cr * x[2 * p] + ci * x[2 * p + 1]
        di = ci * x[2 * p] - cr * x[2 * p + 1]
        transition_r = transition_r + dr
        transition_i = transition_i + di
        if KIND == LIQUID:
            vr = vr + dr
            vi = vi + di
        if p > 0:
            yr = x[2 * p - 2]
            yi = x[2 * p - 1]
            if KIND == TRUNCATED:
                vr = vr + (cr * yr + ci * yi)
                vi = vi + (ci * yr - cr * yi)
            else:
                direct = direct + (cr * yr + ci * yi)
    drive_r = sums[2] + vr * u
    drive_i = sums[3] + vi * u
    of_u = system[2] * vr + system[3] * vi
    if KIND == CHAIN:
        of_u = of_u + direct

    wr = system[2] * u
    wi = system[3] * u
    tr = system[0]
    ti = system[1]
    if KIND == LIQUID:
        tr = tr + wr
        ti = ti + wi
    factors = ()
    for i in tl.static_range(PER_RANK * RANK):
        factors = factors + (sums[6 + i],)  # noqa: RUF005
    before = ()
    for p in tl.static_range(ORDER):
        cr = cotangents[2 * p]
        ci = cotangents[2 * p + 1]
        zr = tr * cr + ti * ci
        zi = tr * ci - ti * cr
        old = factors
        factors = ()
        for r in tl.static_range(RANK):
            pr = system[6 + 4 * r]
            pi = system[7 + 4 * r]
            qr = system[8 + 4 * r]
            qi = system[9 + 4 * r]
            fr, fi = overlap(pr, pi, cr, ci, PAIRED)
            lr, li = coupled(qr, qi, fr, fi, PAIRED)
            zr = zr - lr
            zi = zi - li
            er, ei = overlap(qr, qi, x[2 * p], x[2 * p + 1], PAIRED)
            # −∂P̄_r = Σ conj(Q̄_r* x) λ and −∂Q̄_r = Σ conj(P̄_r* λ) x
            gr, gi = coupled(cr, ci, er, -ei, PAIRED)
            hr, hi = coupled(x[2 * p], x[2 * p + 1], fr, -fi, PAIRED)
            factors = factors + (old[4 * r] + gr, old[4 * r + 1] + gi, old[4 * r + 2] + hr, old[4 * r + 3] + hi)  # noqa: RUF005
        if p < ORDER - 1:
            nr = cotangents[2 * p + 2]
            ni = cotangents[2 * p + 3]
            if KIND == TRUNCATED:
                zr = zr + (wr * nr + wi * ni)
                zi = zi + (wr * ni - wi * nr)
            else:
                zr = zr + u * nr
                zi = zi + u * ni
        before = before + (zr, zi)  # noqa: RUF005
    sums = (transition_r, transition_i, drive_r, drive_i, output_r, output_i) + factors  # noqa: RUF005
    return before, sums, of_u


@triton.jit
def backward(  # type: ignore[no-untyped-def]
    x,
    u,
    g,
    carry,
    sums,
    system,
    LOG: tl.constexpr,
    KIND: tl.constexpr,
    ORDER: tl.constexpr,
    RANK: tl.constexpr,
    PAIRED: tl.constexpr,
):
    """2^LOG steps back, `u` and `g` as `folded` gives them; the gradient of u per mode as `joined` gives it."""
    inputs = unfolded(u, LOG)
    cotangents = unfolded(g, LOG)
    STEPS: tl.constexpr = 1 << LOG
    # The states before every step, which stay in registers.
    states = x
    for t in tl.static_range(STEPS - 1):
        x = advance(x, inputs[t], system, KIND, ORDER, RANK, PAIRED)
        states = states + x
    gradients = ()
    for past in tl.static_range(STEPS):
        before = ()
        for i in tl.static_range(2 * ORDER):
            before = before + (states[2 * ORDER * (STEPS - 1 - past) + i],)  # noqa: RUF005
        now = inputs[STEPS - 1 - past]
        carry, sums, of_u = retreat(
            before, now, cotangents[STEPS - 1 - past], carry, sums, system, KIND, ORDER, RANK, PAIRED
        )
        gradients = (of_u,) + gradients  # noqa: RUF005
    return carry, sums, joined(gradients, LOG)


@triton.jit
def adjoint_kernel(  # type: ignore[no-untyped-def]
    u_ptr,
    p_ptr,
    g_ptr,
    kept_ptr,
    strip_ptr,
    carry_ptr,
    sums_ptr,
    of_u_ptr,
    H,
    M,
    rows,
    length,
    KIND: tl.constexpr,
    ORDER: tl.constexpr,
    RANK: tl.constexpr,
    PAIRED: tl.constexpr,
    KEPT: tl.constexpr,
    ROWS: tl.constexpr,
    MODES: tl.constexpr,
    LOG: tl.constexpr,
):
    """Block (program 0) of ROWS rows and block (program 1) of MODES modes.

    Args:
        u_ptr, g_ptr: (rows, length) inputs and cotangents of the outputs.
        p_ptr: (planes, H, M) the system.
        kept_ptr: (⌈length / KEPT⌉, 2 · ORDER, rows, M) the states before every KEPT-th input.
        strip_ptr: (KEPT / 2^LOG, 2 · ORDER, rows, M) room for the states of one chunk.
        carry_ptr: (2 · ORDER, rows, M) cotangents of the final states; replaced by those of the initial ones.
        sums_ptr: (planes, rows, M) gradients of the system, row by row; written.
        of_u_ptr: (blocks of modes, rows, length) what each block adds to the gradient of u; written.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    m = tl.program_id(1) * MODES + tl.arange(0, MODES)
    is_row = row < rows
    mask = is_row[:, None] & (m < M)[None, :]
    system = load_system(p_ptr, row % H, m, mask, M, H * M, RANK)
    places = row[:, None] * M + m[None, :]
    plane = tl.cast(rows, tl.int64) * M
    carry = load_state(carry_ptr, places, mask, plane, ORDER)
    sums = ()
    for i in tl.static_range(FACTORS + PER_RANK * RANK):
        sums = sums + (system[i] * 0,)  # noqa: RUF005
    u_row = u_ptr + row * length
    g_row = g_ptr + row * length
    of_u_row = of_u_ptr + (tl.program_id(1).to(tl.int64) * rows + row) * length

    STEPS: tl.constexpr = 1 << LOG
    t = tl.arange(0, STEPS)
    chunks = (length + KEPT - 1) // KEPT
    for past in range(0, chunks):
        chunk = chunks - 1 - past
        begin = chunk * KEPT
        end = tl.minimum(begin + KEPT, length)
        blocks = (end - begin) // STEPS
        whole = begin + blocks * STEPS
        x = load_state(kept_ptr + chunk * 2 * ORDER * plane, places, mask, plane, ORDER)
        # Inputs of the next block are on their way while this one is computed.
        ahead = tl.load(u_row[:, None] + begin + t[None, :], is_row[:, None] & (begin + t < whole)[None, :], 0.0)
        for b in range(0, blocks):
            store_state(strip_ptr + b * 2 * ORDER * plane, x, places, mask, plane, ORDER)
            now = folded(ahead, ROWS, LOG)
            after = begin + (b + 1) * STEPS + t
            ahead = tl.load(u_row[:, None] + after[None, :], is_row[:, None] & (after < whole)[None, :], 0.0)
            x = forward(x, now, system, LOG, KIND, ORDER, RANK, PAIRED)
        # Threads may read what others of the program wrote.
        tl.debug_barrier()
        # At most STEPS - 1 steps of the last chunk, each from the state before all of them.
        for late in range(0, end - whole):
            k = end - 1 - late
            z = x
            for j in range(whole, k):
                z = advance(z, tl.load(u_row + j, is_row, 0.0)[:, None], system, KIND, ORDER, RANK, PAIRED)
            single = tl.load(u_row + k, is_row, 0.0)[:, None]
            cotangent = tl.load(g_row + k, is_row, 0.0)[:, None]
            carry, sums, of_u = retreat(z, single, cotangent, carry, sums, system, KIND, ORDER, RANK, PAIRED)
            tl.store(of_u_row + k, tl.sum(of_u, 1), is_row)
        b = tl.maximum(blocks - 1, 0)
        at = begin + b * STEPS + t
        is_step = is_row[:, None] & (at < whole)[None, :]
        x = load_state(strip_ptr + b * 2 * ORDER * plane, places, mask, plane, ORDER)
        u = tl.load(u_row[:, None] + at[None, :], is_step, 0.0)
        g = tl.load(g_row[:, None] + at[None, :], is_step, 0.0)
        for c in range(0, blocks):
            # Before the first block is nothing: it is read once more.
            b = tl.maximum(blocks - 2 - c, 0)
            before = load_state(strip_ptr + b * 2 * ORDER * plane, places, mask, plane, ORDER)
            earlier = begin + b * STEPS + t
            u_before = tl.load(u_row[:, None] + earlier[None, :], is_row[:, None], 0.0)
            g_before = tl.load(g_row[:, None] + earlier[None, :], is_row[:, None], 0.0)
            carry, sums, of_u = backward(
                x,
                folded(u, ROWS, LOG),
                folded(g, ROWS, LOG),
                carry,
                sums,
                system,
                LOG,
                KIND,
                ORDER,
                RANK,
                PAIRED,
            )
            now = begin + (blocks - 1 - c) * STEPS + t
            tl.store(of_u_row[:, None] + now[None, :], summed(of_u, ROWS, MODES, LOG), is_row[:, None])
            x = before
            u = u_before
            g = g_before
        tl.debug_barrier()
    store_state(carry_ptr, carry, places, mask, plane, ORDER)
    for i in tl.static_range(FACTORS + PER_RANK * RANK):
        tl.store(sums_ptr + i * plane + places, sums[i], mask)


def run_adjoint(
    rows: Rows,
    grad_y: torch.Tensor,
    kept: torch.Tensor,
    strip: torch.Tensor,
    carry: torch.Tensor,
    sums: torch.Tensor,
    of_u: torch.Tensor,
    configuration: Configuration,
    interval: int,
) -> None:
    """Launch the adjoint of all rows; the arrays are those of `adjoint_kernel`.

    Accuracy:
        The operations of docs/bounds-gradients.md, "What is computed"; sums over time run backwards, step by step, in
        the precision of u, those over modes in an order that depends on the configuration.
    """
    grid = (triton.cdiv(rows.count, configuration.rows), configuration.mode_blocks(rows.n_modes))
    adjoint_kernel[grid](
        rows.u,
        rows.planes,
        grad_y,
        kept,
        strip,
        carry,
        sums,
        of_u,
        rows.n_channels,
        rows.n_modes,
        rows.count,
        rows.length,
        **rows.form,
        KEPT=interval,
        **configuration.options(coupled=rows.rank > 0),
    )
