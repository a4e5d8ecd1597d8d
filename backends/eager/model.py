"""What a recurrence needs of a system: its parameters as numbers, whole or with real and imaginary parts apart."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import torch

from liquid_ssm.complex_numbers import Number, Split, imag

from .arguments import complex_of


class Model(NamedTuple):
    """A system in which parameters may be `Split`, which a system itself may not hold.

    With `parts` every parameter of a complex system is `Split`, the real ones too.

    Attributes:
        structure: `diagonal`, `dplr`, `dense` or `mimo`.
        parameters: by the system's field names.
        conjugate_pairs: as in the system.
        is_complex: whether a parameter, and with it the state, is complex.
        parts: complex numbers are kept as `Split`.
    """

    structure: str
    parameters: dict[str, Number]
    conjugate_pairs: bool
    is_complex: bool
    parts: bool

    @classmethod
    def having(cls, system: Any, parameters: dict[str, torch.Tensor], parts: bool) -> Self:
        """The model of the system with other tensors in place of its own."""
        # All of them where one is: a compiler does not see the products of tensors with `Split` from the left.
        apart = parts and system.is_complex
        numbers = {name: as_number(tensor, apart) for name, tensor in parameters.items()}
        return cls(system.structure, numbers, system.conjugate_pairs, system.is_complex, parts)

    @property
    def weight(self) -> int:
        return 2 if self.conjugate_pairs else 1

    @property
    def real(self) -> torch.Tensor:
        """A real tensor with the dtype and the device of the parameters."""
        C: torch.Tensor = self.parameters["C"].real
        return C

    def zeros(self, shape: tuple[int, ...]) -> Number:
        """A state at rest."""
        real = self.real
        if not self.is_complex:
            return real.new_zeros(shape)
        if self.parts:
            return Split(real.new_zeros(shape), real.new_zeros(shape))
        return torch.zeros(shape, dtype=complex_of(real.dtype), device=real.device)


def as_number(tensor: torch.Tensor, parts: bool) -> Number:
    """A tensor as it is, or with `parts` as `Split`, each part contiguous."""
    if not parts:
        return tensor
    return Split(tensor.real.contiguous(), imag(tensor).contiguous())
