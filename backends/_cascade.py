"""Cascades of linear recurrences: the orders of Eq. 12 and the index sums of Eq. 13 and 14.

The order is the first axis of a state: (order, ..., H, M), for a shared state (order, ..., M).
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
import numpy.typing as npt

from liquid_ssm.summation import pairwise_sum
from liquid_ssm.systems import System

from ._recurrence import Recurrence

Array = npt.NDArray[Any]


@final
class Truncated(Recurrence):
    """x¹_k = Ā x¹_{k-1} + w_k, xᵖ_k = Ā xᵖ_{k-1} + w_k∘xᵖ⁻¹_{k-1}, y = weight · Re(C (x¹ + … + xᴾ))."""

    def __init__(self, system: System, *, order: int) -> None:
        super().__init__(system)
        self.order = order

    def state_shape(self, u_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.order, *self.drive_shape(u_shape))

    def step(self, x: Array, u: Array, w: Array) -> Array:
        new = self.transition.apply(x)
        new[0] += w
        new[1:] += w * x[:-1]
        return new

    def adjoint(self, cotangent: Array, u: Array, w: Array) -> Array:
        before = self.transition.adjoint(cotangent)
        before[:-1] += np.conj(w) * cotangent[1:]
        return before

    def input_cotangents(self, before: Array, u: Array, cotangent: Array) -> tuple[Array, Array]:
        products = cotangent.copy()
        products[:, 1:] *= np.conj(before[:, :-1])
        return pairwise_sum(products, axis=1), np.zeros_like(u)

    def read(self, x: Array) -> Array:
        return self.ports.read(self._total(x))

    def read_adjoint(self, cotangent: Array) -> Array:
        return self.ports.read_adjoint(cotangent)[:, np.newaxis]

    def read_gradient(self, x: Array, cotangent: Array) -> Array:
        return self.ports.read_gradient(self._total(x), cotangent)

    def _total(self, x: Array) -> Array:
        total = x[:, 0]
        for p in range(1, self.order):
            total = total + x[:, p]
        return total


@final
class Chain(Recurrence):
    """v¹_k = Ā v¹_{k-1} + w_k, vʲ_k = Ā vʲ_{k-1} + u_k vʲ⁻¹_{k-1}, y = weight · Re(C vᵖ), p = `order`.

    With B̄^{∘p} for B̄ this is the order-p sum of Eq. 14 over all index tuples.
    """

    def __init__(self, system: System, *, order: int) -> None:
        super().__init__(system)
        self.order = order

    def state_shape(self, u_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.order, *self.drive_shape(u_shape))

    def step(self, x: Array, u: Array, w: Array) -> Array:
        new = self.transition.apply(x)
        new[0] += w
        new[1:] += u[..., np.newaxis] * x[:-1]
        return new

    def adjoint(self, cotangent: Array, u: Array, w: Array) -> Array:
        before = self.transition.adjoint(cotangent)
        before[:-1] += u[..., np.newaxis] * cotangent[1:]
        return before

    def input_cotangents(self, before: Array, u: Array, cotangent: Array) -> tuple[Array, Array]:
        products = (np.conj(before[:, :-1]) * cotangent[:, 1:]).real
        return cotangent[:, 0], pairwise_sum(pairwise_sum(products), axis=1)

    def read(self, x: Array) -> Array:
        return self.ports.read(x[:, -1])

    def read_adjoint(self, cotangent: Array) -> Array:
        last = self.ports.read_adjoint(cotangent)
        all_orders = np.zeros((len(last), self.order, *last.shape[1:]), last.dtype)
        all_orders[:, -1] = last
        return all_orders

    def read_gradient(self, x: Array, cotangent: Array) -> Array:
        return self.ports.read_gradient(x[:, -1], cotangent)
