"""Products of adjacent inputs in a recurrence, c_p(t) = u_t u_{t-1} … u_{t-p+1}: what they drive, and their adjoint.

Blocks of time: buffers of inputs and of their gradients begin `order` - 1 steps before the block.
"""

from __future__ import annotations

from .caching import inlined
from .simd import fma, load, splat, store, width
from .tiles import read_signal


@inlined
def read_with_earlier(u, offsets, start, steps, apart, earlier, inputs):  # type: ignore[no-untyped-def]
    """Inputs `start` - `earlier` … `start` + `steps` - 1 as `read_signal` has them; zeros before the first of all."""
    w = width(inputs)
    nothing = splat(inputs.dtype.type(0))
    known = min(start, earlier)
    for t in range(earlier - known):
        store(inputs, t * w, nothing)
    read_signal(u, offsets, start - known, known + steps, apart, inputs, (earlier - known) * w)


@inlined
def multiply(inputs, products, steps, order):  # type: ignore[no-untyped-def]
    """c_p(t) to products[(t · order + p - 1) · W]."""
    w = width(inputs)
    for t in range(steps):
        newest = load(inputs, (t + order - 1) * w)
        store(products, t * order * w, newest)
        for p in range(1, order):
            newest = newest * load(inputs, (t + order - 1 - p) * w)
            store(products, (t * order + p) * w, newest)


@inlined
def drive(powers, at, products, t, order):  # type: ignore[no-untyped-def]
    """Σ_p B̄^p c_p(t) of one mode, a chain of multiply-adds that begins with the highest order, the smallest as a rule.

    Args:
        powers: B̄^p, p = 1 … order, at `at`.
    """
    w = width(products)
    c = load(products, (t * order + order - 1) * w)
    wr, wi = load(powers, at + 2 * (order - 1) * w) * c, load(powers, at + (2 * order - 1) * w) * c
    for lower in range(1, order):
        p = order - 1 - lower
        c = load(products, (t * order + p) * w)
        wr = fma(load(powers, at + 2 * p * w), c, wr)
        wi = fma(load(powers, at + (2 * p + 1) * w), c, wi)
    return wr, wi


@inlined
def power_sums(powers, at, products, steps, order, cotangents, n, moves, of_products, of_powers):  # type: ignore[no-untyped-def]
    """One mode over a block: Σ_t c_p(t) ν_t to `of_powers`; adds Re(conj(B̄^p) ν_t) to `of_products`; 4 operations each.

    Args:
        cotangents: ν_t at n + t · `moves`.
        of_products: as `products`.
    """
    w = width(products)
    for p in range(order):
        Br, Bi = load(powers, at + 2 * p * w), load(powers, at + (2 * p + 1) * w)
        br, bi = splat(products.dtype.type(0)), splat(products.dtype.type(0))
        for t in range(steps):
            i = (t * order + p) * w
            nr, ni = load(cotangents, n + t * moves), load(cotangents, n + t * moves + w)
            c = load(products, i)
            br, bi = fma(c, nr, br), fma(c, ni, bi)
            store(of_products, i, fma(Bi, ni, fma(Br, nr, load(of_products, i))))
        store(of_powers, 2 * p * w, br)
        store(of_powers, (2 * p + 1) * w, bi)


@inlined
def pull_back(inputs, products, of_products, steps, order, gradient):  # type: ignore[no-untyped-def]
    """Adds to `gradient` what the cotangents of c_p(t) = c_{p-1}(t) u_{t-p+1}, p = 1 … order, give to the inputs."""
    w = width(inputs)
    for t in range(steps):
        own = load(of_products, (t * order + order - 1) * w)
        for lower in range(order - 1):
            p = order - 2 - lower
            at = (t + lower) * w
            store(gradient, at, fma(own, load(products, (t * order + p) * w), load(gradient, at)))
            own = fma(own, load(inputs, at), load(of_products, (t * order + p) * w))
        at = (t + order - 1) * w
        store(gradient, at, load(gradient, at) + own)


@inlined
def hand_back(gradient, earlier, steps):  # type: ignore[no-untyped-def]
    """From one block to the one before, of `steps` steps: what it gave to earlier inputs stays, at their new places."""
    w = width(gradient)
    nothing = splat(gradient.dtype.type(0))
    # The last first, since both places may overlap.
    for i in range(earlier):
        at = (earlier - 1 - i) * w
        store(gradient, at + steps * w, load(gradient, at))
    for t in range(steps):
        store(gradient, t * w, nothing)
