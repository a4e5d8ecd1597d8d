"""One bilinear step of a continuous system with an interval of its own, and its adjoint; modes are the lanes.

With h half the interval, D = 1/(1 - hΛ) and K = h (I + h P* D P)⁻¹, the resolvent of A = Λ - P P* is

    S v = (I - hA)⁻¹ v = D (v - P k),   k = K P* D v,

with P* v summed over both halves of every conjugate pair.  Then Ā = 2S - I and B̄ = S δt B.  P* S v = k/h, and the
adjoint of S is S with conj(D) and K transposed.

A driven step (`bilinear-exact`) has Λ + B u in the place of Λ.
"""

from __future__ import annotations

import numpy as np

from .caching import inlined
from .simd import fma, load, splat, store, total, width

LINEAR, LIQUID, DRIVEN = 0, 1, 2

# How much smaller than its terms what a driven step divides by may be.
CANCELLATION = 1e-6

# Where real and imaginary parts of a channel's parameters are, in planes of as many numbers as modes.
LAMBDA, DRIVE, OUTPUT, FACTORS = 0, 2, 4, 6


@inlined
def times(ar, ai, br, bi):  # type: ignore[no-untyped-def]
    """a · b."""
    return fma(ar, br, -(ai * bi)), fma(ar, bi, ai * br)


@inlined
def times_conjugate(ar, ai, br, bi):  # type: ignore[no-untyped-def]
    """a · conj(b)."""
    return fma(ar, br, ai * bi), fma(ai, br, -(ar * bi))


@inlined
def pair(buffer, index, modes):  # type: ignore[no-untyped-def]
    """Real and imaginary parts, a plane apart."""
    return load(buffer, index), load(buffer, index + modes)


@inlined
def put(buffer, index, modes, re, im):  # type: ignore[no-untyped-def]
    store(buffer, index, re)
    store(buffer, index + modes, im)


@inlined
def eigenvalues(pack, modes, v, driven, now):  # type: ignore[no-untyped-def]
    """Λ, or Λ + B u if driven."""
    lr, li = pair(pack, LAMBDA * modes + v, modes)
    if driven:
        br, bi = pair(pack, DRIVE * modes + v, modes)
        lr, li = fma(br, now, lr), fma(bi, now, li)
    return lr, li


@inlined
def resolve(pack, modes, rank, driven, u, h, D, K):  # type: ignore[no-untyped-def]
    """Write D (2 planes) and K (rank, rank).

    Returns:
        Whether no divisor of a driven step is smaller than its terms by `CANCELLATION`; others never are.
    """
    w = width(pack)
    one, step, now = splat(1.0), splat(h), splat(u)
    # Sums over the modes, which are no less than the largest of them.
    lost, of_D, of_P = splat(0.0), splat(0.0), splat(0.0)
    for v in range(0, modes, w):
        lr, li = eigenvalues(pack, modes, v, driven, now)
        re, im = fma(-step, lr, one), step * li
        size = one / fma(re, re, im * im)
        put(D, v, modes, re * size, im * size)
        if driven:
            of_D = of_D + size
            lr, li = pair(pack, LAMBDA * modes + v, modes)
            br, bi = pair(pack, DRIVE * modes + v, modes)
            terms = fma(lr, lr, li * li) + now * now * fma(br, br, bi * bi)
            lost = fma(fma(step * step, terms, one), size, lost)
    for r in range(rank):
        for s in range(rank):
            gram = splat(0.0)
            for v in range(0, modes, w):
                pr, pi = pair(pack, (FACTORS + 2 * r) * modes + v, modes)
                qr, qi = pair(pack, (FACTORS + 2 * s) * modes + v, modes)
                dr, di = pair(D, v, modes)
                zr, zi = times(dr, di, qr, qi)
                gram = fma(pr, zr, fma(pi, zi, gram))
                if driven and r == s:
                    of_P = fma(pr, pr, fma(pi, pi, of_P))
            K[r, s] = (1.0 if r == s else 0.0) + h * (2.0 * total(gram))
    smallest = 0.0
    safe = True
    if driven:
        # (1 + a + b)² <= 3 (1 + a² + b²).
        safe = 3.0 * total(lost) * CANCELLATION**2 < 1.0
        smallest = CANCELLATION * (1.0 + 2.0 * h * total(of_P) * np.sqrt(total(of_D)))
    # Gauss-Jordan in place.  If not driven, Re D > 0, so the symmetric part is no less than I, nor are pivots than 1.
    for i in range(rank):
        safe = safe and abs(K[i, i]) > smallest
        pivot = 1.0 / K[i, i]
        K[i, i] = 1.0
        for s in range(rank):
            K[i, s] *= pivot
        for r in range(rank):
            if r != i:
                factor = K[r, i]
                K[r, i] = 0.0
                for s in range(rank):
                    K[r, s] -= factor * K[i, s]
    for r in range(rank):
        for s in range(rank):
            K[r, s] *= h
    return safe


@inlined
def functionals(pack, modes, rank, D, K, x, at, factor, adjoint, sums, k):  # type: ignore[no-untyped-def]
    """k of S (or its adjoint) for factor · x, which is at `at`; `sums` is room."""
    w = width(pack)
    for r in range(rank):
        found = splat(0.0)
        for v in range(0, modes, w):
            pr, pi = pair(pack, (FACTORS + 2 * r) * modes + v, modes)
            dr, di = pair(D, v, modes)
            xr, xi = pair(x, at + v, modes)
            if adjoint:
                zr, zi = times_conjugate(xr, xi, dr, di)
            else:
                zr, zi = times(dr, di, xr, xi)
            found = fma(pr, zr, fma(pi, zi, found))
        sums[r] = (2.0 * factor) * total(found)
    for r in range(rank):
        value = 0.0
        for s in range(rank):
            value += (K[s, r] if adjoint else K[r, s]) * sums[s]
        k[r] = value


@inlined
def along(pack, modes, rank, k, v):  # type: ignore[no-untyped-def]
    """P k."""
    zr, zi = splat(0.0), splat(0.0)
    for r in range(rank):
        pr, pi = pair(pack, (FACTORS + 2 * r) * modes + v, modes)
        of_r = splat(k[r])
        zr, zi = fma(pr, of_r, zr), fma(pi, of_r, zi)
    return zr, zi


@inlined
def resolved(pack, modes, rank, D, k, v, xr, xi, adjoint):  # type: ignore[no-untyped-def]
    """One vector of D (x - P k), or with conj(D)."""
    zr, zi = along(pack, modes, rank, k, v)
    dr, di = pair(D, v, modes)
    if adjoint:
        return times_conjugate(xr - zr, xi - zi, dr, di)
    return times(dr, di, xr - zr, xi - zi)


@inlined
def input_vector(pack, modes, rank, D, K, h, sums, k, b):  # type: ignore[no-untyped-def]
    """Write B̄ = S δt B (2 planes) into b, and its k."""
    w = width(pack)
    functionals(pack, modes, rank, D, K, pack, DRIVE * modes, 2.0 * h, False, sums, k)
    interval = splat(2.0 * h)
    for v in range(0, modes, w):
        br, bi = pair(pack, DRIVE * modes + v, modes)
        br, bi = resolved(pack, modes, rank, D, k, v, interval * br, interval * bi, False)
        put(b, v, modes, br, bi)


@inlined
def forcing(kind, p, before, at, modes, v, xr, xi):  # type: ignore[no-untyped-def]
    """What B̄ u is multiplied with in order p: 1, the order below before the step, or 1 + x."""
    one, nothing = splat(1.0), splat(0.0)
    if p > 0:
        return pair(before, at - 2 * modes + v, modes)
    if kind == LIQUID:
        return one + xr, xi
    return one, nothing


@inlined
def advance(  # type: ignore[no-untyped-def]
    pack, modes, rank, order, kind, u, h, before, at, after, to, D, K, sums, k, b
):
    """States of all orders after a step.

    Args:
        before, at: states before it, order after order in two planes each; after, to: written, may be the same.
        D, K, sums, k, b: room.

    Returns:
        y without the weight of the outputs, and whether the step has divided by nothing too small.
    """
    w = width(pack)
    driven = kind == DRIVEN
    safe = resolve(pack, modes, rank, driven, u, h, D, K)
    input_vector(pack, modes, rank, D, K, h, sums, k, b)
    one, step, now, y = splat(1.0), splat(h), splat(u), splat(0.0)
    for back in range(order):
        p = order - 1 - back
        x = at + 2 * p * modes
        functionals(pack, modes, rank, D, K, before, x, 2.0, False, sums, k)
        for v in range(0, modes, w):
            xr, xi = pair(before, x + v, modes)
            fr, fi = forcing(kind, p, before, x, modes, v, xr, xi)
            lr, li = eigenvalues(pack, modes, v, driven, now)
            dr, di = pair(D, v, modes)
            ar, ai = times(fma(step, lr, one), step * li, dr, di)
            br, bi = pair(b, v, modes)
            zr, zi = along(pack, modes, rank, k, v)
            zr, zi = times(dr, di, zr, zi)
            tr, ti = times(ar, ai, xr, xi)
            br, bi = times(now * br, now * bi, fr, fi)
            xr, xi = (tr - zr) + br, (ti - zi) + bi
            put(after, to + 2 * p * modes + v, modes, xr, xi)
            cr, ci = pair(pack, OUTPUT * modes + v, modes)
            y = fma(cr, xr, fma(-ci, xi, y))
    return total(y), safe
