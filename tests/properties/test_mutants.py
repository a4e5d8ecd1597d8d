"""The suite must find every seeded bug, and because of its bounds, not by luck."""

from __future__ import annotations

import pytest

from liquid_ssm.testing.contract import BackendFault
from liquid_ssm.testing.mutants import MUTANTS
from liquid_ssm.testing.strategies import FORMS
from liquid_ssm.testing.subject import PropertyViolation, Subject
from liquid_ssm.testing.suite import checks, run

EXAMPLES = 25
TOO_WIDE = 1000.0


def killer(mutant, bound_factor=1.0):
    """The first property that fails, or None."""
    subject = Subject(mutant.make(), bound_factor)
    for check in checks(subject.plain):
        if (check.form, check.structure, check.dtype) == (mutant.form, mutant.structure, mutant.dtype):
            try:
                run(check, subject, max_examples=EXAMPLES, derandomize=True, database=None)
            except PropertyViolation:
                return check.property
            except BackendFault as fault:
                return f"{check.property}, {fault.kind}"
    return None


@pytest.fixture(scope="module")
def tally(request):
    """What the last lines of the test run say about the mutants."""
    lines = request.config.stash.setdefault(request.config.mutant_report, [])
    killed = {}
    yield killed
    found = sum(k is not None for k in killed.values())
    if killed:
        lines.append(f"seeded bugs: {found} of {len(killed)} killed ({100 * found / len(killed):.0f} %)")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_seeded_bug_is_found(mutant, tally):
    tally[mutant.name] = killer(mutant)
    assert tally[mutant.name] is not None, f"{mutant.name} survived"


def test_the_unmutated_backends_pass_where_their_mutants_fail():
    for mutant in MUTANTS:
        subject = Subject(mutant.make()._original)
        for check in checks(subject.plain):
            if (check.form, check.structure, check.dtype) == (mutant.form, mutant.structure, mutant.dtype):
                run(check, subject, max_examples=2, derandomize=True, database=None)


def test_bounds_a_thousand_times_too_wide_let_slight_bugs_live(request):
    survivors = {mutant.name: mutant.slight for mutant in MUTANTS if killer(mutant, TOO_WIDE) is None}
    lines = request.config.stash.setdefault(request.config.mutant_report, [])
    killed = len(MUTANTS) - len(survivors)
    lines.append(f"with bounds x {TOO_WIDE:g}: {killed} of {len(MUTANTS)} killed, alive: {', '.join(survivors)}")
    assert survivors
    assert all(survivors.values()), "a gross mistake hides behind a wide bound"


def test_there_are_enough_and_every_mode_has_some():
    assert len(MUTANTS) >= 25
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert {mutant.form for mutant in MUTANTS} == set(FORMS)
