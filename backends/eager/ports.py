"""How the input enters a state and how the output is read from it, with adjoints and gradients.

Per channel, state (..., H, M): w = B̄ u, y = weight · Re Σ_n C_n x_n.
Shared state (..., M) of a `mimo` system: w = B̄ u and y = weight · Re(C x) over all channels.
"""

from __future__ import annotations

import torch

from liquid_ssm.complex_numbers import Number, conj, each_part, is_complex, times

from .model import Model
from .transition import sum_leading


class Ports:
    """Input and output of one system; u and y are (..., H)."""

    def __init__(self, model: Model) -> None:
        self.B_bar, self.C, self.weight = model.parameters["B_bar"], model.parameters["C"], model.weight
        self.B_conj, self.C_conj = conj(self.B_bar), conj(self.C)
        self.shared = model.structure == "mimo"
        # Elements of the largest temporary per element of the state.
        self.spread = int(self.C.shape[0]) if self.shared else 1

    def drive(self, u: torch.Tensor) -> Number:
        """w = B̄ u, of the state's shape."""
        if self.shared:
            return each_part(times(self.B_bar, u[..., None, :]), lambda part: part.sum(-1))
        return times(self.B_bar, u[..., None])

    def drive_adjoint(self, cotangent: Number) -> torch.Tensor:
        """Cotangent of u, real, from that of w."""
        if self.shared:
            across: torch.Tensor = (self.B_conj * cotangent[..., None]).real.sum(-2)
            return across
        u: torch.Tensor = (self.B_conj * cotangent).real.sum(-1)
        return u

    def drive_gradient(self, u: torch.Tensor, cotangent: Number) -> Number:
        """Gradient of B̄, summed over all leading axes."""
        if self.shared:
            return sum_leading(times(cotangent[..., None], u[..., None, :]), 2)
        return sum_leading(times(cotangent, u[..., None]), 2)

    def read(self, x: Number) -> torch.Tensor:
        """y = weight · Re(C x) in real arithmetic, (..., H)."""
        x = x[..., None, :] if self.shared else x
        terms = self.C.real * x.real
        if is_complex(self.C):
            terms = terms - self.C.imag * x.imag
        return self.weight * terms.sum(-1)  # type: ignore[no-any-return]

    def read_adjoint(self, cotangent: torch.Tensor) -> Number:
        """Cotangent of x from that of y."""
        products = times(self.C_conj, (self.weight * cotangent)[..., None])
        return each_part(products, lambda part: part.sum(-2)) if self.shared else products

    def read_gradient(self, x: Number, cotangent: torch.Tensor) -> Number:
        """Gradient of C, summed over all leading axes."""
        x = x[..., None, :] if self.shared else x
        return sum_leading(times(conj(x), (self.weight * cotangent)[..., None]), 2)
