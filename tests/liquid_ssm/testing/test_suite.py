from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from liquid_ssm.errors import ParameterError
from liquid_ssm.registry import get_backend
from liquid_ssm.testing.adapter import AdapterBackend
from liquid_ssm.testing.contract import BackendFault
from liquid_ssm.testing.properties import PROPERTIES
from liquid_ssm.testing.strategies import DISCRETE_STRUCTURES, forms
from liquid_ssm.testing.subject import PropertyViolation, Subject
from liquid_ssm.testing.suite import Check, checks, property_named, run

ALWAYS_THE_SAME = {"derandomize": True, "database": None}


class Scan:
    scan_order = "sequential"

    def scan(self, a, b, c, u, state):
        x = np.zeros((len(u), *a.shape), a.dtype) if state is None else state
        y = np.zeros_like(u)
        for k in range(u.shape[-1]):
            w = b * u[..., k, None]
            x = (a + w) * x + w
            y[..., k] = 2 * (c * x).sum(axis=-1).real
        return y, x


class Louder(Scan):
    """Wrong from |y| = 1 on."""

    def scan(self, a, b, c, u, state):
        y, x = super().scan(a, b, c, u, state)
        return np.where(np.abs(y) >= 1, 2 * y, y), x


class Raising(Scan):
    def scan(self, a, b, c, u, state):
        if u.shape[-1] > 3:
            raise IndexError("block of four")
        return super().scan(a, b, c, u, state)


class Forgetting(Scan):
    """Wrong in the first call alone."""

    calls = 0

    def scan(self, a, b, c, u, state):
        y, x = super().scan(a, b, c, u, state)
        self.calls += u.any()
        return (y + 1 if self.calls == 1 and u.any() else y), x


def check(name="within-bound", dtype="float64"):
    return Check(name, "liquid", "diagonal", dtype)


def subject(adapter):
    return Subject(AdapterBackend(adapter))


def test_a_check_prints_what_it_is():
    assert str(check()) == "within-bound [liquid, diagonal, float64]"


def test_checks_are_of_what_the_backend_claims():
    found = list(checks(AdapterBackend(Scan())))
    assert {(c.form, c.structure) for c in found} == {("liquid", "diagonal")}
    assert Counter(c.dtype for c in found) == {"float32": len(found) // 2, "float64": len(found) // 2}
    assert len(set(found)) == len(found)
    assert {"within-bound", "initial-state", "causality", "steps"} < {c.property for c in found}
    assert not {c.property for c in found} & {"linearity", "homogeneity", "proposition-1"}


def test_one_dtype_gives_half_the_checks():
    adapter = type("Single", (Scan,), {"dtypes": ("float32",)})()
    assert {c.dtype for c in checks(AdapterBackend(adapter))} == {"float32"}


def test_numpy_is_checked_in_everything():
    found = list(checks(get_backend("numpy")))
    assert {c.property for c in found} == {item.name for item in PROPERTIES}
    assert {(c.structure, c.form) for c in found} == {(s, f) for s in DISCRETE_STRUCTURES for f in forms(s)}


def test_properties_have_names_of_their_own():
    assert len({item.name for item in PROPERTIES}) == len(PROPERTIES)
    assert all(property_named(item.name) is item for item in PROPERTIES)
    with pytest.raises(ParameterError, match=r"unknown property 'causalty'.*Did you mean 'causality'"):
        property_named("causalty")


@pytest.mark.parametrize(("name", "weight"), [("repeatability", 1), ("causality", 2), ("within-bound", 3)])
def test_as_many_examples_are_drawn_as_was_asked_times_the_weight(name, weight):
    seen = []
    run(check(name), subject(Scan()), max_examples=10, seen=seen.append, **ALWAYS_THE_SAME)
    assert property_named(name).weight == weight
    assert len(seen) == 10 * weight
    assert {(e.spec.mode, e.system.structure, e.u.dtype.name) for e in seen} == {("liquid", "diagonal", "float64")}


def test_fixed_examples_are_each_tried_once():
    seen = []
    run(check("empty", "float32"), subject(Scan()), max_examples=10, seen=seen.append)
    assert [e.u.shape for e in seen] == [(0, 2, 3), (2, 2, 0), (0, 2, 0)]
    assert {e.u.dtype.name for e in seen} == {"float32"}


def test_examples_are_the_same_every_time():
    drawn = []
    for _ in range(2):
        seen = []
        run(check(), subject(Scan()), max_examples=5, seen=lambda e, s=seen: s.append(repr(e)), **ALWAYS_THE_SAME)
        drawn.append(seen)
    assert drawn[0] == drawn[1]


def test_a_violation_is_told_with_the_property_and_the_smallest_example():
    with pytest.raises(PropertyViolation) as caught:
        run(check(), subject(Louder()), max_examples=25, **ALWAYS_THE_SAME)
    lines = str(caught.value).splitlines()
    assert lines[0] == "within-bound: y is within its derived error bound of the exact value."
    assert lines[1].startswith("y is 2.0 at batch 0, channel 0, step 0, the exact value is 1.0: the error 1 is ")
    assert lines[2].startswith("example: mode liquid, diagonal, float64, conjugate_pairs=True,")
    assert lines[2].endswith("batch 1, H 1, M 1, L 1")
    assert lines[3:6] == ["  A_bar = [[0.5+0.j]]", "  B_bar = [[0.5+0.j]]", "  C = [[1.+0.j]]"]
    assert "  u = [[[1.]]]" in lines


def test_a_fault_is_told_with_the_property_and_the_smallest_example():
    with pytest.raises(BackendFault) as caught:
        run(check(), subject(Raising()), max_examples=25, **ALWAYS_THE_SAME)
    assert caught.value.kind == "raised"
    assert "within-bound: " in str(caught.value)
    assert "scan raised IndexError: block of four (test_suite.py, line " in str(caught.value)
    assert "H 1, M 1, L 4" in str(caught.value)
    assert isinstance(caught.value.__cause__, IndexError)


def test_a_failure_that_does_not_repeat_is_told_as_such():
    with pytest.raises(BackendFault) as caught:
        run(check(), subject(Forgetting()), max_examples=25, **ALWAYS_THE_SAME)
    assert caught.value.kind == "not repeatable"
    assert str(caught.value).startswith("within-bound: failed once and passed, or failed in another way, when")
    assert "\nwithin-bound: y is within its derived error bound of the exact value.\ny is " in str(caught.value)
    assert "\nexample: mode liquid, diagonal, float64" in str(caught.value)


def test_the_factor_of_the_bounds_reaches_the_checks():
    run(check(), Subject(AdapterBackend(Louder()), bound_factor=1e20), max_examples=25, **ALWAYS_THE_SAME)


def test_what_the_backend_does_not_accept_is_not_tried():
    class Short(AdapterBackend):
        def reject(self, problem):
            return super().reject(problem) if problem.length < 3 else "too long"

    tried = []
    backend = Short(Scan())
    scan = backend.scan
    backend.__dict__["scan"] = lambda system, u, *a, **o: tried.append(u.shape[-1]) or scan(system, u, *a, **o)
    run(check(), Subject(backend), max_examples=25, **ALWAYS_THE_SAME)
    assert {1, 2} <= set(tried) <= {0, 1, 2}
