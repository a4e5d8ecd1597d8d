"""Inputs, systems and states as the kernels see them: rows of inputs, planes of real and imaginary parts."""

from __future__ import annotations

from typing import Any

import torch

from .steps import CHAIN, LINEAR, LIQUID, TRUNCATED

Tensor = torch.Tensor

_KINDS = {"linear": LINEAR, "liquid": LIQUID, "truncated": TRUNCATED, "chain": CHAIN}


class Rows:
    """One call's rows: sequences of inputs, or their pieces.

    Args:
        system: diagonal or dplr, in the precision of u and on its device.
        u: (batch, H, L), real.
        kind: `linear`, `liquid`, `truncated` or `chain`.
        order: 1 for `linear` and `liquid`.
        pieces: into how many pieces of L // pieces steps every sequence is cut, from its beginning; what is left over
            belongs to no row.
    """

    def __init__(self, system: Any, u: Tensor, kind: str, order: int, pieces: int = 1) -> None:
        self.system, self.kind, self.order, self.pieces = system, kind, order, pieces
        self.u = u.detach().contiguous()
        self.shape = tuple(u.shape)
        batch, self.n_channels, self.stride = u.shape
        self.n_modes = system.n_modes
        self.count = batch * self.n_channels * pieces
        self.length = self.stride // pieces
        self.rank = system.rank if system.structure == "dplr" else 0
        self.planes = planes_of(system, u.dtype)

    @property
    def form(self) -> dict[str, Any]:
        """What a kernel is compiled for."""
        return {
            "KIND": _KINDS[self.kind].value,
            "ORDER": self.order,
            "RANK": self.rank,
            "PAIRED": self.system.conjugate_pairs,
        }

    def states_in(self, states: Tensor | None) -> Tensor:
        """(batch, order, H, M), or None for rest, as new planes (2 · order, rows, M)."""
        rows = self.u.new_zeros(self.order, 2, self.count, self.n_modes)
        if states is not None:
            by_order = states.detach().movedim(1, 0).reshape(self.order, self.count, self.n_modes)
            rows[:, 0] = by_order.real
            if by_order.is_complex():
                rows[:, 1] = by_order.imag
        return rows.view(2 * self.order, self.count, self.n_modes)

    def states_out(self, planes: Tensor, *, as_complex: bool | None = None) -> Tensor:
        """The inverse of `states_in`; complex where the system is, or as asked for."""
        batch, n_channels, _ = self.shape
        parts = planes.view(self.order, 2, batch, n_channels * self.pieces, self.n_modes).movedim(0, 2)
        real = parts[0]  # (batch, order, H, M)
        if not (self.system.is_complex if as_complex is None else as_complex):
            return real.contiguous()
        return torch.complex(real.contiguous(), parts[1].contiguous())

    def gradients(self, planes: Tensor) -> dict[str, Tensor]:
        """Gradients by name, in the dtypes of the parameters, from the sums (planes, rows, M) of every row."""
        system = self.system
        parts = planes.view(len(planes), -1, self.n_channels, self.n_modes).sum(1)
        whole = torch.complex(parts[0::2].contiguous(), parts[1::2].contiguous())
        found = dict(zip(_diagonal_names(system), whole[:3], strict=True))
        # The kernels hold weight · C and weight · Q̄; low-rank parts enter with a minus.
        found["C"] = system.weight * found["C"]
        if system.structure == "dplr":
            factors = whole[3:].reshape(self.rank, 2, self.n_channels, self.n_modes)
            found["P_bar"], found["Q_bar"] = -factors[:, 0], -system.weight * factors[:, 1]
        return {name: in_dtype_of(parameter, found[name]) for name, parameter in system.parameters.items()}


def planes_of(system: Any, dtype: torch.dtype) -> Tensor:
    """(6 + 4 · rank, H, M): real and imaginary parts of Λ̄, B̄, weight · C, and for every r of P̄_r, weight · Q̄_r."""
    parameters = system.parameters
    weight = system.weight
    factors = [*(parameters[name].detach() for name in _diagonal_names(system))]
    factors[2] = weight * factors[2]
    if system.structure == "dplr":
        for P, Q in zip(parameters["P_bar"].detach(), parameters["Q_bar"].detach(), strict=True):
            factors += [P, weight * Q]
    planes = [part for f in factors for part in (f.real, f.imag if f.is_complex() else torch.zeros_like(f))]
    return torch.stack(planes).to(dtype).contiguous()


def in_dtype_of(given: Tensor, gradient: Tensor) -> Tensor:
    """The gradient in the dtype of what it belongs to, the real part for something real."""
    if gradient.is_complex() and not given.is_complex():
        gradient = gradient.real
    return gradient.to(given.dtype).contiguous()


def _diagonal_names(system: Any) -> tuple[str, str, str]:
    return ("Lambda_bar" if system.structure == "dplr" else "A_bar", "B_bar", "C")
