from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.problem import ModeSpec
from liquid_ssm.registry import get_backend
from liquid_ssm.testing.example import Example
from liquid_ssm.testing.properties.layout import full_system
from liquid_ssm.testing.strategies import random_system
from liquid_ssm.testing.subject import Subject, require_equal

NUMPY = Subject(get_backend("numpy"))
U = np.random.default_rng(0).normal(size=(2, 2, 9))


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "mimo"])
@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated"])
def test_the_full_system_has_the_same_outputs(structure, mode):
    half = random_system(structure, n_modes=3, rank=2)
    full = full_system(half)
    assert (full.n_modes, full.conjugate_pairs) == (6, False)
    examples = [Example(system, U, ModeSpec(mode)) for system in (half, full)]
    y, z = (NUMPY.outputs(example) for example in examples)
    assert np.abs(y).max() > 0.1
    require_equal(y, z, [NUMPY.bound(example) for example in examples], "y", "y of the full system")


@pytest.mark.parametrize("structure", ["diagonal", "dense"])
def test_a_full_system_stays_as_it_is(structure):
    system = random_system(structure, conjugate_pairs=False)
    assert full_system(system) is system
