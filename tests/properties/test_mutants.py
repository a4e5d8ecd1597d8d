"""The suite must find every seeded bug, and because of its bounds, not by luck."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import Phase

from liquid_ssm.registry import get_backend
from liquid_ssm.testing.contract import BackendFault
from liquid_ssm.testing.mutants import MUTANTS
from liquid_ssm.testing.strategies import FORMS
from liquid_ssm.testing.subject import PropertyViolation, Subject
from liquid_ssm.testing.suite import checks, run

EXAMPLES = 25
TOO_WIDE = 1000.0


def tried(backend, check, bound_factor=1.0, examples=EXAMPLES):
    """Why the check fails, or None."""
    # Whether is asked here, not with which smallest example.
    profile = {"derandomize": True, "database": None, "phases": [Phase.generate]}
    try:
        run(check, Subject(backend, bound_factor), max_examples=examples, **profile)
    except PropertyViolation:
        return "violated"
    except BackendFault as fault:
        return fault.kind
    return None


def killer(mutant, *how):
    """The first check that fails, or None."""
    backend = mutant.make()
    for check in checks(backend):
        here = (check.form, check.structure, check.dtype) == (mutant.form, mutant.structure, mutant.dtype)
        if here and tried(backend, check, *how):
            return check
    return None


@cache
def fails_unmutated(name, check):
    """A check that also fails for the good backend has found nothing."""
    return tried(get_backend(name), check)


@pytest.fixture(scope="session")
def tally(request):
    """By mutant the check that killed it; the last lines of the test run say how many there are."""
    killed = {}
    yield killed
    request.config.mutants["found"] += sum(check is not None for check in killed.values())
    request.config.mutants["tried"] += len(killed)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_seeded_bug_is_found(mutant, tally):
    check = tally[mutant.name] = killer(mutant)
    assert check is not None, f"{mutant.name} survived"
    assert fails_unmutated(mutant.base, check) is None


def test_bounds_a_thousand_times_too_wide_let_slight_bugs_live(request):
    survivors = {mutant.name: mutant.slight for mutant in MUTANTS if killer(mutant, TOO_WIDE, 10) is None}
    killed = len(MUTANTS) - len(survivors)
    request.config.mutants["lines"].append(
        f"with bounds x {TOO_WIDE:g}: {killed} of {len(MUTANTS)} killed, alive: {', '.join(survivors)}"
    )
    assert survivors
    assert all(survivors.values()), "a gross mistake hides behind a wide bound"


def test_there_are_enough_and_every_mode_has_some():
    assert len(MUTANTS) >= 25
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert {mutant.form for mutant in MUTANTS} == set(FORMS)
