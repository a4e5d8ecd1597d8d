"""The adjoint of `sampled_forward`: block by block from kept states, every step discretised once more."""

from __future__ import annotations

import numpy as np

from .caching import compiled, inlined
from .lowrank_lanes import aligned
from .sampled_forward import STEPS
from .sampled_step import (
    DRIVE,
    DRIVEN,
    FACTORS,
    LAMBDA,
    LIQUID,
    OUTPUT,
    advance,
    along,
    eigenvalues,
    forcing,
    functionals,
    input_vector,
    pair,
    put,
    resolve,
    resolved,
    times,
    times_conjugate,
)
from .simd import fma, load, splat, total, width


@inlined
def add(buffer, index, modes, re, im):  # type: ignore[no-untyped-def]
    put(buffer, index, modes, load(buffer, index) + re, load(buffer, index + modes) + im)


@inlined
def add_of_resolvent(  # type: ignore[no-untyped-def]
    pack, modes, rank, driven, now, h, v, wr, wi, k, nr, ni, turned, grad
):
    """One vector of the gradient of S, for w = S v with its k, and ν = S* of w's cotangent with its own k.

    d(S v) = S d(hA) w, hence conj(w) ν h for Λ and -(k ν + turned w) for P; hA w = hΛ w - P k.

    Returns:
        Lanes of Re ν* hA w, which is h times the derivative by h, and of the derivative by u.
    """
    gr, gi = times_conjugate(h * nr, h * ni, wr, wi)
    add(grad, LAMBDA * modes + v, modes, gr, gi)
    of_u = splat(0.0)
    lr, li = eigenvalues(pack, modes, v, driven, now)
    if driven:
        add(grad, DRIVE * modes + v, modes, now * gr, now * gi)
        br, bi = pair(pack, DRIVE * modes + v, modes)
        of_u = fma(gr, br, gi * bi)
    for r in range(rank):
        one, other = splat(k[r]), splat(turned[r])
        re, im = fma(one, nr, other * wr), fma(one, ni, other * wi)
        add(grad, (FACTORS + 2 * r) * modes + v, modes, -re, -im)
    zr, zi = along(pack, modes, rank, k, v)
    tr, ti = times(h * lr, h * li, wr, wi)
    return fma(nr, tr - zr, ni * (ti - zi)), of_u


@inlined
def retreat(  # type: ignore[no-untyped-def]
    pack, modes, rank, order, kind, u, h, g, states, at, cotangents, grad, D, K, sums, k, turned, b, of_b, passed
):
    """Cotangents before a step from those after it; adds to the gradients of the parameters.

    Args:
        g: cotangent of the output, with its weight.
        states, at: those before the step; those after it follow.
        D, K, sums, k, turned, b, of_b, passed: room.

    Returns:
        The derivatives by u and by the interval.
    """
    w = width(pack)
    driven = kind == DRIVEN
    resolve(pack, modes, rank, driven, u, h, D, K)
    input_vector(pack, modes, rank, D, K, h, sums, k, b)
    step, now, out = splat(h), splat(u), splat(g)
    nothing, two = splat(0.0), splat(2.0)
    of_u, of_A, of_interval = nothing, nothing, nothing
    for v in range(0, modes, w):
        put(of_b, v, modes, nothing, nothing)
        put(passed, v, modes, nothing, nothing)
    for back in range(order):
        p = order - 1 - back
        x, n = at + 2 * p * modes, 2 * p * modes
        for v in range(0, modes, w):
            cr, ci = pair(pack, OUTPUT * modes + v, modes)
            add(cotangents, n + v, modes, cr * out, -(ci * out))
            xr, xi = pair(states, x + 2 * order * modes + v, modes)
            add(grad, OUTPUT * modes + v, modes, out * xr, -(out * xi))
        functionals(pack, modes, rank, D, K, states, x, 1.0, False, sums, k)
        functionals(pack, modes, rank, D, K, cotangents, n, 2.0, True, sums, turned)
        for v in range(0, modes, w):
            xr, xi = pair(states, x + v, modes)
            cr, ci = pair(cotangents, n + v, modes)
            wr, wi = resolved(pack, modes, rank, D, k, v, xr, xi, False)
            nr, ni = resolved(pack, modes, rank, D, turned, v, two * cr, two * ci, True)
            by_h, by_u = add_of_resolvent(
                pack, modes, rank, driven, now, step, v, wr, wi, k, nr, ni, turned, grad
            )  # fmt: skip
            of_A, of_u = of_A + by_h, of_u + by_u
            fr, fi = forcing(kind, p, states, x, modes, v, xr, xi)
            br, bi = pair(b, v, modes)
            zr, zi = times_conjugate(cr, ci, fr, fi)
            add(of_b, v, modes, now * zr, now * zi)
            of_u = fma(zr, br, fma(zi, bi, of_u))
            er, ei = pair(passed, v, modes)
            fr, fi = times_conjugate(now * cr, now * ci, br, bi)
            if kind == LIQUID:
                er, ei = fr, fi
            else:
                put(passed, v, modes, fr, fi)
            put(cotangents, n + v, modes, (nr - cr) + er, (ni - ci) + ei)
    # B̄ = S δt B.
    functionals(pack, modes, rank, D, K, pack, DRIVE * modes, 2.0 * h, False, sums, k)
    functionals(pack, modes, rank, D, K, of_b, 0, 1.0, True, sums, turned)
    interval = splat(2.0 * h)
    for v in range(0, modes, w):
        zr, zi = pair(of_b, v, modes)
        nr, ni = resolved(pack, modes, rank, D, turned, v, zr, zi, True)
        add(grad, DRIVE * modes + v, modes, interval * nr, interval * ni)
        br, bi = pair(pack, DRIVE * modes + v, modes)
        of_interval = fma(nr, br, fma(ni, bi, of_interval))
        br, bi = pair(b, v, modes)
        by_h, by_u = add_of_resolvent(pack, modes, rank, driven, now, step, v, br, bi, k, nr, ni, turned, grad)
        of_A, of_u = of_A + by_h, of_u + by_u
    return total(of_u), total(of_interval) + total(of_A) / (2.0 * h)


@compiled
def sampled_adjoint_rows(  # type: ignore[no-untyped-def]
    packs, step_sizes, modes, rank, order, kind, u, dt, starts, grad_y, cotangents, grad_u, grad_dt, grads, first, end
):  # fmt: skip
    """Rows `first` … `end` - 1 of the adjoint of `sampled_rows`, whose arguments it takes besides.

    Args:
        starts: as they were written.
        grad_y, grad_u: (batch · H, L); grad_u is written.
        cotangents: of the final states, like `states`; replaced by those of the initial ones.
        grad_dt: (batch · H, L) float64, written: the derivative by the interval, dt times the step size.
        grads: like `packs`, one for each row; written.
    """
    channels, length, count = packs.shape[0], u.shape[1], 2 * order * modes
    size = packs.shape[1]
    room = aligned(packs, 2 * size + 8 * modes + (STEPS + 2) * count)
    pack, grad, rest = room[:size], room[size : 2 * size], room[2 * size :]
    D, b, of_b, passed = rest, rest[2 * modes :], rest[4 * modes :], rest[6 * modes :]
    cotangent, states = rest[8 * modes : 8 * modes + count], rest[8 * modes + count :]
    K, sums, k, turned = np.empty((rank, rank)), np.empty(rank), np.empty(rank), np.empty(rank)
    for row in range(first, end):
        channel = row % channels
        pack[:] = packs[channel]
        grad[:] = 0.0
        half, intervals = step_sizes[channel] / 2, dt[row // channels]
        cotangent[:] = cotangents[row]
        for back in range(starts.shape[1]):
            block = starts.shape[1] - 1 - back
            begin = block * STEPS
            steps = min(STEPS, length - begin)
            states[:count] = starts[row, block]
            for i in range(steps):
                t = begin + i
                advance(
                    pack, modes, rank, order, kind, np.float64(u[row, t]), half * intervals[t], states, i * count,
                    states, (i + 1) * count, D, K, sums, k, b,
                )  # fmt: skip
            for j in range(steps):
                i = steps - 1 - j
                t = begin + i
                grad_u[row, t], grad_dt[row, t] = retreat(
                    pack, modes, rank, order, kind, np.float64(u[row, t]), half * intervals[t],
                    2.0 * np.float64(grad_y[row, t]), states, i * count, cotangent, grad, D, K, sums, k, turned, b,
                    of_b, passed,
                )  # fmt: skip
        cotangents[row] = cotangent
        grads[row] = grad
