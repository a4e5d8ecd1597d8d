"""Scans in compiled code against the plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends.compiled.diagonal import can_scale, scan

SHAPES = [(1, 1, 1), (2, 3, 5), (3, 17, 3), (2, 40, 2), (1, 2, 33)]


@pytest.mark.parametrize("liquid", [True, False])
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 63, 64, 65, 129, 200])
def test_every_length(readable, draw, close, liquid, length):
    system, u, state, _, _ = draw(2, 3, 5, length)
    y, final = scan(system, u, state[:, 0], liquid=liquid, threads=1)
    expected_y, expected = readable.scan(system, u, state[:, 0], liquid=liquid)
    close(y, expected_y)
    close(final, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("real", [True, False])
def test_every_shape(readable, draw, close, shape, dtype, real):
    system, u, state, _, _ = draw(*shape, 70, dtype, real=real)
    y, final = scan(system, u, state[:, 0], liquid=True, threads=2)
    expected_y, expected = readable.scan(system, u, state[:, 0], liquid=True)
    close(y, expected_y, dtype)
    close(final, expected, dtype)


def test_no_bit_depends_on_the_threads(draw):
    system, u, _, _, _ = draw(5, 20, 9, 100, "float32")
    y, final = scan(system, u, None, liquid=True, threads=1)
    for threads in (2, 3, 7):
        again = scan(system, u, None, liquid=True, threads=threads)
        assert np.array_equal(again[0], y)
        assert np.array_equal(again[1], final)


def test_a_state_is_that_of_any_split(draw):
    system, u, _, _, _ = draw(2, 3, 5, 150)
    _, whole = scan(system, u, None, liquid=True, threads=1)
    for cut in (1, 63, 64, 77):
        _, state = scan(system, u[..., :cut], None, liquid=True, threads=1)
        _, final = scan(system, u[..., cut:], state, liquid=True, threads=1)
        assert np.array_equal(final, whole)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 3, 0), (0, 3, 0)])
def test_empty_batches_and_sequences(draw, shape):
    batch, n_channels, length = shape
    system, u, state, _, _ = draw(batch, n_channels, 5, length)
    y, final = scan(system, u, state[:, 0], liquid=True, threads=2)
    assert y.shape == u.shape
    assert np.array_equal(final, state[:, 0])


def test_a_finer_state_is_rounded_once(draw):
    system, u, state, _, _ = draw(2, 3, 5, 300, "float32")
    y, final = scan(system, u, state[:, 0], liquid=True, threads=1, state_dtype="float64")
    fine, fine_final = scan(system.astype("float64"), u.astype("float64"), state[:, 0], liquid=True, threads=1)
    assert np.array_equal(y, fine.astype("float32"))
    assert np.array_equal(final, fine_final)


def split_and_whole(system, u):
    _, whole = scan(system, u, None, liquid=True, threads=1)
    _, state = scan(system, u[..., :70], None, liquid=True, threads=1)
    return scan(system, u[..., 70:], state, liquid=True, threads=1)[1], whole


def test_scaled_states_are_converted_at_both_ends(draw, close):
    system, u, state, _, _ = draw(2, 3, 5, 150, "float32")
    assert can_scale(system, u, None)
    close(*split_and_whole(system, u), "float32")
    y, final = scan(system, u, state[:, 0], liquid=False, threads=1)
    expected_y, expected = scan(system.astype("float64"), u.astype("float64"), state[:, 0], liquid=False, threads=1)
    close(y, expected_y.astype("float32"), "float32")
    close(final, expected.astype("complex64"), "float32")


@pytest.mark.parametrize("factor", [0.0, 1e-12, 1.5])
def test_states_are_not_scaled_by_what_may_leave_the_range(draw, factor):
    system, u, _, _, _ = draw(2, 3, 5, 150, "float32")
    B_bar = system.B_bar.copy()
    B_bar[1, 2] = factor
    odd = type(system)(system.A_bar, B_bar, system.C)
    assert not can_scale(odd, u, None)
    assert not can_scale(system, u, "float64")
    assert not can_scale(system.astype("float64"), u.astype("float64"), None)
    # In the plain form a split changes no bit; inputs are small so that the wrong form would be no overflow either.
    assert np.array_equal(*split_and_whole(odd, np.float32(0.01) * u))


def test_a_scaled_state_that_overflows_is_computed_plainly(draw, close):
    system, u, _, _, _ = draw(1, 1, 1, 40, "float32")
    small = type(system)(system.A_bar, 0 * system.B_bar + np.float32(2.0**-20), system.C)
    # x is about 2^-20 z, so only z leaves float32's range.
    large = np.full_like(u, 2.0**126)
    y, final = scan(small, large, None, liquid=False, threads=1)
    assert np.isfinite(y).all()
    assert np.isfinite(final).all()
    expected, _ = scan(small.astype("float64"), large.astype("float64"), None, liquid=False, threads=1)
    close(y, expected.astype("float32"), "float32")


def test_inputs_in_any_memory_layout(draw):
    system, u, _, _, _ = draw(2, 3, 5, 40)
    y, _ = scan(system, u, None, liquid=True, threads=1)
    strided = np.asfortranarray(np.repeat(u, 2, axis=-1))[..., ::2]
    assert np.array_equal(scan(system, strided, None, liquid=True, threads=1)[0], y)
