"""Gradients of the linear recurrence by chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liquid_ssm.backends.compiled import chunk_gradients
from liquid_ssm.backends.compiled.chunk_gradients import best_chunk, chunked_vjp
from liquid_ssm.backends.compiled.simd import lanes
from liquid_ssm.backends.numba_backend import NumbaBackend
from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.oracle.adjoint_bounds import gradient_bounds
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.rounding_errors import realization_of
from liquid_ssm.systems import DiagonalSystem

W = lanes(np.float32)


def whole_system(seed, n_channels, n_modes, *, pairs=True, real=False):
    """Small whole numbers and modes that turn by quarters."""
    rng = np.random.default_rng(seed)

    def numbers(*shape):
        found = rng.integers(-1, 2, shape).astype("float32")
        return found if real else (found + 1j * rng.integers(-1, 2, shape)).astype("complex64")

    turns = np.array([1, -1] if real else [1, -1, 1j, -1j])
    A_bar = rng.choice(turns, (n_channels, n_modes)).astype("float32" if real else "complex64")
    return DiagonalSystem(A_bar, numbers(n_channels, n_modes), numbers(n_channels, n_modes), conjugate_pairs=pairs)


def drawn(seed, system, batch, length, *, states=True, channels_last=False, values=2):
    """Inputs, a state and cotangents of small whole numbers, whose sums and products float32 has exactly."""
    rng = np.random.default_rng(seed)
    shape = (batch, system.n_channels, length)

    def signal():
        found = rng.integers(-values, values + 1, shape).astype("float32")
        return np.ascontiguousarray(found.swapaxes(1, 2)).swapaxes(1, 2) if channels_last else found

    def state():
        parts = rng.integers(-1, 2, (2, *shape[:2], system.n_modes)).astype("float32")
        return parts[0] + 1j * parts[1] if system.is_complex else parts[0]

    u, g = signal(), signal()
    return (u, state(), g, state()) if states else (u, None, g, None)


def by_steps(system, u, state, g, final):
    """In float64, one step after the other."""
    wide = [None if x is None else x.astype(np.result_type(x, np.float64)) for x in (u, state, g, final)]
    return NumPyBackend().scan_vjp(system.astype("float64"), *wide, liquid=False)


def by_chunks(system, chunk, u, state, g, final, threads=1):
    return chunked_vjp(system, chunk, u, state, g, final, threads)


def require_equal(found, expected, system):
    for name, parameter in system.parameters.items():
        gradient = found.parameters[name]
        assert (gradient.shape, gradient.dtype) == (parameter.shape, parameter.dtype)
        # The last rounding is that to the parameter's dtype.
        np.testing.assert_array_equal(gradient, expected.parameters[name].astype(gradient.dtype), err_msg=name)
    assert found.u.dtype == np.float32
    np.testing.assert_array_equal(found.u, expected.u)
    np.testing.assert_array_equal(found.state, expected.state)


@settings(max_examples=60)
@given(data=st.data())
def test_every_gradient_is_exact_where_numbers_are_whole(data):
    """No rounding, no tolerance: one wrong index, sign or power shows."""
    pairs, real = data.draw(st.booleans(), "pairs"), data.draw(st.booleans(), "real")
    batch, n_channels = data.draw(st.sampled_from([1, 2, 4, 5, 9])), data.draw(st.sampled_from([1, 3, W, W + 1]))
    n_modes, chunk = data.draw(st.sampled_from([1, 2, 5, W, W + 3])), data.draw(st.sampled_from([32, 64]))
    seed = data.draw(st.integers(0, 2**32 - 1), "seed")
    system = whole_system(seed, n_channels, n_modes, pairs=pairs, real=real)
    length = chunk * data.draw(st.sampled_from([1, 2, 3]), "chunks")
    options = {"states": data.draw(st.booleans(), "states"), "channels_last": data.draw(st.booleans(), "channels last")}
    given_ = drawn(seed, system, batch, length, **options)
    require_equal(by_chunks(system, chunk, *given_), by_steps(system, *given_), system)


@pytest.mark.parametrize("chunk", [32, 64])
@pytest.mark.parametrize(("n_modes", "real"), [(1, False), (W + 3, False), (5, True)])
def test_gradients_stay_within_their_bound(chunk, n_modes, real, draw):
    """Where modes turn by any angle; powers by quarters are 1 after every chunk."""
    system, u, states, g, finals = draw(3, 2, n_modes, 3 * chunk, "float32", real=real)
    given_ = u, states[:, 0], g, finals[:, 0]
    found, expected = by_chunks(system, chunk, *given_), by_steps(system, *given_)
    models = (
        RoundingModel.of_dtype("float32", table_dtype="float64", gradient_chunk=chunk),
        RoundingModel.of_dtype("float64", pairwise=True),
    )
    options = {"mode": "s4", "grad_y": g, "state": states[:, 0], "grad_state": finals[:, 0]}
    own, of_steps = (gradient_bounds(realization_of(system), u, model=model, **options) for model in models)
    pairs = {"u": (found.u, expected.u), "state": (found.state, expected.state)}
    names = {"A": "A_bar", "B": "B_bar", "C": "C"}
    pairs |= {key: (found.parameters[name], expected.parameters[name]) for key, name in names.items()}
    for key, (gradient, wanted) in pairs.items():
        assert (np.abs(gradient - wanted) <= own[key] + of_steps[key]).all(), key


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_blocks_of_time_are_joined(batch):
    """More chunks than a block has columns for; the last block is not full."""
    system = whole_system(1, 2, 4)
    given_ = drawn(2, system, batch, 32 * 67, values=1)
    require_equal(by_chunks(system, 32, *given_), by_steps(system, *given_), system)


def test_channels_are_taken_some_at_a_time():
    """The last tile is not full."""
    system = whole_system(12, max(chunk_gradients.CHANNELS, 2 * W) + W + 3, 2)
    given_ = drawn(13, system, 2, 32, channels_last=True)
    require_equal(by_chunks(system, 32, *given_), by_steps(system, *given_), system)


def test_missing_cotangents_are_zero():
    system = whole_system(3, 3, 4)
    u, state, _, final = drawn(4, system, 2, 64)
    nothing = np.zeros_like(u)
    require_equal(by_chunks(system, 32, u, state, None, final), by_steps(system, u, state, nothing, final), system)
    found = by_chunks(system, 32, u, state, None, None)
    assert not any(gradient.any() for gradient in (found.u, found.state, *found.parameters.values()))


@pytest.mark.parametrize("tiles", [1, 16])
def test_no_bit_depends_on_threads(tiles, draw, monkeypatch):
    """Whether the batch is split into parts or not."""
    monkeypatch.setattr(chunk_gradients, "TILES", tiles)
    system, u, states, g, finals = draw(11, W + 2, 5, 192, "float32")
    one, two = (by_chunks(system, 64, u, states[:, 0], g, finals[:, 0], threads) for threads in (1, 2))
    for name in system.parameters:
        np.testing.assert_array_equal(one.parameters[name], two.parameters[name])
    np.testing.assert_array_equal(one.u, two.u)
    np.testing.assert_array_equal(one.state, two.state)


def test_a_power_that_leaves_the_range_is_seen():
    system = whole_system(5, 2, 3)
    given_ = drawn(5, system, 1, 64)
    assert by_chunks(system, 64, *given_) is not None
    grown = DiagonalSystem(system.A_bar * np.float32(5), system.B_bar, system.C)
    assert by_chunks(grown, 64, *given_) is None


def test_chunks_are_taken_where_they_pay():
    assert best_chunk(32, 4, 128, 4096) == (64 if W > 8 else 32)
    assert best_chunk(32, 8, 128, 4096 + 32) == 32
    for shape in (
        (32, 4, 128, 4095),  # no multiple
        (32, 1, 128, 64),  # tables for too few steps
        (4, 4, 128, 4096),  # vectors with four modes in eight lanes or more
        (32, 0, 128, 4096),
        (32, 4, 0, 4096),
        (32, 4, 128, 0),
        (0, 4, 128, 4096),
    ):
        assert best_chunk(*shape) is None


class TestBackend:
    """`NumbaBackend.scan_vjp`, which chooses."""

    @pytest.fixture
    def taken(self, monkeypatch):
        calls = []

        def recorded(*args):
            found = chunked_vjp(*args)
            calls.append(found is not None)
            return found

        monkeypatch.setattr(chunk_gradients, "chunked_vjp", recorded)
        return calls

    @staticmethod
    def gradients(system, *given_, liquid=False, **options):
        return NumbaBackend(**options).scan_vjp(system, *given_, liquid=liquid)

    def test_takes_chunks_and_says_so(self, taken):
        system = whole_system(6, 2, 16)
        given_ = drawn(7, system, 64, 512, values=1)
        require_equal(self.gradients(system, *given_), by_steps(system, *given_), system)
        assert taken == [True]

    def test_takes_steps_where_chunks_do_not_fit(self, taken):
        system = whole_system(8, 2, 16)
        given_ = drawn(9, system, 64, 512, values=1)
        self.gradients(system, *given_, liquid=True)
        self.gradients(system, *given_, state_dtype="float64")
        self.gradients(system.astype("float64"), *(x.astype(np.result_type(x, "float64")) for x in given_))
        self.gradients(system, *drawn(9, system, 64, 511, values=1))
        assert not taken

    def test_takes_steps_where_a_power_leaves_the_range(self, taken):
        system = whole_system(10, 2, 16)
        # Powers from 20^32 on: every step of the recurrence is finite all the same, from rest and without inputs.
        grown = DiagonalSystem(system.A_bar * np.float32(20), system.B_bar, system.C)
        u, _, g, _ = drawn(11, system, 64, 512)
        found = self.gradients(grown, np.zeros_like(u), None, np.zeros_like(g), None)
        assert not found.parameters["A_bar"].any()
        assert taken == [False]
