from __future__ import annotations

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from liquid_ssm.instability import full_transition
from liquid_ssm.problem import ModeSpec
from liquid_ssm.testing.strategies import (
    DISCRETE_STRUCTURES,
    FORMS,
    discretized_system,
    examples,
    forms,
    inputs,
    mode_specs,
    plain_system,
    random_system,
    specs,
    states,
    systems,
)

STRUCTURES = pytest.mark.parametrize("structure", DISCRETE_STRUCTURES)
MAKERS = pytest.mark.parametrize("make", [plain_system, random_system, discretized_system])
FEW = settings(max_examples=20, database=None)


def seen(strategy, of=lambda value: value):
    """What a strategy draws in 60 tries."""
    found = set()

    @settings(max_examples=60, derandomize=True, database=None)
    @given(strategy)
    def collect(value):
        found.add(of(value))

    collect()
    return found


def transition(system, channel=0):
    if system.structure in ("dplr", "dense"):
        return full_transition(system, channel)
    return np.diag(system.A_bar if system.structure == "mimo" else system.A_bar[channel])


def test_forms_are_every_mode_with_every_option_that_is_another_algorithm():
    assert len(FORMS) == 11
    assert forms("diagonal") == forms("dplr") == forms("dense") == FORMS
    assert forms("mimo") == ("s4", "liquid", "truncated")


@pytest.mark.parametrize("form", FORMS)
def test_specs_are_of_their_form(form):
    drawn = seen(specs(form, max_order=3, max_window=5))
    mode, _, rest = form.partition("-")
    assert {s.mode for s in drawn} == {mode}
    assert {s.window is not None for s in drawn} == {"window" in rest}
    if mode in ("truncated", "kb", "pb"):
        assert {s.order for s in drawn} == {1, 2, 3}
    if rest:
        assert {s.correlations for s in drawn} == {rest.split("-")[0]}
    if "window" in rest:
        assert {s.window for s in drawn} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("structure", ["diagonal", "mimo"])
def test_mode_specs_are_of_every_mode_of_the_structure(structure):
    assert seen(mode_specs(structure), lambda s: s.mode) == {f.partition("-")[0] for f in forms(structure)}


@STRUCTURES
@MAKERS
def test_systems_have_the_structure_and_the_sizes(make, structure):
    system = make(structure, n_channels=2, n_modes=3)
    assert (system.structure, system.n_channels, system.n_modes) == (structure, 2, 3)
    assert system.conjugate_pairs == (structure != "dense")
    if structure != "dense":
        assert not make(structure, conjugate_pairs=False).conjugate_pairs


@MAKERS
def test_an_unknown_structure_is_refused(make):
    with pytest.raises(ValueError, match="unknown structure 'dplrr'; allowed: diagonal, dplr, dense, mimo"):
        make("dplrr")


@STRUCTURES
def test_plain_systems_are_round_and_contract(structure):
    system = plain_system(structure, n_channels=2, n_modes=4)
    for array in system.parameters.values():
        assert np.array_equal(16 * array, np.rint(16 * array.real))
    assert np.abs(np.linalg.eigvals(transition(system))).max() < 1


@STRUCTURES
def test_random_systems_are_reproducible_and_do_not_grow(structure):
    for seed in range(20):
        system, again = (random_system(structure, n_modes=4, seed=seed) for _ in range(2))
        assert all(np.array_equal(a, again.parameters[name]) for name, a in system.parameters.items())
        assert np.linalg.norm(transition(system, 1), 2) <= 1


def test_random_poles_decay_as_asked():
    moduli = np.abs(random_system("diagonal", n_modes=500, decay=0.1).A_bar)
    assert np.exp(-0.1) <= moduli.min() < 0.91
    assert 0.99 < moduli.max() <= 1


@STRUCTURES
def test_small_steps_put_the_poles_near_1(structure):
    near, far = (discretized_system(structure, n_modes=3, dt=dt) for dt in (1e-6, 1.0))
    assert np.abs(np.linalg.eigvals(transition(near)) - 1).max() < 1e-4
    assert np.abs(np.linalg.eigvals(transition(far)) - 1).max() > 0.1
    assert np.abs(near.B_bar).max() < 1e-4


def test_methods_of_discretisation_differ():
    bilinear, zoh = (discretized_system("diagonal", dt=1.0, method=m) for m in ("bilinear", "zoh"))
    assert not np.allclose(bilinear.A_bar, zoh.A_bar)


@STRUCTURES
def test_systems_are_of_the_structure_and_of_every_size(structure):
    drawn = seen(systems((structure,), max_channels=2, max_modes=3), lambda s: (s.structure, s.n_channels, s.n_modes))
    assert {d[0] for d in drawn} == {structure}
    assert {d[1] for d in drawn} == {1, 2}
    assert {d[2] for d in drawn} == {1, 2, 3}


def test_systems_are_of_every_structure_unless_told():
    assert seen(systems(), lambda s: s.structure) == set(DISCRETE_STRUCTURES)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inputs_have_every_kind_and_scale(dtype):
    tiny = np.finfo(dtype).tiny
    strategy = inputs(2, dtype=dtype, max_length=9, max_batch=2)
    drawn = seen(strategy, lambda u: (u.dtype.name, u.shape[0], u.shape[2], bool(0 < np.abs(u).max(initial=0) < tiny)))
    assert {d[0] for d in drawn} == {dtype}
    assert {d[1] for d in drawn} == {0, 1, 2}
    assert {0, 1, 9} <= {d[2] for d in drawn} <= set(range(10))
    assert {d[3] for d in drawn} == {True, False}


@given(inputs(3, min_length=2, min_batch=1))
@FEW
def test_inputs_keep_their_limits_and_are_finite(u):
    assert u.shape[0] >= 1
    assert u.shape[1] == 3
    assert u.shape[2] >= 2
    assert np.isfinite(u).all()


@STRUCTURES
@given(data=st.data())
@FEW
def test_states_fit_their_system(structure, data):
    system = random_system(structure, n_modes=3).astype("float32")
    state = data.draw(states(system, 4))
    assert state.shape == ((4, 3) if structure == "mimo" else (4, 2, 3))
    assert state.dtype == np.complex64


@STRUCTURES
def test_examples_shrink_to_round_numbers(structure):
    simplest = find(
        examples(structure, "liquid", "float32", with_state=True, min_length=1, min_batch=1),
        lambda example: example.u.any(),
        settings=settings(max_examples=200, derandomize=True, database=None),
    )
    assert simplest.spec == ModeSpec("liquid")
    assert simplest.u.dtype == np.float32
    assert simplest.u.tolist() == [[[1.0]]]
    assert simplest.state is not None
    assert simplest.state.ravel().tolist() == [1.0]
    expected = plain_system(structure)
    assert simplest.system.conjugate_pairs == expected.conjugate_pairs
    assert all(np.array_equal(a, expected.parameters[name]) for name, a in simplest.system.parameters.items())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_some_examples_have_signals_at_the_top_of_the_range(dtype):
    limit = 2.0**30 if dtype == "float32" else 2.0**290
    huge = find(
        examples("diagonal", "liquid", dtype),
        lambda example: np.abs(example.u).max(initial=0) > limit,
        settings=settings(max_examples=2000, derandomize=True, database=None),
    )
    drive = np.abs(huge.system.B_bar).max() * np.abs(huge.u).max()
    assert 0 < drive < 100


def test_few_examples_are_empty():
    empty = []

    @settings(max_examples=200, derandomize=True, database=None)
    @given(examples("diagonal", "s4", "float64"))
    def collect(example):
        empty.append(example.u.size == 0)

    collect()
    assert sum(empty) < 40
    many = settings(max_examples=2000, derandomize=True, database=None)
    assert find(examples("diagonal", "s4", "float64"), lambda example: example.u.size == 0, settings=many)


def test_examples_have_a_state_only_if_asked():
    assert seen(examples("diagonal", "s4", "float64"), lambda e: e.state is None) == {True}


def test_examples_keep_their_limits():
    strategy = examples("diagonal", "truncated", "float64", min_length=2, max_length=4, max_modes=2, max_order=3)
    drawn = seen(strategy, lambda e: (e.length, e.system.n_modes, e.spec.order))
    assert {d[0] for d in drawn} == {2, 3, 4}
    assert {d[1] for d in drawn} == {1, 2}
    assert {d[2] for d in drawn} == {1, 2, 3}
