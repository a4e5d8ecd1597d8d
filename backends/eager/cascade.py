"""Cascades of linear recurrences: the orders of Eq. 12 and the index sums of Eq. 13 and 14.

The order is the first axis of a state: (order, ..., H, M), for a shared state (order, ..., M).
"""

from __future__ import annotations

from typing import final

import torch

from liquid_ssm.complex_numbers import Number, cat, conj, each_part, times

from .model import Model
from .recurrence import Recurrence, Step


@final
class Truncated(Recurrence):
    """x¹_k = Ā x¹_{k-1} + w_k, xᵖ_k = Ā xᵖ_{k-1} + w_k∘xᵖ⁻¹_{k-1}, y = weight · Re(C (x¹ + … + xᴾ))."""

    def __init__(self, model: Model, *, order: int) -> None:
        super().__init__(model)
        self.order = order

    def state_shape(self, u_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.order, *self.drive_shape(u_shape))

    def step(self, x: Number, at: Step) -> Number:
        return self.transition.apply(x, at.diagonal) + _behind(at.drive, at.drive * x[:-1])

    def adjoint(self, cotangent: Number, at: Step) -> Number:
        return _raised(self.transition.adjoint(cotangent, at.diagonal), at.drive * cotangent[1:])

    def input_cotangents(self, before: Number, inputs: torch.Tensor, cotangent: Number) -> tuple[Number, None]:
        later = cotangent[:, 1:] * conj(before[:, :-1])
        return each_part(cat([cotangent[:, :1], later], 1), lambda part: part.sum(1)), None

    def read(self, x: Number) -> torch.Tensor:
        return self.ports.read(self._total(x))

    def read_adjoint(self, cotangent: torch.Tensor) -> Number:
        return self.ports.read_adjoint(cotangent)[:, None]

    def read_gradient(self, x: Number, cotangent: torch.Tensor) -> Number:
        return self.ports.read_gradient(self._total(x), cotangent)

    def _total(self, x: Number) -> Number:
        total = x[:, 0]
        for p in range(1, self.order):
            total = total + x[:, p]
        return total


@final
class Chain(Recurrence):
    """v¹_k = Ā v¹_{k-1} + w_k, vʲ_k = Ā vʲ_{k-1} + u_k vʲ⁻¹_{k-1}, y = weight · Re(C vᵖ), p = `order`.

    With B̄^{∘p} for B̄ this is the order-p sum of Eq. 14 over all index tuples.
    """

    def __init__(self, model: Model, *, order: int) -> None:
        super().__init__(model)
        self.order = order

    def state_shape(self, u_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.order, *self.drive_shape(u_shape))

    def step(self, x: Number, at: Step) -> Number:
        return self.transition.apply(x, at.diagonal) + _behind(at.drive, times(x[:-1], at.inputs[..., None]))

    def adjoint(self, cotangent: Number, at: Step) -> Number:
        return _raised(self.transition.adjoint(cotangent, at.diagonal), times(cotangent[1:], at.inputs[..., None]))

    def input_cotangents(self, before: Number, inputs: torch.Tensor, cotangent: Number) -> tuple[Number, torch.Tensor]:
        products = (conj(before[:, :-1]) * cotangent[:, 1:]).real
        return cotangent[:, 0], products.sum(-1).sum(1)

    def read(self, x: Number) -> torch.Tensor:
        return self.ports.read(x[:, -1])

    def read_adjoint(self, cotangent: torch.Tensor) -> Number:
        last = self.ports.read_adjoint(cotangent)[:, None]
        none = each_part(last, torch.zeros_like)
        return cat([none] * (self.order - 1) + [last], 1)

    def read_gradient(self, x: Number, cotangent: torch.Tensor) -> Number:
        return self.ports.read_gradient(x[:, -1], cotangent)


def _behind(first: Number, later: Number) -> Number:
    """What is added to each order: `first` to order 1, `later` to the ones after it."""
    return cat([first[None], later], 0) if later.shape[0] else first[None]


def _raised(cotangent: Number, later: Number) -> Number:
    """The cotangent of all orders with that from the next order added; the last order has none."""
    if not later.shape[0]:
        return cotangent
    return cat([cotangent[:-1] + later, cotangent[-1:]], 0)
