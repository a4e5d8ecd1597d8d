"""What a property is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ...backend import Backend
from ...problem import ModeSpec, Problem
from ..example import Example
from ..strategies import DISCRETE_STRUCTURES, FORMS
from ..subject import Subject


@dataclass(frozen=True)
class Property:
    """One statement about backends and how it is tried.

    Attributes:
        name: short, for reports and options.
        statement: what holds, one sentence.
        check: raises `PropertyViolation` where it does not hold for an example.
        forms, structures: where the statement is meant.
        gradient, state: what a backend must offer besides the mode.
        modes: other modes that the check calls.
        primitive: a primitive that the check calls.
        options: keyword arguments of the strategy `examples`.
        fixed: examples that are tried once each instead of drawn ones, from (structure, form, dtype).
        weight: how many times the usual number of examples are tried.
    """

    name: str
    statement: str
    check: Callable[[Subject, Example], None]
    forms: tuple[str, ...] = FORMS
    structures: tuple[str, ...] = DISCRETE_STRUCTURES
    gradient: bool = False
    state: bool = False
    modes: tuple[str, ...] = ()
    primitive: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    fixed: Callable[[str, str, str], Iterator[Example]] | None = None
    weight: int = 1

    def applies(self, backend: Backend, structure: str, form: str, dtype: str) -> bool:
        """Whether a backend claims what this property needs."""
        if form not in self.forms or structure not in self.structures:
            return False
        specs = [spec_of(form), *(ModeSpec(mode, 2) for mode in self.modes)]
        problems = [
            Problem(spec, structure, 1, 1, 1, 1, dtype, gradient=self.gradient, state=self.state) for spec in specs
        ]
        if any(backend.reject(problem) is not None for problem in problems):
            return False
        return self.primitive is None or structure in backend.capabilities.primitives.get(self.primitive, ())


def spec_of(form: str) -> ModeSpec:
    """A mode of that form, of order 2."""
    mode, _, rest = form.partition("-")
    return ModeSpec(mode, 2, "adjacent" if rest.startswith("adjacent") else "all", 2 if "window" in rest else None)
