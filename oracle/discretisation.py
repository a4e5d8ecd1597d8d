"""Discretisations, integrators and the exact solution for held input, independent of the package.

Every recurrence is written once and runs on three kinds of numbers, chosen by `precision`:

* `"exact"`: rationals (euler, bilinear, adams_bashforth, bilinear_exact; not the exponentials);
* an int: mpmath with that many decimal digits, on any structure; mpmath's global precision is restored;
* `"longdouble"` or `"float64"`: NumPy's, vectorised over batch, channels and modes, diagonal A only.
  longdouble has 64 bits on x86-64; where the platform has no wider type it is float64.

The continuous system is x' = A x + diag(B) u x + B u, y = w·Re(C x) (Eq. 10), x_{-1} = 0 unless given. A is
`(H, M)` for the eigenvalues of a diagonal system, `(H, N, N)` for a full matrix, and `(H, M)` together with P
(R, H, M) for A = Λ - P P*, which is worked out on the full state. Sizes: H channels, M stored modes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import mpmath
import numpy as np

from .exact import ComplexRational, elementwise, exact_array, full_system
from .realization import Array, Realization

Precision = int | Literal["exact", "longdouble", "float64"]

_NUMPY: dict[Any, tuple[Any, Any]] = {
    "longdouble": (np.longdouble, np.clongdouble),
    "float64": (np.float64, np.complex128),
}

# (system, x_{k-1}, B u_k, what the previous step carried) -> (x_k, what it carries on)
_Step = Callable[["_Continuous", Array, Array, Any], tuple[Array, Any]]


def _to_mpmath(value: Any) -> Any:
    if isinstance(value, ComplexRational):
        return mpmath.mpc(_to_mpmath(value.real), _to_mpmath(value.imag))
    return mpmath.mpf(value.numerator) / value.denominator


def _real(array: Array) -> Array:
    return elementwise(lambda z: z.real, array) if array.dtype == object else array.real


def _working(precision: Precision) -> AbstractContextManager[Any]:
    """mpmath at `precision` digits, if that is a number of digits."""
    if precision == "exact" or precision in _NUMPY:
        return nullcontext()
    if isinstance(precision, str) or precision < 1:
        raise ValueError(
            f"precision is {precision!r}; allowed: 'exact', 'longdouble', 'float64', or decimal digits as an int."
        )
    context: AbstractContextManager[Any] = mpmath.workdps(precision)
    return context


def _convert(array: Any, precision: Precision) -> Array:
    array = np.asarray(array)
    if precision in _NUMPY:
        if not np.isfinite(array).all():
            raise ValueError("a parameter or input is NaN or infinite; only finite numbers are allowed.")
        return np.asarray(array, dtype=_NUMPY[precision][array.dtype.kind == "c"])
    exact = exact_array(array)
    return exact if precision == "exact" else elementwise(_to_mpmath, exact)


@dataclass(frozen=True)
class _Continuous:
    """A diagonal (H, M) or full (H, N, N) system in one kind of numbers."""

    A: Array
    B: Array
    dt: Array  # (H,)
    precision: Precision

    @property
    def dense(self) -> bool:
        return self.A.ndim == 3

    def multiply(self, x: Array) -> Array:
        """A x."""
        return np.asarray((self.A * x[..., None, :]).sum(-1) if self.dense else self.A * x)

    @property
    def step_size(self) -> Array:
        return self.dt[:, None]


def _continuous(A: Any, B: Any, dt: Any, P: Any, conjugate_pairs: bool, precision: Precision) -> _Continuous:
    A, B, dt = np.asarray(A), np.asarray(B), np.asarray(dt)
    if A.shape not in (B.shape, (*B.shape, B.shape[-1])) or B.ndim != 2 or dt.shape != B.shape[:1]:
        raise ValueError(
            f"A has shape {A.shape}, B {B.shape}, dt {dt.shape}; they must be (H, M) or (H, N, N), (H, M) and (H,)."
        )
    if not all(float(step) > 0 for step in dt):
        raise ValueError(f"dt is {dt}; every step size must be greater than 0.")
    if A.ndim == 3 and P is not None:
        raise ValueError("A is a full matrix and P is given; P belongs to eigenvalues A of shape (H, M).")
    if precision in _NUMPY and (A.ndim == 3 or P is not None):
        raise ValueError(f"precision {precision!r} serves diagonal A only; give a number of digits for a full matrix.")
    if P is not None:
        A, B, _ = full_system(Realization("dplr", A, B, B, P, P, conjugate_pairs))
    return _Continuous(_convert(A, precision), _convert(B, precision), _convert(dt, precision), precision)


def _solve(matrix: Array, right: Array) -> Array:
    """matrix⁻¹ right by Gaussian elimination with the largest pivot; (N, N) and (N, …) objects."""

    def magnitude(z: Any) -> Any:
        return z.real * z.real + z.imag * z.imag

    a, x = matrix.copy(), right.copy()
    n = len(a)
    for j in range(n):
        pivot = max(range(j, n), key=lambda i: magnitude(a[i, j]))
        a[[j, pivot]], x[[j, pivot]] = a[[pivot, j]], x[[pivot, j]]
        if magnitude(a[j, j]) == 0:
            raise ZeroDivisionError("I - dt/2 A is singular; dt is 2 over an eigenvalue of A. Choose another dt.")
        for i in range(n):
            if i != j:
                factor = a[i, j] / a[j, j]
                a[i] = a[i] - factor * a[j]
                x[i] = x[i] - factor * x[j]
    for j in range(n):
        x[j] = x[j] * (1 / a[j, j])
    return x


def _half_step_inverse(A: Array, half: Array, *right: Array) -> tuple[Array, ...]:
    """(I - A half)⁻¹ applied to each of `right`, for diagonal A (H, M) or full A (H, N, N), half (H, 1)."""
    if A.ndim == 2:
        return tuple(r / (1 - A * half) for r in right)
    identity = _identity(A.shape[-1])
    results = tuple(np.empty(r.shape, dtype=object) for r in right)
    for h in range(len(A)):
        for result, r in zip(results, right, strict=True):
            result[h] = _solve(identity - A[h] * half[h, 0], r[h])
    return results


def _identity(n: int) -> Array:
    return np.eye(n, dtype=int).astype(object)


def _exponential_of_augmented(M: Array, column: Array, dt: Any) -> tuple[Array, Array]:
    """(e^{dt M}, dt φ₁(dt M) column) from the exponential of dt [[M, column], [0, 0]], for one (N, N) M."""
    n = len(column)
    augmented = mpmath.zeros(n + 1)
    for i in range(n):
        augmented[i, n] = dt * column[i]
        for j in range(n):
            augmented[i, j] = dt * M[i, j]
    result = np.array(mpmath.expm(augmented).tolist(), dtype=object)
    return result[:n, :n], result[:n, n]


def _phi1(z: Array, precision: Precision) -> Array:
    """(e^z - 1)/z without cancellation near 0, and 1 at 0."""
    if precision in _NUMPY:
        z = z.astype(_NUMPY[precision][1])
        zero = z == 0
        return np.where(zero, 1, np.expm1(z) / np.where(zero, 1, z))
    return elementwise(lambda w: mpmath.expm1(w) / w if w != 0 else mpmath.mpf(1), z)


def _exp(z: Array, precision: Precision) -> Array:
    return np.asarray(np.exp(z)) if precision in _NUMPY else elementwise(mpmath.exp, z)


def discretize(
    A: Any,
    B: Any,
    dt: Any,
    method: str,
    *,
    P: Any = None,
    conjugate_pairs: bool = True,
    precision: Precision = "exact",
) -> tuple[Array, Array]:
    """Ā and B̄ of one of the three discretisations that keep the form of Eq. 11.

        euler:    Ā = I + δt A,                       B̄ = δt B
        bilinear: Ā = (I - δt/2 A)⁻¹ (I + δt/2 A),    B̄ = (I - δt/2 A)⁻¹ δt B
        zoh:      Ā = e^{δt A},                       B̄ = δt φ₁(δt A) B,  φ₁(z) = (e^z - 1)/z, φ₁(0) = 1

    Args:
        A: (H, M) eigenvalues or (H, N, N) [1/time].
        B: (H, M) or (H, N).
        dt: (H,) real, greater than 0 [time].
        method: `euler`, `bilinear` or `zoh`.
        P: low-rank part of A = Λ - P P*, (R, H, M); the result is then on the full state, as in `full_system`.
        conjugate_pairs: one of each conjugate pair is stored; matters only with P.
        precision: `exact` (not zoh), a number of digits, `longdouble` or `float64` (diagonal A); see the module.

    Returns:
        Ā and B̄ with the shapes of A and B (with P: (H, N, N) and (H, N)); object arrays of exact or mpmath
        numbers, or longdouble arrays.

    Raises:
        ValueError: shapes that do not fit, dt <= 0, an unknown method or precision, or zoh in rationals.
        ZeroDivisionError: bilinear where 2/δt is an eigenvalue of A.

    Accuracy: `exact` has no error; otherwise a modest multiple of the unit roundoff, not bounded: use two
    precisions and compare.

    References: Eq. 3, Appendix D of arXiv 2209.12951 (whose main text misprints euler with δt/2).
    """
    with _working(precision):
        s = _continuous(A, B, dt, P, conjugate_pairs and np.ndim(A) == 2, precision)
        identity = _identity(s.B.shape[-1]) if s.dense else 1
        scaled_A = s.A * (s.dt[:, None, None] if s.dense else s.step_size)
        if method == "euler":
            return scaled_A + identity, s.B * s.step_size
        if method == "bilinear":
            A_bar, B_bar = _half_step_inverse(s.A, s.step_size / 2, scaled_A / 2 + identity, s.B * s.step_size)
            return A_bar, B_bar
        if method != "zoh":
            raise ValueError(f"method is {method!r}; allowed: euler, bilinear, zoh.")
        if precision == "exact":
            raise ValueError("zoh is not rational; give precision as a number of digits.")
        if not s.dense:
            return _exp(scaled_A, precision), s.step_size * _phi1(scaled_A, precision) * s.B
        pairs = [_exponential_of_augmented(s.A[h], s.B[h], s.dt[h]) for h in range(len(s.dt))]
        return np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])


def _adams_bashforth_step(s: _Continuous, x: Array, v: Array, f_previous: Any) -> tuple[Array, Any]:
    f = s.multiply(x) + v * x + v
    before = f if f_previous is None else f_previous
    return x + s.step_size * (3 * f - before) / 2, f


def _bilinear_exact_step(s: _Continuous, x: Array, v: Array, _: Any) -> tuple[Array, Any]:
    half = s.step_size / 2
    right = x + half * (s.multiply(x) + v * x) + s.step_size * v
    if not s.dense:
        return right / (1 - half * (s.A + v)), None
    new = np.empty(x.shape, dtype=object)
    identity = _identity(x.shape[-1])
    for b, h in np.ndindex(x.shape[:2]):
        new[b, h] = _solve(identity - (s.A[h] + identity * v[b, h]) * half[h, 0], right[b, h])
    return new, None


def _held_input_step(s: _Continuous, x: Array, v: Array, _: Any) -> tuple[Array, Any]:
    if not s.dense:
        z = s.step_size * (s.A + v)
        return _exp(z, s.precision) * x + s.step_size * _phi1(z, s.precision) * v, None
    new = np.empty(x.shape, dtype=object)
    identity = _identity(x.shape[-1])
    for b, h in np.ndindex(x.shape[:2]):
        transition, forced = _exponential_of_augmented(s.A[h] + identity * v[b, h], v[b, h], s.dt[h])
        new[b, h] = transition @ x[b, h] + forced
    return new, None


def _integrate(
    step: _Step,
    A: Any,
    B: Any,
    C: Any,
    dt: Any,
    u: Any,
    P: Any,
    conjugate_pairs: bool,
    state: Any,
    previous: Any,
    precision: Precision,
) -> Array:
    """Run one step function over all inputs and read out w·Re(C x) after each."""
    pairs = conjugate_pairs and np.ndim(A) == 2
    u, C = np.asarray(u), np.asarray(C)
    if u.dtype.kind == "c" or u.ndim != 3 or u.shape[1] != len(np.asarray(dt)) or C.shape != np.shape(B):
        raise ValueError(
            f"u has shape {u.shape} and dtype {u.dtype}, C {C.shape}; u must be real, (batch, H, L), and C like B."
        )
    with _working(precision):
        s = _continuous(A, B, dt, P, pairs, precision)

        def on_full_state(value: Any) -> Array:
            value = _convert(value, precision)
            return np.concatenate([value, value.conj()], axis=-1) if pairs and P is not None else value

        C = on_full_state(C)
        weight = 2 if pairs and P is None else 1
        signal = _convert(u, precision)
        rest = np.zeros((u.shape[0], *np.shape(B)), dtype=np.result_type(np.asarray(B), np.float64))
        x = on_full_state(rest if state is None else state)
        carried: Any = None if previous is None else on_full_state(previous)
        y = np.empty(u.shape, dtype=signal.dtype)
        for k in range(u.shape[2]):
            x, carried = step(s, x, s.B * signal[:, :, k, None], carried)
            y[:, :, k] = weight * _real(np.asarray((C * x).sum(-1)))
        return y


def adams_bashforth(
    A: Any,
    B: Any,
    C: Any,
    dt: Any,
    u: Any,
    *,
    P: Any = None,
    conjugate_pairs: bool = True,
    state: Any = None,
    previous: Any = None,
    precision: Precision = "longdouble",
) -> Array:
    """Two-step Adams-Bashforth on Eq. 10.

        f_k = (A + diag(B) u_k) x_{k-1} + B u_k,   x_k = x_{k-1} + δt (3/2 f_k - 1/2 f_{k-1}),   y_k = w·Re(C x_k)

    The first step has no f_{-1} and is one Euler step, f_{-1} := f_0.

    Args:
        A, B, dt, P, conjugate_pairs, precision: as in `discretize`.
        C: like B.
        u: real, (batch, H, L).
        state: x_{-1}, (batch, H, M).
        previous: f_{-1}, (batch, H, M); with `state` it continues a run.

    Returns:
        y (batch, H, L) in the numbers of `precision`.

    Raises:
        ValueError: shapes that do not fit, dt <= 0, or a precision that does not serve this structure.

    Accuracy: `exact` has no rounding error; otherwise a modest multiple of the unit roundoff per step.

    References: Appendix D of arXiv 2209.12951.
    """
    return _integrate(_adams_bashforth_step, A, B, C, dt, u, P, conjugate_pairs, state, previous, precision)


def bilinear_exact(
    A: Any,
    B: Any,
    C: Any,
    dt: Any,
    u: Any,
    *,
    P: Any = None,
    conjugate_pairs: bool = True,
    state: Any = None,
    precision: Precision = "longdouble",
) -> Array:
    """The bilinear transform of Eq. 10 with the liquid term inside, M_k = A + diag(B) u_k.

        x_k = (I - δt/2 M_k)⁻¹ ((I + δt/2 M_k) x_{k-1} + δt B u_k),   y_k = w·Re(C x_k)

    Args, Returns: as in `adams_bashforth`.

    Raises:
        ValueError: as in `adams_bashforth`.
        ZeroDivisionError: 2/δt is an eigenvalue of M_k; not with `longdouble`, which gives inf or NaN.

    Accuracy: as in `adams_bashforth`.

    References: the transform that Appendix D of arXiv 2209.12951 leaves open.
    """
    return _integrate(_bilinear_exact_step, A, B, C, dt, u, P, conjugate_pairs, state, None, precision)


def held_input_solution(
    A: Any,
    B: Any,
    C: Any,
    dt: Any,
    u: Any,
    *,
    P: Any = None,
    conjugate_pairs: bool = True,
    state: Any = None,
    precision: Precision = "longdouble",
) -> Array:
    """The solution of Eq. 10 at the ends of the steps where u is constant within each: no discretisation error.

        x_k = e^{δt M_k} x_{k-1} + δt φ₁(δt M_k) B u_k,   M_k = A + diag(B) u_k,   y_k = w·Re(C x_k)

    Args, Returns: as in `adams_bashforth`; `exact` is not available.

    Raises:
        ValueError: as in `adams_bashforth`, or precision `exact`.

    Accuracy: only rounding, which the argument δt M_k of the exponential amplifies by its magnitude:
    about (4 + |δt M_k|) unit roundoffs per step.

    References: Eq. 10 of arXiv 2209.12951.
    """
    if precision == "exact":
        raise ValueError("exponentials are not rational; give precision as a number of digits, or 'longdouble'.")
    return _integrate(_held_input_step, A, B, C, dt, u, P, conjugate_pairs, state, None, precision)
