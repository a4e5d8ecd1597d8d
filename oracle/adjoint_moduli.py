"""Gradients of the system of moduli, and the roundings that a term of a gradient passes (docs/bounds-gradients.md).

Every gradient of every mode is a polynomial in the parameters, the inputs, the states and the cotangents.  Taking
each of them by its modulus, and every minus for a plus, gives the sum of the moduli of the polynomial's terms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, log2, sqrt
from typing import Any

import numpy as np

from .adjoint import _Adjoint, _by_order
from .exact import RECURRENT_MODES
from .joint_recurrence import STRUCTURES
from .realization import Array, Realization
from .rounding import RoundingModel

# (cotangents of the terms of order 2 … P) -> cotangent of u
_Pull = Callable[[list[Array]], Array]


@dataclass(frozen=True)
class GradientProblem:
    """What a gradient depends on, checked by `adjoint_bounds.gradient_bounds`."""

    realization: Realization
    u: Array  # (batch, H, L)
    mode: str
    order: int  # 1 for `s4` and `liquid`
    correlations: str
    window: int | None
    state: Any
    grad_y: Array
    grad_state: Any

    @property
    def recurrent(self) -> bool:
        return self.mode in RECURRENT_MODES

    @property
    def linear(self) -> GradientProblem:
        """The linear term of `kb` and `pb` alone."""
        return GradientProblem(self.realization, self.u, "s4", 1, "all", None, None, self.grad_y, None)

    @property
    def joint(self) -> bool:
        """Whether a model may compute all orders of `kb` over adjacent tuples as one recurrence."""
        adjacent = (self.mode, self.correlations, self.window) == ("kb", "adjacent", None)
        return adjacent and self.order > 1 and self.realization.structure in STRUCTURES

    @property
    def linear_scan(self) -> bool:
        """Whether the mode is the linear recurrence and no more."""
        return self.mode == "s4" or (self.order == 1 and not self.recurrent)

    @property
    def one_recurrence(self) -> bool:
        """Whether the mode is one recurrence, as `kb` over all index tuples of a diagonal system is."""
        commuting = (self.mode, self.correlations, self.window) == ("kb", "all", None)
        return self.recurrent or self.order == 1 or (commuting and self.realization.structure == "diagonal")


def of_moduli(realization: Realization) -> Realization:
    """|Ā|, |B̄|, |C|; of a low-rank part −|P̄| and |Q̄|, so that the minus of Λ̄ − P̄ Q̄* adds."""
    sizes = {n: np.abs(v) for n in ("A", "B", "C", "Q") if (v := getattr(realization, n)) is not None}
    if realization.P is not None:
        sizes["P"] = -np.abs(realization.P)
    return replace(realization, **sizes)


def moduli_gradients(problem: GradientProblem, model: RoundingModel) -> dict[str, Array]:
    """The gradients of the system of moduli; every intermediate number is raised by tiny/u.

    An operation that underflows loses at most `tiny`; on numbers not below tiny/u that is one more rounding.
    """
    return _Moduli(problem, model.tiny / model.unit).run()


def sum_cost(terms: int, model: RoundingModel) -> float:
    """Units of u that a sum of complex products costs, relative to the sum of their moduli.

    A balanced tree: κ for the product, α more where another product is fused into the first addition, and the depth.
    In unknown order: n − 1 additions of whole products, or, where parts may be fused, 2n real products behind each.
    """
    if terms < 2:
        return model.product
    if model.pairwise:
        return model.product + model.addend + ceil(log2(terms))
    return model.product + terms - 1 if model.addend == 0 else 2 * sqrt(2.0) * terms


def roundings(problem: GradientProblem, model: RoundingModel) -> float:
    """n such that every term of every gradient is off by at most γ_n of its modulus, in any order of evaluation.

    The list of docs/bounds-gradients.md, in its order.
    """
    p, r, kappa = problem, problem.realization, model.product
    # A rounded addition, and what a product that is fused into it costs the number it is added to.
    addition = 1 + model.addend
    batch, channels, length = p.u.shape
    reach = length if p.window is None else min(p.window, length)
    across = model.depth(channels) if r.structure == "mimo" else 0
    drive = 1 + across
    product = kappa
    if r.structure == "dense":
        product = sum_cost(r.n_modes, model)
    elif r.structure == "dplr":
        rank = len(r.P) if r.P is not None else 0
        product = sum_cost(r.weight * r.n_modes, model) + kappa + addition * rank
    step = product + addition if p.mode == "s4" else product + drive + 1 + 2 * addition
    if model.scan == "any":
        step += 2 * addition
    orders = p.order
    n = step * (length + 1) + drive + (2 * orders * kappa if not p.recurrent else 0)
    n += 1 + across  # the cotangent of the state from that of y
    n += kappa + addition + sum_cost(orders, model)  # conj(1 + x) g, and the sum over orders
    n += 2 * sum_cost(r.weight * r.n_modes, model)  # gradients of u, P and Q, and β_p
    # Sums over time, two additions more where it comes in chunks, and over the terms of different order.
    n += sum_cost(batch * length * orders * (reach if p.window else 1), model) + 2 + addition * orders
    if not p.recurrent:
        passed = reach + 2 * orders + 2
        if model.correlations != "sequential":
            # of one order after the other, or of polynomials, in any bracketing
            passed += (orders - 1) * reach + orders * (orders + 1) / 2
        n += 2 * passed + (orders + 1) * kappa + 3
        if p.joint and model.joint_adjacent:
            n += addition * orders  # the sum over orders that drives the recurrence
        if model.kernels == "tables":
            n += 2 * r.weight * r.n_modes + 2  # the sum over modes in any order, of rounded entries of two tables
    return float(n)


class _Moduli:
    """One evaluation; all numbers are longdouble and not negative."""

    def __init__(self, problem: GradientProblem, floor: float) -> None:
        self.problem = problem
        self.floor = np.longdouble(floor)
        self.system = _Adjoint.of(of_moduli(problem.realization), "longdouble")
        self.totals = {name: np.zeros_like(v) for name, v in self.system.parameters.items()}
        self.u, self.grad_y = (np.abs(v).astype(np.longdouble) for v in (problem.u, problem.grad_y))

    def run(self) -> dict[str, Array]:
        p = self.problem
        result: dict[str, Array] = {}
        if p.one_recurrence:
            link = {"s4": None, "liquid": "self"}.get(p.mode, "drive" if p.order > 1 else None)
            grad_u, grad_x = self.cascade(self.system, self.u, self.grad_y, link, p.order, reads_all=True)
            if p.recurrent:
                result["state"] = grad_x
        elif self.u.size == 0:
            grad_u = np.zeros_like(self.u)
        else:
            grad_u = self.cascade(self.system, self.u, self.grad_y, None, 1)[0]
            grad_u = grad_u + (self._inputs_alone() if p.mode == "pb" else self._moved_in_front())
        if p.realization.structure == "mimo":
            self.totals |= {"A": self.totals["A"][0], "B": self.totals["B"].T}
        sizes = {"u": grad_u, **self.totals, **result}
        # A low-rank factor's modulus enters with a minus.
        return {name: np.abs(size) for name, size in sizes.items()}

    def cascade(
        self,
        system: _Adjoint,
        inputs: Array,
        grad_y: Array,
        link: str | None,
        order: int,
        *,
        reads_all: bool = False,
    ) -> tuple[Array, Array]:
        """Gradients with respect to inputs (batch, H, L) and start; those of the parameters go to `totals`.

        x¹_k = Ā x¹_{k-1} + v_k, xᵖ_k = Ā xᵖ_{k-1} + l_k xᵖ⁻¹_{k-1}; l is v (`drive`) or u (`input`).  `self` is the
        liquid recurrence.  Outputs read every order, or the last one only.
        """
        p, floor = self.problem, self._floors(system)
        batch, _, length = inputs.shape
        start = p.state if system is self.system else None
        final = p.grad_state if system is self.system else None
        mode = p.mode if p.recurrent else ("truncated" if order > 1 else "s4")
        x = self._states(batch, order, start, "state", mode)
        trajectory, drives = [x], []
        for k in range(length):
            v = system.drive(inputs[:, :, k]) + self.floor
            moved = [system.apply(x_p) + floor[0] for x_p in x]
            feed = v if link != "input" else inputs[:, :, k, None]
            higher = [m + feed * below for m, below in zip(moved[1:], x[:-1], strict=True)]
            x = [moved[0] + v + (v * x[0] if link == "self" else 0), *higher]
            trajectory.append(x)
            drives.append(v)
        g = self._states(batch, order, final, "grad_state", mode)
        grad_inputs = np.zeros_like(inputs)
        for k in reversed(range(length)):
            before, after, v, u_k, gy = trajectory[k], trajectory[k + 1], drives[k], inputs[:, :, k], grad_y[:, :, k]
            read = system.output_adjoint(gy) + self.floor
            g = [g_p + (read if reads_all or i == order - 1 else 0) for i, g_p in enumerate(g)]
            grad_v = g[0] * (1 + before[0]) if link == "self" else g[0]
            pairs = list(zip(g[1:], before[:-1], strict=True))
            products = [g_p * x_p + self.floor for g_p, x_p in pairs]
            if link == "input":
                grad_inputs[:, :, k] = sum((q.sum(-1) for q in products), np.zeros_like(u_k))
            else:
                grad_v = grad_v + sum(products, np.zeros_like(grad_v))
            grad_inputs[:, :, k] += system.drive_adjoint(grad_v) + self.floor
            self._add("B", (grad_v * u_k[..., None] + self.floor).sum(0))
            outputs = sum(after[1:], after[0]) if reads_all else after[-1]
            self._add("C", p.realization.weight * (gy[..., None] * outputs + self.floor).sum(0))
            for g_p, x_p in zip(g, before, strict=True):
                for name, size in system.transition_gradient(g_p, x_p).items():
                    self._add(name, np.abs(size) + self.floor)
            back = [system.apply_adjoint(g_p) + floor[1] for g_p in g]
            if link == "self":
                g = [back[0] + v * g[0]]
            else:
                feed = v if link != "input" else u_k[..., None]
                g = [b + feed * up for b, up in zip(back, [*g[1:], 0 * g[0]], strict=True)]
        grad_x = np.stack(g, axis=1)
        if p.realization.structure == "mimo":
            grad_x = grad_x[:, :, 0]
        return grad_inputs, grad_x if mode == "truncated" else grad_x[:, 0]

    def _states(self, batch: int, order: int, given: Any, name: str, mode: str) -> list[Array]:
        given = None if given is None else np.abs(given)
        states = _by_order(self.problem.realization, batch, order, given, name, mode, "longdouble")
        return [x + self.floor for x in states]

    def _floors(self, system: _Adjoint) -> tuple[Array, Array]:
        """What an underflow inside Ā x and Ā* g may be multiplied by."""
        P, Q = (np.abs(system.parameters[n]).sum(0) if n in system.parameters else 0 for n in ("P", "Q"))
        return np.asarray(self.floor * (2 + P)), np.asarray(self.floor * (2 + Q))

    def _add(self, name: str, size: Array) -> None:
        self.totals[name] = self.totals[name] + size

    def _powered(self, power: int) -> _Adjoint:
        B = self.system.parameters["B"]
        return replace(self.system, parameters={**self.system.parameters, "B": B**power + self.floor})

    def _inputs_alone(self) -> Array:
        """Eq. 15: Σ_p β_p e_p with β_p = w·Re Σ_n C_n B̄_nᵖ."""
        weight, B, C = self.problem.realization.weight, self.system.parameters["B"], self.system.parameters["C"]
        terms, pull = self._correlations()
        cotangents = []
        for p, term in enumerate(terms, start=2):
            response = weight * (C * B**p).sum(-1) + self.floor
            cotangents.append(response[:, None] * self.grad_y + self.floor)
            with_output = weight * (self.grad_y * term + self.floor).sum((0, 2))[:, None]
            self._add("C", with_output * (B**p + self.floor) + self.floor)
            self._add("B", with_output * p * C * (B ** (p - 1) + self.floor) + self.floor)
        return pull(cotangents)

    def _moved_in_front(self) -> Array:
        """Eq. 14: every order by chains of recurrences, or by recurrences of adjacent products."""
        problem = self.problem
        grad_u = np.zeros_like(self.u)
        if problem.correlations == "all":
            for p in range(2, problem.order + 1):
                rows, pull = _windows(self.u, problem.window)
                grad_rows = self._order(p, rows, _last_of(self.grad_y, rows, problem.window), "input", p)
                grad_u += pull(grad_rows)
            return grad_u
        products, pull_products = _products(self.u, problem.order, self.floor)
        cotangents = []
        for p, product in enumerate(products, start=2):
            width = None if problem.window is None else problem.window - p + 1
            rows, pull = _windows(product, width)
            cotangents.append(pull(self._order(p, rows, _last_of(self.grad_y, rows, width), None, 1)))
        return pull_products(cotangents)

    def _order(self, power: int, inputs: Array, grad_y: Array, link: str | None, order: int) -> Array:
        """One order with B̄^{∘power} for B̄, whose gradient is brought back to B̄."""
        others, self.totals["B"] = self.totals["B"], np.zeros_like(self.totals["B"])
        grad_inputs = self.cascade(self._powered(power), inputs, grad_y, link, order)[0]
        slope = power * (self.system.parameters["B"] ** (power - 1) + self.floor)
        self.totals["B"] = others + slope * self.totals["B"] + self.floor
        return grad_inputs

    def _correlations(self) -> tuple[list[Array], _Pull]:
        """The terms of order 2 … P of Eq. 15 and their pull-back."""
        p = self.problem
        if p.correlations == "all":
            rows, pull_rows = _windows(self.u, p.window)
            if p.window is None:
                terms, pull = _elementary(rows, p.order, self.floor)
                return terms[1:], lambda cotangents: pull([0 * rows, *cotangents])
            terms, pull = _elementary(rows, p.order, self.floor)
            windows = [self._by_window(term[..., -1]) for term in terms[1:]]
            return windows, lambda cotangents: pull_rows(
                pull([0 * rows, *(_last_of(c, rows, p.window) for c in cotangents)])
            )
        products, pull_products = _products(self.u, p.order, self.floor)
        if p.window is None:
            sums = [np.cumsum(c, axis=-1) for c in products]
            return sums, lambda cotangents: pull_products([_reversed_sum(c) for c in cotangents])
        widths = [p.window - q + 1 for q in range(2, p.order + 1)]
        sums = [_moving_sum(c, width) for c, width in zip(products, widths, strict=True)]
        return sums, lambda cotangents: pull_products(
            [_moving_sum(c[..., ::-1], width)[..., ::-1] for c, width in zip(cotangents, widths, strict=True)]
        )

    def _by_window(self, values: Array) -> Array:
        """(batch·L, H) of windows as (batch, H, L)."""
        batch, channels, length = self.u.shape
        return np.moveaxis(values.reshape(batch, length, channels), 1, -1)


def _windows(u: Array, window: int | None) -> tuple[Array, Callable[[Array], Array]]:
    """The inputs of every window as rows (batch·L, H, window), zeros before the start, and the pull-back."""
    if window is None:
        return u, lambda grad: grad
    batch, channels, length = u.shape
    window = min(window, length)
    padded = np.concatenate([np.zeros((batch, channels, window - 1), u.dtype), u], axis=-1)
    rows = np.lib.stride_tricks.sliding_window_view(padded, window, axis=-1)
    rows = np.moveaxis(rows, 2, 1).reshape(batch * length, channels, window)

    def pull(grad: Array) -> Array:
        total = np.zeros_like(padded)
        by_step = np.moveaxis(grad.reshape(batch, length, channels, window), 1, 2)
        for s in range(window):
            total[..., s : s + length] += by_step[..., s]
        return np.asarray(total[..., window - 1 :])

    return np.ascontiguousarray(rows), pull


def _last_of(grad_y: Array, rows: Array, window: int | None) -> Array:
    """The cotangents of rows of windows: that of y at the last step of each."""
    if window is None:
        return grad_y
    result = np.zeros_like(rows)
    result[..., -1] = np.moveaxis(grad_y, -1, 1).reshape(rows.shape[:2])
    return result


def _products(u: Array, order: int, floor: Any) -> tuple[list[Array], _Pull]:
    """u_k … u_{k-p+1} for p = 2 … order, and the pull-back: each input times the product of the others."""
    delayed = [_delayed(u, i) for i in range(order)]

    def product(indices: list[int]) -> Array:
        return np.asarray(np.prod([delayed[i] for i in indices], axis=0) + floor)

    def pull(cotangents: list[Array]) -> Array:
        total = np.zeros_like(u)
        for p, cotangent in enumerate(cotangents, start=2):
            for i in range(p):
                others = product([j for j in range(p) if j != i]) * cotangent + floor
                total[..., : max(0, u.shape[-1] - i)] += others[..., i:]
        return total

    return [product(list(range(p))) for p in range(2, order + 1)], pull


def _elementary(u: Array, order: int, floor: Any) -> tuple[list[Array], _Pull]:
    """e_1 … e_order of the inputs so far, and the pull-back."""
    e = np.zeros((order + 1, *u.shape[:-1], u.shape[-1] + 1), u.dtype)
    e[0] = 1
    for k in range(u.shape[-1]):
        e[1:, ..., k + 1] = e[1:, ..., k] + u[..., k] * e[:-1, ..., k] + floor

    def pull(cotangents: list[Array]) -> Array:
        total, carry = np.zeros_like(u), np.zeros((order, *u.shape[:-1]), u.dtype)
        for k in reversed(range(u.shape[-1])):
            carry = carry + np.stack([c[..., k] for c in cotangents])
            total[..., k] = (carry * e[:-1, ..., k]).sum(0) + floor
            carry[:-1] += u[..., k] * carry[1:] + floor
        return total

    return [e[p, ..., 1:] for p in range(1, order + 1)], pull


def _delayed(values: Array, steps: int) -> Array:
    later = np.zeros_like(values)
    later[..., steps:] = values[..., : max(0, values.shape[-1] - steps)]
    return later


def _reversed_sum(values: Array) -> Array:
    return np.asarray(np.cumsum(values[..., ::-1], axis=-1)[..., ::-1])


def _moving_sum(values: Array, width: int) -> Array:
    return np.asarray(sum((_delayed(values, i) for i in range(width)), np.zeros_like(values)))
