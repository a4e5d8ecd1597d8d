"""Prepared steps: bit for bit those of `liquid_ssm.step`, with its errors and its choice of a backend."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm import prepared_step
from liquid_ssm.modes import State
from liquid_ssm.prepared_step import PreparedStep
from liquid_ssm.problem import ModeSpec
from liquid_ssm.registry import get_backend
from liquid_ssm.selection import auto
from liquid_ssm.testing.strategies import random_system

INPUTS = np.random.default_rng(0).normal(size=(7, 2, 3)).astype("float32")
SPECS = [
    ModeSpec("s4"),
    ModeSpec("liquid"),
    ModeSpec("truncated", 3),
    ModeSpec("kb", 3, "adjacent"),
    ModeSpec("kb", 2, "all"),
    ModeSpec("pb", 3, "all"),
    ModeSpec("pb", 2, "adjacent", 4),
    ModeSpec("kb", 3, "adjacent", 4),
]


def system_of(structure="dplr"):
    return random_system(structure, n_channels=3, n_modes=5).astype("float32")


def options(spec):
    return {"mode": spec.mode, "order": spec.order, "correlations": spec.correlations, "window": spec.window}


def parts(state):
    return [part for part in (state if isinstance(state, tuple) else (state,)) if part is not None]


def assert_same(found, wanted):
    for ours, theirs in zip([found[0], *parts(found[1])], [wanted[0], *parts(wanted[1])], strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.tobytes() == theirs.tobytes()


@pytest.fixture
def slow(monkeypatch):
    """How many steps went the long way."""
    calls = []

    def counted(*arguments, **named):
        calls.append(arguments)
        return ls.step(*arguments, **named)

    monkeypatch.setattr(prepared_step, "step", counted)
    return calls


@pytest.mark.parametrize("backend", ["numba", "numpy", "first", "numba-wide-state"])
@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.label)
def test_bit_for_bit_the_steps_of_the_public_function(slow, spec, structure, backend):
    system, state, other = system_of(structure), None, None
    prepared = PreparedStep(system, spec, backend=backend)
    for u_k in INPUTS:
        found, wanted = prepared(u_k, state), ls.step(system, u_k, other, **options(spec), backend=backend)
        assert_same(found, wanted)
        state, other = found[1], wanted[1]
    # The first has no state yet.
    assert len(slow) == 1


@pytest.mark.parametrize(
    ("backend", "structure", "spec", "one_call"),
    [
        ("numba", "diagonal", ModeSpec("s4"), True),
        ("numba", "dplr", ModeSpec("liquid"), True),
        ("numba", "dplr", ModeSpec("kb", 3, "adjacent"), True),
        ("numba", "diagonal", ModeSpec("pb", 2, "adjacent", 4), True),
        ("numba-wide-state", "dplr", ModeSpec("liquid"), True),
        ("numba-wide-state", "dplr", ModeSpec("truncated", 3), False),
        ("numba", "dplr", ModeSpec("kb", 2, "all", 4), False),
        ("numba", "mimo", ModeSpec("liquid"), False),
        ("numpy", "diagonal", ModeSpec("s4"), False),
    ],
)
def test_one_call_of_the_backend_where_it_has_one(slow, backend, structure, spec, one_call):
    system = system_of(structure)
    prepared = PreparedStep(system, spec, backend=backend)
    _, state = prepared(INPUTS[0])
    (ready,) = prepared._ready.values()
    assert (ready.advance is not None) == one_call
    found = prepared(INPUTS[1], state)
    assert len(slow) == 1
    assert_same(found, ls.step(system, INPUTS[1], state, **options(spec), backend=backend))


def test_rows_that_threads_share_take_the_primitives(monkeypatch):
    system, backend = system_of(), get_backend("numba")
    many = (1000, 3, 1)
    assert backend.prepared_step(system, ModeSpec("liquid"), (2, 3, 1), np.dtype("float32")) is not None
    monkeypatch.setattr(type(backend), "threads", 2)
    assert backend.prepared_step(system, ModeSpec("liquid"), many, np.dtype("float32")) is None


def test_states_and_inputs_of_another_form_go_the_long_way(slow):
    system, spec = system_of(), ModeSpec("kb", 3, "adjacent")
    prepared = PreparedStep(system, spec, backend="numba")
    _, state = prepared(INPUTS[0])
    linear = state.x[:, 0]
    assert_same(prepared(INPUTS[1], linear), ls.step(system, INPUTS[1], linear, **options(spec), backend="numba"))
    double = State(*(part if part is None else part.astype(np.result_type(part, "float64")) for part in state))
    assert_same(prepared(INPUTS[1], double), ls.step(system, INPUTS[1], double, **options(spec), backend="numba"))
    assert len(slow) == 3
    one = State(*(None if part is None else part[:1] for part in state))
    assert_same(prepared(INPUTS[1, :1], one), ls.step(system, INPUTS[1, :1], one, **options(spec), backend="numba"))
    assert len(slow) == 4
    with pytest.raises(ls.ShapeError, match="channels"):
        prepared(INPUTS[1, :, :2], state)
    with pytest.raises(ls.ShapeError, match="needs the parts"):
        prepared(INPUTS[1], one)


@pytest.mark.parametrize(("dtype", "backend"), [("float32", "numpy:float64"), ("float64", "numpy")])
def test_numbers_in_two_precisions_go_the_long_way(slow, dtype, backend):
    system, spec, state = system_of().astype(dtype), ModeSpec("liquid"), None
    prepared = PreparedStep(system, spec, backend=backend)
    for u_k in INPUTS:
        found = prepared(u_k, state)
        assert_same(found, ls.step(system, u_k, state, **options(spec), backend=backend))
        state = found[1]
    assert len(slow) == len(INPUTS)


def test_what_is_not_finite_is_named_as_ever():
    system = ls.DiagonalSystem(np.full((1, 2), 0.5 + 0.1j), np.ones((1, 2)), np.ones((1, 2)), conjugate_pairs=True)
    prepared = PreparedStep(system.astype("float32"), ModeSpec("liquid"), backend="numba")
    u = np.ones((1, 1), "float32")
    _, state = prepared(u)
    _, state = prepared(u, state)
    with pytest.raises(ls.ParameterError, match="NaN or infinite"):
        prepared(np.full((1, 1), np.nan, "float32"), state)
    with pytest.raises(ls.UnstableRecurrence):
        prepared(np.full((1, 1), 1e30, "float32"), np.full_like(state, 1e30))


@pytest.mark.parametrize("backend", ["auto", "certified-only"])
def test_the_selection_is_asked_for_at_every_step(slow, tmp_path, monkeypatch, backend):
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path))
    auto.forget()
    system, spec = system_of(), ModeSpec("liquid")
    _, certificate = auto.selected(system, INPUTS[0, ..., None], spec, state=True)
    prepared = PreparedStep(system, spec, backend=backend)
    _, state = prepared(INPUTS[0])
    _, state = prepared(INPUTS[1], state)
    assert len(slow) == 1
    # Certificates that this process no longer knows, and inputs beyond what one holds.
    auto.forget()
    assert_same(prepared(INPUTS[3], state), ls.step(system, INPUTS[3], state, **options(spec)))
    assert len(slow) == 2
    assert_same(prepared(INPUTS[3], state), ls.step(system, INPUTS[3], state, **options(spec)))
    assert len(slow) == 2
    beyond = (1e-3 * INPUTS[3]).astype("float32")
    assert abs(system.B_bar).max() * abs(beyond).max() < certificate.domain.drive.low
    if backend == "auto":
        assert_same(prepared(beyond, state), ls.step(system, beyond, state, **options(spec)))
    else:
        with pytest.raises(ls.NotCertified):
            prepared(beyond, state)
    assert len(slow) == 3
    auto.forget()


def test_another_selection_is_seen(slow, tmp_path, monkeypatch):
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path))
    auto.forget()
    system, spec = system_of(), ModeSpec("liquid")
    prepared = PreparedStep(system, spec)
    _, state = prepared(INPUTS[0])
    monkeypatch.setattr(auto.Reselection, "__call__", lambda *_: "numpy")
    assert_same(prepared(INPUTS[1], state), ls.step(system, INPUTS[1], state, **options(spec)))
    assert len(slow) == 2
    auto.forget()


def test_with_a_recheck_every_step_goes_the_long_way(slow, tmp_path, monkeypatch):
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path))
    auto.forget()
    prepared, state = PreparedStep(system_of(), ModeSpec("s4"), recheck=1.0), None
    for u_k in INPUTS[:3]:
        _, state = prepared(u_k, state)
    assert len(slow) == 3
    auto.forget()


@pytest.mark.parametrize("modes", [4, 5, 16, 19])
@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.label)
def test_a_step_says_whether_all_is_finite(spec, structure, modes):
    """In full vectors, in what is left of them, and in every row; of outputs alone where C makes them overflow."""
    backend = get_backend("numba")
    system = random_system(structure, n_channels=3, n_modes=modes, seed=1).astype("float32")
    advance = backend.prepared_step(system, spec, (2, 3, 1), np.dtype("float32"))
    u = np.ones((2, 3, 1), "float32")
    _, state = ls.step(system, u[..., 0], **options(spec))
    before = list(state) if isinstance(state, State) else [state, None, None]
    *after, finite = advance(u, *before)
    assert finite
    assert all(part is None or np.isfinite(part).all() for part in after)
    rng = np.random.default_rng(0)
    for which, part in enumerate(before):
        for place in () if part is None else rng.integers(part.size, size=8):
            for bad in (np.inf, np.nan):
                changed = [None if p is None else p.copy() for p in before]
                changed[which].reshape(-1)[place] = bad
                with np.errstate(invalid="ignore"):
                    *after, finite = advance(u, *changed)
                assert bool(finite) == all(p is None or np.isfinite(p).all() for p in after)
                assert not finite
    C = system.C.copy()
    C[0] = 1e38  # of one row of each sequence, which is not the last
    large = replace(system, C=C)
    with np.errstate(over="ignore"):  # responses of pb are found beforehand
        advance = backend.prepared_step(large, spec, (2, 3, 1), np.dtype("float32"))
    y, x, *_, finite = advance(10 * u, *before)
    assert np.isfinite(x).all()
    assert not np.isfinite(y).all()
    assert not finite


@pytest.mark.parametrize("modes", [5, 16])  # in what is left of a vector, in whole ones
def test_an_overflow_of_a_state_that_is_not_read_out_is_said(modes):
    spec = ModeSpec("kb", 2, "all")
    system = random_system("dplr", n_channels=3, n_modes=modes, seed=1).astype("float32")
    B_bar = system.B_bar.copy()
    B_bar[1] = 1.5e19  # its square times u is out of range, and reaches an output one step later
    large, backend = replace(system, B_bar=B_bar), get_backend("numba")
    advance = backend.prepared_step(large, spec, (2, 3, 1), np.dtype("float32"))
    rest = np.zeros((2, 3, 3, modes), "complex64")
    y, x, *_, finite = advance(np.full((2, 3, 1), 10, "float32"), rest, None, None)
    assert np.isfinite(y).all()
    assert not np.isfinite(x).all()
    assert not finite
