"""That each mutant is its original with one mistake; tests/properties/test_mutants.py is where they are found."""

from __future__ import annotations

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.backend import FUSED, PRIMITIVES
from liquid_ssm.problem import DTYPES
from liquid_ssm.registry import get_backend
from liquid_ssm.testing.mutants import MUTANTS
from liquid_ssm.testing.properties.property import spec_of
from liquid_ssm.testing.strategies import DISCRETE_STRUCTURES, FORMS, random_system

MUTANT = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
METHODS = (*PRIMITIVES, *(f"{name}_vjp" for name in PRIMITIVES), *FUSED, "joint_scan_vjp")


@MUTANT
def test_it_says_where_it_must_be_found(mutant):
    assert mutant.form in FORMS
    assert mutant.structure in DISCRETE_STRUCTURES
    assert mutant.dtype in DTYPES


@MUTANT
def test_one_method_is_changed_and_the_rest_is_the_original(mutant):
    backend = mutant.make()
    original = backend._original
    assert original is get_backend(original.name)
    assert backend.name == mutant.name
    for declared in ("capabilities", "linear_method", "arithmetic"):
        assert getattr(backend, declared) == getattr(original, declared)
    changed = [name for name in METHODS if getattr(backend, name, None) != getattr(original, name, None)]
    assert len(changed) == 1
    problem = ls.Problem(spec_of(mutant.form), mutant.structure, 1, 1, 1, 1, mutant.dtype)
    assert backend.reject(problem) is None


@MUTANT
def test_each_is_made_anew(mutant):
    assert mutant.make() is not mutant.make()


def test_a_cache_does_not_outlive_its_backend():
    cached = next(m for m in MUTANTS if m.name == "cache by shape")
    first, second = (random_system("diagonal", seed=seed) for seed in (0, 1))
    u = np.ones((1, 2, 5))
    wrong = cached.make()
    stale = ls.apply(first, u, mode="liquid", backend=wrong)
    assert np.array_equal(ls.apply(second, u, mode="liquid", backend=wrong), stale)
    right = ls.apply(second, u, mode="liquid", backend="numpy")
    assert not np.array_equal(stale, right)
    assert np.array_equal(ls.apply(second, u, mode="liquid", backend=cached.make()), right)
