"""The linear recurrence of Eq. 2 on diagonal systems by chunks of time: matrix products inside, states between.

With Q steps per chunk and the state x before it, the outputs of a chunk are Σ_{j<=q} K_{q-j} u_j + Σ_n Re(G_{q,n} x_n),
and the state after it is D x + Σ_j V_j u_j.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from liquid_ssm.complex_numbers import (
    Number,
    Split,
    each_part,
    imag,
    in_double,
    is_complex,
    plus,
    rounded_like,
    stack,
    times,
)

from .vandermonde import power_table

# Steps per chunk from so many steps on.  By length alone, so that no result depends on the device or the batch.
_CHUNKS = ((512, 64), (32, 16))


class ChunkTables(NamedTuple):
    """What a chunk of Q steps needs of a system, rounded once to the working precision.

    Attributes:
        inputs: (H, Q, Q + S·M), S = 2 for complex states, else 1: to the outputs, K_{q-j} in row j and column q, and to
            the state after the chunk, V_j = Ā^(Q-1-j) B̄, real parts before imaginary ones.
        outputs: (H, S·M, Q): Re and -Im of G_q = weight · C Ā^(q+1).
        whole: D = Ā^Q, (H, M).
    """

    inputs: torch.Tensor
    outputs: torch.Tensor
    whole: Number


def best_chunk(n_modes: int, length: int, dtype: str) -> int | None:
    """Steps per chunk for a problem of this shape, None where plain steps are best."""
    return next((chunk for least, chunk in _CHUNKS if length >= least), None)


def chunk_tables(A_bar: Number, B_bar: Number, C: Number, chunk: int, weight: int) -> ChunkTables:
    """The tables of a diagonal system with parameters (H, M) for chunks of `chunk` >= 1 steps.

    Accuracy:
        Powers by products in float64, power i with i - 1 behind it, K_i summed over the modes in float64 as well; each
        number is rounded once.
    """
    complex_state = any(is_complex(v) for v in (A_bar, B_bar, C))
    like = C.real
    a, b, c = (in_double(v) for v in (A_bar, B_bar, C))
    powers = power_table(a, chunk + 1)  # (H, M, Q + 1)
    responses = times(powers[..., :-1], b[..., None])
    kernel = _real_product(times(c, b), powers[..., :-1]) * float(weight)  # (H, Q)
    # Row j of the Toeplitz matrix is K_{q-j} at q >= j and zero before.
    lag = torch.arange(chunk, device=kernel.device)
    lag = lag[None, :] - lag[:, None]
    toeplitz = kernel[:, lag.clamp(min=0)] * (lag >= 0)
    G = times(powers[..., 1:], (c * float(weight))[..., None])
    newest = each_part(responses, lambda part: part.flip(-1).mT)  # (H, Q, M)
    inputs, outputs = [toeplitz, newest.real], [G.real]
    if complex_state:
        inputs.append(imag(newest))
        outputs.append(-imag(G))
    return ChunkTables(
        torch.cat(inputs, -1).to(like), torch.cat(outputs, 1).to(like), rounded_like(powers[..., -1], A_bar)
    )


def chunked_scan(
    A_bar: Number, B_bar: Number, C: Number, u: torch.Tensor, state: Number | None, chunk: int, weight: int
) -> tuple[torch.Tensor, Number]:
    """x_k = Ā∘x_{k-1} + B̄ u_k, y_k = weight · Re(C x_k): y and the final state.

    Chunks are counted from the first step; steps that do not fill one are taken one by one.

    Args:
        A_bar, B_bar, C: (H, M) in u's precision, real, complex or `Split`.
        u: (batch, H, L) float32 or float64.
        state: (batch, H, M) or None for rest.
        chunk: steps per chunk.
        weight: 2 where one of each conjugate pair is stored, else 1.

    Returns:
        y (batch, H, L), and the state (batch, H, M): real if every parameter is, `Split` if one of them is.

    Accuracy:
        docs/bounds.md, "Linear recurrence by chunks".  Matrix products are torch's real ones in u's dtype and follow
        its flags for TF32 and bfloat16.  Domain: no power of Ā within a chunk overflows.

    Memory: y, u in another order, and the state before every chunk.

    References: Eq. 2.
    """
    batch, n_channels, length = u.shape
    x = _initial((A_bar, B_bar, C), u, state)
    whole = length // chunk
    if whole == 0 or u.numel() == 0:
        return _plain_steps(A_bar, B_bar, C, u, x, weight)
    tables = chunk_tables(A_bar, B_bar, C, chunk, weight)
    blocks = u[..., : whole * chunk].reshape(batch, n_channels, whole, chunk)
    blocks = blocks.transpose(0, 1).reshape(n_channels, batch * whole, chunk)
    answers = torch.bmm(blocks, tables.inputs)
    driven = answers[..., chunk:].reshape(n_channels, batch, whole, -1).permute(2, 1, 0, 3)  # (chunks, batch, H, S·M)
    starts = []
    for change in driven:
        starts.append(x)
        x = times(tables.whole, x) + _from_parts(change, x)
    before = _to_parts(stack(starts, 0)).permute(2, 1, 0, 3)  # (H, batch, chunks, S·M)
    before = before.reshape(n_channels, batch * whole, -1)
    y = torch.baddbmm(answers[..., :chunk], before, tables.outputs)
    y = y.reshape(n_channels, batch, whole * chunk).transpose(0, 1)
    if whole * chunk == length:
        return y.contiguous(), x
    rest, x = _plain_steps(A_bar, B_bar, C, u[..., whole * chunk :], x, weight)
    return torch.cat([y, rest], -1), x


def _plain_steps(
    A_bar: Number, B_bar: Number, C: Number, u: torch.Tensor, x: Number, weight: int
) -> tuple[torch.Tensor, Number]:
    """Step after step: B̄ u_k, then Ā x_{k-1}, then their sum."""
    states = []
    for u_k in u.unbind(-1):
        x = plus(times(A_bar, x), times(B_bar, u_k[..., None]))
        states.append(x)
    if not states:
        return torch.zeros_like(u), x
    return _real_sum(C, stack(states, -2), weight), x


def _real_sum(C: Number, x: Number, weight: int) -> torch.Tensor:
    """weight · Re Σ_n C_n x_n of states (batch, H, L, M)."""
    C = C[:, None]
    terms = C.real * x.real
    if is_complex(C) and is_complex(x):
        terms = terms - C.imag * x.imag
    y: torch.Tensor = weight * terms.sum(-1)
    return y


def _real_product(row: Number, table: Number) -> torch.Tensor:
    """Re Σ_n row_n table_n,i from (H, M) and (H, M, count)."""
    left, right = row.real, table.real
    if is_complex(row) and is_complex(table):
        left, right = torch.cat([left, -row.imag], -1), torch.cat([right, table.imag], -2)
    product: torch.Tensor = left[:, None] @ right
    return product[:, 0]


def _initial(parameters: tuple[Number, ...], u: torch.Tensor, state: Number | None) -> Number:
    """The state as the recurrence keeps it: zero for None, of the kind that the parameters ask for."""
    shape = (*u.shape[:-1], parameters[0].shape[-1])
    zero = u.new_zeros(shape)
    if any(isinstance(v, Split) for v in parameters):
        rest: Number = Split(zero, zero)
    else:
        rest = torch.complex(zero, zero) if any(is_complex(v) for v in parameters) else zero
    return rest if state is None else plus(rest, state)


def _to_parts(x: Number) -> torch.Tensor:
    """Real parts before imaginary ones on the last axis, (…, S·M)."""
    return torch.cat([x.real, x.imag], -1) if is_complex(x) else x


def _from_parts(parts: torch.Tensor, like: Number) -> Number:
    """The inverse of `_to_parts`, a number of the kind of `like`."""
    if not is_complex(like):
        return parts
    re, im = parts.chunk(2, -1)
    return Split(re, im) if isinstance(like, Split) else torch.complex(re, im)
