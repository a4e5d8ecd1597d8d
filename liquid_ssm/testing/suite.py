"""The whole suite for one backend: which checks there are, and how one is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Flaky

from ..backend import Backend
from ..errors import unknown_name
from ..problem import DTYPES
from .contract import BackendFault
from .example import Example
from .properties import PROPERTIES, Property
from .strategies import DISCRETE_STRUCTURES, examples, forms
from .subject import PropertyViolation, Subject


@dataclass(frozen=True)
class Check:
    """One property of one mode, structure and dtype."""

    property: str
    form: str
    structure: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.property} [{self.form}, {self.structure}, {self.dtype}]"


def checks(backend: Backend) -> Iterator[Check]:
    """Every check that applies to what the backend claims."""
    for structure in DISCRETE_STRUCTURES:
        for form in forms(structure):
            for dtype in DTYPES:
                for item in PROPERTIES:
                    if item.applies(backend, structure, form, dtype):
                        yield Check(item.name, form, structure, dtype)


def property_named(name: str) -> Property:
    """The property of that name.

    Raises:
        ParameterError: there is none.
    """
    found = {item.name: item for item in PROPERTIES}
    if name not in found:
        raise unknown_name("property", name, found)
    return found[name]


def run(
    check: Check,
    subject: Subject,
    *,
    max_examples: int | None = None,
    seen: Callable[[Example], None] | None = None,
    **profile: Any,
) -> None:
    """Try one check; return if nothing is found.

    Args:
        max_examples: how many examples are drawn; None for what the Hypothesis profile says.  Properties with a
            weight take that many times as many.
        seen: called with every example before it is tried.
        profile: further Hypothesis settings.

    Raises:
        PropertyViolation, BackendFault: with the smallest example that Hypothesis found in its message.
    """
    item = property_named(check.property)
    failures: list[Exception] = []

    def attempt(example: Example) -> None:
        if seen is not None:
            seen(example)
        if not subject.accepts(example, gradient=item.gradient, state=item.state):
            return
        try:
            item.check(subject, example)
        except PropertyViolation as violation:
            failures[:] = [PropertyViolation(_explained(item, str(violation), example))]
            raise failures[0] from None
        except BackendFault as fault:
            failures[:] = [BackendFault(fault.kind, _explained(item, str(fault), example))]
            raise failures[0] from fault.__cause__

    if item.fixed is not None:
        for example in item.fixed(check.structure, check.form, check.dtype):
            attempt(example)
        return
    per_weight = settings().max_examples if max_examples is None else max_examples
    drawn = given(example=examples(check.structure, check.form, check.dtype, **item.options))(attempt)
    # The message carries the example, so Hypothesis need not explain; examples differ in cost by design.
    profile.setdefault("phases", [phase for phase in settings().phases if phase != Phase.explain])
    tried = settings(
        max_examples=item.weight * per_weight,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        **profile,
    )(drawn)
    try:
        tried()
    except Flaky as error:
        what = f"{item.name}: failed once and passed, or failed in another way, when the same example was tried again."
        raise BackendFault("not repeatable", "\n".join([what, *map(str, failures)])) from error


def _explained(item: Property, what: str, example: Example) -> str:
    return f"{item.name}: {item.statement}.\n{what}\nexample: {example!r}"
