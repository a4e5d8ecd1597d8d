"""Recurrences whose steps have intervals of their own: arrays in, rows to the threads, arrays out."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from .sampled_adjoint import sampled_adjoint_rows
from .sampled_forward import STEPS, sampled_rows
from .sampled_step import DRIVE, DRIVEN, FACTORS, LAMBDA, LINEAR, LIQUID, OUTPUT
from .simd import lanes
from .threads import share

Array = npt.NDArray[Any]
Kind = Literal["linear", "liquid", "driven"]

# Whose square is far from the largest number.
_LARGEST = 1e150

_CODES = {"linear": LINEAR, "liquid": LIQUID, "driven": DRIVEN}


class Parameters(NamedTuple):
    """Of a continuous system with one mode of each conjugate pair, or their gradients.

    Attributes:
        Lambda, B, C: (H, M) complex128.
        P: (R, H, M) complex128, R = 0 without low rank.
        dt: (H,) float64.
    """

    Lambda: Array
    B: Array
    C: Array
    P: Array
    dt: Array


class SampledRows:
    """Rows of one call, laid out.

    Args:
        parameters: of the system.
        u: (batch, H, L), C-contiguous.
        dt: (batch, L) float64, C-contiguous.
        kind, order: of the recurrence; an order above 1 is `linear`, every order driven by the one below.
        threads: at most so many.
    """

    def __init__(self, parameters: Parameters, u: Array, dt: Array, kind: Kind, order: int, threads: int) -> None:
        self.parameters, self.u, self.dt, self.order, self.threads = parameters, u, dt, order, threads
        self.batch, self.channels, self.length = u.shape
        self.rank, _, self.n_modes = parameters.P.shape
        width = lanes(np.float64)
        self.modes = -(-self.n_modes // width) * width
        self.rows = self.batch * self.channels
        self.flat = u.reshape(self.rows, self.length)
        self.arguments = (self._packs(), parameters.dt, self.modes, self.rank, order, _CODES[kind], self.flat, dt)

    def run(self, state: Array, *, keep: bool) -> tuple[Array, Array, Array] | None:
        """y like u, the states (batch, order, H, M) after it, and those of the blocks if kept, else (0, 0, 0).

        None if a driven step comes so near to a pole that its divisors have lost digits, or squares would overflow.
        """
        if not self._largest() < _LARGEST:
            return None
        y, states = np.empty_like(self.flat), self._laid_out(state)
        blocks = -(-self.length // STEPS)
        starts = np.empty((self.rows, blocks, states.shape[1]) if keep else (0, 0, 0))
        safe = np.ones(self.rows, bool)
        share(lambda a, b: sampled_rows(*self.arguments, y, states, starts, safe, a, b), self.rows, self.threads)
        if not safe.all():
            return None
        return y.reshape(self.u.shape), self._as_state(states), starts

    def run_back(self, starts: Array, grad_y: Array, grad_state: Array) -> tuple[Array, Array, Array, Parameters]:
        """Gradients of u, of dt, of the initial state and of the parameters.

        Args:
            starts: as `run` kept them.
            grad_y: like u; grad_state: (batch, order, H, M).
        """
        grad_u, cotangents = np.empty_like(self.flat), self._laid_out(grad_state)
        of_interval = np.empty(self.flat.shape)
        packs = self.arguments[0]
        grads = np.empty((self.rows, packs.shape[1]))
        flat = np.ascontiguousarray(grad_y, self.u.dtype).reshape(self.flat.shape)
        share(
            lambda a, b: sampled_adjoint_rows(
                *self.arguments, starts, flat, cotangents, grad_u, of_interval, grads, a, b
            ),
            self.rows,
            self.threads,
        )
        of_each = of_interval.reshape(self.u.shape)
        grad_dt = np.einsum("bhk,h->bk", of_each, self.parameters.dt)
        of_steps = np.einsum("bhk,bk->h", of_each, self.dt)
        found = self._unpacked(grads.reshape(self.batch, *packs.shape).sum(0))
        gradients = Parameters(found[LAMBDA], found[DRIVE], found[OUTPUT], self._factors(found), of_steps)
        return grad_u.reshape(self.u.shape), grad_dt, self._as_state(cotangents), gradients

    def _largest(self) -> float:
        """No h (λ + B u) is larger."""
        of_input = np.abs(self.u).max(initial=0.0) * np.abs(self.parameters.B).max(initial=0.0)
        size = np.abs(self.parameters.Lambda).max(initial=0.0) + of_input
        return float(size * self.dt.max(initial=0.0) * self.parameters.dt.max(initial=0.0))

    def _packs(self) -> Array:
        planes = np.zeros((self.channels, FACTORS + 2 * self.rank, self.modes))
        at = {LAMBDA: self.parameters.Lambda, DRIVE: self.parameters.B, OUTPUT: self.parameters.C}
        at |= {FACTORS + 2 * r: P for r, P in enumerate(self.parameters.P)}
        for plane, values in at.items():
            planes[:, plane, : self.n_modes], planes[:, plane + 1, : self.n_modes] = values.real, values.imag
        return planes.reshape(self.channels, -1)

    def _unpacked(self, packs: Array) -> dict[int, Array]:
        planes = packs.reshape(self.channels, -1, self.modes)[..., : self.n_modes]
        return {i: planes[:, i] + 1j * planes[:, i + 1] for i in range(0, planes.shape[1], 2)}

    def _factors(self, found: dict[int, Array]) -> Array:
        factors = [found[FACTORS + 2 * r] for r in range(self.rank)]
        return np.stack(factors) if factors else np.empty_like(self.parameters.P)

    def _laid_out(self, state: Array) -> Array:
        """(batch, order, H, M) complex as (batch · H, order · 2 · modes), real and imaginary planes."""
        planes = np.zeros((self.batch, self.channels, self.order, 2, self.modes))
        for part, values in enumerate((state.real, state.imag)):
            planes[..., part, : self.n_modes] = values.swapaxes(1, 2)
        return planes.reshape(self.rows, self.order * 2 * self.modes)

    def _as_state(self, rows: Array) -> Array:
        planes = rows.reshape(self.batch, self.channels, self.order, 2, self.modes)[..., : self.n_modes]
        return np.ascontiguousarray((planes[..., 0, :] + 1j * planes[..., 1, :]).swapaxes(1, 2))
