"""Eq. 11, the exact liquid recurrence, and Eq. 2, the same without the liquid term."""

from __future__ import annotations

from typing import final

import torch

from liquid_ssm.complex_numbers import Number, conj

from .model import Model
from .recurrence import Recurrence, Step


@final
class Scan(Recurrence):
    """x_k = (Ā + diag(w_k)) x_{k-1} + w_k if `liquid`, else x_k = Ā x_{k-1} + w_k."""

    def __init__(self, model: Model, *, liquid: bool) -> None:
        super().__init__(model)
        self.liquid = liquid

    def state_shape(self, u_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.drive_shape(u_shape)

    def step(self, x: Number, at: Step) -> Number:
        return self.transition.apply(x, at.diagonal) + at.drive

    def adjoint(self, cotangent: Number, at: Step) -> Number:
        return self.transition.adjoint(cotangent, at.diagonal)

    def input_cotangents(self, before: Number, inputs: torch.Tensor, cotangent: Number) -> tuple[Number, None]:
        return (cotangent + conj(before) * cotangent if self.liquid else cotangent), None

    def read(self, x: Number) -> torch.Tensor:
        return self.ports.read(x)

    def read_adjoint(self, cotangent: torch.Tensor) -> Number:
        return self.ports.read_adjoint(cotangent)

    def read_gradient(self, x: Number, cotangent: torch.Tensor) -> Number:
        return self.ports.read_gradient(x, cotangent)
