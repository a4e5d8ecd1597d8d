"""Arguments of the reference tiers, checked once and turned into float64 without changing a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .realization import Array, Realization

RECURRENT_MODES = ("s4", "liquid", "truncated")
MODES = (*RECURRENT_MODES, "kb", "pb")
CORRELATIONS = ("all", "adjacent")
STRUCTURES = ("diagonal", "dplr", "dense", "mimo")


def exact_floats(name: str, value: Any, *, real: bool = False) -> Array:
    """The array as float64 (`real`) or complex128, every value unchanged.

    Raises:
        ValueError: a value is NaN or infinite, not a number, complex where real is needed, or has no exact
            float64 (a longdouble, a large integer).
    """
    array = np.asarray(value)
    if array.dtype.kind not in ("fiub" if real else "fiubc"):
        raise ValueError(f"{name} has dtype {array.dtype}; give {'real' if real else 'real or complex'} numbers.")
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name} is {array[where]} at index {where}; only finite numbers have a reference.")
    # A longdouble may overflow here and a rounded large integer may not fit back: both then differ.
    with np.errstate(over="ignore", invalid="ignore"):
        converted = np.asarray(array, dtype=np.float64 if real else np.complex128)
        back = converted if real or array.dtype.kind == "c" else converted.real
        same = np.array_equal(back.astype(array.dtype), array)
    if not same:
        raise ValueError(f"{name} has dtype {array.dtype} and values that no float64 equals; cast it yourself first.")
    return converted


@dataclass(frozen=True, eq=False)
class Parameters:
    """A realization's arrays in complex128, one leading axis over the channels that have their own state."""

    structure: str
    A: Array
    B: Array
    C: Array
    P: Array
    Q: Array
    conjugate_pairs: bool

    @classmethod
    def of(cls, realization: Realization) -> Parameters:
        r = realization
        if r.structure not in STRUCTURES:
            raise ValueError(f"structure is {r.structure!r}; allowed: {', '.join(STRUCTURES)}.")
        if r.structure == "dplr" and (r.P is None or r.Q is None):
            raise ValueError("a dplr realization needs P and Q, both (R, H, M); give them or use 'diagonal'.")
        if r.structure == "dense" and r.conjugate_pairs:
            raise ValueError("a dense realization stores the full state; give it conjugate_pairs=False.")
        A, B, C = (exact_floats(name, getattr(r, name)) for name in ("A", "B", "C"))
        none = np.zeros((0, *C.shape), dtype=np.complex128)
        P, Q = (none, none) if r.structure != "dplr" else (exact_floats("P", r.P), exact_floats("Q", r.Q))
        return cls(r.structure, A, B, C, P, Q, r.conjugate_pairs)

    @property
    def weight(self) -> int:
        return 2 if self.conjugate_pairs else 1


@dataclass(frozen=True, eq=False)
class Arguments:
    """What `enclose` and `multiprecision.outputs` compute, checked.

    Attributes:
        u: float64, (batch, H, L).
        order: highest order P; 1 for `s4` and `liquid`.
        states: one initial state per order, complex128, (batch, order, H, M) (`mimo`: (batch, order, M)).
    """

    parameters: Parameters
    u: Array
    mode: str
    order: int
    correlations: str
    window: int | None
    states: Array

    @classmethod
    def of(
        cls,
        realization: Realization,
        u: Any,
        mode: str,
        order: int,
        correlations: str,
        window: int | None,
        state: Any,
    ) -> Arguments:
        """The checked arguments.

        Raises:
            ValueError: an unknown name, a shape that does not fit, a value that is not finite, or an option
                that the mode or structure lacks.
        """
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}; allowed: {', '.join(MODES)}.")
        if correlations not in CORRELATIONS:
            raise ValueError(f"correlations is {correlations!r}; allowed: {', '.join(CORRELATIONS)}.")
        if order < 1:
            raise ValueError(f"order is {order}; the lowest order is 1, the linear term.")
        parameters, u = Parameters.of(realization), exact_floats("u", u, real=True)
        n_channels, n_modes = parameters.C.shape
        if u.ndim != 3 or u.shape[1] != n_channels:
            raise ValueError(f"u has shape {u.shape}; it must be (batch, {n_channels}, L).")
        if mode in RECURRENT_MODES:
            if window is not None:
                raise ValueError(f"window is {window}, but mode {mode!r} has none; use kb or pb, or leave it out.")
        else:
            if state is not None:
                raise ValueError(f"mode {mode!r} starts from rest; leave state out or use s4, liquid or truncated.")
            if window is not None and window < 1:
                raise ValueError(f"window is {window}; it must be at least 1.")
            if parameters.structure == "mimo":
                raise ValueError(f"mode {mode!r} is not defined for mimo, whose drive B̄ u_k mixes the channels.")
        n_orders = order if mode == "truncated" else 1
        single = (n_modes,) if parameters.structure == "mimo" else (n_channels, n_modes)
        states = np.zeros((len(u), n_orders, *single), dtype=np.complex128)
        if state is not None:
            given = exact_floats("state", state)
            if given.shape == (len(u), *single):
                states[:, 0] = given
            elif mode == "truncated" and given.shape == states.shape:
                states = given
            else:
                raise ValueError(
                    f"state has shape {given.shape}; it must be {(len(u), *single)}, or {states.shape} for 'truncated'."
                )
        order = order if mode in ("truncated", "kb", "pb") else 1
        return cls(parameters, u, mode, order, correlations, window, states)
