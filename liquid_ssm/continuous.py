"""Continuous state-space systems: parameters before discretisation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from .errors import DTypeError, ParameterError
from .systems import Array, System, _frozen, _same_shape

if TYPE_CHECKING:
    from .integrators import AdamsBashforth, BilinearExact


@dataclass(frozen=True, eq=False)
class ContinuousSystem:
    """Continuous system x' = A x + B u, y = weight · Re(C x), liquid x' = (A + diag(B) u) x + B u (Eq. 1, 10).

    Four structures: `diagonal`, A = diag(Λ); `dplr`, A = Λ − P P* over both halves of every conjugate pair
    (Eq. 8 with Q = P); `mimo`, a diagonal A whose one state all channels share; `dense`, a full matrix, see
    `ContinuousSystem.dense`.  Arrays are stored as read-only copies in float64 or complex128.

    Args:
        Lambda: eigenvalues of the (normal part of the) transition, Re λ < 0 [1/time]; (H, M), for `mimo` (M,).
        B: input vectors, (H, M); `mimo` (M, H).
        C: output vectors, (H, M); `mimo` (H, M).
        dt: step size > 0 [time], (H,), `mimo` (M,); a single number stands for all of them.
        P: low-rank part, (R, H, M), or None.
        A: full matrices (H, N, N), only with Lambda=None.
        conjugate_pairs: True if one of each conjugate pair is stored (weight 2), else False (weight 1).

    Raises:
        ShapeError, DTypeError: arrays that do not fit each other, a dtype that is not floating, a complex dt.
        ParameterError: a value that is not finite, Re λ ≥ 0, or dt ≤ 0.
    """

    Lambda: Array | None
    B: Array
    C: Array
    dt: Array
    P: Array | None = None
    A: Array | None = field(default=None, kw_only=True)
    conjugate_pairs: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        arrays = {"B": _frozen("B", self.B, 2), "C": _frozen("C", self.C, 2)}
        C = arrays["C"]
        if self.A is not None:
            if self.Lambda is not None or self.P is not None:
                raise ParameterError("A is the whole transition; give either A alone or Lambda (and P).")
            if self.conjugate_pairs:
                raise ParameterError("a dense system stores all N states; set conjugate_pairs=False.")
            arrays["A"] = _frozen("A", self.A, 3)
            _same_shape("C (H, N)", C.shape, B=arrays["B"])
            _same_shape("A (H, N, N)", (*C.shape, C.shape[1]), A=arrays["A"])
            _check_stable_matrices(arrays["A"])
            steps = C.shape[0]
        else:
            if self.Lambda is None:
                raise ParameterError("neither Lambda nor A is given; give Lambda, or use ContinuousSystem.dense.")
            if np.ndim(self.Lambda) == 1:
                Lambda = arrays["Lambda"] = _frozen("Lambda", self.Lambda, 1)
                if self.P is not None:
                    raise ParameterError("a mimo system (Lambda with one dimension) has no low-rank part P.")
                _same_shape("Lambda (M,) and C (H, M)", (Lambda.shape[0], C.shape[0]), B=arrays["B"])
                _same_shape("Lambda (M,) and B (M, H)", arrays["B"].shape[::-1], C=C)
            else:
                Lambda = arrays["Lambda"] = _frozen("Lambda", self.Lambda, 2)
                _same_shape("Lambda (H, M)", Lambda.shape, B=arrays["B"], C=C)
                if self.P is not None:
                    P = arrays["P"] = _frozen("P", self.P, 3)
                    _same_shape("(R, H, M)", (P.shape[0], *Lambda.shape), P=P)
            _check_stable_modes(Lambda)
            steps = Lambda.shape[0]
        dt = self.dt if np.ndim(self.dt) else np.full(steps, self.dt)
        arrays["dt"] = _frozen("dt", dt, 1)
        _same_shape("(M,)" if self.structure == "mimo" else "(H,)", (steps,), dt=arrays["dt"])
        _check_steps(arrays["dt"])
        for name, array in arrays.items():
            stored = np.ascontiguousarray(array, np.complex128 if array.dtype.kind == "c" else np.float64)
            stored.flags.writeable = False
            object.__setattr__(self, name, stored)

    @classmethod
    def dense(cls, A: npt.ArrayLike, B: npt.ArrayLike, C: npt.ArrayLike, dt: npt.ArrayLike) -> Self:
        """A system with a full matrix per channel, y = Re(C x).

        Args:
            A: (H, N, N) [1/time], real or complex.
            B, C: (H, N).
            dt: step size > 0 [time], (H,) or a single number.

        Raises:
            ParameterError: also if a computed eigenvalue of A has Re λ ≥ 0 by more than rounding explains:
                min(κ δ, √(δ ‖A‖_F)) with δ = N·u·‖A‖_F, the backward error of the eigensolver, and κ the
                eigenvalue's condition number (first-order perturbation; the root is what a defective pair moves by).
        """
        return cls(None, np.asarray(B), np.asarray(C), np.asarray(dt), A=np.asarray(A), conjugate_pairs=False)

    @property
    def structure(self) -> str:
        """`diagonal`, `dplr`, `mimo` or `dense`."""
        if self.Lambda is None:
            return "dense"
        if np.ndim(self.Lambda) == 1:
            return "mimo"
        return "diagonal" if self.P is None else "dplr"

    @property
    def n_channels(self) -> int:
        return int(self.C.shape[0])

    @property
    def n_modes(self) -> int:
        """Stored modes M; for `dense` the state size N."""
        return int(self.C.shape[1])

    @property
    def n_state(self) -> int:
        """True state size N: twice the stored modes where they stand for conjugate pairs."""
        return self.n_modes * self.weight

    @property
    def weight(self) -> int:
        """y = weight · Re(C x): 2 where one of each conjugate pair is stored, else 1."""
        return 2 if self.conjugate_pairs else 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Real dtype of the parameters, float64."""
        found: np.dtype[Any] = self.dt.dtype
        return found

    def with_dt(self, dt: npt.ArrayLike) -> Self:
        """The same system with another step size, (H,) (`mimo` (M,)) or a single number [time]."""
        return replace(self, dt=np.asarray(dt))

    def full_matrices(self) -> tuple[Array, Array, Array]:
        """(A (H, N, N), B (H, N), C (H, N)) on the full state [x; conj x]; then y = Re(C x).

        Raises:
            ParameterError: a `mimo` system, whose channels share one state.

        Accuracy: copies and conjugates, except for the low-rank part: R products and sums per entry.
        """
        if self.A is not None:
            return self.A, self.B, self.C
        if self.structure == "mimo" or self.Lambda is None:
            raise ParameterError("a mimo system has one state for all channels, so it has no matrix per channel.")
        Lambda = self.both_halves(self.Lambda)
        A = Lambda[..., None] * np.eye(Lambda.shape[-1])
        if self.P is not None:
            P = self.both_halves(self.P)
            A = A - np.einsum("rhn,rhm->hnm", P, P.conj())
        return A, self.both_halves(self.B), self.both_halves(self.C)

    def both_halves(self, modes: Array) -> Array:
        """[v; conj v] along the last axis where v stands for conjugate pairs, else v."""
        return np.concatenate([modes, modes.conj()], axis=-1) if self.conjugate_pairs else modes

    def discretize(self, method: str = "bilinear") -> System | AdamsBashforth | BilinearExact:
        """The discrete system, or the integrator, of that method; see `liquid_ssm.discretize.discretize`.

        Args:
            method: `euler`, `bilinear`, `zoh`, `adams-bashforth` or `bilinear-exact`.

        Raises:
            ParameterError: an unknown method.
        """
        from .discretize import discretize

        return discretize(self, method)


def _check_stable_modes(Lambda: Array) -> None:
    bad = np.argwhere(Lambda.real >= 0)
    if len(bad):
        where = tuple(int(i) for i in bad[0])
        index = f"mode {where[0]}" if len(where) == 1 else f"channel {where[0]}, mode {where[1]}"
        raise ParameterError(
            f"Lambda has Re λ = {Lambda[where].real:.6g} at {index} ({len(bad)} such value(s)); every Re λ must be "
            "negative, or the state does not decay without input. Subtract a decay rate from Lambda."
        )


def _check_stable_matrices(A: Array) -> None:
    N = A.shape[-1]
    # Relative to the largest entry, so that no norm overflows.
    scale = np.abs(A).max(axis=(1, 2), initial=np.finfo(np.float64).tiny)
    relative = A / scale[:, None, None]
    size = np.linalg.norm(relative, axis=(1, 2))
    backward = N * np.finfo(np.float64).eps / 2 * size
    eigenvalues = np.linalg.eigvals(relative)
    # κ ≥ 1, so what stays below the backward error needs no condition number.
    for channel in np.flatnonzero((eigenvalues.real >= backward[:, None]).any(axis=1)):
        values, vectors = np.linalg.eig(relative[channel])
        slack = np.full(N, np.sqrt(backward[channel] * size[channel]))
        try:
            rows = np.linalg.inv(vectors)
        except np.linalg.LinAlgError:
            pass  # exactly defective: κ is infinite and the root stays
        else:
            condition = np.linalg.norm(rows, axis=1) * np.linalg.norm(vectors, axis=0)
            slack = np.minimum(slack, backward[channel] * condition)
        bad = np.flatnonzero(values.real >= slack)
        if len(bad):
            worst = bad[np.argmax(values.real[bad])]
            raise ParameterError(
                f"A of channel {int(channel)} has the eigenvalue {complex(scale[channel] * values[worst]):.6g}, whose "
                f"real part is not negative (rounding explains at most {scale[channel] * slack[worst]:.1e}); every "
                "Re λ must be negative, or the state does not decay without input. Subtract a multiple of the "
                "identity from A."
            )


def _check_steps(dt: Array) -> None:
    if dt.dtype.kind == "c":
        raise DTypeError(f"dt has dtype {dt.dtype}; a step size is real. Pass dt.real.")
    bad = np.flatnonzero(dt <= 0)
    if len(bad):
        raise ParameterError(f"dt is {dt[bad[0]]:.6g} at index {int(bad[0])}; a step size must be positive.")
