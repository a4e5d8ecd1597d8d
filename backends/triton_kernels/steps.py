"""One time step of every recurrence, and a block of steps, on a tile of rows and modes in registers.

Complex numbers are pairs of real tiles.  A state is a tuple (re, im of order 1, re, im of order 2, …), a system the
tuple (re, im of Λ̄, B̄, C, then of P̄_r, Q̄_r for every r), with the weight 2 of conjugate pairs in C and Q̄.
"""

from __future__ import annotations

import triton
import triton.language as tl

LINEAR = tl.constexpr(0)
LIQUID = tl.constexpr(1)
TRUNCATED = tl.constexpr(2)
CHAIN = tl.constexpr(3)
# Tiles of a system before those of its low-rank part, and per rank.
FACTORS = tl.constexpr(6)
PER_RANK = tl.constexpr(4)


@triton.jit
def overlap(fr, fi, xr, xi, PAIRED: tl.constexpr):  # type: ignore[no-untyped-def]
    """Σ_m conj(f_m) x_m over the modes of a row, with an axis of length 1 in their place; its real part if PAIRED."""
    real = tl.sum(fr * xr + fi * xi, 1, keep_dims=True)
    if PAIRED:  # noqa: SIM108  # a constant that Triton takes one branch by
        imaginary = real * 0
    else:
        imaginary = tl.sum(fr * xi - fi * xr, 1, keep_dims=True)
    return real, imaginary


@triton.jit
def coupled(fr, fi, sr, si, PAIRED: tl.constexpr):  # type: ignore[no-untyped-def]
    """f s, where s is real if PAIRED."""
    if PAIRED:
        return fr * sr, fi * sr
    else:  # without it Triton reads on after the return
        return fr * sr - fi * si, fr * si + fi * sr


@triton.jit
def advance(  # type: ignore[no-untyped-def]
    x, u, system, KIND: tl.constexpr, ORDER: tl.constexpr, RANK: tl.constexpr, PAIRED: tl.constexpr
):
    """The state after the input u (rows, 1); additions in the order of docs/bounds.md.

    `liquid`, diagonal: 2 products, 2 additions and 4 multiply-adds per mode; the output is 2 more.
    """
    wr = system[2] * u
    wi = system[3] * u
    tr = system[0]
    ti = system[1]
    if KIND == LIQUID:
        tr = tr + wr
        ti = ti + wi
    new = ()
    for p in tl.static_range(ORDER):
        xr = x[2 * p]
        xi = x[2 * p + 1]
        zr = tr * xr - ti * xi
        zi = tr * xi + ti * xr
        if RANK > 0:
            sr, si = overlap(system[8], system[9], xr, xi, PAIRED)
            lr, li = coupled(system[6], system[7], sr, si, PAIRED)
            for r in tl.static_range(1, RANK):
                sr, si = overlap(system[8 + 4 * r], system[9 + 4 * r], xr, xi, PAIRED)
                pr, pi = coupled(system[6 + 4 * r], system[7 + 4 * r], sr, si, PAIRED)
                lr = lr + pr
                li = li + pi
            zr = zr - lr
            zi = zi - li
        if p == 0:
            zr = zr + wr
            zi = zi + wi
        else:
            yr = x[2 * p - 2]
            yi = x[2 * p - 1]
            if KIND == TRUNCATED:
                zr = zr + (wr * yr - wi * yi)
                zi = zi + (wr * yi + wi * yr)
            else:
                zr = zr + u * yr
                zi = zi + u * yi
        new = new + (zr, zi)  # noqa: RUF005  # triton has no unpacking in tuples
    return new


@triton.jit
def total(x, KIND: tl.constexpr, ORDER: tl.constexpr):  # type: ignore[no-untyped-def]
    """What C reads: the last order of a chain, else the sum of all orders."""
    if KIND == CHAIN:
        return x[2 * ORDER - 2], x[2 * ORDER - 1]
    else:
        sr = x[0]
        si = x[1]
        for p in tl.static_range(1, ORDER):
            sr = sr + x[2 * p]
            si = si + x[2 * p + 1]
        return sr, si


@triton.jit
def read(x, system, KIND: tl.constexpr, ORDER: tl.constexpr):  # type: ignore[no-untyped-def]
    """Re(C_n x_n) of every mode."""
    sr, si = total(x, KIND, ORDER)
    return system[4] * sr - system[5] * si


@triton.jit
def unfolded(u, LOG: tl.constexpr):  # type: ignore[no-untyped-def]
    """The 2^LOG inputs (rows, 1) of a block, in the order of time, of what `folded` gives.

    A loop, since Triton before 3.9 does not read functions that call themselves.
    """
    parts = (u,)
    for level in tl.static_range(LOG):
        halves = ()
        for i in tl.static_range(1 << level):
            first, second = tl.split(parts[i])
            halves = halves + (first, second)  # noqa: RUF005
        parts = halves
    return parts


@triton.jit
def joined(parts, LOG: tl.constexpr):  # type: ignore[no-untyped-def]
    """2^LOG tiles in the order of time as one, (…, 2, …, 2), the binary digits of time from lowest to highest."""
    for level in tl.static_range(LOG):
        pairs = ()
        for i in tl.static_range(1 << (LOG - 1 - level)):
            pairs = pairs + (tl.join(parts[2 * i], parts[2 * i + 1]),)  # noqa: RUF005
        parts = pairs
    return parts[0]


@triton.jit
def forward(  # type: ignore[no-untyped-def]
    x, u, system, LOG: tl.constexpr, KIND: tl.constexpr, ORDER: tl.constexpr, RANK: tl.constexpr, PAIRED: tl.constexpr
):
    """The state after 2^LOG inputs, `u` as `folded` gives them."""
    inputs = unfolded(u, LOG)
    for t in tl.static_range(1 << LOG):
        x = advance(x, inputs[t], system, KIND, ORDER, RANK, PAIRED)
    return x


@triton.jit
def forward_read(  # type: ignore[no-untyped-def]
    x, u, system, LOG: tl.constexpr, KIND: tl.constexpr, ORDER: tl.constexpr, RANK: tl.constexpr, PAIRED: tl.constexpr
):
    """As `forward`, with Re(C_n x_n) of every step as `joined` gives it."""
    inputs = unfolded(u, LOG)
    outputs = ()
    for t in tl.static_range(1 << LOG):
        x = advance(x, inputs[t], system, KIND, ORDER, RANK, PAIRED)
        outputs = outputs + (read(x, system, KIND, ORDER),)  # noqa: RUF005
    return x, joined(outputs, LOG)


@triton.jit
def folded(u, ROWS: tl.constexpr, LOG: tl.constexpr):  # type: ignore[no-untyped-def]
    """(rows, 2^LOG) inputs as (rows, 1, 2, …, 2), the binary digits of time from the lowest to the highest.

    `tl.split` takes the last axis apart, so every cut is one of time; the loads stay those of whole tiles, neighbours
    in time by neighbouring threads, and a step's input comes from a register.
    """
    tl.static_assert(LOG <= 5)
    if LOG == 0:
        return u
    elif LOG == 1:
        return tl.reshape(u, (ROWS, 1, 2))
    elif LOG == 2:
        return tl.permute(tl.reshape(u, (ROWS, 1, 2, 2)), (0, 1, 3, 2))
    elif LOG == 3:
        return tl.permute(tl.reshape(u, (ROWS, 1, 2, 2, 2)), (0, 1, 4, 3, 2))
    elif LOG == 4:
        return tl.permute(tl.reshape(u, (ROWS, 1, 2, 2, 2, 2)), (0, 1, 5, 4, 3, 2))
    else:
        return tl.permute(tl.reshape(u, (ROWS, 1, 2, 2, 2, 2, 2)), (0, 1, 6, 5, 4, 3, 2))


@triton.jit
def summed(p, ROWS: tl.constexpr, MODES: tl.constexpr, LOG: tl.constexpr):  # type: ignore[no-untyped-def]
    """Sums over the modes of a tile (rows, modes, 2, …, 2) as `joined` gives it, (rows, 2^LOG).

    A sum over threads costs five shuffles and five additions per step, as much as the step itself.  So all steps of a
    block are summed at once, and first halves of the modes are added to second ones by `tl.split`: for that Triton
    turns the tile through shared memory, time to the threads and modes to the registers of one.  Compiled for sm_90,
    one mode per thread, 16 steps: 234 instructions in place of 371, 80 of them shuffles.
    """
    if LOG == 1:
        p = tl.reshape(p, (ROWS, MODES, 2))
    elif LOG == 2:
        p = tl.reshape(tl.permute(p, (0, 1, 3, 2)), (ROWS, MODES, 4))
    elif LOG == 3:
        p = tl.reshape(tl.permute(p, (0, 1, 4, 3, 2)), (ROWS, MODES, 8))
    elif LOG == 4:
        p = tl.reshape(tl.permute(p, (0, 1, 5, 4, 3, 2)), (ROWS, MODES, 16))
    elif LOG == 5:
        p = tl.reshape(tl.permute(p, (0, 1, 6, 5, 4, 3, 2)), (ROWS, MODES, 32))
    if LOG == 0:
        return tl.sum(p, 1, keep_dims=True)
    elif MODES == 1:
        return tl.reshape(p, (ROWS, 1 << LOG))
    else:
        halves = tl.reshape(p, (ROWS, 2, MODES // 2, 1 << LOG))
        first, second = tl.split(tl.permute(halves, (0, 2, 3, 1)))
        return tl.sum(first + second, 1)
