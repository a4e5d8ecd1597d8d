"""Exact gradients: adjoint recurrences of the recurrent modes, and dual numbers for every mode.

The loss is Σ grad_y·y + Re Σ conj(grad_state)·x_{L-1}. The gradient with respect to a complex number is
dL/dRe + i·dL/dIm, with respect to a real array it is real.

`gradients_by_duals` pushes dual rationals through tier T0 and so differentiates whatever T0 computes: it is
generic, and its cost is that of T0 times the number of parameters. `gradients` is the reverse recurrence of
`s4`, `liquid` and `truncated`, in rationals or, for long sequences, in NumPy's longdouble.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import count
from typing import Any, Literal

import numpy as np

from . import exact
from .exact import ComplexRational, check_realization, elementwise, exact_array, parts
from .realization import Array, Realization

PARAMETERS = ("A", "B", "C", "P", "Q")


class _Dual:
    """value + Σ_i slope_i ε_i with ε_i ε_j = 0, over the rationals."""

    __slots__ = ("slopes", "value")

    def __init__(self, value: Fraction, slopes: dict[int, Fraction]) -> None:
        self.value = value
        self.slopes = slopes

    @property
    def real(self) -> _Dual:
        return self

    @property
    def imag(self) -> Fraction:
        return Fraction(0)

    def conjugate(self) -> _Dual:
        return self

    def __neg__(self) -> Any:
        return self * -1

    def __add__(self, other: Any) -> Any:
        if isinstance(other, ComplexRational):
            return NotImplemented
        if not isinstance(other, _Dual):
            return _Dual(self.value + other, self.slopes)
        slopes = dict(self.slopes)
        for i, slope in other.slopes.items():
            slopes[i] = slopes.get(i, Fraction(0)) + slope
        return _Dual(self.value + other.value, slopes)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return NotImplemented if isinstance(other, ComplexRational) else self + (-other)

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, ComplexRational):
            return NotImplemented
        if not isinstance(other, _Dual):
            return _Dual(self.value * other, {i: slope * other for i, slope in self.slopes.items()})
        slopes = {i: slope * other.value for i, slope in self.slopes.items()}
        for i, slope in other.slopes.items():
            slopes[i] = slopes.get(i, Fraction(0)) + slope * self.value
        return _Dual(self.value * other.value, slopes)

    __rmul__ = __mul__


def _on_parts(function: Callable[[Any], Any], z: Any) -> Any:
    """`function` of a real number, or of both parts of a complex one."""
    return ComplexRational(function(z.real), function(z.imag)) if isinstance(z, ComplexRational) else function(z)


def _slopes(loss: Any, seeds: Array) -> Array:
    """Gradient of the loss with respect to an array of seeds, in its shape and kind."""
    slopes: dict[int, Fraction] = loss.slopes if isinstance(loss, _Dual) else {}
    return elementwise(lambda z: _on_parts(lambda seed: slopes.get(next(iter(seed.slopes)), Fraction(0)), z), seeds)


def gradients_by_duals(
    realization: Realization,
    u: Any,
    mode: str,
    grad_y: Any,
    grad_state: Any = None,
    *,
    order: int = 3,
    correlations: str = "all",
    window: int | None = None,
    state: Any = None,
) -> dict[str, Array]:
    """Exact gradients of any mode by forward differentiation of `exact.outputs`.

    Args:
        realization, u, mode, order, correlations, window, state: as in `exact.outputs`.
        grad_y: real, (batch, H, L), cotangent of y.
        grad_state: cotangent of the final state in the shape of `exact.final_state`, or None for zero; for `s4`,
            `liquid` and `truncated`.

    Returns:
        `u`, `A`, `B`, `C`, for `dplr` also `P` and `Q`, and `state` where one was given: object arrays in the shapes
        of the arguments, `Fraction` for real arrays and `ComplexRational` for complex ones.

    Raises:
        ValueError: as in `exact.outputs`; a cotangent whose shape does not fit.

    Accuracy: exact. Cost: that of `exact.outputs` times the number of real parameters; for small sizes.
    """
    index = count()
    arrays = {"u": u, "state": state, **{name: getattr(realization, name) for name in PARAMETERS}}
    seeds: dict[str, Any] = {
        name: elementwise(
            lambda z: _on_parts(lambda value: _Dual(value, {next(index): Fraction(1)}), z), exact_array(array, name)
        )
        for name, array in arrays.items()
        if array is not None
    }
    seeded = replace(realization, **{name: seeds[name] for name in PARAMETERS if name in seeds})
    y = exact.outputs(
        seeded, seeds["u"], mode, order=order, correlations=correlations, window=window, state=seeds.get("state")
    )
    loss = _inner(y, exact_array(grad_y, "grad_y"), "grad_y")
    if grad_state is not None:
        final = exact.final_state(seeded, seeds["u"], mode, order=order, state=seeds.get("state"))
        for part, cotangent in zip(final, parts(exact_array(grad_state, "grad_state")), strict=True):
            loss = loss + _inner(part, cotangent, "grad_state")
    return {name: _slopes(loss, array) for name, array in seeds.items()}


def _inner(values: Array, cotangent: Array, name: str) -> Any:
    if values.shape != cotangent.shape:
        raise ValueError(f"{name} has shape {cotangent.shape}; it must be {values.shape}.")
    return sum((c * v for c, v in zip(cotangent.flat, values.flat, strict=True)), Fraction(0))


def _real(z: Array) -> Array:
    return parts(z)[0] if z.dtype == object else z.real


def _is_complex(z: Array) -> bool:
    return any(isinstance(value, ComplexRational) for value in z.flat) if z.dtype == object else z.dtype.kind == "c"


def _number(array: Any, name: str, precision: str) -> Array:
    if precision == "exact":
        return exact_array(array, name)
    array = np.asarray(array)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has NaN or infinite elements; only finite numbers are allowed.")
    kind: Any = np.clongdouble if array.dtype.kind == "c" else np.longdouble
    return np.asarray(array, dtype=kind)


@dataclass(frozen=True)
class _Adjoint:
    """A realization as linear maps with their adjoints; states are (batch, H, M), for `mimo` (batch, 1, M).

    For `dplr` Ā is x -> Λ∘x - Σ_r P_r s_r with s_r = Q_r* x, with conjugate pairs s_r = 2 Re(Q_r* x).
    """

    parameters: dict[str, Array]  # for mimo A (1, M) and B (H, M)
    structure: str
    weight: int

    @classmethod
    def of(cls, r: Realization, precision: str) -> _Adjoint:
        check_realization(r)
        names = PARAMETERS if r.structure == "dplr" else PARAMETERS[:3]
        parameters = {name: _number(getattr(r, name), name, precision) for name in names}
        if r.structure == "mimo":
            parameters |= {"A": parameters["A"][None, :], "B": parameters["B"].T}
        return cls(parameters, r.structure, r.weight)

    def _pool(self, z: Array) -> Array:
        """The sum over the channels where they share one state."""
        return np.asarray(z.sum(1, keepdims=True)) if self.structure == "mimo" else z

    def drive(self, u_k: Array) -> Array:
        """v = B̄ u_k."""
        return self._pool(self.parameters["B"] * u_k[..., None])

    def drive_adjoint(self, g: Array) -> Array:
        """Gradient of Re Σ conj(g)·v with respect to u_k."""
        return _real(np.asarray((np.conj(self.parameters["B"]) * g).sum(-1)))

    def output_adjoint(self, grad_y_k: Array) -> Array:
        """Gradient of Σ grad_y_k·y_k with respect to x_k."""
        return self._pool(self.weight * np.conj(self.parameters["C"]) * grad_y_k[..., None])

    def _low_rank(self) -> list[tuple[Array, Array]]:
        return list(zip(self.parameters["P"], self.parameters["Q"], strict=True)) if self.structure == "dplr" else []

    def _project(self, factor: Array, x: Array) -> Array:
        s = np.asarray((np.conj(factor) * x).sum(-1))[..., None]
        return 2 * _real(s) if self.weight == 2 else s

    def apply(self, x: Array) -> Array:
        """Ā x."""
        A = self.parameters["A"]
        if self.structure == "dense":
            return np.asarray((A * x[..., None, :]).sum(-1))
        result = A * x
        for P, Q in self._low_rank():
            result = result - P * self._project(Q, x)
        return np.asarray(result)

    def apply_adjoint(self, g: Array) -> Array:
        """Ā* g."""
        A = np.conj(self.parameters["A"])
        if self.structure == "dense":
            return np.asarray((A * g[..., :, None]).sum(-2))
        result = A * g
        for P, Q in self._low_rank():
            result = result - Q * self._project(P, g)
        return np.asarray(result)

    def transition_gradient(self, g: Array, x: Array) -> dict[str, Array]:
        """Gradient of Re Σ conj(g)·Ā x with respect to the parameters of Ā."""
        if self.structure == "dense":
            return {"A": (g[..., :, None] * np.conj(x)[..., None, :]).sum(0)}
        result = {"A": (g * np.conj(x)).sum(0)}
        if self.structure == "dplr":
            result["P"] = np.stack([-(g * np.conj(self._project(Q, x))).sum(0) for _, Q in self._low_rank()])
            result["Q"] = np.stack([-(x * np.conj(self._project(P, g))).sum(0) for P, _ in self._low_rank()])
        return result


def gradients(
    realization: Realization,
    u: Any,
    mode: str,
    grad_y: Any,
    grad_state: Any = None,
    *,
    order: int = 3,
    state: Any = None,
    precision: Literal["exact", "longdouble"] = "exact",
) -> dict[str, Array]:
    """Gradients of `s4`, `liquid` and `truncated` by the adjoint recurrence.

    With v_k = B̄ u_k the modes are x^p_k = Ā x^p_{k-1} + v_k∘s^p_k, where s^1_k = 1 (`liquid`: 1 + x_{k-1}) and
    s^p_k = x^{p-1}_{k-1}. Backwards in time, from g^p = grad_state:

        g^p += w·grad_y_k conj(C),   dL/dv_k = Σ_p g^p∘conj(s^p_k),   dL/dĀ += Σ_p g^p (x^p_{k-1})*,
        g^p <- Ā* g^p + conj(v_k)∘g^{p+1}   (`liquid`: g <- Ā* g + conj(v_k)∘g).

    Args:
        realization: any structure.
        u: real, (batch, H, L).
        mode: `s4`, `liquid` or `truncated`.
        grad_y: real, (batch, H, L), cotangent of y.
        grad_state: cotangent of the final state, (batch, H, M) (`mimo`: (batch, M)), for `truncated`
            (batch, order, H, M) (`mimo`: (batch, order, M)); None for zero.
        order: highest order, `truncated` only.
        state: x_{-1} in the shapes that `exact.outputs` takes; None for zero.
        precision: `exact`, or `longdouble` for long sequences.

    Returns:
        `u`, `A`, `B`, `C`, for `dplr` also `P` and `Q`, in the shapes of the arguments, and `state` with the shape that
        grad_state has. Objects as in `gradients_by_duals`, or longdouble arrays.

    Raises:
        ValueError: an unknown name, a shape that does not fit, NaN or inf.

    Accuracy: `exact` has no error; `longdouble` is the same recurrence in that precision, on x86-64 with 2^-11
    of float64's unit roundoff. Memory: every state of every step, order·batch·H·M·(L+1) numbers.

    References: Eq. 11, 12 of arXiv 2209.12951.
    """
    if mode not in exact.RECURRENT_MODES:
        raise ValueError(f"mode is {mode!r}; allowed: {', '.join(exact.RECURRENT_MODES)}. Try gradients_by_duals.")
    if order < 1:
        raise ValueError(f"order is {order}; the lowest order is 1, the linear term.")
    if precision not in ("exact", "longdouble"):
        raise ValueError(f"precision is {precision!r}; allowed: 'exact', 'longdouble'.")
    if np.ndim(u) != 3 or np.shape(u)[1] != realization.n_channels or np.shape(grad_y) != np.shape(u):
        raise ValueError(
            f"u has shape {np.shape(u)}, grad_y {np.shape(grad_y)}; both must be (batch, {realization.n_channels}, L)."
        )
    system = _Adjoint.of(realization, precision)
    signal, cotangent = _number(u, "u", precision), _number(grad_y, "grad_y", precision)
    length, liquid, n_orders = signal.shape[2], mode == "liquid", order if mode == "truncated" else 1
    one = _number(np.ones(()), "one", precision)

    def sources(x: list[Array]) -> list[Array]:
        return [one + x[0]] if liquid else [one, *x[:-1]]

    trajectory = [_by_order(realization, signal.shape[0], n_orders, state, "state", mode, precision)]
    for k in range(length):
        x, v = trajectory[-1], system.drive(signal[:, :, k])
        trajectory.append([system.apply(x_p) + v * s for x_p, s in zip(x, sources(x), strict=True)])

    g = _by_order(realization, signal.shape[0], n_orders, grad_state, "grad_state", mode, precision)
    totals = {name: 0 * array for name, array in system.parameters.items()}
    grad_u = 0 * signal
    for k in reversed(range(length)):
        x, x_next, u_k, gy = trajectory[k], trajectory[k + 1], signal[:, :, k], cotangent[:, :, k]
        g = [g_p + system.output_adjoint(gy) for g_p in g]
        grad_v = np.asarray(sum(g_p * np.conj(s) for g_p, s in zip(g, sources(x), strict=True)))
        grad_u[:, :, k] = system.drive_adjoint(grad_v)
        totals["B"] = totals["B"] + (grad_v * u_k[..., None]).sum(0)
        totals["C"] = totals["C"] + realization.weight * (gy[..., None] * np.conj(sum(x_next))).sum(0)
        for g_p, x_p in zip(g, x, strict=True):
            for name, value in system.transition_gradient(g_p, x_p).items():
                totals[name] = totals[name] + value
        v_conj = np.conj(system.drive(u_k))
        higher = g if liquid else [*g[1:], 0 * g[0]]
        g = [system.apply_adjoint(g_p) + v_conj * up for g_p, up in zip(g, higher, strict=True)]

    # A real array has a real gradient, whatever complex numbers it meets.
    for name, array in system.parameters.items():
        if not _is_complex(array):
            totals[name] = _real(totals[name])
    grad_x = np.stack(g, axis=1)
    if realization.structure == "mimo":
        totals |= {"A": totals["A"][0], "B": totals["B"].T}
        grad_x = grad_x[:, :, 0]
    if state is not None and not _is_complex(np.asarray(state)):
        grad_x = _real(grad_x)
    return {"u": grad_u, **totals, "state": grad_x if mode == "truncated" else grad_x[:, 0]}


def _by_order(
    r: Realization, batch: int, n_orders: int, array: Any, name: str, mode: str, precision: str
) -> list[Array]:
    """One state per order, (batch, H, M) each (`mimo`: (batch, 1, M)), from None, one state or a stack of them."""
    single = (batch, r.n_modes) if r.structure == "mimo" else (batch, *r.C.shape)
    stacked = (batch, n_orders, *single[1:])
    given = _number(np.zeros(stacked) if array is None else array, name, precision)
    if given.shape == single:
        zeros = [_number(np.zeros(single), name, precision)] * (n_orders - 1)
        states = [given, *zeros]
    elif given.shape == stacked and (mode == "truncated" or array is None):
        states = [given[:, p] for p in range(n_orders)]
    else:
        raise ValueError(f"{name} has shape {given.shape}; it must be {single}, or {stacked} for mode 'truncated'.")
    return [x[:, None, :] for x in states] if r.structure == "mimo" else states
