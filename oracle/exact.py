"""Tier T0: every mode of the model in rational arithmetic, without any rounding.

Every float is a dyadic rational and Eq. 2 and 11 to 15 are polynomials in their parameters, so their values
are rational. The numbers are `fractions.Fraction`: slow, but nothing is shared with flint, which carries
tier T1. For small N and L.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from math import prod
from typing import Any

import numpy as np

from .realization import Array, Realization

RECURRENT_MODES = ("s4", "liquid", "truncated")
MODES = (*RECURRENT_MODES, "kb", "pb")
CORRELATIONS = ("all", "adjacent")


class ComplexRational:
    """real + i·imag with both parts in a commutative ring: `Fraction`, or the dual numbers of `adjoint`.

    Operations with an array are left to NumPy, which applies them to each element.
    """

    __slots__ = ("imag", "real")

    def __init__(self, real: Any, imag: Any) -> None:
        self.real = real
        self.imag = imag

    def conjugate(self) -> ComplexRational:
        return ComplexRational(self.real, -self.imag)

    def __neg__(self) -> ComplexRational:
        return ComplexRational(-self.real, -self.imag)

    def __add__(self, other: Any) -> ComplexRational:
        if isinstance(other, np.ndarray):
            return NotImplemented
        if isinstance(other, ComplexRational):
            return ComplexRational(self.real + other.real, self.imag + other.imag)
        return ComplexRational(self.real + other, self.imag)

    __radd__ = __add__

    def __sub__(self, other: Any) -> ComplexRational:
        return self.__add__(-other)

    def __rsub__(self, other: Any) -> ComplexRational:
        return (-self).__add__(other)

    def __mul__(self, other: Any) -> ComplexRational:
        if isinstance(other, np.ndarray):
            return NotImplemented
        if isinstance(other, ComplexRational):
            return ComplexRational(
                self.real * other.real - self.imag * other.imag,
                self.real * other.imag + self.imag * other.real,
            )
        return ComplexRational(self.real * other, self.imag * other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> ComplexRational:
        if isinstance(other, np.ndarray):
            return NotImplemented
        if isinstance(other, ComplexRational):
            return self * other.conjugate() * (1 / Fraction(other.real * other.real + other.imag * other.imag))
        return self * (1 / Fraction(other))

    def __rtruediv__(self, other: Any) -> ComplexRational:
        return ComplexRational(other, 0) / self

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ComplexRational):
            return bool(self.real == other.real and self.imag == other.imag)
        return bool(self.real == other and self.imag == 0)

    __hash__ = None  # type: ignore[assignment]  # equal to plain numbers, which hash differently

    def __repr__(self) -> str:
        return f"ComplexRational({self.real!r}, {self.imag!r})"


def _number(value: Any) -> Any:
    if isinstance(value, (complex, np.complexfloating)):
        return ComplexRational(_number(value.real), _number(value.imag))
    if isinstance(value, (int, float, np.floating)):
        return Fraction(*value.as_integer_ratio())
    return value


def elementwise(function: Callable[[Any], Any], array: Array) -> Array:
    """`function` of every element, as an object array of the same shape, empty arrays included."""
    result = np.empty(array.shape, dtype=object)
    for i in np.ndindex(array.shape):
        result[i] = function(array[i])
    return result


def exact_array(array: Any, name: str = "array") -> Array:
    """The array's floats as exact numbers: `Fraction`, or `ComplexRational` for a complex dtype.

    Args:
        array: any shape, any real or complex dtype; elements of an object array that are already exact
            stay as they are.
        name: how an error message calls the array.

    Raises:
        ValueError: an element is NaN or infinite.
    """
    array = np.asarray(array)
    if array.dtype != object and not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name} is {array[where]} at index {where}; only finite numbers are rational.")
    return elementwise(_number, array.astype(object))


def parts(array: Array) -> tuple[Array, Array]:
    """Real and imaginary parts of an array of exact numbers, as two object arrays."""
    # A Fraction's own `imag` is the int 0.
    imaginary = elementwise(lambda z: z.imag if isinstance(z, ComplexRational) else Fraction(0), array)
    return elementwise(lambda z: z.real, array), imaginary


def check_realization(realization: Realization) -> None:
    """Raise ValueError where the structure is unknown or the shapes do not fit it; broadcasting would hide that."""
    r = realization
    n_channels, n_modes = np.shape(r.C)
    siso, low_rank = (n_channels, n_modes), (len(() if r.P is None else r.P), n_channels, n_modes)
    needed: dict[str, dict[str, tuple[int, ...]]] = {
        "diagonal": {"A": siso, "B": siso},
        "dplr": {"A": siso, "B": siso, "P": low_rank, "Q": low_rank},
        "dense": {"A": (*siso, n_modes), "B": siso},
        "mimo": {"A": (n_modes,), "B": (n_modes, n_channels)},
    }
    if r.structure not in needed:
        raise ValueError(f"structure is {r.structure!r}; allowed: {', '.join(needed)}.")
    for name, shape in needed[r.structure].items():
        if np.shape(getattr(r, name)) != shape:
            given = np.shape(getattr(r, name))
            raise ValueError(f"{name} has shape {given}; structure {r.structure!r} with C {siso} needs {shape}.")
    if r.structure == "dense" and r.conjugate_pairs:
        raise ValueError("a dense realization stores the full state; give it conjugate_pairs=False.")


def full_system(realization: Realization) -> tuple[Array, Array, Array]:
    """(Ā (H, N, N), B̄ (H, N), C (H, N)) on the full state, exactly, with y = Re(C x).

    With conjugate pairs the full state is (x, conj x); the low-rank part of `dplr` is formed from both
    halves of P and Q.

    Raises:
        ValueError: the structure is `mimo`, which has no matrix per channel, or `check_realization` fails.
    """
    r = realization
    check_realization(r)
    if r.structure == "mimo":
        raise ValueError("a mimo realization has one state for all channels; it has no matrix per channel.")
    A, B, C = exact_array(r.A, "A"), exact_array(r.B, "B"), exact_array(r.C, "C")
    if r.structure == "dense":
        return A, B, C

    def both(v: Array) -> Array:
        return np.concatenate([v, v.conj()], axis=-1) if r.conjugate_pairs else v

    A, B, C = both(A), both(B), both(C)
    full = A[..., None] * np.eye(A.shape[-1], dtype=int).astype(object)
    if r.structure == "dplr":
        P, Q = both(exact_array(r.P, "P")), both(exact_array(r.Q, "Q"))
        for P_r, Q_r in zip(P, Q, strict=True):
            full = full - P_r[..., :, None] * Q_r.conj()[..., None, :]
    return full, B, C


@dataclass(frozen=True)
class _Model:
    """Exact parameters on the state that the recurrence runs on: full for `dplr`, as stored for the others."""

    structure: str
    A: Array
    B: Array
    C: Array
    weight: int
    doubled: bool

    @classmethod
    def of(cls, r: Realization) -> _Model:
        if r.structure == "dplr":
            A, B, C = full_system(r)
            return cls("dense", A, B, C, 1, r.conjugate_pairs)
        check_realization(r)
        return cls(r.structure, exact_array(r.A, "A"), exact_array(r.B, "B"), exact_array(r.C, "C"), r.weight, False)

    def advance(self, x: Array) -> Array:
        """Ā x."""
        if self.structure == "dense":
            return np.asarray((self.A * x[..., None, :]).sum(-1))
        return np.asarray(self.A * x)

    def drive(self, u_k: Array) -> Array:
        """B̄ u_k for u_k (batch, H); `mimo` sums over the channels."""
        if self.structure == "mimo":
            return np.asarray((self.B * u_k[:, None, :]).sum(-1))
        return np.asarray(self.B * u_k[..., None])

    def output(self, x: Array) -> Array:
        """weight · Re(C x)."""
        shared = self.structure == "mimo"
        products = self.C * (x[..., None, :] if shared else x)
        return self.weight * parts(np.asarray(products.sum(-1)))[0]

    def rest(self, batch: int) -> Array:
        """The zero state."""
        shape = (batch, self.A.shape[0]) if self.structure == "mimo" else (batch, *self.C.shape)
        return elementwise(Fraction, np.zeros(shape, dtype=int).astype(object))


def _input(realization: Realization, u: Any) -> Array:
    u = np.asarray(u)
    if u.dtype.kind == "c" or u.ndim != 3 or u.shape[1] != realization.n_channels:
        raise ValueError(
            f"u has shape {u.shape} and dtype {u.dtype}; it must be real, (batch, {realization.n_channels}, L)."
        )
    return exact_array(u, "u")


def _initial(realization: Realization, model: _Model, batch: int, mode: str, order: int, state: Any) -> list[Array]:
    """One state per order; `s4` and `liquid` have one."""
    n_orders = order if mode == "truncated" else 1
    states = [model.rest(batch)] * n_orders
    if state is None:
        return states
    given = exact_array(state, "state")
    shared = realization.structure == "mimo"
    single = (batch, realization.n_modes) if shared else (batch, *realization.C.shape)
    stacked = (batch, n_orders, *single[1:])
    if given.shape == single:
        given = given[:, None]
    elif mode != "truncated" or given.shape != stacked:
        raise ValueError(f"state has shape {given.shape}; it must be {single}, or {stacked} for mode 'truncated'.")
    if model.doubled:
        given = np.concatenate([given, given.conj()], axis=-1)
    return [given[:, p] if p < given.shape[1] else rest for p, rest in enumerate(states)]


def _check(mode: str, order: int, allowed: Iterable[str]) -> None:
    names = tuple(allowed)
    if mode not in names:
        raise ValueError(f"mode is {mode!r}; allowed here: {', '.join(names)}.")
    if order < 1:
        raise ValueError(f"order is {order}; the lowest order is 1, the linear term.")


def _run(realization: Realization, u: Any, mode: str, order: int, state: Any) -> tuple[Array, list[Array]]:
    """(y, final states by order): Eq. 11 for `liquid`, Eq. 12 order by order for the other two."""
    model, u = _Model.of(realization), _input(realization, u)
    # Eq. 2 is the first order of Eq. 12.
    states = _initial(realization, model, u.shape[0], mode, order, state)
    y = np.empty(u.shape, dtype=object)
    for k in range(u.shape[2]):
        v = model.drive(u[:, :, k])
        if mode == "liquid":
            states = [model.advance(states[0]) + v * states[0] + v]
        else:
            lower = [np.asarray(1, dtype=object), *states[:-1]]
            states = [model.advance(x) + v * source for x, source in zip(states, lower, strict=True)]
        y[:, :, k] = model.output(np.asarray(sum(states[1:], states[0])))
    return y, states


def final_state(
    realization: Realization, u: Any, mode: str, *, order: int = 3, state: Any = None
) -> tuple[Array, Array]:
    """The state after the last input, x_{L-1}.

    Args:
        realization, u, mode, order, state: as in `outputs`; mode `s4`, `liquid` or `truncated`.

    Returns:
        Real and imaginary parts, object arrays of `Fraction`, (batch, H, M) (`mimo`: (batch, M)); for
        `truncated` one state per order, (batch, order, H, M) (`mimo`: (batch, order, M)).

    Raises:
        ValueError: as in `outputs`.

    Accuracy: exact.
    """
    _check(mode, order, RECURRENT_MODES)
    states = [x[..., : realization.n_modes] for x in _run(realization, u, mode, order, state)[1]]
    return parts(np.stack(states, axis=1) if mode == "truncated" else states[0])


def kernel(realization: Realization, length: int, power: int = 1) -> Array:
    """K_i = weight · Re(C Āⁱ B̄^{∘power}), the numbers of Eq. 6, 14 and 15.

    Args:
        realization: any structure but `mimo`.
        length: number of entries.
        power: elementwise power of B̄, at least 1.

    Returns:
        Object array of `Fraction`, (H, length).

    Raises:
        ValueError: the structure is `mimo`, or power < 1.

    Accuracy: exact.
    """
    if realization.structure == "mimo":
        raise ValueError("a mimo realization has an H x H kernel; kernel() serves diagonal, dplr and dense.")
    if power < 1:
        raise ValueError(f"power is {power}; it must be at least 1.")
    model = _Model.of(realization)
    x = model.B
    for _ in range(power - 1):
        x = x * model.B
    K = np.empty((realization.n_channels, length), dtype=object)
    for i in range(length):
        K[:, i] = model.output(x)
        x = model.advance(x)
    return K


def _index_tuples(k: int, p: int, correlations: str, window: int | None) -> Iterator[tuple[int, ...]]:
    """All i₁ < … < i_p ≤ k in the window, or only those with i_{j+1} = i_j + 1."""
    oldest = 0 if window is None else max(0, k - window + 1)
    if correlations == "all":
        yield from combinations(range(oldest, k + 1), p)
    else:
        for first in range(oldest, k - p + 2):
            yield tuple(range(first, first + p))


def _by_definition(
    realization: Realization, u: Any, mode: str, order: int, correlations: str, window: int | None
) -> Array:
    """Eq. 14 and 15 as they stand: sums of products of inputs over index tuples."""
    u = _input(realization, u)
    batch, n_channels, length = u.shape
    kernels = [kernel(realization, length, p) for p in range(1, order + 1)]
    y = np.empty(u.shape, dtype=object)
    for b, h, k in np.ndindex(batch, n_channels, length):
        total = sum((kernels[0][h, k - i] * u[b, h, i] for i in range(k + 1)), Fraction(0))
        for p in range(2, order + 1):
            # The kernel numbers are long; each meets the sum of the products that it belongs to once.
            products: defaultdict[int, Any] = defaultdict(Fraction)
            for indices in _index_tuples(k, p, correlations, window):
                power_of_A = k + 1 - p - indices[0] if mode == "kb" else 0
                products[power_of_A] += prod(u[b, h, i] for i in indices)
            for power_of_A, product in products.items():
                total = total + kernels[p - 1][h, power_of_A] * product
        y[b, h, k] = total
    return y


def outputs(
    realization: Realization,
    u: Any,
    mode: str,
    *,
    order: int = 3,
    correlations: str = "all",
    window: int | None = None,
    state: Any = None,
) -> Array:
    """The outputs y of any mode, exactly.

    `s4`, `liquid` and `truncated` are recurrences; `kb` and `pb` are summed over index tuples as Eq. 14 and 15
    define them, so that they check cascades and symmetric polynomials independently:

        kb: y_k = Σ_i K_{k-i} u_i + Σ_{p=2..P} Σ_{i₁<…<i_p≤k} w·Re(C Ā^{k+1-p-i₁} B̄^{∘p}) u_{i₁}…u_{i_p}
        pb: the same with Ā⁰ in the second sum.

    Args:
        realization: discrete parameters, any structure; `mimo` in the first three modes only.
        u: real, (batch, H, L).
        mode: `s4` (Eq. 2), `liquid` (Eq. 11), `truncated` (Eq. 12), `kb` (Eq. 14) or `pb` (Eq. 15).
        order: highest order P >= 1; `s4` and `liquid` have none and ignore it.
        correlations: `all`, or `adjacent` for i_{j+1} = i_j + 1 only; `kb` and `pb`.
        window: all p >= 2 indices lie in k-window+1 … k; the linear term has no window; `kb` and `pb`.
        state: x_{-1}, (batch, H, M) (`mimo`: (batch, M)); `s4`, `liquid`, `truncated`. For `truncated` it is the
            state of the first order, or of every order where the shape is (batch, order, H, M).

    Returns:
        Object array of `Fraction`, (batch, H, L).

    Raises:
        ValueError: an unknown name, a shape that does not fit, NaN or inf, or an option that the mode lacks.

    Accuracy: exact. Cost: numbers grow by up to about 54 bits per step, so a recurrence is quadratic in L; `kb`
    and `pb` with `all` add up Σ_p binomial(L + 1, p + 1) products per row (L = 20, P = 3: 7,300 in 0.4 s).

    References: Eq. 2, 11, 12, 14, 15 of arXiv 2209.12951.
    """
    _check(mode, order, MODES)
    if correlations not in CORRELATIONS:
        raise ValueError(f"correlations is {correlations!r}; allowed: {', '.join(CORRELATIONS)}.")
    if mode in RECURRENT_MODES:
        if window is not None:
            raise ValueError(f"window is {window}, but mode {mode!r} has none; use kb or pb, or leave it out.")
        return _run(realization, u, mode, order, state)[0]
    if state is not None:
        raise ValueError(f"mode {mode!r} is defined from rest; leave state out or use s4, liquid or truncated.")
    if window is not None and window < 1:
        raise ValueError(f"window is {window}; it must be at least 1.")
    if realization.structure == "mimo":
        raise ValueError(f"mode {mode!r} is not defined for mimo, whose drive B̄ u_k mixes the channels.")
    return _by_definition(realization, u, mode, order, correlations, window)
