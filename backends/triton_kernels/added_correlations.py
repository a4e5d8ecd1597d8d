"""The correlation terms of `pb`, Eq. 15, added to an output in one pass over it: no term is ever stored."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from .configurations import interpreting, power_of_two
from .steps import folded, joined, summed, unfolded

Tensor = torch.Tensor

# Rows per program, one per thread of a warp, and log₂ of the steps that are read and written at once.
ROWS, LOG = 32, 4


@triton.jit
def add_step(y, u, beta, sums, recent, ORDER: tl.constexpr, ELEMENTARY: tl.constexpr):  # type: ignore[no-untyped-def]
    """One step: y + Σ_p β_p term_p, the sums after it and the newest ORDER - 1 inputs.

    elementary: e_p(k) = e_p(k-1) + u_k e_{p-1}(k-1); running: s_p(k) = s_p(k-1) + u_k u_{k-1} … u_{k-p+1}.
    """
    new = ()
    if ELEMENTARY:
        new = (sums[0] + u,)
        for p in tl.static_range(1, ORDER):
            term = sums[p] + u * sums[p - 1]
            y = y + beta[p - 1] * term
            new = new + (term,)  # noqa: RUF005
    else:
        product = u
        for p in tl.static_range(1, ORDER):
            product = product * recent[p - 1]
            term = sums[p - 1] + product
            y = y + beta[p - 1] * term
            new = new + (term,)  # noqa: RUF005
    newest = ()
    if ORDER > 1:
        newest = (u,)
        for p in tl.static_range(1, ORDER - 1):
            newest = newest + (recent[p - 1],)  # noqa: RUF005
    return y, new, newest


@triton.jit
def add_steps(  # type: ignore[no-untyped-def]
    y, u, beta, sums, recent, LOG: tl.constexpr, ORDER: tl.constexpr, ELEMENTARY: tl.constexpr
):
    """2^LOG of them, y and u as `folded` gives them, the new y as `joined` gives it."""
    outputs = unfolded(y, LOG)
    inputs = unfolded(u, LOG)
    added = ()
    for t in tl.static_range(1 << LOG):
        total, sums, recent = add_step(outputs[t], inputs[t], beta, sums, recent, ORDER, ELEMENTARY)
        added = added + (total,)  # noqa: RUF005
    return joined(added, LOG), sums, recent


@triton.jit
def added_correlations_kernel(  # type: ignore[no-untyped-def]
    y_ptr,
    u_ptr,
    beta_ptr,
    sums_ptr,
    recent_ptr,
    H,
    rows,
    length,
    ORDER: tl.constexpr,
    ELEMENTARY: tl.constexpr,
    ROWS: tl.constexpr,
    LOG: tl.constexpr,
):
    """Block (program 0) of ROWS rows, each from its first step to its last.

    Args:
        y_ptr: (rows, length), read and written.
        u_ptr: (rows, length).
        beta_ptr: (ORDER - 1, H).
        sums_ptr: (ORDER or ORDER - 1, rows), replaced by the final ones.
        recent_ptr: (ORDER - 1, rows), the inputs before u_0, newest first.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    is_row = row < rows
    COUNT: tl.constexpr = ORDER if ELEMENTARY else ORDER - 1
    beta = ()
    recent = ()
    for p in tl.static_range(ORDER - 1):
        beta = beta + (tl.load(beta_ptr + p * H + row % H, is_row, 0.0),)  # noqa: RUF005
        recent = recent + (tl.load(recent_ptr + p * rows + row, is_row, 0.0),)  # noqa: RUF005
    sums = ()
    for p in tl.static_range(COUNT):
        sums = sums + (tl.load(sums_ptr + p * rows + row, is_row, 0.0),)  # noqa: RUF005

    STEPS: tl.constexpr = 1 << LOG
    t = tl.arange(0, STEPS)[None, :]
    whole = length // STEPS * STEPS
    for start in range(0, whole, STEPS):
        at = row * length + start + t
        now = folded(tl.load(u_ptr + at, is_row, 0.0), ROWS, LOG)
        y = folded(tl.load(y_ptr + at, is_row, 0.0), ROWS, LOG)
        y, sums, recent = add_steps(y, now, beta, sums, recent, LOG, ORDER, ELEMENTARY)
        tl.store(y_ptr + at, summed(y, ROWS, 1, LOG), is_row)
    for k in range(whole, length):
        at = row * length + k
        single = tl.load(u_ptr + at, is_row, 0.0)
        y, sums, recent = add_step(tl.load(y_ptr + at, is_row, 0.0), single, beta, sums, recent, ORDER, ELEMENTARY)
        tl.store(y_ptr + at, y, is_row)
    for p in tl.static_range(COUNT):
        tl.store(sums_ptr + p * rows + row, sums[p], is_row)


def add_correlations(
    y: Tensor,
    u: Tensor,
    responses: Tensor,
    *,
    order: int,
    elementary: bool,
    sums: Tensor | None,
    previous: Tensor | None,
) -> Tensor:
    """y ← y + Σ_{p=2..order} responses_p · term_p in place; the final sums as `Backend.correlate` returns them.

    Args:
        y: (batch, H, L), contiguous.
        responses: (order - 1, H).
        elementary: terms of kind `elementary`, else `running`.
        sums: (order, batch, H) for `elementary`, (order - 1, batch, H) for `running`; zeros if None.
        previous: (batch, H, n), inputs before u_0; zeros if None.

    Accuracy:
        Sums in the order of time, a product and an addition per step (`running`: p - 1 products), contracted or not;
        each term is added to y by one product and one addition more.
    """
    batch, n_channels, length = u.shape
    count, rows = order if elementary else order - 1, batch * n_channels
    final = u.new_zeros(count, batch, n_channels)
    if sums is not None:
        final.copy_(sums)
    if rows == 0 or length == 0 or order == 1:
        # Order 1 has no terms; e_1 is kept for the orders that a later call may have.
        if elementary and order == 1:
            final += u.sum(-1)
        return final
    recent = u.new_zeros(order - 1, batch, n_channels)
    if previous is not None:
        known = min(order - 1, previous.shape[-1])
        recent[:known] = previous[..., previous.shape[-1] - known :].flip(-1).movedim(-1, 0)
    block = power_of_two(min(rows, 1 << 12)) if interpreting() else ROWS
    options: dict[str, Any] = {"num_warps": max(1, block // 128), "enable_fp_fusion": True}
    added_correlations_kernel[(triton.cdiv(rows, block),)](
        y,
        u.contiguous(),
        responses.to(u.dtype).contiguous(),
        final,
        recent,
        n_channels,
        rows,
        length,
        ORDER=order,
        ELEMENTARY=elementary,
        ROWS=block,
        LOG=3 if interpreting() else LOG,
        **options,
    )
    return final
