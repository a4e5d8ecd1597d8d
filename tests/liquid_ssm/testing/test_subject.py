from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.backend import Arithmetic
from liquid_ssm.oracle.reference import Bound
from liquid_ssm.problem import ModeSpec
from liquid_ssm.registry import get_backend
from liquid_ssm.testing.adapter import AdapterBackend
from liquid_ssm.testing.contract import CheckedBackend
from liquid_ssm.testing.example import Example
from liquid_ssm.testing.strategies import random_system
from liquid_ssm.testing.subject import (
    PropertyViolation,
    Subject,
    added,
    part,
    require_equal,
    require_exact,
    require_identical,
)

SYSTEM = random_system("diagonal", n_channels=2, n_modes=3)
U = np.random.default_rng(0).normal(size=(1, 2, 8))
STATE = np.ones((1, 2, 3), complex)
NUMPY, SCIPY = (Subject(get_backend(name)) for name in ("numpy", "scipy"))


def example(mode="liquid", *options, system=SYSTEM, **more):
    return Example(system, U, ModeSpec(mode, *options), **more)


def bound(size, norm=0.0, shape=(1, 2, 8)):
    return Bound(np.full(shape, size), np.full(shape[:2], norm))


def test_the_backend_is_checked_and_the_plain_one_kept():
    plain = get_backend("numpy")
    assert isinstance(Subject(plain).backend, CheckedBackend)
    assert Subject(plain).plain is plain


def test_accepts_is_what_the_backend_does_not_reject():
    assert NUMPY.accepts(example(), gradient=True, state=True)
    assert SCIPY.accepts(example())
    assert not SCIPY.accepts(example(), gradient=True)
    assert not SCIPY.accepts(example(system=random_system("dense", n_modes=3)))


@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated", "kb", "pb"])
def test_outputs_are_those_of_apply(mode):
    y = NUMPY.outputs(example(mode))
    assert np.array_equal(y, ls.apply(SYSTEM, U, mode=mode, backend="numpy"))
    again, state = NUMPY.outputs_and_state(example(mode))
    assert np.allclose(again, y)
    longer = ls.apply(SYSTEM, np.concatenate([U, U], axis=-1), mode=mode, backend="numpy")
    assert np.allclose(NUMPY.outputs_and_state(example(mode), state)[0], longer[..., 8:])


def test_steps_and_states_start_where_they_are_told():
    whole = NUMPY.outputs(example(state=STATE))
    assert not np.allclose(whole, NUMPY.outputs(example()))
    y_0, state = NUMPY.step(example(), 0, STATE)
    y_1, _ = NUMPY.step(example(), 1, state)
    assert np.allclose(np.stack([y_0, y_1], axis=-1), whole[..., :2])
    assert np.allclose(NUMPY.outputs_and_state(example(state=STATE))[0], whole)
    other = NUMPY.outputs_and_state(example(state=STATE), 2 * STATE)[0]
    assert np.allclose(other, NUMPY.outputs(example(state=2 * STATE)))


@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated"])
def test_the_enclosure_holds_the_exact_value_and_the_bound_the_error(mode):
    for case in (example(mode), example(mode, state=STATE)):
        exact = NUMPY.enclosure(case)
        error = np.abs(NUMPY.outputs(case) - exact.hi)
        assert error.max() < 1e-13
        assert np.all(error <= NUMPY.bound(case).componentwise)
        assert exact.radius.max() < 1e-25


def test_bounds_are_multiplied_by_the_factor():
    one, many = Subject(get_backend("scipy")), Subject(get_backend("scipy"), 1000.0)
    for case in (example("s4"), example("liquid")):
        for name in ("componentwise", "normwise"):
            assert np.array_equal(getattr(many.bound(case), name), 1000 * getattr(one.bound(case), name))


def test_with_a_state_the_linear_term_is_a_recurrence():
    assert not SCIPY.bound(example("s4")).is_componentwise
    assert SCIPY.bound(example("s4"), state=True).is_componentwise
    assert SCIPY.bound(example("s4", state=STATE)).is_componentwise
    assert NUMPY.bound(example("s4")).is_componentwise


@pytest.mark.parametrize(("order", "is_recurrence"), [(1, True), (3, False)])
def test_windowed_adjacent_products_stay_convolutions_with_a_state(order, is_recurrence):
    found = SCIPY.bound(example("kb", order, "adjacent", 5), state=True)
    assert found.is_componentwise == is_recurrence


def test_only_what_runs_in_time_order_is_held_to_it():
    case = example("liquid")
    assert NUMPY.is_time_ordered(NUMPY.bound(case))
    assert not SCIPY.is_time_ordered(SCIPY.bound(example("s4")))
    assert not SCIPY.is_time_ordered(SCIPY.bound(case), SCIPY.bound(example("s4")))

    class Tree:
        def scan(self, *_):
            """Its order is not known."""

    tree = Subject(AdapterBackend(Tree()))
    assert tree.backend.arithmetic == Arithmetic(scan="any")
    assert not tree.is_time_ordered(tree.bound(case))


@pytest.mark.parametrize("infinite", [bound(np.inf), bound(0.0, np.inf), bound(np.nan)])
def test_without_a_finite_bound_nothing_is_decided(infinite, monkeypatch):
    found = SimpleNamespace(bounds=(bound(1.0), infinite))
    monkeypatch.setattr("liquid_ssm.testing.subject.reference", lambda *_, **__: found)
    with pytest.raises(PropertyViolation, match="no finite error bound"):
        NUMPY.bound(example())


def test_bounds_of_sums_and_of_parts():
    both = added(bound(1.0), bound(2.0, 3.0), bound(0.0, 4.0))
    assert (both.componentwise == 3).all()
    assert (both.normwise == 7).all()
    some = part(both, slice(2, 5))
    assert some.componentwise.shape == (1, 2, 3)
    assert (some.normwise == 7).all()  # all of the error may be there


def test_equal_within_the_bounds():
    y = U.copy()
    y[0, 1, 3] += 0.5
    require_equal(y, U, [bound(0.25), bound(0.25)], "y", "z")
    with pytest.raises(PropertyViolation) as caught:
        require_equal(y, U, [bound(0.25), bound(0.15)], "y", "z")
    place = f"y is {y[0, 1, 3]} at batch 0, channel 1, step 3, z is {U[0, 1, 3]}"
    assert str(caught.value) == f"{place}: the error 0.5 is 1.25 times its bound, 0.4"


def test_the_place_is_where_the_error_is_largest_in_its_bound():
    limits = bound(1.0)
    limits.componentwise[0, 0, 2] = 1e-3
    y = U + 2.0
    with pytest.raises(PropertyViolation, match="channel 0, step 2"):
        require_equal(y, U, [limits], "y", "z")


def test_normwise_bounds_are_on_the_norm_over_time():
    y = U + 1.0  # ‖1‖₂ = √8
    require_equal(y, U, [bound(0.0, 2.83)], "y", "z")
    with pytest.raises(PropertyViolation, match=r"\(2-norm over time: 2.83\)") as caught:
        require_equal(y, U, [bound(0.0, 2.82)], "y", "z")
    assert "is 1 times its bound, 2.82" in str(caught.value)


def test_a_zero_bound_allows_no_error_at_all():
    require_equal(U, U.copy(), [bound(0.0)], "y", "z")
    with pytest.raises(PropertyViolation, match="inf times its bound, 0"):
        require_equal(np.nextafter(U, np.inf), U, [bound(0.0)], "y", "z")


def test_empty_outputs_are_equal():
    empty = np.zeros((0, 2, 8))
    require_equal(empty, empty, [bound(0.0, shape=(0, 2, 8))], "y", "z")
    require_identical(empty, empty, "y", "z")


def test_exact_counts_the_radius_of_the_enclosure():
    case = example()
    y, exact, limit = NUMPY.outputs(case), NUMPY.enclosure(case), NUMPY.bound(case)
    require_exact(y, exact, limit)
    wide = replace(exact, radius=exact.radius + 2 * limit.componentwise)
    with pytest.raises(PropertyViolation, match="the exact value is"):
        require_exact(y, wide, limit)


def test_identical_is_bit_for_bit():
    require_identical(U, U.copy(), "y", "z")
    other = U.copy()
    other[0, 1, 4] = np.nextafter(U[0, 1, 4], 9)
    with pytest.raises(PropertyViolation, match=r"^y differs from z at batch 0, channel 1, step 4: "):
        require_identical(U, other, "y", "z")
    zero = np.zeros((1, 1, 2))
    with pytest.raises(PropertyViolation, match=r"step 1: 0\.0 and -0\.0"):
        require_identical(zero, np.array([[[0.0, -0.0]]]), "y", "z")
