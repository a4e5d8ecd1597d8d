"""Eq. 11, the exact liquid recurrence, and Eq. 2, the same without the liquid term."""

from __future__ import annotations

from typing import Any, final

import numpy as np
import numpy.typing as npt

from liquid_ssm.systems import System

from ._recurrence import Recurrence

Array = npt.NDArray[Any]


@final
class Scan(Recurrence):
    """x_k = (Ā + diag(w_k)) x_{k-1} + w_k if `liquid`, else x_k = Ā x_{k-1} + w_k."""

    def __init__(self, system: System, *, liquid: bool) -> None:
        super().__init__(system)
        self.liquid = liquid

    def state_shape(self, u_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.drive_shape(u_shape)

    def step(self, x: Array, u: Array, w: Array) -> Array:
        return self.transition.apply(x, w if self.liquid else None) + w

    def adjoint(self, cotangent: Array, u: Array, w: Array) -> Array:
        return self.transition.adjoint(cotangent, w if self.liquid else None)

    def input_cotangents(self, before: Array, u: Array, cotangent: Array) -> tuple[Array, Array]:
        grad_w = cotangent + np.conj(before) * cotangent if self.liquid else cotangent
        return grad_w, np.zeros_like(u)

    def read(self, x: Array) -> Array:
        return self.ports.read(x)

    def read_adjoint(self, cotangent: Array) -> Array:
        return self.ports.read_adjoint(cotangent)

    def read_gradient(self, x: Array, cotangent: Array) -> Array:
        return self.ports.read_gradient(x, cotangent)
