"""One step of a "diagonal plus low rank" recurrence for all modes of a tile, forwards or as its adjoint.

x ← Λ̄∘x − Σ_r P̄_r s_r with s_r = Re Σ_m conj(Q̄_rm) x_m couples all modes once per step.  A sweep reads every mode once:
s_0 of the new state is summed while it is written; further functionals, which few systems have, take passes of their
own.  The adjoint is a sweep of the same shape with conj(Λ̄), P̄ and Q̄ exchanged, and the output's cotangent as its drive.
"""

from __future__ import annotations

from .caching import inlined
from .lowrank_lanes import row_sum
from .simd import fma, load, splat, store, width

# Numbers per mode of a packed system: real and imaginary parts of Λ̄, B̄, C, then of P̄_r and Q̄_r for each r.
DRIVE, OUTPUT, FACTORS = 2, 4, 6
PER_RANK = 4


@inlined
def product(ar, ai, xr, xi):  # type: ignore[no-untyped-def]
    """a x, formed whole: one fused multiply-add per part."""
    return fma(ar, xr, -(ai * xi)), fma(ar, xi, ai * xr)


@inlined
def joined(qr, qi, xr, xi, paired, real, imaginary):  # type: ignore[no-untyped-def]
    """One more mode in a functional; 4 operations, 6 if not `paired`.

    Paired: Σ Re Q̄ Re x and Σ Im Q̄ Im x, whose sum is Re Σ conj(Q̄) x; else both parts of Σ conj(Q̄) x, each product
    formed whole.
    """
    if paired:
        return fma(qr, xr, real), fma(qi, xi, imaginary)
    zr, zi = product(qr, -qi, xr, xi)
    return real + zr, imaginary + zi


@inlined
def put(real, imaginary, paired, group, s, to):  # type: ignore[no-untyped-def]
    """A functional at `to`, its sums over the lanes of a row joined: two vectors, of which the paired use the first."""
    if paired:
        store(s, to, row_sum(real + imaginary, group))
    else:
        store(s, to, row_sum(real, group))
        store(s, to + width(s), row_sum(imaginary, group))


@inlined
def project(pack, depth, rank, r, paired, group, states, source, stride, s, to):  # type: ignore[no-untyped-def]
    """s_r of a state, with the additions in the order in which `sweep` makes them."""
    w = width(states)
    real = splat(states.dtype.type(0))
    imaginary = real
    for v in range(depth):
        x, q = source + v * stride, (v * (FACTORS + PER_RANK * rank) + FACTORS + PER_RANK * r + 2) * w
        real, imaginary = joined(
            load(pack, q), load(pack, q + w), load(states, x), load(states, x + w), paired, real, imaginary
        )
    put(real, imaginary, paired, group, s, to)


@inlined
def coupled(pack, depth, rank, paired, s, at, low_rank):  # type: ignore[no-untyped-def]
    """Σ_r P̄_r s_r over r > 0 of every mode, two vectors each in `low_rank`."""
    w = width(s)
    for r in range(1, rank):
        sr, si = load(s, at + 2 * r * w), load(s, at + (2 * r + 1) * w)
        for v in range(depth):
            p = (v * (FACTORS + PER_RANK * rank) + FACTORS + PER_RANK * r) * w
            pr, pi = load(pack, p), load(pack, p + w)
            if paired:
                zr, zi = pr * sr, pi * sr
            else:
                zr, zi = product(pr, pi, sr, si)
            if r > 1:
                zr, zi = load(low_rank, 2 * v * w) + zr, load(low_rank, (2 * v + 1) * w) + zi
            store(low_rank, 2 * v * w, zr)
            store(low_rank, (2 * v + 1) * w, zi)


@inlined
def lowered(pack, o, rank, paired, low_rank, at, sr, si, xr, xi):  # type: ignore[no-untyped-def]
    """x − P̄_0 s_0 − Σ_{r>0} P̄_r s_r of one mode, the last sum from `low_rank`; 2 operations with pairs and rank 1."""
    w = width(low_rank)
    pr, pi = load(pack, o + FACTORS * w), load(pack, o + (FACTORS + 1) * w)
    if paired:
        xr, xi = fma(-pr, sr, xr), fma(-pi, sr, xi)
    else:
        zr, zi = product(pr, pi, sr, si)
        xr, xi = xr - zr, xi - zi
    if rank > 1:
        xr, xi = xr - load(low_rank, at), xi - load(low_rank, at + w)
    return xr, xi


@inlined
def sweep(  # type: ignore[no-untyped-def]
    pack, depth, rank, paired, group, drive, u, g, liquid, feed, driven, reads, states, source, target, fed, stride,
    low_rank, s, at, to,
):  # fmt: skip
    """x ← (Λ̄ + liquid·B̄ u)∘x − P̄_0 s_0 − Σ_{r>0} P̄_r s_r + feed + D g, in this order; returns the parts of Σ C x.

    12 operations per mode with pairs and rank 1, 2 more for each of: liquid, read-out.  Λ̄ x and the fed product are
    formed whole before they are added; D g is fused into the last addition, and P̄_0 s_0 into its own where s is real.

    Args:
        pack: depth · (FACTORS + PER_RANK · rank) vectors; `drive` is where D is among them.
        u, g: vectors, the input and what drives.
        feed: 0 none, 1 (B̄ u)∘x', 2 u x', with x' the old state at `fed`.
        reads: whether Σ C x is asked for; else it is zero.
        states: a mode's numbers at `source`, for the new state at `target`, `stride` apart.
        low_rank: 2 · depth vectors of room.
        s: the functionals of the old state at `at`; those of the new one are written at `to`.
    """
    w = width(states)
    nothing = splat(states.dtype.type(0))
    s_real, s_imaginary, y_real, y_imaginary = nothing, nothing, nothing, nothing
    sr, si = load(s, at), load(s, at + w)
    coupled(pack, depth, rank, paired, s, at, low_rank)
    for v in range(depth):
        o, m = v * (FACTORS + PER_RANK * rank) * w, v * stride
        ar, ai = load(pack, o), load(pack, o + w)
        if liquid:
            ar, ai = fma(load(pack, o + DRIVE * w), u, ar), fma(load(pack, o + (DRIVE + 1) * w), u, ai)
        xr, xi = product(ar, ai, load(states, source + m), load(states, source + m + w))
        xr, xi = lowered(pack, o, rank, paired, low_rank, 2 * v * w, sr, si, xr, xi)
        if feed == 1:
            wr, wi = load(pack, o + DRIVE * w) * u, load(pack, o + (DRIVE + 1) * w) * u
            zr, zi = product(wr, wi, load(states, fed + m), load(states, fed + m + w))
            xr, xi = xr + zr, xi + zi
        elif feed == 2:
            xr, xi = fma(u, load(states, fed + m), xr), fma(u, load(states, fed + m + w), xi)
        if driven:
            xr, xi = fma(load(pack, o + drive * w), g, xr), fma(load(pack, o + (drive + 1) * w), g, xi)
        store(states, target + m, xr)
        store(states, target + m + w, xi)
        q = o + (FACTORS + 2) * w
        s_real, s_imaginary = joined(load(pack, q), load(pack, q + w), xr, xi, paired, s_real, s_imaginary)
        if reads:
            y_real = fma(load(pack, o + OUTPUT * w), xr, y_real)
            y_imaginary = fma(load(pack, o + (OUTPUT + 1) * w), xi, y_imaginary)
    put(s_real, s_imaginary, paired, group, s, to)
    for r in range(1, rank):
        project(pack, depth, rank, r, paired, group, states, target, stride, s, to + 2 * r * w)
    return y_real, y_imaginary
