"""The tables that gradients by chunks are made with, in float64, and their cotangents: powers of each mode by itself.

Per channel there are P numbers: the real parts of all modes and then the imaginary ones, padded with zeros to whole
vectors.
"""

from __future__ import annotations

from .caching import compiled, inlined
from .lowrank_lanes import aligned
from .lowrank_sweep import product
from .simd import fma, load, splat, store, total, width


@inlined
def dot(a, i, b, k, size):  # type: ignore[no-untyped-def]
    """Σ_n a_{i+n} b_{k+n}, `size` in whole vectors."""
    w = width(a)
    sums = splat(a.dtype.type(0))
    for n in range(0, size, w):
        sums = fma(load(a, i + n), load(b, k + n), sums)
    return total(sums)


@inlined
def pack(states, reads, c, kernel, inputs, turned_inputs, turned_outputs):  # type: ignore[no-untyped-def]
    """A channel's K, V and G from A^i b and c A^{i+1}, row i < Q of `states` and `reads`, each rounded once.

    Args:
        kernel: (2Q,), K_{Q-1}, …, K_0, then zeros.
        inputs, turned_inputs, turned_outputs: V, Vᵀ and Gᵀ in panels of 2W rows, W lanes of `kernel`.
    """
    w, size, chunk = 2 * width(kernel), c.shape[0], kernel.shape[0] // 2
    for i in range(chunk):
        kernel[chunk - 1 - i], kernel[chunk + i] = dot(states, i * size, c, 0, size), 0.0
    for n in range(0, size, w):
        for j in range(chunk):
            at, state, read = n * chunk + j * w, (chunk - 1 - j) * size + n, j * size + n
            for lane in range(w):
                inputs[at + lane] = states[state + lane]
                turned_outputs[at + lane] = reads[read + lane]
    for q in range(0, chunk, w):
        for lane in range(w):
            state = (chunk - 1 - q - lane) * size
            for n in range(size):
                turned_inputs[q * size + n * w + lane] = states[state + n]


@inlined
def of_kernel_into(products, states, c, of_V, of_states, of_c):  # type: ignore[no-untyped-def]
    """Cotangents of A^i b, and of c as far as K_i = c A^i b goes.

    Args:
        products: h_q u_j, (Q, Q), of which those with q - j = i add up to the cotangent of K_i.
        states: A^i b, (Q, P).
        of_V: of V's columns, (Q, P).
        of_states: (Q, P), written; of_c: (P,), written.
    """
    size, chunk = c.shape[0], of_V.shape[0] // c.shape[0]
    for n in range(size):
        of_c[n] = 0.0
    for i in range(chunk):
        of_K = 0.0
        for j in range(chunk - i):
            of_K += products[(i + j) * chunk + j]
        for n in range(size):
            of_states[i * size + n] = of_V[(chunk - 1 - i) * size + n] + of_K * c[n]
            of_c[n] += of_K * states[i * size + n]


@inlined
def run_powers(A, b, c, size, chunk, states, reads, D):  # type: ignore[no-untyped-def]
    """ā^i b̄ and w c ā^{i+1} of every mode as rows i < chunk of `states` and `reads`, and D = ā^chunk.

    Args:
        A, b: real and then imaginary parts; c, `reads`: real parts and imaginary ones with the opposite sign.
    """
    w = width(A)
    half = size // 2
    for n in range(0, half, w):
        ar, ai = load(A, n), load(A, half + n)
        xr, xi, pr, pi = load(b, n), load(b, half + n), ar, ai
        gr, gi = product(ar, ai, load(c, n), -load(c, half + n))
        for i in range(chunk):
            at = i * size + n
            store(states, at, xr)
            store(states, at + half, xi)
            store(reads, at, gr)
            store(reads, at + half, -gi)
            if i + 1 < chunk:
                xr, xi = product(ar, ai, xr, xi)
                gr, gi = product(ar, ai, gr, gi)
                pr, pi = product(ar, ai, pr, pi)
        store(D, n, pr)
        store(D, half + n, pi)


@compiled
def fill_tables(  # type: ignore[no-untyped-def]
    A, b, c, kernel, inputs, turned_inputs, turned_outputs, transition, turned_transition, first, end
):
    """Channels `first` … `end` - 1: tables as `chunk_adjoint_tiles` takes them, each number rounded once.

    Args:
        A, b, c: (H, P), as in `run_powers`.
    """
    size, chunk = b.shape[1], kernel.shape[1] // 2
    states, reads, D = aligned(A[0], chunk * size), aligned(A[0], chunk * size), aligned(A[0], size)
    for h in range(first, end):
        run_powers(A[h], b[h], c[h], size, chunk, states, reads, D)
        pack(states, reads, c[h], kernel[h], inputs[h], turned_inputs[h], turned_outputs[h])
        for n in range(size):
            transition[h, n] = D[n]
            turned_transition[h, n] = D[n] if n < size // 2 else -D[n]


@compiled
def pull_back(A, b, c, chunk, totals, of_A, of_b, of_c, first, end):  # type: ignore[no-untyped-def]
    """Channels `first` … `end` - 1: cotangents of A, b and c from those of the tables.

    Args:
        totals: (H, P + 2QP + Q²) as `chunk_adjoint_tiles` leaves them.
        of_A, of_b, of_c: as A, b, c; written.
    """
    w = width(A[0])
    size = b.shape[1]
    half, V = size // 2, size
    G, K = V + chunk * size, V + 2 * chunk * size
    states, reads, of_states = (
        aligned(A[0], chunk * size), aligned(A[0], chunk * size), aligned(A[0], chunk * size)
    )  # fmt: skip
    D = aligned(A[0], size)
    nothing = splat(0.0)
    for h in range(first, end):
        run_powers(A[h], b[h], c[h], size, chunk, states, reads, D)
        found = totals[h]
        of_kernel_into(found[K:], states, c[h], found[V:G], of_states, of_c[h])
        for n in range(0, half, w):
            ar, ai = load(A[h], n), load(A[h], half + n)
            # D = ā^Q: Q conj(ā^(Q-1)) times its cotangent, the power as a product of those at hand.
            pr, pi = splat(1.0), nothing
            for _ in range(chunk - 1):
                pr, pi = product(ar, ai, pr, pi)
            lr, li = product(pr, -pi, load(found, n), load(found, half + n))
            lr, li = lr * splat(float(chunk)), li * splat(float(chunk))
            xr = xi = gr = gi = nothing
            for k in range(chunk):
                at = (chunk - 1 - k) * size + n
                if k > 0:
                    # ν_i = (its own) + conj(ā) ν_{i+1}, after ∂ā += ν_{i+1} conj(ā^i b̄)
                    zr, zi = product(load(states, at), -load(states, at + half), xr, xi)
                    lr, li = lr + zr, li + zi
                    xr, xi = product(ar, -ai, xr, xi)
                    zr, zi = product(load(reads, at), load(reads, at + half), gr, gi)
                    lr, li = lr + zr, li + zi
                    gr, gi = product(ar, -ai, gr, gi)
                xr, xi = xr + load(of_states, at), xi + load(of_states, at + half)
                gr, gi = gr + load(found, G + at), gi - load(found, G + at + half)
            store(of_b[h], n, xr)
            store(of_b[h], half + n, xi)
            # the first row that reads is w c ā
            zr, zi = product(load(c[h], n), load(c[h], half + n), gr, gi)
            store(of_A[h], n, lr + zr)
            store(of_A[h], half + n, li + zi)
            gr, gi = product(ar, -ai, gr, gi)
            store(of_c[h], n, load(of_c[h], n) + gr)
            store(of_c[h], half + n, load(of_c[h], half + n) - gi)
