"""One step Ā x of the state, its adjoint and its parameter gradients, for each structure of Ā.

A state is (..., H, M), for a shared state (..., M); cotangents have its shape.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, final

import numpy as np
import numpy.typing as npt

from liquid_ssm.summation import pairwise_sum, sum_leading
from liquid_ssm.systems import DenseSystem, DPLRSystem, System

Array = npt.NDArray[Any]


class Transition(ABC):
    """Ā of one system.

    The adjoint is that of the inner product Re Σ conj(cotangent)·x, so that a complex gradient is
    dL/dRe + i·dL/dIm.
    """

    # Elements of the largest temporary per element of the state.
    spread: int = 1

    @abstractmethod
    def apply(self, x: Array, w: Array | None = None) -> Array:
        """(Ā + diag(w)) x; without w, Ā x."""

    @abstractmethod
    def adjoint(self, cotangent: Array, w: Array | None = None) -> Array:
        """(Ā + diag(w))* cotangent."""

    @abstractmethod
    def gradients(self, x: Array, cotangent: Array) -> dict[str, Array]:
        """Parameter gradients of Ā x by field name, summed over all leading axes."""


@final
class Diagonal(Transition):
    """Ā∘x; with w the transition Ā + w is formed first, as Eq. 11 is written."""

    def __init__(self, A_bar: Array) -> None:
        self.A_bar = A_bar

    def apply(self, x: Array, w: Array | None = None) -> Array:
        return self._with(w) * x

    def adjoint(self, cotangent: Array, w: Array | None = None) -> Array:
        return np.conj(self._with(w)) * cotangent

    def gradients(self, x: Array, cotangent: Array) -> dict[str, Array]:
        return {"A_bar": sum_leading(np.conj(x) * cotangent, self.A_bar.ndim)}

    def _with(self, w: Array | None) -> Array:
        return self.A_bar if w is None else self.A_bar + w


@final
class DiagonalPlusLowRank(Transition):
    """Λ̄∘x − Σ_r P̄_r s_r with s_r = 2 Re(Q̄_r* x), or Q̄_r* x where all modes are stored."""

    def __init__(self, system: DPLRSystem) -> None:
        self.diagonal = Diagonal(system.Lambda_bar)
        self.P_bar, self.Q_bar = system.P_bar, system.Q_bar
        self.conjugate_pairs = system.conjugate_pairs

    def apply(self, x: Array, w: Array | None = None) -> Array:
        y = self.diagonal.apply(x, w)
        if len(self.P_bar) == 0:
            return y
        low_rank = self.P_bar[0] * self._overlap(self.Q_bar[0], x)
        for P, Q in zip(self.P_bar[1:], self.Q_bar[1:], strict=True):
            low_rank = low_rank + P * self._overlap(Q, x)
        return np.asarray(y - low_rank)

    def adjoint(self, cotangent: Array, w: Array | None = None) -> Array:
        out = self.diagonal.adjoint(cotangent, w)
        for P, Q in zip(self.P_bar, self.Q_bar, strict=True):
            out = out - Q * self._overlap(P, cotangent)
        return out

    def gradients(self, x: Array, cotangent: Array) -> dict[str, Array]:
        grad_P, grad_Q = np.zeros_like(self.P_bar, x.dtype), np.zeros_like(self.Q_bar, x.dtype)
        for r, (P, Q) in enumerate(zip(self.P_bar, self.Q_bar, strict=True)):
            grad_P[r] = -sum_leading(np.conj(self._overlap(Q, x)) * cotangent, 2)
            grad_Q[r] = -sum_leading(np.conj(self._overlap(P, cotangent)) * x, 2)
        return {
            "Lambda_bar": self.diagonal.gradients(x, cotangent)["A_bar"],
            "P_bar": grad_P,
            "Q_bar": grad_Q,
        }

    def _overlap(self, factor: Array, x: Array) -> Array:
        """2 Re(factor* x) or factor* x, with one axis of length 1 in place of the modes."""
        s = pairwise_sum(np.conj(factor) * x)[..., np.newaxis]
        return 2 * s.real if self.conjugate_pairs else s


@final
class Dense(Transition):
    """Σ_m Ā_nm x_m by products and a balanced sum; with w, w∘x is added to it."""

    def __init__(self, A_bar: Array) -> None:
        self.A_bar = A_bar
        self.spread = A_bar.shape[-1]

    def apply(self, x: Array, w: Array | None = None) -> Array:
        y = pairwise_sum(self.A_bar * x[..., np.newaxis, :])
        return y if w is None else y + w * x

    def adjoint(self, cotangent: Array, w: Array | None = None) -> Array:
        y = pairwise_sum(np.conj(self.A_bar) * cotangent[..., np.newaxis], axis=-2)
        return y if w is None else y + np.conj(w) * cotangent

    def gradients(self, x: Array, cotangent: Array) -> dict[str, Array]:
        products = cotangent[..., np.newaxis] * np.conj(x)[..., np.newaxis, :]
        return {"A_bar": sum_leading(products, self.A_bar.ndim)}


def transition_of(system: System) -> Transition:
    """The transition of a system: `diagonal` and `mimo` are both elementwise."""
    if isinstance(system, DPLRSystem):
        return DiagonalPlusLowRank(system)
    if isinstance(system, DenseSystem):
        return Dense(system.A_bar)
    return Diagonal(system.A_bar)
