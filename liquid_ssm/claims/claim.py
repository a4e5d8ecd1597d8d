"""What a claim of the paper is here, and what comes out when its check has run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite

# The page of the built documentation that has one section, with the claim's id as its anchor, for each claim.
PAGE = "claims.html"


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        ruling: `holds`, `holds if …`, `fails`, or `not decidable by computation`; without a colon, and made of
            nothing but yes-or-no results of the check.
        evidence: the numbers behind it, the most telling first.
        detail: the counterexample in words, with its numbers; empty where there is none.
    """

    ruling: str
    evidence: Mapping[str, float]
    detail: str = ""


@dataclass(frozen=True)
class Entry:
    """One evaluated claim; the attributes are the keys of its JSON object.

    Attributes:
        id: name of the claim, also the anchor of its section in the documentation.
        equation: where in the paper it stands.
        statement: what the paper states.
        reading: how the statement is read where it leaves a choice.
        verdict: the ruling, and after a colon the counterexample.
        evidence: numbers by name, all finite, the most telling first.
        page: page and anchor in the built documentation.
    """

    id: str
    equation: str
    statement: str
    reading: str
    verdict: str
    evidence: dict[str, float]
    page: str

    @property
    def ruling(self) -> str:
        """The verdict without the counterexample."""
        return self.verdict.partition(":")[0]


@dataclass(frozen=True)
class Claim:
    """A statement of the paper and the check that decides it.

    Attributes:
        id, equation, statement, reading: as in `Entry`.
        expected: the recorded ruling; another one is a regression of this package or news about the paper.
        check: computes the finding; its keyword arguments are the ingredients that tests perturb.
    """

    id: str
    equation: str
    statement: str
    reading: str
    expected: str
    check: Callable[..., Finding] = field(repr=False)

    @property
    def page(self) -> str:
        """Page and anchor in the built documentation."""
        return f"{PAGE}#{self.id}"

    def evaluate(self, **ingredients: object) -> Entry:
        """Run the check.

        Args:
            ingredients: replacements for keyword arguments of the check.

        Raises:
            ArithmeticError: the check gave no number, or one that is not finite.
        """
        found = self.check(**ingredients)
        evidence = {name: value if isinstance(value, int) else float(value) for name, value in found.evidence.items()}
        bad = {name: value for name, value in evidence.items() if not isfinite(value)}
        if bad or not evidence:
            raise ArithmeticError(f"the check of {self.id} must give finite numbers; it gave {bad or 'none'}.")
        verdict = f"{found.ruling}: {found.detail}" if found.detail else found.ruling
        return Entry(self.id, self.equation, self.statement, self.reading, verdict, evidence, self.page)


def ruling(always: bool, *, condition: str = "", under_condition: bool = False) -> str:
    """`holds` if the claim was found true without restriction, else `holds if <condition>` or `fails`.

    Args:
        always: the statement as printed passed.
        condition: a restriction.
        under_condition: the statement passed under it.
    """
    if always:
        return "holds"
    return f"holds if {condition}" if under_condition else "fails"


def percent(share: float) -> str:
    """0.249 as `25 %`; two digits below 10 %."""
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.2g} %"
