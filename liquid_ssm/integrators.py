"""Integrators of the continuous liquid system that do not fit into an Ā and a B̄.

Both integrate x' = (A + diag(B) u) x + B u directly, one input sample per step, M_k = A + diag(B u_k).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, NoReturn, Self, TypeVar

import numpy as np
import numpy.typing as npt

from .errors import DTypeError, ParameterError, ShapeError, UnstableRecurrence
from .summation import pairwise_sum
from .systems import Array

if TYPE_CHECKING:
    from .continuous import ContinuousSystem


class AdamsBashforthState(NamedTuple):
    """State between two steps.

    Attributes:
        x: (batch, H, M), `mimo` (batch, M).
        f: derivative that the last step used, of the same shape; None before the first step.
    """

    x: Array
    f: Array | None = None


class BilinearExactState(NamedTuple):
    """State between two steps.

    Attributes:
        x: (batch, H, M), `mimo` (batch, M).
    """

    x: Array


S = TypeVar("S", AdamsBashforthState, BilinearExactState)


class _Pole(Exception):
    """I − h M_k is singular; caught where the step is known."""

    def __init__(self, channel: int) -> None:
        self.channel = channel
        super().__init__(channel)


class _Integrator(ABC, Generic[S]):
    """What both integrators share: parameters in one precision, the time loop, the output rule.

    Args:
        continuous: the system to integrate.
        dtype: float64 or float32, the precision of parameters and arithmetic.
    """

    name: ClassVar[str]
    structure: ClassVar[str] = "integrator"
    state_type: ClassVar[type[Any]]

    def __init__(self, continuous: ContinuousSystem, dtype: npt.DTypeLike = np.float64) -> None:
        real = np.dtype(dtype)
        if real.name not in ("float32", "float64"):
            raise DTypeError(f"an integrator cannot compute in {real}; allowed: float32, float64.")
        self.continuous = continuous
        self.dtype = real
        self._kinds = {"f": real, "c": np.result_type(real, np.complex64)}
        A, Lambda, P = (None if v is None else self._cast(v) for v in (continuous.A, continuous.Lambda, continuous.P))
        self._A, self._Lambda, self._P = A, Lambda, P
        self._B, self._C = self._cast(continuous.B), self._cast(continuous.C)
        dt = self._cast(continuous.dt)
        # Against a state (batch, H, M), or (batch, M) where every mode has its own step.
        self._dt = dt if continuous.structure == "mimo" else dt[:, None]
        self._kind = np.result_type(self._B, self._C, *(v for v in (A, Lambda, P) if v is not None))

    def _cast(self, array: Array) -> Array:
        with np.errstate(over="ignore"):
            cast = array.astype(self._kinds[array.dtype.kind])
        if not np.isfinite(cast).all():
            raise ParameterError(f"a parameter leaves the range of {self.dtype}; use float64 or rescale B against C.")
        cast.flags.writeable = False
        return cast

    def astype(self, dtype: npt.DTypeLike) -> Self:
        """The same integrator computing in float32 or float64; parameters are rounded once from float64."""
        return self if np.dtype(dtype) == self.dtype else type(self)(self.continuous, dtype)

    @property
    def n_channels(self) -> int:
        return self.continuous.n_channels

    @property
    def n_modes(self) -> int:
        return self.continuous.n_modes

    @property
    def conjugate_pairs(self) -> bool:
        return self.continuous.conjugate_pairs

    @property
    def weight(self) -> int:
        """y = weight · Re(C x)."""
        return self.continuous.weight

    @property
    def parameters(self) -> dict[str, Array]:
        """The continuous parameters in this precision, by name."""
        named = {"A": self._A, "Lambda": self._Lambda, "P": self._P, "B": self._B, "C": self._C}
        return {name: array for name, array in named.items() if array is not None} | {"dt": self._dt.reshape(-1)}

    def state_shape(self, batch: int) -> tuple[int, ...]:
        """Shape of the state's arrays for that many sequences."""
        modes: tuple[int, ...] = (self.n_modes,)
        return (batch, *modes) if self.continuous.structure == "mimo" else (batch, self.n_channels, *modes)

    def scan(self, u: Array, state: S | Array | None = None) -> tuple[Array, S]:
        """Outputs of a whole sequence, y_k = weight · Re(C x_k).

        Args:
            u: inputs (batch, H, L), float32 or float64; computed in that dtype.
            state: as returned by an earlier call, or x_{-1} alone as an array, or None (rest).

        Returns:
            (y, state): y (batch, H, L) in u's dtype and the state after the last step.

        Raises:
            ShapeError, DTypeError, ParameterError: u or the state does not fit or is not finite.
            UnstableRecurrence: a pole of the method is hit, or the state leaves the range of the dtype.
        """
        from .compute import check_input

        u = check_input(self, u)
        own = self.astype(u.dtype)
        current = own._checked_state(state, u.shape[0])
        y = np.empty_like(u)
        for k in range(u.shape[-1]):
            y[..., k], current = own._step(u[..., k], current, k)
        return y, current

    def step(self, u_k: Array, state: S | Array | None = None) -> tuple[Array, S]:
        """One time step: u_k (batch, H) gives y_k (batch, H) and the state after it.

        Running it L times is `scan`, bit for bit.  Options and errors as in `scan`; an `UnstableRecurrence`
        counts steps from this call, so its step is 0.
        """
        u_k = np.asarray(u_k)
        if u_k.ndim != 2:
            raise ShapeError(f"u_k has shape {u_k.shape}; step takes (batch, H). Use scan for a whole sequence.")
        y, after = self.scan(u_k[..., None], state)
        return y[..., 0], after

    def input_bound(self, channel: int) -> float | None:
        """|u| below which every step contracts, or None where no such bound is known."""
        return None

    @abstractmethod
    def _advance(self, drive: Array, state: S) -> S:
        """The state after one step; `drive` is B u_k."""

    def _checked_state(self, state: S | Array | None, batch: int) -> S:
        shape, own = self.state_shape(batch), self.state_type
        if state is None:
            parts = {"x": np.zeros(shape, self._kind)}
        elif isinstance(state, own):
            named = state._asdict()
            parts = {name: self._checked_part(name, part, shape) for name, part in named.items() if part is not None}
        elif isinstance(state, tuple):
            raise ParameterError(f"{self.name} carries its state as {own.__name__}, not as {type(state).__name__}.")
        else:
            parts = {"x": self._checked_part("state", state, shape)}
        current: S = own(**parts)
        return current

    def _checked_part(self, name: str, value: Any, shape: tuple[int, ...]) -> Array:
        array = np.asarray(value)
        if array.dtype.kind not in "fciu" or (array.dtype.kind == "c" and self._kind.kind != "c"):
            raise DTypeError(f"{name} has dtype {array.dtype}; the state of this system is {self._kind}.")
        if array.shape != shape:
            raise ShapeError(f"{name} has shape {array.shape}; the state of this system and batch has {shape}.")
        array = array.astype(self._kind)
        if not np.isfinite(array).all():
            raise ParameterError(f"{name} holds NaN or infinite values; a state must be finite.")
        return array

    def _step(self, u_k: Array, state: S, k: int) -> tuple[Array, S]:
        shared = self.continuous.structure == "mimo"
        after: S
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            drive = pairwise_sum(self._B * u_k[:, None, :]) if shared else self._B * u_k[..., None]
            try:
                after = self._advance(drive, state)
            except _Pole as pole:
                self._fail("has a pole, I - dt/2 (A + diag(B) u) is singular,", k, pole.channel, u_k)
            x = after.x[:, None, :] if shared else after.x
            # Re(C x) as two real products; the imaginary part of the sum is never needed.
            terms = self._C.real * x.real
            if self._C.dtype.kind == "c" and x.dtype.kind == "c":
                terms = terms - self._C.imag * x.imag
            y = self.weight * pairwise_sum(terms)
        for array in (y, *(part for part in after if part is not None)):
            bad = np.argwhere(~np.isfinite(array))
            if len(bad):
                # The state of a mimo system belongs to no channel.
                channel = 0 if array is not y and array.ndim == 2 else int(bad[0][1])
                self._fail(f"left the range of {self.dtype}", k, channel, u_k)
        return y, after

    def _fail(self, what: str, k: int, channel: int, u_k: Array) -> NoReturn:
        limit = self.input_bound(channel)
        advice = (
            "no input bound is known for it; reduce dt or scale u down."
            if limit is None
            else f"it contracts as long as |u| < {limit:.3g}; scale u down."
        )
        raise UnstableRecurrence(
            f"{self.name} {what} at step {k}, channel {channel} (largest |u| of that step: "
            f"{float(np.abs(u_k).max(initial=0.0)):.3g}); {advice}",
            step=k,
            channel=channel,
            input_bound=limit,
        )

    def _transition(self, x: Array) -> Array:
        """A x on the stored modes, O(N) unless A is a full matrix."""
        if self._A is not None:
            return pairwise_sum(self._A * x[..., None, :])
        y: Array = self._Lambda * x
        for P in () if self._P is None else self._P:
            inner = pairwise_sum(P.conj() * x)[..., None]
            y = y - P * (2 * inner.real if self.conjugate_pairs else inner)
        return y


class AdamsBashforth(_Integrator[AdamsBashforthState]):
    """Two-step Adams-Bashforth, f_k = M_k x_{k-1} + B u_k, x_k = x_{k-1} + δt (3/2 f_k − 1/2 f_{k-1}).

    The first step has no f_{-1} and is an Euler step.  Order 2 for u_k = u(t_k), the input at the start of the
    step from t_k to t_{k+1}: y_k approximates the output at t_{k+1}.  It is explicit, O(N) per step for
    `diagonal`, `dplr` and `mimo` systems, and stable only for small δt |λ| (below 1 on the negative real axis).

    Args, attributes: see `_Integrator`: `continuous`, `dtype`, `n_channels`, `n_modes`, `conjugate_pairs`.

    Accuracy (diagonal, first order in the unit roundoff u): with F_k = |λ x_{k-1}| + |B u_k x_{k-1}| + |B u_k|, f_k is
        off by 6u F_k and one step adds δt u (14 F_k + |f_{k-1}|) + u|x_k|: complex products 3u, B u_k, sums and
        factors 1u each.  For `dplr` and `dense`, |λ x| becomes the sum of the moduli of the terms of A x, and 6
        becomes 9 + R + log2 of the length of a sum.  y: (2 + log2 M)u weight Σ|C_n x_n|, in real parts.

    References: arXiv 2209.12951, Appendix D.
    """

    name: ClassVar[str] = "adams-bashforth"
    state_type: ClassVar[type[Any]] = AdamsBashforthState

    def _advance(self, drive: Array, state: AdamsBashforthState) -> AdamsBashforthState:
        f = self._transition(state.x) + drive * state.x + drive
        slope = f if state.f is None else 1.5 * f - 0.5 * state.f
        return AdamsBashforthState(state.x + self._dt * slope, f)


class BilinearExact(_Integrator[BilinearExactState]):
    """Bilinear step of the liquid system, x_k = (I − h M_k)⁻¹((I + h M_k) x_{k-1} + δt B u_k), h = δt/2.

    The transform that Appendix D leaves open, because it does not have the form of Eq. 11.  It is elementwise
    for `diagonal` and `mimo` systems; `dplr` and `dense` solve one N × N system per step.  Order 2 for an
    input held over each step, and for a smooth input sampled at midpoints, u_k = u(t_k + δt/2).

    Re λ_n + |B_n u| < 0 for all modes keeps M_k dissipative: every step contracts and has no pole.  That
    holds for `diagonal`, `mimo` and `dplr` (−P P* only dissipates) below `input_bound`.

    Args, attributes: see `_Integrator`: `continuous`, `dtype`, `n_channels`, `n_modes`, `conjugate_pairs`.

    Accuracy (diagonal, first order in the unit roundoff u): with m = h(λ + B u_k) and μ = h(2|λ| + 3|B u_k|), one step
        adds at most u[(μ(|x_{k-1}| + |x_k|) + 5|1 + m||x_{k-1}| + 3|δt B u_k|)/|1 − m| + 11|x_k|]: complex products
        3u, the quotient 10u, all else 1u.  `dplr` and `dense`: LU with partial pivoting, N·u times the
        condition number of I − h M_k, normwise.  y: as `AdamsBashforth`.

    References: arXiv 2209.12951, Eq. 3 and Appendix D.
    """

    name: ClassVar[str] = "bilinear-exact"
    state_type: ClassVar[type[Any]] = BilinearExactState

    def input_bound(self, channel: int) -> float | None:
        """min_n −Re λ_n/|B_n| of a channel (`mimo`: −Re λ_n/Σ_h |B_nh|); None for `dense`."""
        continuous = self.continuous
        if continuous.Lambda is None:
            return None
        if continuous.structure == "mimo":
            decay, drive = -continuous.Lambda.real, np.abs(continuous.B).sum(axis=1)
        else:
            decay, drive = -continuous.Lambda[channel].real, np.abs(continuous.B[channel])
        return float(np.min(np.divide(decay, drive, out=np.full(decay.shape, np.inf), where=drive > 0)))

    def _advance(self, drive: Array, state: BilinearExactState) -> BilinearExactState:
        if self._Lambda is None or self._P is not None:
            return BilinearExactState(self._solve(drive, state.x))
        h = self._dt / 2
        m = h * (self._Lambda + drive)
        denominator = 1 - m
        # The rounding error of the denominator: where it is no larger than that, it has no correct digit.
        slack = 2 * np.finfo(self.dtype).eps * (1 + h * (np.abs(self._Lambda) + np.abs(drive)))
        bad = np.argwhere(np.abs(denominator) <= slack)
        if len(bad):
            raise _Pole(int(bad[0][1]) if drive.ndim == 3 else 0)
        return BilinearExactState(((1 + m) * state.x + self._dt * drive) / denominator)

    @cached_property
    def _full_transition(self) -> Array:
        return self._cast(self.continuous.full_matrices()[0])

    def _solve(self, drive: Array, x: Array) -> Array:
        modes = x.shape[-1]
        x, drive = self.continuous.both_halves(x), self.continuous.both_halves(drive)
        unit = np.eye(x.shape[-1], dtype=self.dtype)
        h = self._dt / 2
        M = h[..., None] * (self._full_transition + unit * drive[..., None])
        left = unit - M
        right = x + (M @ x[..., None])[..., 0] + self._dt * drive
        try:
            after = np.linalg.solve(left, right[..., None])[..., 0]
        except np.linalg.LinAlgError:
            raise _Pole(_singular_channel(left)) from None
        # The rounding errors of I - h M times |after|/|right|, a lower bound of the norm of its inverse: from 1 on,
        # the matrix cannot be told from a singular one.
        row_sums = np.abs(self._full_transition).sum(axis=-1).max(axis=-1)
        slack = 2 * np.finfo(self.dtype).eps * (1 + h[:, 0] * (row_sums + np.abs(drive).max(axis=-1)))
        bad = np.argwhere(slack * np.abs(after).max(axis=-1) > np.abs(right).max(axis=-1))
        if len(bad):
            raise _Pole(int(bad[0][1]))
        # The other half is the conjugate of this one.
        return np.asarray(after[..., :modes])


def _singular_channel(matrices: Array) -> int:
    """Channel of the first matrix (batch, H, N, N) that cannot be inverted."""
    for channel in np.ndindex(matrices.shape[:2]):
        try:
            np.linalg.inv(matrices[channel])
        except np.linalg.LinAlgError:
            return int(channel[1])
    raise AssertionError("a batch of regular matrices was reported as singular")


Integrator = AdamsBashforth | BilinearExact
