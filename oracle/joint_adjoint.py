"""What gradients of the joint recurrence of `kb` over adjacent tuples add to those of `s4` (docs/bounds-gradients.md).

d_k = Σ_p B̄^{∘p} c_p(k) drives x_k = Ā x_{k-1} + d_k; from the cotangents ν_k of d_k come Σ_k ν_k c_p(k), the gradient
of B̄^{∘p}, and Σ_n Re(conj(b̄^p) ν_k), the cotangent of c_p(k).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .adjoint_moduli import GradientProblem, _products
from .correlation import adjacent_products, count
from .joint_recurrence import joint_drive
from .realization import Array
from .rounding import COMPLEX_PRODUCT, RoundingModel


class JointDrive:
    """The drive, with the error of a computed one.

    Attributes:
        terms: c_p, p = 1 … P, (batch, H, L) in longdouble.
        powers: |b̄|^p, p = 1 … P, (H, M).
        products: |c_p|, (batch, H, L).
        errors: how far computed products may be from them.
    """

    def __init__(self, problem: GradientProblem, B: Array, model: RoundingModel) -> None:
        self.problem, self.B, self.model = problem, B, model
        self.order, self.unit, self.tiny = problem.order, model.unit, model.tiny
        u = problem.u.astype(np.longdouble)
        self.terms, self._errors = adjacent_products(u, self.order, [model])
        self.powers = [np.abs(B).astype(float) ** p * (1 + 2.0**-30) for p in range(1, self.order + 1)]
        self.products = [np.abs(term).astype(float) * (1 + 2.0**-30) for term in self.terms]
        self.errors = [error[0] for error in self._errors]

    def at(self, k: int) -> tuple[Array, Array]:
        """d_k and the error of a computed one, (batch, H, M)."""
        drive = joint_drive(self.B, self.terms, self._errors, [self.model], slice(k, k + 1))
        return drive.value[0], drive.error[0, 0]

    def relative(self, p: int) -> float:
        """ρ_p: how far a computed power may be from b̄^p, relative to it."""
        return float(count((p - 1) * COMPLEX_PRODUCT, np.array(self.unit)))

    def of_inputs(self, errors: Sequence[Array], sizes: Sequence[Array]) -> Array:
        """Bound on the error of the gradient of u.

        A term of a cotangent of c_p passes at most 4 P further roundings: a product of p − 2 inputs, at most P − 1
        products and as many additions on the way from order P down, one more product, and P additions.

        Args:
            errors, sizes: of the cotangents of c_1 … c_P, (batch, H, L): a bound, and the sum of the moduli of the
                terms of the computed ones.
        """
        u = np.abs(self.problem.u).astype(float)
        gamma = count(4 * self.order, np.array(self.unit))
        first, *others = (error + gamma * (size + error) for error, size in zip(errors, sizes, strict=True))
        _, pull = _products(u, self.order, 0.0)
        # What an underflow may be multiplied by.
        largest = float(np.maximum(1.0, u.max(initial=0.0))) ** self.order
        return np.asarray(first + pull(others) + 8 * self.order**2 * self.tiny * largest)

    def of_B(self, errors: Sequence[Array], sizes: Sequence[Array]) -> Array:
        """Bound on the error of the gradient of B̄, Σ_p p conj(b̄^{p-1}) times that of b̄^p.

        Args:
            errors, sizes: of the gradients of b̄^p, (H, M): a bound, and the sum of the moduli of their terms.
        """
        total = np.zeros(self.B.shape)
        for p, (error, size) in enumerate(zip(errors, sizes, strict=True), start=1):
            # The power, its exponent, the product, the sum over orders and the rounding of the result.
            omega = count(p * COMPLEX_PRODUCT + 1 + self.order + 1, np.array(self.unit))
            slope = p * (np.ones(self.B.shape) if p == 1 else self.powers[p - 2])
            lost = 4 * p * self.tiny * (1 + size + error)
            total = total + slope * (error * (1 + omega) + omega * size) * (1 + 2.0**-30) + lost
        return total
