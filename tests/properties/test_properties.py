"""Every property, for every backend, mode, structure and dtype that it declares."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

from liquid_ssm.registry import backend_names, get_backend
from liquid_ssm.testing.properties import PROPERTIES
from liquid_ssm.testing.strategies import DISCRETE_STRUCTURES, forms
from liquid_ssm.testing.subject import Subject
from liquid_ssm.testing.suite import checks, run

# Thousands of checks of a few examples each (profile ci: 6) instead of a few checks of many.
PER_CHECK = max(3, settings().max_examples // 16)

# Triton's interpreter takes a millisecond for a step: fewer examples, and not every length up to 255, of which the
# tests of its kernels have those at the edges of blocks.
INTERPRETED = "triton" if not torch.cuda.is_available() else None


def tried(name, check):
    return not (name == INTERPRETED and check.property == "lengths")


CASES = [(name, check) for name in backend_names() for check in checks(get_backend(name)) if tried(name, check)]


@pytest.mark.parametrize(("name", "check"), CASES, ids=lambda v: str(v))
def test_property(name, check):
    run(check, Subject(get_backend(name)), max_examples=1 if name == INTERPRETED else PER_CHECK)


def test_every_property_is_tried_on_some_backend():
    assert {check.property for _, check in CASES} == {item.name for item in PROPERTIES}


@pytest.mark.parametrize("name", backend_names())
def test_every_mode_of_every_declared_structure_is_tried(name):
    able = get_backend(name).capabilities
    declared = {s for structures in able.primitives.values() for s in structures}
    tried = {(check.structure, check.form, check.dtype) for owner, check in CASES if owner == name}
    if name == "numpy":  # has every primitive, so every mode
        assert declared == set(DISCRETE_STRUCTURES)
        assert tried == {(s, form, d) for s in declared for form in forms(s) for d in able.dtypes}
    assert {s for s, _, _ in tried} == declared
