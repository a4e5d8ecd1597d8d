"""Running bound on gradients of the linear recurrence of a diagonal system that are computed by chunks of Q steps.

A chunk takes the state before it, its inputs, its outputs' cotangents and the cotangent of the state after it to what
the steps in it would make of them, by tables of powers of ā.  So states and cotangents have own errors between chunks
only, and within one they are what the exact recurrence makes of the computed ones at its ends
(docs/bounds-gradients.md, The linear recurrence by chunks).
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from .adjoint import _Adjoint, _by_order
from .adjoint_moduli import GradientProblem
from .correlation import count
from .realization import Array
from .rounding import COMPLEX_PRODUCT, INFLATION, RoundingModel
from .scalar_recurrence import size


def chunked_gradient_bounds(problem: GradientProblem, model: RoundingModel) -> dict[str, Array]:
    """Bounds for `u`, `A`, `B`, `C` and `state` of a problem in mode `s4` on a diagonal system, from the first step on.

    Args:
        model: its `gradient_chunk` divides the length; sums in any order, fused or not.
    """
    chunk = model.gradient_chunk
    length = problem.u.shape[-1]
    if chunk is None or length % chunk or problem.realization.structure != "diagonal":
        raise ValueError(
            f"gradient_chunk is {chunk} for {length} steps of a {problem.realization.structure} system; the bound is "
            "for whole chunks of diagonal systems."
        )
    return _Chunks(problem, model, chunk).run()


class _Chunks:
    """Exact states and cotangents in longdouble; of the computed ones errors and, chunk by chunk, moduli.

    Attributes, by step: x before it and g after it, their errors E and F, the own errors of x after it and of g, and
    the sums of moduli X and G that run through its chunk from caps on the computed state before it and cotangent after.
    """

    def __init__(self, problem: GradientProblem, model: RoundingModel, chunk: int) -> None:
        r = problem.realization
        self.p, self.model, self.chunk, self.weight = problem, model, chunk, r.weight
        self.system = _Adjoint.of(r, "longdouble")
        self.A, self.B, self.C = (self.system.parameters[name] for name in ("A", "B", "C"))
        self.alpha, self.beta, self.gamma = (size(v) for v in (self.A, self.B, r.weight * self.C))
        self.u, self.h = (np.moveaxis(v, -1, 0)[..., None].astype(np.longdouble) for v in (problem.u, problem.grad_y))
        self.u_size, self.h_size = size(self.u), size(self.h)
        finer = model.table_unit or model.unit
        # Of tables: powers, factors and sums over modes, and one rounding.
        self.table = 1 + COMPLEX_PRODUCT * (chunk + 2 + 2 * r.n_modes) * finer / model.unit
        # Products with a table's numbers lose what it underflows by, whatever they are multiplied with.
        largest = np.maximum(1, self.alpha) ** chunk * np.maximum(1, self.beta) * np.maximum(1, self.gamma)
        self.floor = model.tiny * (4 * (chunk + 2 * r.n_modes) + 2 * largest)

    def run(self) -> dict[str, Array]:
        batch, length = self.u.shape[1], len(self.u)
        self.start, self.final = (
            _by_order(self.p.realization, batch, 1, given, name, "s4", "longdouble")[0]
            for given, name in ((self.p.state, "state"), (self.p.grad_state, "grad_state"))
        )
        shape = (length, *self.start.shape)
        self.x, self.g = np.empty((2, *shape), np.clongdouble)
        self.E, self.F, self.X, self.G, self.own_x, self.own_g = np.zeros((6, *shape))
        self._forward()
        of_state = self._backward()
        columns = batch * length // self.chunk
        # Sums over columns by the parts of complex products; powers once more, products with them, sums over steps.
        finer = (self.model.table_unit or self.model.unit) / self.model.unit
        after = 2 + 6 * COMPLEX_PRODUCT * self.chunk * finer
        relative = sqrt(2.0) * self._count(columns + 3 + self.table + after)
        bounds = {
            name: (error * (1 + relative) + relative * moduli + 4 * columns * self.chunk**2 * self.floor) * INFLATION
            for name, (error, moduli) in self._sums().items()
        }
        return {"u": self._of_inputs(), **bounds, "state": of_state}

    def _count(self, roundings: float) -> float:
        return float(count(roundings, np.array(self.model.unit)))

    def _lost(self, sizes: Array, inputs: Array) -> Array:
        """The own error of a state between chunks: a table's rounding, and Q + 2 products of it in any order."""
        lost = sqrt(2.0) * self._count(self.chunk + 3 + self.table) * sizes
        return np.asarray((lost + self.floor * (1 + inputs)) * INFLATION)

    def _forward(self) -> None:
        x, E = self.start, np.zeros(self.start.shape)
        for k in range(len(self.u)):
            if k % self.chunk == 0:
                X, seen = size(x) + 2 * E, size(x) + 2 * E
            self.x[k], self.E[k], self.X[k] = x, E, X
            x = self.A * x + self.B * self.u[k]
            E, X = self.alpha * E * INFLATION, (self.alpha * X + self.beta * self.u_size[k]) * INFLATION
            seen = seen + self.u_size[k]
            if (k + 1) % self.chunk == 0:
                self.own_x[k] = self._lost(X, seen)
                E = E + self.own_x[k]

    def _backward(self) -> Array:
        """Cotangents; the error of that of the initial state."""
        carry, F = self.final, np.zeros(self.final.shape)
        own = np.zeros(F.shape)
        C = self.weight * np.conj(self.C)
        for k in reversed(range(len(self.u))):
            if (k + 1) % self.chunk == 0:
                G, seen = size(carry) + 2 * F, size(carry) + 2 * F
            self.g[k], self.F[k], self.own_g[k] = carry + C * self.h[k], F, own
            G = (G + self.gamma * self.h_size[k]) * INFLATION
            self.G[k], seen = G, seen + self.h_size[k]
            carry, F, G = np.conj(self.A) * self.g[k], self.alpha * F * INFLATION, self.alpha * G * INFLATION
            own = np.zeros(F.shape)
            if k % self.chunk == 0:
                own = self._lost(G, seen)
                F = F + own
        return F

    def _sums(self) -> dict[str, tuple[Array, Array]]:
        """By parameter: what errors of states and cotangents do to its gradient, and the sum of moduli.

        Σ_k ĝ_k conj(x̂_{k-1}) − g_k conj(x_{k-1}) is the sum of g_k conj(e_{k-1}), f_k conj(x_{k-1}) and
        f_k conj(e_{k-1}), the first two by what each own error does to the whole sum.
        """
        after = np.concatenate([self.X[1:], np.zeros((1, *self.X.shape[1:]))])
        ends = np.arange(self.chunk - 1, len(self.u), self.chunk)
        after[ends] = (self.alpha * self.X[ends] + self.beta * self.u_size[ends]) * INFLATION
        h = self.weight * self.h
        later = np.concatenate([self.g[1:], 0 * self.g[:1]])
        return {
            "A": (
                self._of_states(later) + self._of_cotangents(self.x) + (self.F * self.E).sum(axis=(0, 1)),
                (self.G * self.X).sum(axis=(0, 1)),
            ),
            "B": (self._of_cotangents(self.u + 0 * self.x), (self.G * self.u_size).sum(axis=(0, 1))),
            # The last outputs of a chunk read what the state between chunks is before it is rounded.
            "C": (self._of_states(h + 0 * self.x, read=False), (self.weight * self.h_size * after).sum(axis=(0, 1))),
        }

    def _of_states(self, sources: Array, *, read: bool = True) -> Array:
        """Σ_j |z_j| times the own error of the state after step j, z_j = source_j + conj(ā) z_{j+1}.

        Args:
            read: whether source_j meets that error; else only what comes later does.
        """
        z, total = np.zeros_like(sources[0]), np.zeros(sources.shape[2:])
        for j in reversed(range(len(sources))):
            later, z = z, sources[j] + z
            total = total + (size(z if read else later) * self.own_x[j]).sum(axis=0)
            z = np.conj(self.A) * z
        return total

    def _of_cotangents(self, sources: Array) -> Array:
        """Σ_j |D_j| times the own error of the cotangent after step j, D_j = source_j + ā D_{j-1}."""
        D, total = np.zeros_like(sources[0]), np.zeros(sources.shape[2:])
        for j in range(len(sources)):
            D = sources[j] + self.A * D
            total = total + (size(D) * self.own_g[j]).sum(axis=0)
        return total

    def _of_inputs(self) -> Array:
        """∂u_k = Σ_q K_{q-k} h_q + V_k·γ': Q + 2M products of rounded tables with numbers, in any order."""
        modes = self.A.shape[-1]
        relative = self._count(self.chunk + 2 * modes + 1 + self.table)
        inherited, sizes = ((self.beta * v).sum(axis=-1) for v in (self.F, self.G))
        seen = np.zeros(sizes.shape)
        for first in range(0, len(seen), self.chunk):
            part = slice(first, first + self.chunk)
            seen[part] = self.h_size[part].sum(axis=(0, -1)) + self.G[first + self.chunk - 1].sum(axis=-1)
        found = inherited * (1 + relative) + relative * sizes + modes * self.floor.max(axis=-1) * (1 + seen)
        return np.asarray(np.moveaxis(found, 0, -1) * INFLATION)
