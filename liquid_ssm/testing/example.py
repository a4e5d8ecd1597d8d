"""One concrete problem that a property is tried on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..problem import ModeSpec
from ..systems import System

Array = npt.NDArray[Any]

_SHOWN = 12  # entries of an array that are printed before it is abbreviated


@dataclass(frozen=True, eq=False)
class Example:
    """A system, an input, a mode, and what else a property may pick from.

    Attributes:
        system: discrete, in the dtype of u.
        u: inputs (batch, H, L).
        spec: mode with its options.
        state: x_{-1}, (batch, H, M), for `mimo` (batch, M); None is rest.
        choice: a number >= 0 from which properties derive their own picks (a step, a cut, a row).
    """

    system: System
    u: Array
    spec: ModeSpec
    state: Array | None = None
    choice: int = 0

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of `apply` that say which mode."""
        spec = self.spec
        return {
            "mode": spec.mode,
            "order": spec.order,
            "correlations": spec.correlations,
            "window": spec.window,
        }

    @property
    def length(self) -> int:
        return int(self.u.shape[-1])

    def having(self, **changes: Any) -> Self:
        """The same example with some attributes replaced."""
        return replace(self, **changes)

    def __repr__(self) -> str:
        batch, channels, length = self.u.shape
        spec, system = self.spec, self.system
        lines = [
            f"mode {spec.label}, {system.structure}, {self.u.dtype}, conjugate_pairs={system.conjugate_pairs}, "
            f"batch {batch}, H {channels}, M {system.n_modes}, L {length}"
        ]
        arrays = {**system.parameters, "u": self.u}
        if self.state is not None:
            arrays["state"] = self.state
        lines += [f"  {name} = {_shown(array)}" for name, array in arrays.items()]
        return "\n".join([*lines, f"  choice = {self.choice}"])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """How Hypothesis prints it."""
        printer.text(repr(self))


def _shown(array: Array) -> str:
    text = np.array2string(array, separator=", ", threshold=_SHOWN, floatmode="unique", max_line_width=10**6)
    return " ".join(text.split())
