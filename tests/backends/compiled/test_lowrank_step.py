"""One step equals a run of one step, but for the order of sums over modes."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends.compiled.lowrank import lowrank_run
from liquid_ssm.backends.compiled.lowrank_step import lowrank_step, takes
from liquid_ssm.backends.numba_backend import NumbaBackend
from liquid_ssm.systems import DPLRSystem


def system(n_channels, n_modes, dtype="float32", rank=1, paired=True, seed=0):
    rng = np.random.default_rng(seed)

    def numbers(size, *shape):
        return size * (rng.normal(size=shape) + 1j * rng.normal(size=shape))

    shape = (n_channels, n_modes)
    P, Q = numbers(0.1, rank, *shape), numbers(0.1, rank, *shape)
    made = DPLRSystem(numbers(0.5, *shape), P, Q, numbers(0.3, *shape), numbers(1, *shape), conjugate_pairs=paired)
    return made.astype(dtype)


def inputs(made, batch, seed=1):
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(batch, made.n_channels, 1)).astype(made.dtype)
    state = rng.normal(size=(2, batch, made.n_channels, made.n_modes))
    return u, (state[0] + 1j * state[1]).astype(made.C.dtype)


def run(made, u, state, liquid, **options):
    kind = "liquid" if liquid else "linear"
    y, final = lowrank_run(made, u, state[:, None], order=1, kind=kind, threads=1, **options)
    return y, final[:, 0]


@pytest.mark.parametrize("liquid", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (3, 2, 16), (1, 2, 33), (0, 3, 4), (2, 3, 0)])
def test_a_step_is_a_run_of_one_step(close, liquid, dtype, shape):
    batch, n_channels, n_modes = shape
    made = system(n_channels, n_modes, dtype)
    u, state = inputs(made, batch)
    found = lowrank_step(made, u, state, liquid=liquid, threads=1)
    for one, other in zip(found, run(made, u, state, liquid), strict=True):
        close(one, other, dtype)


@pytest.mark.parametrize("liquid", [True, False])
def test_wide_states_under_narrow_data(liquid):
    made = system(2, 20)
    u, state = inputs(made, 3)
    y, final = lowrank_step(made, u, state.astype(complex), liquid=liquid, threads=1, state_dtype="float64")
    expected_y, expected = run(made, u, state.astype(complex), liquid, state_dtype="float64")
    assert final.dtype == np.complex128
    # Sums of twenty float64 products in another order, and y rounded to float32 once.
    assert np.abs(final - expected).max() <= 100 * np.finfo(float).eps * np.abs(expected).max()
    assert np.abs(y - expected_y).max() <= np.finfo(np.float32).eps * np.abs(expected_y).max()


def test_no_state_is_rest_and_a_given_one_is_not_written_to():
    made = system(2, 5)
    u, state = inputs(made, 3)
    before = state.copy()
    lowrank_step(made, u, state, liquid=True, threads=1)
    assert np.array_equal(state, before)
    at_rest = lowrank_step(made, u, None, liquid=True, threads=1)
    zeros = lowrank_step(made, u, np.zeros_like(state), liquid=True, threads=1)
    assert all(np.array_equal(one, other) for one, other in zip(at_rest, zeros, strict=True))


def test_no_bit_depends_on_the_threads():
    made = system(60, 3)
    u, state = inputs(made, 50)
    one, three = (lowrank_step(made, u, state, liquid=True, threads=n) for n in (1, 3))
    assert all(np.array_equal(a, b) for a, b in zip(one, three, strict=True))


def test_what_it_does_not_take_goes_the_usual_way(close):
    assert takes(system(2, 5))
    for made in (system(2, 5, rank=2), system(2, 5, paired=False)):
        assert not takes(made)
        u, state = inputs(made, 3)
        found = NumbaBackend(threads=1).scan(made, u, state, liquid=True)
        for one, other in zip(found, run(made, u, state, True), strict=True):
            close(one, other, "float32")


def test_the_backend_takes_it_for_single_steps(monkeypatch):
    from liquid_ssm.backends.compiled import lowrank_step as module

    called = []
    monkeypatch.setattr(module, "lowrank_step", lambda *given, **options: called.append(given) or (None, None))
    made = system(2, 5)
    u, state = inputs(made, 3)
    NumbaBackend(threads=1).scan(made, u, state, liquid=True)
    assert len(called) == 1
