"""The properties that matter for tensors, for every backend that takes them: outputs, states, gradients."""

from __future__ import annotations

import pytest

from liquid_ssm.registry import backend_names, get_backend
from liquid_ssm.testing.subject import Subject
from liquid_ssm.testing.suite import checks, run

PROPERTIES = ("within-bound", "initial-state", "pieces", "steps", "gradients", "gradients-of-states", "repeatability")
EXAMPLES = 2

CASES = [
    (name, check)
    for name in backend_names()
    if not get_backend(name).missing_packages() and "torch" in get_backend(name).capabilities.arrays
    for check in checks(get_backend(name))
    if check.property in PROPERTIES
]


@pytest.mark.parametrize(("name", "check"), CASES, ids=lambda v: str(v))
def test_property_of_tensors(name, check):
    run(check, Subject(get_backend(name), tensors=True), max_examples=EXAMPLES)
