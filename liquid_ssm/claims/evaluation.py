"""The ledger: all claims in the order of the paper, and their evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from importlib import import_module

from ..errors import ParameterError
from ..report import dump_json
from .claim import Claim, Entry

# Modules that define CLAIMS, in the order of the paper; imported when the ledger is asked for.
THEMES = (
    "equations_1_to_8",
    "linearisation",
    "equations_10_to_16",
    "algorithm_1",
    "proposition_1",
    "complexity",
    "appendix_a",
    "appendix_b",
    "appendix_c",
    "appendix_d",
    "appendix_e",
    "appendix_f",
)

# Called with (claims done, claims in all, what comes next).
Progress = Callable[[int, int, str], None]


def ledger() -> list[Claim]:
    """Every claim of the paper that has an entry, in the order of the paper; nothing is computed.

    References: arXiv 2209.12951.
    """
    return [claim for theme in THEMES for claim in import_module(f".{theme}", __package__).CLAIMS]


def select(ids: Iterable[str] | None = None) -> list[Claim]:
    """The claims with these ids, in the order given; all of them for None or no ids.

    Raises:
        ParameterError: an id that the ledger does not have, with those that come close.
    """
    claims = {claim.id: claim for claim in ledger()}
    wanted = list(ids or claims)
    for given in wanted:
        if given not in claims:
            near = [name for name in claims if given and given.lower() in name]
            near = near or get_close_matches(given.lower(), claims, n=8, cutoff=0.5)
            hint = f"close to it: {', '.join(near)}" if near else "`liquid-ssm claims` without an id lists all of them"
            raise ParameterError(f"unknown claim {given!r}; {hint}.")
    return [claims[name] for name in dict.fromkeys(wanted)]


def evaluate(ids: Iterable[str] | None = None, progress: Progress | None = None) -> list[Entry]:
    """Run the checks of some or all claims.

    Args:
        ids: ids of claims; None for the whole ledger.
        progress: called with (claims done, claims in all, the id that comes next).

    Returns:
        One entry per claim, in the order given.

    Raises:
        ParameterError: an unknown id.
        ArithmeticError: a check gave a number that is not finite.

    Accuracy: polynomial identities and sums of fractions are exact; what is computed in floating point is far from the
        limits that decide a verdict. All random numbers have fixed seeds.
    """
    chosen = select(ids)
    entries = []
    for done, claim in enumerate(chosen):
        if progress:
            progress(done, len(chosen), claim.id)
        entries.append(claim.evaluate())
    if progress:
        progress(len(chosen), len(chosen), "done")
    return entries


def changed(entries: Iterable[Entry]) -> list[tuple[Entry, str]]:
    """Entries whose ruling is not the recorded one, each with the recorded one."""
    expected = {claim.id: claim.expected for claim in ledger()}
    return [(entry, expected[entry.id]) for entry in entries if entry.ruling != expected[entry.id]]


def to_json(entries: Sequence[Entry]) -> str:
    """The entries as strict JSON: a list of objects with the keys `id`, `equation`, `statement`, `reading`, `verdict`,
    `evidence` (numbers by name) and `page`.
    """
    return dump_json([asdict(entry) for entry in entries])
