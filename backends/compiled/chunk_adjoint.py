"""The adjoint of Eq. 2 on diagonal systems by chunks: cotangents of its inputs, of its states and of tables.

States are z = (Re x, Im x).  A chunk of Q steps takes the one before it to D z + Σ_j V_j u_j, and its outputs are
Σ_{j<=q} K_{q-j} u_j + G_q z.  With h the cotangents of its outputs and γ' that of the state after it,
conj(D) γ' + Σ_q G_q h_q is that of z, and Σ_{q>=j} K_{q-j} h_q + V_j γ' that of u_j.  Over all chunks and rows
γ' conj(z), γ' u_j, h_q z and h_q u_j add up to the cotangents of D, V, G and, where q - j = i, K_i.
"""

from __future__ import annotations

import numpy as np

from .caching import compiled, inlined
from .chunk_columns import (
    COLUMNS,
    TOGETHER,
    advance,
    gathered,
    mapped,
    nothing_yet,
    read_block,
    starts,
    turned_on,
    write_block,
)
from .chunked import store_chunks
from .lowrank_lanes import aligned
from .lowrank_sweep import product
from .simd import load, splat, store, width


@inlined
def of_inputs(kernel, inputs, size, g, first, chunk, columns, cotangents, du):  # type: ignore[no-untyped-def]
    """Cotangents of a block's inputs, where those of its outputs are in `g`, from them and from those of its states.

    Args:
        kernel: K_{Q-1}, …, K_0 and Q zeros.
        cotangents: those of the state after each column.
    """
    w = width(kernel)
    for k in range(0, columns, TOGETHER):
        count = min(TOGETHER, columns - k)
        o0, o1, o2, o3 = starts(first + k * chunk, chunk, count)
        n0, n1, n2, n3 = starts(k * size, size, count)
        for v in range(0, chunk, 2 * w):
            q = np.uintp(v)
            sums = gathered(
                kernel, chunk - 1, -1, g, o0 + q, o1 + q, o2 + q, o3 + q, 1, chunk - v, nothing_yet(kernel)
            )  # fmt: skip
            sums = gathered(inputs, v * size, 2 * w, cotangents, n0, n1, n2, n3, 1, size, sums)
            store_chunks(sums, du, np.intp(o0) + v, chunk, count)


@inlined
def added_products(vectors, at, size, numbers, first, count, lower, columns, scratch, totals, to):  # type: ignore[no-untyped-def]
    """totals_{i,n} += Σ numbers_i vectors_n over columns, i < count, n < size.

    Args:
        vectors, numbers: (columns, size) from `at` on, and (columns, count) from `first` on.
        lower: whether only n <= i is asked for.
    """
    w = width(vectors)
    for i in range(0, count, TOGETHER):
        o0, o1, o2, o3 = starts(first + i, 1, TOGETHER)
        for n in range(0, min(size, i + TOGETHER) if lower else size, 2 * w):
            sums = gathered(vectors, at + n, size, numbers, o0, o1, o2, o3, count, columns, nothing_yet(vectors))
            store_chunks(sums, scratch, 0, 2 * w, TOGETHER)
            for k in range(TOGETHER):
                for lane in range(2 * w):
                    totals[to + (i + k) * size + n + lane] += scratch[2 * w * k + lane]


@inlined
def added_turns(z, nu, size, columns, scratch, totals):  # type: ignore[no-untyped-def]
    """totals += Σ γ' conj(x) over columns for each mode, real and then imaginary parts."""
    w = width(z)
    half = size // 2
    nothing = splat(z.dtype.type(0))
    for n in range(0, half, w):
        real = imaginary = nothing
        for k in range(columns):
            at = k * size + n
            zr, zi = product(load(z, at), -load(z, at + half), load(nu, at), load(nu, at + half))
            real, imaginary = real + zr, imaginary + zi
        store(scratch, 0, real)
        store(scratch, w, imaginary)
        for lane in range(w):
            totals[n + lane] += scratch[lane]
            totals[half + n + lane] += scratch[w + lane]


@inlined
def add_cotangents(totals, z, nu, size, u, g, first, chunk, columns, scratch):  # type: ignore[no-untyped-def]
    """The cotangents of a channel's tables from one block of time, as `chunk_adjoint_tiles` has them.

    Args:
        z: states before each column; nu: cotangents of those after it.
    """
    of_V = size
    of_G, of_K = of_V + chunk * size, of_V + 2 * chunk * size
    added_turns(z, nu, size, columns, scratch, totals)
    added_products(nu, 0, size, u, first, chunk, False, columns, scratch, totals, of_V)
    added_products(z, 0, size, g, first, chunk, False, columns, scratch, totals, of_G)
    added_products(u, first, chunk, g, first, chunk, True, columns, scratch, totals, of_K)


@compiled
def chunk_adjoint_tiles(  # type: ignore[no-untyped-def]
    kernel, inputs, turned_inputs, turned_outputs, transition, turned_transition, base, places, groups, parts, n_batch,
    u, grad_y, grad_u, states, cotangents, totals, length, apart, first, end,
):  # fmt: skip
    """Tiles `first` … `end` - 1: W channels of a part of the batch.

    Args:
        kernel: K_{Q-1}, …, K_0, then zeros, (channels, 2Q): of some of the H channels, as all tables and totals.
        inputs, turned_inputs, turned_outputs: V, Vᵀ and Gᵀ in panels of 2W rows, (channels, PQ).
        transition, turned_transition: D and its conjugate, (channels, P).
        base: the first of these channels.
        places: (channel tiles, batch, W) where rows begin in `u` and the like.
        groups, parts: of the batch; part p has the groups p, p + parts, …
        u, grad_y, grad_u: one-dimensional; `grad_u` is written.
        states: (batch, H, P) initial states.
        cotangents: (batch, H, P) of the final states, replaced by those of the initial ones.
        totals: (parts, channels, P + 2QP + Q²) float64.  Added to them are the cotangents of D, of V's columns and of
            G's rows, and h_q u_j for j <= q.
        length: whole chunks.
        apart: numbers from one time step of a row to the next.
    """
    w = width(u)
    n_channels, chunk, size = kernel.shape[0], kernel.shape[1] // 2, states.shape[2]
    room, room_nu = COLUMNS * chunk, (COLUMNS + TOGETHER) * size
    room_z, most = (length // chunk + 1) * min(TOGETHER, n_batch) * size, min(w, n_channels)
    numbers, g, du = aligned(u, most * room), aligned(u, most * room), aligned(u, most * room)
    z, nu, scratch = aligned(u, most * room_z), aligned(u, most * room_nu), aligned(u, 2 * w * TOGETHER)
    for tile in range(first, end):
        channel, part = tile // parts * w, tile % parts
        n = min(w, n_channels - channel)
        for group in range(part, groups, parts):
            row = group * TOGETHER
            rows = min(TOGETHER, n_batch - row)
            where, span = places[tile // parts, row : row + rows], COLUMNS // rows * chunk
            for lane in range(n):
                for r in range(rows):
                    for i in range(size):
                        z[lane * room_z + r * size + i] = states[row + r, base + channel + lane, i]
                        nu[lane * room_nu + r * size + i] = cotangents[row + r, base + channel + lane, i]
            for begin in range(0, length, span):
                steps = min(span, length - begin)
                columns = steps // chunk * rows
                read_block(u, where, rows, n, begin, steps, apart, chunk, numbers, room)
                for lane in range(n):
                    h, at = channel + lane, lane * room_z + begin // chunk * rows * size
                    of_z = z[at : (lane + 1) * room_z]
                    advance(inputs[h], transition[h], size, numbers, lane * room, chunk, rows, columns, of_z)
            blocks = (length + span - 1) // span
            for b in range(blocks):
                begin = (blocks - 1 - b) * span
                steps = min(span, length - begin)
                columns = steps // chunk * rows
                if b > 0:  # the last block in time was the last one to be read on the way forward
                    read_block(u, where, rows, n, begin, steps, apart, chunk, numbers, room)
                read_block(grad_y, where, rows, n, begin, steps, apart, chunk, g, room)
                for lane in range(n):
                    h, at = channel + lane, lane * room
                    of_z = z[lane * room_z + begin // chunk * rows * size : (lane + 1) * room_z]
                    of_nu = nu[lane * room_nu : (lane + 1) * room_nu]
                    # What the later block left at the beginning is the cotangent after this block's last chunk.
                    for i in range(rows * size):
                        of_nu[columns * size + i] = of_nu[i]
                    mapped(turned_outputs[h], size, g, at, chunk, columns, of_nu)
                    for k in range(columns - rows, -1, -rows):
                        turned_on(turned_transition[h], size, of_nu, rows, k + rows, k)
                    later = of_nu[rows * size :]
                    of_inputs(kernel[h], turned_inputs[h], size, g, at, chunk, columns, later, du)
                    add_cotangents(totals[part, h], of_z, later, size, numbers, g, at, chunk, columns, scratch)
                write_block(du, room, rows, n, begin, steps, apart, chunk, where, grad_u)
            for lane in range(n):
                for r in range(rows):
                    for i in range(size):
                        cotangents[row + r, base + channel + lane, i] = nu[lane * room_nu + r * size + i]
