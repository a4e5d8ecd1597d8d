"""One step equals a scan of one step; the state bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends.compiled.diagonal import scan
from liquid_ssm.backends.compiled.step import seconds_per_step, step


@pytest.mark.parametrize("liquid", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (3, 2, 16), (1, 2, 33), (0, 3, 4)])
@pytest.mark.parametrize("state_dtype", [None, "float64"])
def test_a_step_is_a_scan_of_one_step(draw, close, liquid, shape, state_dtype):
    system, u, state, _, _ = draw(*shape, 1, "float32")
    options = {"liquid": liquid, "threads": 1, "state_dtype": state_dtype}
    y, final = step(system, u, state[:, 0], **options)
    expected_y, expected = scan(system, u, state[:, 0], **options)
    close(y, expected_y, "float32")
    assert np.array_equal(final, expected)
    assert final.dtype == expected.dtype


def test_real_systems_have_real_states(draw):
    system, u, state, _, _ = draw(2, 3, 5, 1, real=True)
    _, final = step(system, u, state[:, 0], liquid=True, threads=1)
    assert final.dtype == np.float64
    assert np.array_equal(final, scan(system, u, state[:, 0], liquid=True, threads=1)[1])


def test_no_bit_depends_on_the_threads(draw):
    system, u, state, _, _ = draw(50, 60, 3, 1, "float32")
    one, three = (step(system, u, state[:, 0], liquid=True, threads=n) for n in (1, 3))
    assert np.array_equal(one[0], three[0])
    assert np.array_equal(one[1], three[1])


def test_the_state_given_is_not_written_to(draw):
    system, u, state, _, _ = draw(2, 3, 5, 1)
    before = state.copy()
    step(system, u, state[:, 0], liquid=True, threads=1)
    assert np.array_equal(state, before)


def test_a_loop_in_compiled_code_is_timed(draw):
    system, _, _, _, _ = draw(1, 4, 5, 1, "float32")
    assert 0 < seconds_per_step(system, 2, 50) < 1
