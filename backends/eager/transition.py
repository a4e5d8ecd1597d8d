"""One step Ā x of the state, its adjoint and its parameter gradients, for each structure of Ā.

A state is (..., H, M), for a shared state (..., M); cotangents have its shape.  Products and sums are in the order of
the NumPy backend's; none is a matrix product, which flags of torch may round to fewer bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

from liquid_ssm.complex_numbers import Number, conj, each_part, stack, times

from .model import Model


class Transition(ABC):
    """Ā of one system, to whose diagonal a drive may be added.

    The adjoint is that of the inner product Re Σ conj(cotangent)·x, so that a complex gradient is
    dL/dRe + i·dL/dIm.
    """

    # Elements of the largest temporary per element of the state.
    spread: int = 1

    @abstractmethod
    def diagonal(self, w: Number | None = None) -> Number | None:
        """What `apply` takes for the transition Ā + diag(w); without w for Ā."""

    @abstractmethod
    def apply(self, x: Number, diagonal: Number | None) -> Number:
        """(Ā + diag(w)) x."""

    @abstractmethod
    def adjoint(self, cotangent: Number, diagonal: Number | None) -> Number:
        """(Ā + diag(w))* cotangent, from the conjugate of the diagonal."""

    @abstractmethod
    def gradients(self, x: Number, cotangent: Number) -> dict[str, Number]:
        """Parameter gradients of Ā x by field name, summed over all leading axes."""


@final
class Diagonal(Transition):
    """Ā∘x; with w the transition Ā + w is formed first, as Eq. 11 is written."""

    def __init__(self, A_bar: Number) -> None:
        self.A_bar = A_bar

    def diagonal(self, w: Number | None = None) -> Number:
        return self.A_bar if w is None else self.A_bar + w

    def apply(self, x: Number, diagonal: Number | None) -> Number:
        return diagonal * x

    def adjoint(self, cotangent: Number, diagonal: Number | None) -> Number:
        return diagonal * cotangent

    def gradients(self, x: Number, cotangent: Number) -> dict[str, Number]:
        return {"A_bar": sum_leading(conj(x) * cotangent, len(self.A_bar.shape))}


@final
class DiagonalPlusLowRank(Transition):
    """Λ̄∘x − Σ_r P̄_r s_r with s_r = 2 Re(Q̄_r* x), or Q̄_r* x where all modes are stored."""

    def __init__(self, model: Model) -> None:
        self.elementwise = Diagonal(model.parameters["Lambda_bar"])
        P_bar, Q_bar = model.parameters["P_bar"], model.parameters["Q_bar"]
        self.P_bar = [P_bar[r] for r in range(P_bar.shape[0])]
        self.Q_bar = [Q_bar[r] for r in range(Q_bar.shape[0])]
        self.P_conj, self.Q_conj = [conj(P) for P in self.P_bar], [conj(Q) for Q in self.Q_bar]
        self.none_of_rank = P_bar
        self.conjugate_pairs = model.conjugate_pairs

    def diagonal(self, w: Number | None = None) -> Number:
        return self.elementwise.diagonal(w)

    def apply(self, x: Number, diagonal: Number | None) -> Number:
        y = diagonal * x
        if not self.P_bar:
            return y
        low_rank = times(self.P_bar[0], self._overlap(self.Q_conj[0], x))
        for P, Q in zip(self.P_bar[1:], self.Q_conj[1:], strict=True):
            low_rank = low_rank + times(P, self._overlap(Q, x))
        return y - low_rank

    def adjoint(self, cotangent: Number, diagonal: Number | None) -> Number:
        out = diagonal * cotangent
        for P, Q in zip(self.P_conj, self.Q_bar, strict=True):
            out = out - times(Q, self._overlap(P, cotangent))
        return out

    def gradients(self, x: Number, cotangent: Number) -> dict[str, Number]:
        grad_P, grad_Q = [], []
        for P, Q in zip(self.P_conj, self.Q_conj, strict=True):
            grad_P.append(-sum_leading(times(cotangent, conj(self._overlap(Q, x))), 2))
            grad_Q.append(-sum_leading(times(x, conj(self._overlap(P, cotangent))), 2))
        return {
            "Lambda_bar": self.elementwise.gradients(x, cotangent)["A_bar"],
            "P_bar": stack(grad_P, 0) if grad_P else self.none_of_rank,
            "Q_bar": stack(grad_Q, 0) if grad_Q else self.none_of_rank,
        }

    def _overlap(self, conjugated: Number, x: Number) -> Number:
        """2 Re(factor* x) or factor* x, with one axis of length 1 in place of the modes."""
        s = each_part(conjugated * x, lambda part: part.sum(-1, keepdim=True))
        return 2 * s.real if self.conjugate_pairs else s


@final
class Dense(Transition):
    """Σ_m Ā_nm x_m by products and a sum; with w, w∘x is added to it."""

    def __init__(self, A_bar: Number) -> None:
        self.A_bar, self.A_conj = A_bar, conj(A_bar)
        self.spread = int(A_bar.shape[-1])

    def diagonal(self, w: Number | None = None) -> Number | None:
        return w

    def apply(self, x: Number, diagonal: Number | None) -> Number:
        y = each_part(self.A_bar * x[..., None, :], lambda part: part.sum(-1))
        return y if diagonal is None else y + diagonal * x

    def adjoint(self, cotangent: Number, diagonal: Number | None) -> Number:
        y = each_part(self.A_conj * cotangent[..., None], lambda part: part.sum(-2))
        return y if diagonal is None else y + diagonal * cotangent

    def gradients(self, x: Number, cotangent: Number) -> dict[str, Number]:
        products = cotangent[..., None] * conj(x)[..., None, :]
        return {"A_bar": sum_leading(products, 3)}


def transition_of(model: Model) -> Transition:
    """The transition of a system: `diagonal` and `mimo` are both elementwise."""
    if model.structure == "dplr":
        return DiagonalPlusLowRank(model)
    if model.structure == "dense":
        return Dense(model.parameters["A_bar"])
    return Diagonal(model.parameters["A_bar"])


def sum_leading(terms: Number, ndim: int) -> Number:
    """Σ over all but the last `ndim` axes."""
    axes = tuple(range(len(terms.shape) - ndim))
    # torch takes no axes for all of them
    return each_part(terms, lambda part: part.sum(axes)) if axes else terms
