"""Bounds on the rounding errors of computed gradients (docs/bounds-gradients.md).

Two bounds, of which the smaller one counts: γ_n times the gradient of the system of moduli, for every mode and any
order of evaluation, and a running bound of the adjoint recurrence, for recurrences that run in the order of time.
Where convolutions are FFTs, forwards and backwards, `fft_gradients` has the bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, log2
from typing import Any

import numpy as np

from .adjoint import _Adjoint, _by_order, gradients
from .adjoint_moduli import GradientProblem, moduli_gradients, roundings, sum_cost
from .adjoint_transport import Transport
from .chunk_gradients import chunked_gradient_bounds
from .correlation import count
from .exact import CORRELATIONS, MODES, check_realization
from .fft_gradients import by_fft, fft_gradient_bounds
from .joint_adjoint import JointDrive
from .realization import Array, Realization
from .rounding import RoundingModel, unit_roundoff

# The bounds are sums and products of numbers that are not negative, in precision float64 or wider: this covers
# 2^20 roundings in a row.
_INFLATION = 1 + 2.0**-30


def gradient_bounds(
    realization: Realization,
    u: Any,
    *,
    mode: str,
    grad_y: Any,
    grad_state: Any = None,
    order: int = 3,
    correlations: str = "all",
    window: int | None = None,
    state: Any = None,
    model: RoundingModel,
    linear_fft: bool = True,
) -> dict[str, Array]:
    """How far computed gradients of Σ grad_y·y + Re Σ conj(grad_state)·x_{L-1} may be from the exact ones.

        |computed − exact| ≤ min(γ_n · gradient of the system of moduli, running bound of the adjoint recurrence)

    Args:
        realization, u, state, grad_y, grad_state: as in `adjoint.gradients`; their floats count as exact.
        mode, order, correlations, window: as in `exact.outputs`; every mode.
        model: how the gradients are computed.  With `fft` vector-Jacobian products of convolutions are FFTs and sums
            over the kernel's entries: where outputs are computed by FFT but vector-Jacobian products by recurrences,
            say so with `dataclasses.replace`.  Where `scan` is `any`, only the bound by moduli is used.  Where
            `state_unit` is finer, recurrences and sums are in that precision and every gradient is rounded once.
        linear_fft: with `fft`, whether the linear recurrence of a mode is an FFT as well, as without a scan it must be;
            False where only the heads of windowed `kb` over adjacent tuples are.

    Returns:
        float64 arrays with the keys and shapes of `adjoint.gradients` (`u`, `A`, `B`, `C`, for `dplr` also `P` and
        `Q`, and for `s4`, `liquid` and `truncated` `state`, but not by FFT).  Infinite where the bounds overflow.

    Raises:
        ValueError: an unknown name, a shape that does not fit, NaN or inf, an option that the mode lacks, a model
            finer than NumPy's longdouble, one by FFT with another structure than `diagonal` or with a state, or one
            with powers by exponentials and without FFT where kernels are needed.

    Accuracy: a theorem without overflow or flush to zero, where each primitive is computed by products and
        sums as docs/bounds-gradients.md lists them.

    References: docs/bounds-gradients.md; Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., Lemma 3.1.
    """
    problem = _checked(realization, u, mode, grad_y, grad_state, order, correlations, window, state)
    fft = by_fft(problem, model, linear_fft)
    if fft and (state is not None or grad_state is not None):
        raise ValueError("the model computes convolutions by FFT, which have no state; leave state and grad_state out.")
    if not fft and model.powers != "products" and mode == "kb" and correlations == "adjacent" and window is not None:
        raise ValueError(f"the model takes powers of Ā as {model.powers}; the kernels of windowed kb need 'products'.")
    if model.finest < unit_roundoff(np.longdouble):
        raise ValueError(f"the model's unit roundoff {model.finest} is finer than that of NumPy's longdouble.")
    with np.errstate(over="ignore", invalid="ignore"):
        if fft:
            linear = None if linear_fft else _bounds(problem.linear, replace(model.in_working_precision, fft=False))
            bounds = fft_gradient_bounds(problem, model, linear)
        elif model.state_unit is not None and problem.one_recurrence:
            bounds = _rounded_once(_bounds(problem, model.in_states), problem, model)
        else:
            # Gradients of composed modes are sums of rounded ones: finer recurrences cost less than these allow.
            bounds = _bounds(problem, model.in_working_precision)
    return {name: _finished(bound) for name, bound in bounds.items()}


def _bounds(problem: GradientProblem, model: RoundingModel) -> dict[str, Array]:
    sizes = moduli_gradients(problem, model)
    gamma = count(roundings(problem, model), np.array(model.unit))
    bounds = {name: gamma * size for name, size in sizes.items()}
    if model.scan == "sequential":
        _take_smaller(bounds, problem, sizes, model)
    return bounds


def _rounded_once(bounds: dict[str, Array], problem: GradientProblem, model: RoundingModel) -> dict[str, Array]:
    """The bounds of gradients that were computed in the precision of states and rounded to the working one."""
    p = problem
    mode = p.mode if p.recurrent else ("truncated" if p.order > 1 else "s4")
    values = gradients(
        p.realization, p.u, mode, p.grad_y, p.grad_state, order=p.order, state=p.state, precision="longdouble"
    )
    # The longdouble gradients' own error obeys the same bound with a smaller unit roundoff.
    return {
        name: bound + model.unit * (np.abs(values[name]) + 2 * bound) + model.tiny for name, bound in bounds.items()
    }


def _take_smaller(
    bounds: dict[str, Array], problem: GradientProblem, sizes: dict[str, Array], model: RoundingModel
) -> None:
    p = problem
    if p.one_recurrence:
        link = {"s4": None, "liquid": "self"}.get(p.mode, "drive" if p.order > 1 else None)
        running = _of_linear(p, model) if p.linear_scan else _Running(p, link, p.order, model).run()
        for name in bounds if running else ():
            bounds[name] = np.fmin(bounds[name], running[name])
        return
    if p.joint and model.joint_adjacent:
        running = _Running(p, None, 1, model, joint=True).run()
        for name in bounds:
            bounds[name] = np.fmin(bounds[name], running[name])
        return
    # The linear term apart: its share of the moduli, and one rounding for every order that is added to it.
    linear = p.linear
    running = _of_linear(linear, model)
    if not running:
        return
    shares = moduli_gradients(linear, model)
    gamma = count(roundings(p, model), np.array(model.unit))
    for name, size in sizes.items():
        others = gamma * np.maximum(size - shares[name] * (1 - 2.0**-40), 0)
        added = running[name] + 2 * (p.order + 1) * model.unit * (shares[name] + running[name])
        bounds[name] = np.fmin(bounds[name], others + added)


def _of_linear(linear: GradientProblem, model: RoundingModel) -> dict[str, Array]:
    """The running bound of a linear recurrence; empty where it takes chunks of time for which there is none."""
    if model.gradient_chunk is None:
        return _Running(linear, None, 1, model).run()
    whole = linear.u.shape[-1] % model.gradient_chunk == 0
    return chunked_gradient_bounds(linear, model) if whole and linear.realization.structure == "diagonal" else {}


def _finished(bound: Array) -> Array:
    bound = np.asarray(bound)
    with np.errstate(over="ignore", invalid="ignore"):
        result = (bound * _INFLATION).astype(np.float64)
    return np.where(np.isnan(result), np.inf, result)


def _checked(
    realization: Realization,
    u: Any,
    mode: str,
    grad_y: Any,
    grad_state: Any,
    order: int,
    correlations: str,
    window: int | None,
    state: Any,
) -> GradientProblem:
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; allowed: {', '.join(MODES)}.")
    if correlations not in CORRELATIONS:
        raise ValueError(f"correlations is {correlations!r}; allowed: {', '.join(CORRELATIONS)}.")
    if order < 1:
        raise ValueError(f"order is {order}; the lowest order is 1, the linear term.")
    check_realization(realization)
    u, grad_y = np.asarray(u), np.asarray(grad_y)
    channels = realization.n_channels
    if u.ndim != 3 or u.shape[1] != channels or grad_y.shape != u.shape or {u.dtype.kind, grad_y.dtype.kind} & {"c"}:
        raise ValueError(f"u has shape {u.shape}, grad_y {grad_y.shape}; both must be real and (batch, {channels}, L).")
    given = {"u": u, "grad_y": grad_y, "state": state, "grad_state": grad_state}
    given |= {name: getattr(realization, name) for name in ("A", "B", "C", "P", "Q")}
    for name, array in given.items():
        if array is not None and not np.isfinite(np.asarray(array)).all():
            raise ValueError(f"{name} has NaN or infinite elements; only finite numbers are allowed.")
    recurrent = mode not in ("kb", "pb")
    if recurrent and window is not None:
        raise ValueError(f"window is {window}, but mode {mode!r} has none; use kb or pb, or leave it out.")
    if not recurrent:
        if state is not None or grad_state is not None:
            raise ValueError(f"mode {mode!r} is defined from rest here; leave state and grad_state out.")
        if window is not None and window < 1:
            raise ValueError(f"window is {window}; it must be at least 1.")
        if realization.structure == "mimo" and order > 1:
            raise ValueError(f"mode {mode!r} is not defined for mimo, whose drive B̄ u_k mixes the channels.")
    orders = 1 if mode in ("s4", "liquid") else order
    return GradientProblem(realization, u, mode, orders, correlations, window, state, grad_y, grad_state)


@dataclass
class _Total:
    """Σ of products: a bound on the errors of the factors, and the sum of moduli, which rounding acts on."""

    error: Array
    size: Array

    @classmethod
    def like(cls, array: Array) -> _Total:
        return cls(np.zeros(array.shape), np.zeros(array.shape))

    def add(self, error: Array, size: Array) -> None:
        self.error = self.error + error
        self.size = self.size + size

    def bound(self, cost: float, model: RoundingModel, terms: int) -> Array:
        relative = cost * model.unit * (1 + 2.0**-10)
        return self.error * (1 + relative) + relative * self.size + 4 * terms * model.tiny


@dataclass(frozen=True)
class _Step:
    """One step's drive w = B̄ u_k with |w| and the error of the computed w, and its transition.

    Attributes:
        acting: modulus of the elementwise part of the transition, as computed.
        delta: how far that part is rounded.
        matrix: the transition as `Transport` takes it.
        norm: its 2-norm on the full state, (batch, H); 0 for scalar recurrences.
    """

    w: Array
    size: Array
    dw: Array
    acting: Array
    delta: Array
    matrix: Array | None
    norm: Array


@dataclass(frozen=True)
class _Point:
    """States or cotangents (order, batch, H, M), the bound on their errors, and the last step's part in it."""

    value: Array
    error: Array
    own: Array

    @property
    def cap(self) -> Array:
        """A bound on the computed and on the exact modulus."""
        return np.asarray(_abs(self.value) + 2 * self.error)


class _Running:
    """Errors of states and cotangents, step by step, along the trajectory of exact numbers in longdouble."""

    def __init__(
        self, problem: GradientProblem, link: str | None, order: int, model: RoundingModel, *, joint: bool = False
    ) -> None:
        self.p, self.link, self.order, self.model = problem, link, order, model
        r = self.r = problem.realization
        self.system = _Adjoint.of(r, "longdouble")
        parameters = self.system.parameters
        self.size = {name: _abs(v) for name, v in parameters.items()}
        self.u = problem.u.astype(np.longdouble)
        self.grad_y = problem.grad_y.astype(np.longdouble)
        self.unit, self.tiny = model.unit, model.tiny
        self.diagonal = r.structure in ("diagonal", "mimo")
        self.dense = r.structure == "dense"
        self.product = model.product
        # Additions inside a product with the transition, and those that a drive passes when it joins.  A product that
        # is fused into an addition costs the number it is added to, and what joins a sum in unknown order may be
        # its first number.
        addition = 1 + model.addend
        self.inner, self.joining = 0.0, model.addend
        if self.dense:
            first = 0.0 if model.pairwise else addition * r.n_modes
            self.inner, self.joining = (addition + first if link == "self" else 0.0), model.addend + first
        elif not self.diagonal:
            self.inner = addition * len(self.system._low_rank())
            self.joining = model.addend + self.inner
        low = 1 + sum((_abs(parameters[n]).sum(axis=0) for n in ("P", "Q") if n in parameters), np.zeros(()))
        self.floor = self.tiny * (8 + 8 * r.n_modes * low)
        self.matrix = None if self.diagonal else r.full_matrices()[0].astype(complex)
        self.joint = JointDrive(problem, parameters["B"], model) if joint else None
        # The real numbers that a parameter is multiplied with to drive the recurrence, and their errors.
        self.drives = {"B": (np.abs(self.u).astype(float), np.zeros(self.u.shape))}
        if self.joint is not None:
            signals = zip(self.joint.products, self.joint.errors, strict=True)
            self.drives = {f"B{p}": signal for p, signal in enumerate(signals, start=1)}
        self.steps = [self._step(k) for k in range(self.u.shape[2])]

    def run(self) -> dict[str, Array]:
        p, r = self.p, self.r
        batch, _, length = self.u.shape
        mode = p.mode if p.recurrent else ("truncated" if self.order > 1 else "s4")
        start, final = (
            np.stack(_by_order(r, batch, self.order, given, name, mode, "longdouble"))
            for given, name in ((p.state, "state"), (p.grad_state, "grad_state"))
        )
        before = list(self.forward(start))
        after, Z = self._backward(final)
        parameters = self.system.parameters
        totals = {name: _Total.like(v) for name, v in parameters.items() if name != "B"}
        totals |= {name: _Total.like(parameters["B"]) for name in self.drives}
        through = [self._gradients_of_step(totals, k, before[k], before[k + 1], after[k]) for k in range(length)]
        bound_u = self._of_inputs(through)
        if self.diagonal:
            self._passed_on(totals, before, after)
        n = max(1, batch * length)
        plain = 1 + (ceil(log2(n)) + 2 if self.model.pairwise else n)
        products = sum_cost(n * self.order, self.model) + 2
        result = {
            name: total.bound(plain if name == "C" or name in self.drives else products, self.model, n * self.order)
            for name, total in totals.items()
        }
        if self.joint is not None:
            errors = [result.pop(name) for name in self.drives]
            result["B"] = self.joint.of_B(errors, [totals[name].size for name in self.drives])
        bound_x = np.moveaxis(Z, 0, 1)
        if r.structure == "mimo":
            result |= {"A": result["A"][0], "B": result["B"].T}
            bound_x = bound_x[:, :, 0]
        return {"u": bound_u, **result, "state": bound_x if mode == "truncated" else bound_x[:, 0]}

    def _step(self, k: int) -> _Step:
        """w = B̄ u_k, |w|, the error of the computed w, and the transition of this step."""
        u_k = self.u[:, :, k]
        if self.joint is not None:
            w, dw = self.joint.at(k)
            return _Step(w, _abs(w), dw, self.size["A"], np.zeros(()), *self._matrix(w))
        w = self.system.drive(u_k)
        size, cost = _abs(w), 1
        bound = size
        if self.r.structure == "mimo":
            bound = (self.size["B"] * np.abs(u_k[..., None]).astype(float)).sum(axis=1, keepdims=True)
            cost = 1 + self.model.depth(u_k.shape[1])
        dw = cost * self.unit * bound * (1 + 2.0**-10) + 2 * cost * self.tiny
        # The modulus of the elementwise part of the transition, and how far it is rounded.
        if self.dense:
            acting, delta = (size, dw) if self.link == "self" else (0 * size, 0 * size)
        elif self.link == "self":
            acting = _abs(self.system.parameters["A"] + w)
            delta = dw + self.unit * (acting + dw)
            acting = acting + 2 * delta
        else:
            acting, delta = self.size["A"], np.zeros(())
        matrix, norm = self._matrix(w)
        return _Step(w, size, dw, acting, delta, matrix, norm)

    def _matrix(self, w: Array) -> tuple[Array | None, Array]:
        """The transition as `Transport` takes it, and ‖Ā (+ diag w)‖₂ on the full state, (batch, H)."""
        orders, shift = np.eye(self.order), np.eye(self.order, k=-1)
        w = w.astype(complex)
        if self.matrix is None:
            if self.order == 1:
                return None, np.zeros(w.shape[:-1])
            A = np.broadcast_to(self.system.parameters["A"].astype(complex), w.shape)
            return A[..., None, None] * orders + w[..., None, None] * shift, np.zeros(w.shape[:-1])
        if self.r.conjugate_pairs:
            w = np.concatenate([w, w.conj()], axis=-1)
        diagonal = w[..., None] * np.eye(w.shape[-1])
        own = np.broadcast_to(self.matrix, diagonal.shape)
        own = own + diagonal if self.link == "self" else own
        if self.order == 1:
            return own, _norms(own)
        size = self.order * w.shape[-1]
        both = orders[:, None, :, None] * own[..., None, :, None, :]
        both = both + shift[:, None, :, None] * diagonal[..., None, :, None, :]
        return both.reshape(*w.shape[:-1], size, size), _norms(own)

    def _transport(self, shape: tuple[int, ...]) -> Transport:
        return Transport(shape, coupled=not self.diagonal, weight=self.r.weight)

    def forward(self, start: Array) -> Iterator[_Point]:
        """States (order, batch, H, M) and their errors, before the first input and after each."""
        u = self.unit
        x, errors = start, self._transport(start.shape)
        yield _Point(x, errors.error, errors.own)
        for s in self.steps:
            X = _abs(x) + 2 * errors.error
            own, spread = self._product_error(X, s), s.acting * errors.moduli + self._coupled(errors.moduli)
            norm = s.norm * errors.norm
            moved = self._apply(x, s.w)
            if self.order > 1:
                factor, below = s.size + s.dw, X[:-1]
                spread[1:] += s.size * errors.moduli[:-1]
                own[1:] += (s.dw + self.product * u * factor) * below
                own[1:] += self.joining * u * np.maximum(s.acting * X[1:] + self._coupled(X[1:]), factor * below)
                norm[1:] += s.size.max(axis=-1, initial=0) * errors.norm[:-1]
                moved[1:] += s.w * x[:-1]
            moved[0] += s.w
            own[0] += s.dw + self.joining * u * (s.size + s.dw)
            own = own * (1 + 2 * u) + u * (_abs(moved) + spread)
            x = moved
            errors.advance(s.matrix, spread, own, norm)
            yield _Point(x, errors.error, errors.own)

    def _backward(self, final: Array) -> tuple[list[_Point], Array]:
        """Cotangents g of the state after each step, and the error of the one of the initial state.

        g = carry + r with r = w·grad_y conj(C), and carry = Ā* g (+ conj(w) of the order above) of the step after.
        """
        u = self.unit
        carry, errors, points = final, self._transport(final.shape), []
        for k in reversed(range(len(self.steps))):
            s, gy = self.steps[k], self.grad_y[:, :, k]
            r = self.system.output_adjoint(gy)
            size = self.r.weight * self.size["C"] * np.abs(gy[..., None]).astype(float)
            rho = u * size
            if self.r.structure == "mimo":
                rho = (1 + self.model.depth(gy.shape[1])) * u * size.sum(axis=1, keepdims=True)
            g = carry + r
            # Fused or not, r is charged for the sum that it joins; twice ρ leaves room for the second order.
            errors.add(2 * rho + u * _abs(r) + u * (_abs(g) + errors.error) + self.floor)
            points.append(_Point(g, errors.error, errors.own))
            G = _abs(g) + 2 * errors.error
            own, moduli = self._product_error(G, s, adjoint=True), errors.moduli
            spread = s.acting * moduli + self._coupled(moduli, adjoint=True)
            norm = s.norm * errors.norm
            carry = self.system.apply_adjoint(g) + (np.conj(s.w) * g if self.link == "self" else 0)
            if self.order > 1:
                factor, above = s.size + s.dw, G[1:]
                spread[:-1] += s.size * moduli[1:]
                own[:-1] += (s.dw + self.product * u * factor) * above
                sizes = s.acting * G[:-1] + self._coupled(G[:-1], adjoint=True) + factor * above
                own[:-1] += (self.joining + 1) * u * sizes
                norm[:-1] += s.size.max(axis=-1, initial=0) * errors.norm[1:]
                carry[:-1] += np.conj(s.w) * g[1:]
            matrix = None if s.matrix is None else s.matrix.conj().swapaxes(-1, -2)
            errors.advance(matrix, spread, own * (1 + 2 * u), norm)
        return points[::-1], errors.error

    def _gradients_of_step(
        self, totals: dict[str, _Total], k: int, at: _Point, after: _Point, g: _Point
    ) -> tuple[Array, Array]:
        """Adds what step k contributes to the gradients of the parameters; dL/dw's error and |dL/dw|.

        Where modes do not act on each other, errors of states and cotangents are added by `_passed_on` instead.
        """
        gy = np.abs(self.grad_y[:, :, k, None]).astype(float)
        G, X, weight = g.cap, at.cap, self.r.weight
        size, error, own = self._through_drive(g, at)
        cross = g.error[0] * at.error[0] if self.link == "self" else sum(g.error[1:] * at.error[:-1], 0 * own)
        passed = error if not self.diagonal else own + cross
        for name, (signal, wrong) in self.drives.items():
            c, dc = signal[:, :, k, None], wrong[:, :, k, None]
            totals[name].add((passed * (c + dc) + size * dc).sum(axis=0), (size * (c + dc)).sum(axis=0))
        read_size = after.cap.sum(axis=0)
        read = (self.order - 1) * self.unit * read_size + (0 if self.diagonal else after.error.sum(axis=0))
        totals["C"].add(weight * (gy * read).sum(axis=0), weight * (gy * read_size).sum(axis=0))
        if self.diagonal:
            totals["A"].add((g.error * at.error).sum(axis=(0, 1)), (G * X).sum(axis=(0, 1)))
        else:
            self._coupled_gradients(totals, g, at)
        return error, size

    def _of_inputs(self, through: list[tuple[Array, Array]]) -> Array:
        """The bound for u, from the error and the size of dL/dw at every step."""
        if self.joint is None:
            bound = np.zeros(self.u.shape)
            for k, (error, size) in enumerate(through):
                bound[:, :, k], _ = self._input_gradient(error, size, self.size["B"], 0.0)
            return bound
        errors, sizes = np.zeros((2, self.joint.order, *self.u.shape))
        for p, power in enumerate(self.joint.powers):
            for k, (error, size) in enumerate(through):
                found = self._input_gradient(error, size, power, self.joint.relative(p + 1))
                errors[p, :, :, k], sizes[p, :, :, k] = found
        return self.joint.of_inputs(list(errors), list(sizes))

    def _passed_on(self, totals: dict[str, _Total], at: list[_Point], g: list[_Point]) -> None:
        """Sums over time of errors of states and cotangents, by what each step's own error does to the whole sum.

        Σ_k ⟨c_k, e_k⟩ = Σ_j ⟨z_j, ε_j⟩ with z_j = c_j + M* z_{j+1}, and likewise forwards for cotangents.
        """
        weight, length = self.r.weight, len(self.steps)
        u, gy = (np.moveaxis(v, -1, 0)[..., None] for v in (self.u, self.grad_y))
        if not length:
            return
        g_values, x_values = [point.value for point in g], [point.value for point in at[:-1]]
        nothing = np.zeros_like(g_values[0])
        above = [np.concatenate([v[1:], v[:1] if self.link == "self" else 0 * v[:1]]) for v in g_values]
        below = [np.concatenate([np.ones_like(v[:1]), v[:-1]]) for v in x_values]
        if self.link == "self":
            below = [1 + v for v in x_values]
        # What each gradient reads of the state before a step, and of the cotangent after it.
        read_x = {
            "A": [*g_values[1:], nothing],
            "B": [*(u_k * v for u_k, v in zip(u[1:], above[1:], strict=True)), 0 * u[0] * nothing],
            "C": [weight * gy_k + nothing for gy_k in gy],
        }
        read_g = {"A": x_values}
        if self.joint is None:
            read_g["B"] = [u_k * v for u_k, v in zip(u, below, strict=True)]
        else:
            del read_x["B"]  # the drive does not depend on states
            for name, term in zip(self.drives, self.joint.terms, strict=True):
                read_g[name] = [c + nothing for c in np.moveaxis(term, -1, 0)[..., None]]
        for name, sources in read_x.items():
            z = np.zeros_like(sources[0])
            for j in reversed(range(length)):
                z = sources[j] + z
                totals[name].error = totals[name].error + (_abs(z) * at[j + 1].own).sum(axis=(0, 1))
                z = self._homogeneous(z, j, adjoint=True)
        for name, sources in read_g.items():
            D = np.zeros_like(sources[0])
            for j in range(length):
                D = sources[j] + (self._homogeneous(D, j) if j else 0)
                totals[name].error = totals[name].error + (_abs(D) * g[j].own).sum(axis=(0, 1))

    def _homogeneous(self, x: Array, k: int, *, adjoint: bool = False) -> Array:
        """The transition of step k applied to states of scalar recurrences, or its adjoint."""
        w, A = self.steps[k].w, self.system.parameters["A"]
        if adjoint:
            w, A = np.conj(w), np.conj(A)
        if self.link == "self":
            return np.asarray((A + w) * x)
        moved = A * x
        if adjoint:
            moved[:-1] += w * x[1:]
        else:
            moved[1:] += w * x[:-1]
        return np.asarray(moved)

    def _through_drive(self, g: _Point, at: _Point) -> tuple[Array, Array, Array]:
        """|dL/dw| and more, its error, and the part of that which this step makes.

        dL/dw = Σ_p gᵖ conj(sᵖ) with s¹ = 1 (`liquid`: 1 + x) and sᵖ = xᵖ⁻¹.
        """
        u, F, G, E, X = self.unit, g.error, g.cap, at.error, at.cap
        if self.link == "self":
            value = _abs(g.value[0] * np.conj(1 + at.value[0]))
            inherited = F[0] * (_abs(1 + at.value[0]) + 2 * E[0]) + G[0] * E[0]
            own = self.product * u * (X[0] + 1) * G[0] * (1 + 4 * u) + u * (value + inherited) + self.floor
            return value + 2 * (inherited + own), inherited + own, own
        total, inherited, size = g.value[0], F[0], G[0]
        for i in range(1, self.order):
            total = total + g.value[i] * np.conj(at.value[i - 1])
            inherited = inherited + F[i] * X[i - 1] + G[i] * E[i - 1]
            size = size + G[i] * X[i - 1]
        cost = sum_cost(self.order, self.model) * u if self.order > 1 else 0.0
        own = cost * (1 + cost) * size + self.floor
        return _abs(total) + 2 * (inherited + own), inherited + own, own

    def _input_gradient(self, V: Array, sizes_v: Array, B: Array, relative: float) -> tuple[Array, Array]:
        """The error of Σ_n Re(conj(B̄_n) dL/dw_n), and the sum of the moduli.

        Args:
            relative: how far the computed B̄ is from it.
        """
        modes = self.r.n_modes
        cost = 2 * modes
        if self.model.pairwise:
            cost = 2 + (ceil(log2(modes)) if modes > 1 else 0)
        size = (B * sizes_v).sum(axis=-1)
        error = (B * V).sum(axis=-1) + relative * size
        size = size * (1 + relative)
        return np.asarray(error * (1 + cost * self.unit) + cost * self.unit * size + 4 * modes * self.tiny), size

    def _coupled_gradients(self, totals: dict[str, _Total], g: _Point, at: _Point) -> None:
        """Σ gᵖ conj(xᵖ), and for `dplr` −Σ gᵖ conj(s) and −Σ xᵖ conj(t) with s = Q̄* x and t = P̄* g."""
        F, G, E, X = g.error, g.cap, at.error, at.cap
        if self.dense:
            totals["A"].add(_outer(F, X) + _outer(G, E), _outer(G, X))
            return
        totals["A"].add((F * X + G * E).sum(axis=(0, 1)), (G * X).sum(axis=(0, 1)))
        for r, (P, Q) in enumerate(self.system._low_rank()):
            s, s_error = self._projection(Q, self.size["Q"][r], at)
            t, t_error = self._projection(P, self.size["P"][r], g)
            totals["P"].error[r] += (F * s + G * s_error).sum(axis=(0, 1))
            totals["P"].size[r] += (G * (s + s_error)).sum(axis=(0, 1))
            totals["Q"].error[r] += (E * t + X * t_error).sum(axis=(0, 1))
            totals["Q"].size[r] += (X * (t + t_error)).sum(axis=(0, 1))

    def _projection(self, factor: Array, size: Array, point: _Point) -> tuple[Array, Array]:
        weight, cost = self.r.weight, sum_cost(self.r.n_modes, self.model) * self.unit
        value = _abs(self.system._project(factor, point.value))
        error = weight * (size * (point.error * (1 + cost) + cost * point.cap)).sum(axis=-1, keepdims=True)
        return value, np.asarray(error + 4 * weight * self.r.n_modes * self.tiny)

    def _coupled(self, E: Array, *, adjoint: bool = False) -> Array:
        """|coupled part of the transition| E, of `dplr` by |P̄||Q̄|*, of `dense` by |Ā|."""
        if self.diagonal:
            return np.zeros(E.shape)
        if self.dense:
            A = self.size["A"].swapaxes(-1, -2) if adjoint else self.size["A"]
            return np.asarray((A * E[..., None, :]).sum(axis=-1))
        left, right = ("Q", "P") if adjoint else ("P", "Q")
        pairs = zip(self.size[left], self.size[right], strict=True)
        parts = (into * (out * E).sum(axis=-1, keepdims=True) for into, out in pairs)
        return np.asarray(self.r.weight * sum(parts, np.zeros(E.shape)))

    def _product_error(self, X: Array, step: _Step, *, adjoint: bool = False) -> Array:
        """Error of the computed product of the transition, or of its adjoint, with numbers of size X."""
        u, acting = self.unit, step.acting
        own = (step.delta + self.product * u * (acting + step.delta)) * X
        if not self.diagonal:
            coupled = self._coupled(X, adjoint=adjoint)
            cost = sum_cost(self.r.n_modes, self.model) + (0 if self.dense else self.product)
            own = own + cost * u * coupled + self.inner * u * (acting * X + coupled)
        return np.asarray(own * (1 + 2.0**-10) + self.floor)

    def _apply(self, x: Array, w: Array) -> Array:
        """Ā x, with the liquid term in the order in which it is computed."""
        if self.link != "self":
            return self.system.apply(x)
        if self.dense:
            return np.asarray(self.system.apply(x) + w * x)
        result = (self.system.parameters["A"] + w) * x
        for P, Q in self.system._low_rank():
            result = result - P * self.system._project(Q, x)
        return np.asarray(result)


def _abs(z: Array) -> Array:
    """|z| in float64, rounded up."""
    return np.asarray(np.abs(z), np.float64) * _INFLATION


def _outer(g: Array, x: Array) -> Array:
    return np.asarray((g[..., :, None] * x[..., None, :]).sum(axis=(0, 1)))


def _norms(matrices: Array) -> Array:
    """Upper bounds on 2-norms; infinite where an entry is not finite, which no decomposition takes."""
    if 0 in matrices.shape:
        return np.zeros(matrices.shape[:-2])
    finite = np.asarray(np.isfinite(matrices).all(axis=(-2, -1)))
    norms = np.linalg.norm(np.where(finite[..., None, None], matrices, 0), 2, axis=(-2, -1))
    return np.asarray(np.where(finite, norms * (1 + 2.0**-20), np.inf))
