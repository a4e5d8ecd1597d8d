"""How the input enters a state and how the output is read from it, with adjoints and gradients.

Per channel, state (..., H, M): w = B̄ u, y = weight · Re Σ_n C_n x_n.
Shared state (..., M) of a `mimo` system: w = B̄ u and y = weight · Re(C x) over all channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from liquid_ssm.summation import pairwise_sum, sum_leading
from liquid_ssm.systems import MIMOSystem, System

Array = npt.NDArray[Any]


class Ports:
    """Input and output of one system; u and y are (..., H)."""

    def __init__(self, system: System) -> None:
        self.B_bar, self.C, self.weight = system.B_bar, system.C, system.weight
        self.shared = isinstance(system, MIMOSystem)
        # Elements of the largest temporary per element of the state.
        self.spread = system.n_channels if self.shared else 1

    def drive(self, u: Array) -> Array:
        """w = B̄ u, of the state's shape."""
        if self.shared:
            return pairwise_sum(self.B_bar * u[..., np.newaxis, :])
        return np.asarray(self.B_bar * u[..., np.newaxis])

    def drive_adjoint(self, cotangent: Array) -> Array:
        """Cotangent of u, real, from that of w."""
        if self.shared:
            return pairwise_sum((np.conj(self.B_bar) * cotangent[..., np.newaxis]).real, axis=-2)
        return pairwise_sum((np.conj(self.B_bar) * cotangent).real)

    def drive_gradient(self, u: Array, cotangent: Array) -> Array:
        """Gradient of B̄, summed over all leading axes."""
        if self.shared:
            return sum_leading(cotangent[..., np.newaxis] * u[..., np.newaxis, :], 2)
        return sum_leading(cotangent * u[..., np.newaxis], 2)

    def read(self, x: Array) -> Array:
        """y = weight · Re(C x) in real arithmetic, (..., H)."""
        x = x[..., np.newaxis, :] if self.shared else x
        terms = self.C.real * x.real
        if np.iscomplexobj(self.C):
            terms = terms - self.C.imag * x.imag
        return np.asarray(self.weight * pairwise_sum(terms))

    def read_adjoint(self, cotangent: Array) -> Array:
        """Cotangent of x from that of y."""
        products = (self.weight * cotangent)[..., np.newaxis] * np.conj(self.C)
        return pairwise_sum(products, axis=-2) if self.shared else products

    def read_gradient(self, x: Array, cotangent: Array) -> Array:
        """Gradient of C, summed over all leading axes."""
        x = x[..., np.newaxis, :] if self.shared else x
        return sum_leading((self.weight * cotangent)[..., np.newaxis] * np.conj(x), 2)
