"""One step in one pass equals the composition of primitives, and so a run of one step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from liquid_ssm.backends.compiled.orders_step import ROWS_OF_SLOTS, slots_of, takes
from liquid_ssm.backends.numba_backend import NumbaBackend
from liquid_ssm.compute import problem_of
from liquid_ssm.modes import State, run
from liquid_ssm.oracle.reference import reference
from liquid_ssm.problem import ModeSpec
from liquid_ssm.rounding_errors import options, realization_of, rounding_model
from liquid_ssm.systems import DiagonalSystem, DPLRSystem

NUMBA = NumbaBackend(threads=1)
FORMS = [("truncated", "all"), ("kb", "all"), ("kb", "adjacent"), ("pb", "all"), ("pb", "adjacent")]

WINDOWED = [("kb", "all"), ("kb", "adjacent"), ("pb", "all"), ("pb", "adjacent")]


class Composed:
    """The backend without its single step."""

    def __init__(self):
        fused = {name: value for name, value in NUMBA.capabilities.fused.items() if name != "single_step"}
        self.capabilities = replace(NUMBA.capabilities, fused=fused)

    def __getattr__(self, name):
        return getattr(NUMBA, name)


def system(structure, n_channels, n_modes, dtype="float32", paired=True, rank=1):
    rng = np.random.default_rng([n_channels, n_modes])

    def numbers(size, *shape):
        return size * (rng.normal(size=shape) + 1j * rng.normal(size=shape))

    shape = (n_channels, n_modes)
    Lambda, B, C = numbers(0.5, *shape), numbers(0.3, *shape), numbers(1, *shape)
    if structure == "diagonal":
        return DiagonalSystem(Lambda, B, C, conjugate_pairs=paired).astype(dtype)
    P, Q = numbers(0.1, rank, *shape), numbers(0.1, rank, *shape)
    return DPLRSystem(Lambda, P, Q, B, C, conjugate_pairs=paired).astype(dtype)


def parts(y, state):
    found = [y, *(state if isinstance(state, State) else [state])]
    return [part for part in found if part is not None]


def steps(backend, made, spec, batch, n_steps=4):
    rng = np.random.default_rng(1)
    state, found = None, []
    for _ in range(n_steps):
        u = rng.normal(size=(batch, made.n_channels, 1)).astype(made.C.real.dtype)
        y, state = run(backend, made, u, spec, state, carry=True)
        found += parts(y, state)
    return found


@pytest.fixture
def calls(monkeypatch):
    """The specs of the calls that were computed in one pass."""
    from liquid_ssm.backends.compiled import orders_step as module

    found, original = [], module.orders_step
    monkeypatch.setattr(
        module, "orders_step", lambda *given, **options: found.append(given[2]) or original(*given, **options)
    )
    return found


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize(("mode", "correlations"), FORMS)
@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
def test_a_step_is_the_composition_of_primitives(close, calls, structure, mode, correlations, order):
    spec = ModeSpec(mode, order, correlations)
    for dtype in ("float32", "float64"):
        for batch, n_channels, n_modes in [(1, 1, 1), (2, 3, 5), (2, 19, 16), (1, 2, 35), (0, 2, 3), (2, 2, 0)]:
            made = system(structure, n_channels, n_modes, dtype)
            found, expected = steps(NUMBA, made, spec, batch), steps(Composed(), made, spec, batch)
            for one, other in zip(found, expected, strict=True):
                close(one, other, dtype)
    assert calls
    assert set(calls) == {spec}


@pytest.mark.parametrize(("mode", "correlations"), [("kb", "adjacent"), ("pb", "all"), ("pb", "adjacent")])
@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
def test_it_is_the_same_in_every_bit_where_the_composition_steps_too(structure, mode, correlations):
    made, spec = system(structure, ROWS_OF_SLOTS + 5, 35), ModeSpec(mode, 3, correlations)
    found, expected = steps(NUMBA, made, spec, 2), steps(Composed(), made, spec, 2)
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(("mode", "correlations"), FORMS)
def test_nothing_given_is_written_to_and_no_memory_shared(mode, correlations):
    made, spec = system("dplr", 3, 5), ModeSpec(mode, 3, correlations)
    u = np.ones((2, 3, 1), "float32")
    _, state = run(NUMBA, made, u, spec, None, carry=True)
    given = parts(u, state)
    before = [part.copy() for part in given]
    found = parts(*run(NUMBA, made, u, spec, state, carry=True))
    assert all(np.array_equal(one, other) for one, other in zip(given, before, strict=True))
    assert not any(np.shares_memory(one, other) for one in given for other in found)


@pytest.mark.parametrize(("mode", "correlations"), FORMS)
def test_no_bit_depends_on_the_threads(mode, correlations):
    made, spec = system("dplr", 60, 3), ModeSpec(mode, 3, correlations)
    one, three = (steps(NumbaBackend(threads=n), made, spec, 50, 2) for n in (1, 3))
    assert all(np.array_equal(a, b) for a, b in zip(one, three, strict=True))


def test_what_it_does_not_take_is_composed(calls):
    spec = ModeSpec("truncated", 2)
    others = [system("dplr", 2, 3, rank=2), system("dplr", 2, 3, paired=False)]
    assert not any(takes(made, spec) for made in others)
    assert not takes(system("dplr", 2, 3), ModeSpec("kb", 2, window=3))
    assert takes(system("dplr", 2, 3), ModeSpec("kb", 1, window=3))
    assert not takes(system("dplr", 2, 3), ModeSpec("liquid"))
    for made in others:
        steps(NUMBA, made, spec, 1, 1)
    steps(NUMBA, system("dplr", 2, 3), ModeSpec("kb", 2, window=3), 1, 1)
    steps(NumbaBackend(threads=1, state_dtype="float64"), system("dplr", 2, 3), spec, 1, 1)
    assert not calls


@pytest.mark.parametrize("window", [3, 4, 9])
@pytest.mark.parametrize(("mode", "correlations"), WINDOWED)
@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_with_windows_are_within_the_bounds_of_exact_ones(calls, structure, mode, correlations, window, dtype):
    made, spec = system(structure, 5, 7, dtype), ModeSpec(mode, 3, correlations, window)
    in_one_pass = (structure, mode, correlations) != ("dplr", "kb", "all")
    u = np.random.default_rng(window).normal(size=(2, 5, 14)).astype(dtype)
    problem = problem_of(made, u, spec, state=True)
    exact = reference(
        realization_of(made), u, mode, models=[rounding_model(NUMBA, problem)], dtype=np.longdouble, **options(spec)
    )
    bound = exact.bounds[0].componentwise + exact.radius
    state, found = None, []
    for k in range(u.shape[2]):
        y, state = run(NUMBA, made, u[..., k : k + 1], spec, state, carry=True)
        found.append(y)
    assert len(calls) == (u.shape[2] if in_one_pass else 0)
    assert np.all(np.abs(np.concatenate(found, -1) - exact.value) <= bound)
    # Inputs that have left the window are in the linear term alone.
    assert state.inputs.shape == (2, 5, window - 1)
    assert np.array_equal(state.inputs, u[..., 15 - window :])


@pytest.mark.parametrize(("mode", "correlations"), WINDOWED)
def test_windows_are_computed_with_the_channels_and_threads_at_hand(close, mode, correlations):
    for order, window in [(1, 2), (2, 2), (2, 7), (4, 6)]:
        spec = ModeSpec(mode, order, correlations, window)
        for batch, n_channels, n_modes in [(2, 3, 5), (0, 2, 3), (2, 19, 16), (1, 1, 1)]:
            made = system("diagonal", n_channels, n_modes)
            found, expected = steps(NUMBA, made, spec, batch, 9), steps(Composed(), made, spec, batch, 9)
            for one, other in zip(found, expected, strict=True):
                close(one, other, "float32")
    made, spec = system("dplr", 60, 3), ModeSpec(mode, 3, correlations, 5)
    one, three = (steps(NumbaBackend(threads=n), made, spec, 50, 3) for n in (1, 3))
    assert all(np.array_equal(a, b) for a, b in zip(one, three, strict=True))


def test_slots_are_the_linear_states_that_a_mode_carries():
    count = {spec: len(slots_of("dplr", spec)) // 4 for spec in (ModeSpec(m, 3, c) for m, c in FORMS)}
    assert [count[ModeSpec(mode, 3, correlations)] for mode, correlations in FORMS] == [3, 6, 3, 1, 1]
    assert len(slots_of("diagonal", ModeSpec("kb", 3))) // 4 == 3
