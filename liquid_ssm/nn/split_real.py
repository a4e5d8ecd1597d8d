"""One time step of every mode in real arithmetic, with what it needs of a system computed beforehand.

Complex numbers are `Split`, two real tensors.  Equation numbers are those of arXiv 2209.12951.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch

from ..complex_numbers import Number, Split, cat, each_part, in_double, split, stack, times
from ..problem import ModeSpec, commutes


class Held(NamedTuple):
    """A state in the parts of `liquid_ssm.State`; `None` where a mode has no such part.

    Attributes:
        x: linear states, (batch, H, M), with an axis of orders or chains (batch, S, H, M); `mimo` without H.
        sums: (batch, n, H).
        inputs: (batch, H, n), oldest first.
    """

    x: Split
    sums: torch.Tensor | None = None
    inputs: torch.Tensor | None = None


def parts_of(held: Any) -> tuple[torch.Tensor, ...]:
    """The parts of a state as real tensors, complex ones with a last axis of 2; those it does not have left out."""
    given = (part for part in held if part is not None)
    return tuple(torch.stack([part.re, part.im], -1) if isinstance(part, Split) else part for part in given)


class RealArithmetic:
    """A mode on a structure.

    Args:
        spec: the mode.
        structure: `diagonal`, `dplr`, `dense` or `mimo`.
        weight: y = weight · Re(C x).
    """

    complex_parts: ClassVar[tuple[str, ...]] = ("x",)
    state_type: ClassVar[type[Any]] = Held

    def __init__(self, spec: ModeSpec, structure: str, weight: int) -> None:
        self.spec, self.structure, self.weight = spec, structure, weight
        correlated = spec.has_correlations and spec.order > 1
        self.windowed = correlated and spec.window is not None
        whole = correlated and not self.windowed
        self.orders = spec.mode == "truncated" or commutes(structure, spec)
        self.summed = whole and spec.mode == "pb"
        self.driven = whole and spec.mode == "kb" and spec.correlations == "adjacent"
        self.chained = whole and spec.mode == "kb" and spec.correlations == "all" and not self.orders

    def constants(self, parameters: dict[str, Number]) -> dict[str, Number]:
        """What `step` takes: the parameters, and powers and kernels of theirs where the mode has some.

        Args:
            parameters: of the discrete system by their names, already rounded to the dtype of the step.

        Accuracy: powers and kernels are computed in float64 and rounded once.
        """
        found = {name: value if isinstance(value, Split) else split(value) for name, value in parameters.items()}
        found["A_bar"] = found.pop("Lambda_bar", found.get("A_bar"))
        like = found["C"].re
        if self.windowed or self.summed or self.driven or self.chained:
            fine = {name: in_double(value) for name, value in found.items()}
            found |= {
                name: each_part(value, lambda part: part.to(like))
                for name, value in (self._powers(fine) | self._kernels(fine)).items()
            }
        return found

    def step(self, at: dict[str, Number], u: torch.Tensor, held: Held) -> tuple[torch.Tensor, Held]:
        """y_k (batch, H) and the state after it, from u_k (batch, H) and the state before it."""
        spec, x, w = self.spec, held.x, self._drive(at, u)
        # The newest input first, then those before it.
        newest = u[..., None] if held.inputs is None else torch.cat([held.inputs, u[..., None]], -1).flip(-1)
        sums = held.sums
        if spec.mode == "liquid":
            x = self._moved(at, x, w) + w
            y = self._read(at, x)
        elif spec.mode == "s4":
            x = self._moved(at, x) + w
            y = self._read(at, x)
        elif self.orders:
            first = w[:, None]
            x = self._moved(at, x) + (first if spec.order == 1 else cat([first, first * x[:, :-1]], 1))
            y = self._read(at, x.map(lambda part: part.sum(1)))
        elif self.driven or self.chained:
            x = self._moved(at, x) + (self._adjacent(at, u, newest) if self.driven else self._chains(at, u, x))
            last = x if self.driven else stack([x[:, p * (p + 1) // 2 - 1] for p in range(1, spec.order + 1)], 1)
            y = self._read(at, last).sum(1)
        else:
            x = self._moved(at, x) + w[:, None]
            y = self._read(at, x)[:, 0]
        if self.summed and sums is not None:
            sums = self._summed(u, newest, sums)
            terms = sums if spec.correlations == "adjacent" else sums[:, 1:]
            for p in range(2, spec.order + 1):
                y = y + at[f"kernel_{p}"][:, 0] * terms[:, p - 2]
        if self.windowed:
            for p, products in enumerate(self._products(newest, spec.correlations == "adjacent"), start=2):
                y = y + (at[f"kernel_{p}"] * products).sum(-1)
        inputs = None if held.inputs is None else torch.cat([held.inputs[..., 1:], u[..., None]], -1)
        return y, Held(x, sums, inputs)

    def _drive(self, at: dict[str, Number], u: torch.Tensor) -> Number:
        """B̄ u."""
        if self.structure == "mimo":
            return _sum(times(at["B_bar"], u[..., None, :]))
        return times(at["B_bar"], u[..., None])

    def _moved(self, at: dict[str, Number], x: Split, w: Split | None = None) -> Number:
        """Ā x, with w (Ā + diag(w)) x.  No sum is a matrix product, which flags of torch may round to fewer bits."""
        A = at["A_bar"]
        if self.structure == "dense":
            y = _sum(A * x[..., None, :])
            return y if w is None else y + w * x
        y = (A if w is None else A + w) * x
        if self.structure == "dplr":
            for r in range(at["P_bar"].shape[0]):
                P, Q = at["P_bar"][r], at["Q_bar"][r]
                y = y - times(P, self.weight * (Q.re * x.re + Q.im * x.im).sum(-1, keepdim=True))
        return y

    def _read(self, at: dict[str, Number], x: Split) -> torch.Tensor:
        """weight · Re(C x)."""
        C = at["C"]
        x = x[..., None, :] if self.structure == "mimo" else x
        y: torch.Tensor = self.weight * (C.re * x.re - C.im * x.im).sum(-1)
        return y

    def _chains(self, at: dict[str, Number], u: torch.Tensor, x: Split) -> Number:
        """Chain p is driven by B̄^{∘p} u, its other states by u times the one before: Eq. 14 over all index tuples."""
        amount = u[:, None, :, None]
        first, later = times(at["B_powers"], amount), times(x, amount)
        parts = []
        for p in range(1, self.spec.order + 1):
            begin = p * (p - 1) // 2
            parts.append(first[:, p - 1 : p])
            if p > 1:
                parts.append(later[:, begin : begin + p - 1])
        return cat(parts, 1)

    def _adjacent(self, at: dict[str, Number], u: torch.Tensor, newest: torch.Tensor) -> Number:
        """B̄^{∘p} u_k u_{k-1} … u_{k-p+1}: Eq. 14 over adjacent index tuples."""
        products = [u, *(product[..., 0] for product in self._products(newest, True))]
        return times(at["B_powers"], torch.stack(products, 1)[..., None])

    def _summed(self, u: torch.Tensor, newest: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
        """The elementary symmetric polynomials of all inputs (Appendix E), or sums of adjacent products."""
        if self.spec.correlations == "adjacent":
            return sums + torch.stack([product[..., 0] for product in self._products(newest, True)], 1)
        lower = torch.cat([torch.ones_like(sums[:, :1]), sums[:, :-1]], 1)
        return sums + u[:, None] * lower

    def _products(self, newest: torch.Tensor, adjacent: bool) -> list[torch.Tensor]:
        """For p = 2 … P, entry m: what C Ā^m B̄^{∘p} is multiplied with (Eq. 14), (batch, H, n − p + 1).

        That power of Ā belongs to the tuples whose oldest input is m + p − 1 steps old: the product of that input and
        the p − 1 adjacent ones, or the elementary symmetric polynomial e_{p−1} of all newer ones.

        Args:
            newest: the n inputs of the window, the newest first.

        Accuracy: p − 1 products and at most n − 1 additions behind each term.
        """
        products, found = newest, []
        for p in range(2, self.spec.order + 1):
            newer = products if adjacent else products.cumsum(-1)
            products = newest[..., p - 1 :] * newer[..., :-1]
            found.append(products)
        return found

    def _powers(self, fine: dict[str, Number]) -> dict[str, Number]:
        if not (self.driven or self.chained):
            return {}
        return {"B_powers": stack([self._power(fine, p) for p in range(1, self.spec.order + 1)], 0)}

    def _kernels(self, fine: dict[str, Number]) -> dict[str, Number]:
        """C Ā^m B̄^{∘p}, m below window − p + 1, (H, window − p + 1); for `pb` C B̄^{∘p}, (H, 1)."""
        if not (self.windowed or self.summed):
            return {}
        kernels = {}
        for p in range(2, self.spec.order + 1):
            steps = 1 if self.spec.mode == "pb" else (self.spec.window or 0) - p + 1
            response, entries = self._power(fine, p), []
            for m in range(steps):
                response = self._moved(fine, response) if m else response
                entries.append(self._read(fine, response))
            kernels[f"kernel_{p}"] = torch.stack(entries, -1)
        return kernels

    def _power(self, fine: dict[str, Number], p: int) -> Number:
        power = fine["B_bar"]
        for _ in range(p - 1):
            power = power * fine["B_bar"]
        return power


def _sum(z: Split) -> Split:
    return z.map(lambda part: part.sum(-1))
