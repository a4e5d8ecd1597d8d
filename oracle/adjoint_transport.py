"""Errors that a linear recurrence passes on: through its true transitions, not through their moduli.

e_k = M_k e_{k-1} + ε_k with |ε_k| ≤ own_k, entry by entry (docs/bounds-gradients.md).
"""

from __future__ import annotations

import numpy as np

from .realization import Array

# Steps whose products of transitions are kept; their rounding in float64 is below this share of the bound by moduli.
BLOCK = 32
_ROUNDING = 2.0**-40

# Larger transitions are not multiplied: what remains is the bound by moduli and the one by norms.
LARGEST = 64


class Transport:
    """Bounds on e_k for states (order, batch, H, M), step after step.

    Inside a block of steps |e_k| ≤ Σ_j |M_k ⋯ M_{j+1}| own_j, the bound at the end of the last block among own_j.
    Beside it runs ‖e_k‖₂ ≤ ‖M_k‖₂ ‖e_{k-1}‖₂ + ‖own_k‖₂ of the full state, and each is cut by the other.

    Args:
        shape: of the states.
        coupled: modes act on each other, so that a transition is a matrix on the full state; else one on the orders.
        weight: 2 where one of each conjugate pair is stored.
    """

    def __init__(self, shape: tuple[int, ...], *, coupled: bool, weight: int) -> None:
        self.shape, self.coupled, self.weight = shape, coupled, weight
        self.error, self.own = np.zeros(shape), np.zeros(shape)
        self.norm = np.zeros(shape[:-1])
        size = shape[0] * (weight * shape[-1] if coupled else 1)
        # Scalar recurrences of one order: |Π a| = Π |a|, nothing to gain.
        self._exact = (coupled or shape[0] > 1) and size <= LARGEST
        self._moduli = self.error
        self._identity = self._products = np.zeros((0,))
        self._locals: list[Array] = []
        self._restart()

    def advance(self, transition: Array | None, spread: Array, own: Array, norm: Array) -> None:
        """One step.

        Args:
            transition: M_k, (batch, H, order·N, order·N) on the full state, or (batch, H, M, order, order); None for
                scalar recurrences of one order.
            spread: |M_k| applied to `moduli`, in the shape of the states.
            own: bound on |ε_k|.
            norm: bound on ‖M_k e_{k-1}‖₂, (order, batch, H).
        """
        self._moduli = spread + own
        self.own = own
        self.error = self._moduli
        if self._exact and transition is not None:
            self._products = np.concatenate([transition @ self._products, self._identity])
            self._locals.append(self._rows(own))
            self._join()
        if self.coupled:
            self.norm = norm + np.sqrt(self.weight * (own**2).sum(axis=-1))
            self._cut()
            if not self._exact:
                self._moduli = self.error
        if self._exact and len(self._locals) > BLOCK:
            self._restart()

    def add(self, own: Array) -> None:
        """A further error of the step made last."""
        self._moduli = self._moduli + own
        self.own = self.own + own
        self.error = self.error + own
        if self._exact:
            self._locals[-1] = self._locals[-1] + self._rows(own)
        if self.coupled:
            self.norm = self.norm + np.sqrt(self.weight * (own**2).sum(axis=-1))
            self._cut()

    @property
    def moduli(self) -> Array:
        """The bound through |M| since the block began, from which `spread` is formed."""
        return self._moduli

    def _restart(self) -> None:
        self._moduli = self.error
        if self._exact:
            start = self._rows(self.error)
            size = start.shape[-1]
            self._identity = np.broadcast_to(np.eye(size, dtype=complex), (1, *start.shape, size))
            self._products = self._identity
            self._locals = [start]

    def _join(self) -> None:
        total = (np.abs(self._products) @ np.stack(self._locals)[..., None]).sum(axis=0)[..., 0]
        self.error = np.minimum(self._moduli, self._states(total) * (1 + _ROUNDING) + _ROUNDING * self._moduli)

    def _cut(self) -> None:
        self.error = np.minimum(self.error, self.norm[..., None] / np.sqrt(self.weight))
        self.norm = np.minimum(self.norm, np.sqrt(self.weight * (self.error**2).sum(axis=-1)))

    def _rows(self, states: Array) -> Array:
        """What a transition acts on, from states."""
        if not self.coupled:
            return np.moveaxis(states, 0, -1)
        both = np.concatenate([states] * self.weight, axis=-1)
        rows = np.moveaxis(both, 0, 2)
        return rows.reshape(*rows.shape[:2], self.shape[0] * both.shape[-1])

    def _states(self, rows: Array) -> Array:
        if not self.coupled:
            return np.moveaxis(rows, -1, 0)
        order, batch, channels, modes = self.shape
        return np.moveaxis(rows.reshape(batch, channels, order, self.weight * modes), 2, 0)[..., :modes]
