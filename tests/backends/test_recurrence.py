from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from liquid_ssm.backends import _recurrence
from liquid_ssm.backends._cascade import Truncated
from liquid_ssm.backends._recurrence import Recurrence, final_state, like, run, run_vjp
from liquid_ssm.backends._scan import Scan
from liquid_ssm.systems import DenseSystem, DiagonalSystem, MIMOSystem

BATCH, H, M, LENGTH = 2, 3, 5, 150


def system_of(structure: str, rng: np.random.Generator) -> Any:
    def draw(*shape: int) -> Any:
        return 0.4 * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / M**0.5

    if structure == "mimo":
        return MIMOSystem(draw(M), draw(M, H), draw(H, M))
    if structure == "dense":
        return DenseSystem(draw(H, M, M), draw(H, M), draw(H, M))
    return DiagonalSystem(draw(H, M), draw(H, M), draw(H, M))


def recurrences(structure: str) -> tuple[Recurrence, Any, Any]:
    rng = np.random.default_rng(0)
    recurrence = Truncated(system_of(structure, rng), order=2)
    u = rng.standard_normal((BATCH, H, LENGTH))
    shape = recurrence.state_shape(u.shape[:-1])
    return recurrence, u, rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


@pytest.mark.parametrize("structure", ["diagonal", "dense", "mimo"])
@pytest.mark.parametrize(("steps", "elements"), [(1, 1 << 18), (7, 1 << 18), (1000, 1 << 18), (64, 100)])
def test_chunks_do_not_change_a_bit(structure: str, steps: int, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    recurrence, u, state = recurrences(structure)
    y, final = run(recurrence, u, state)
    monkeypatch.setattr(_recurrence, "CHUNK_STEPS", steps)
    monkeypatch.setattr(_recurrence, "CHUNK_ELEMENTS", elements)
    y_again, final_again = run(recurrence, u, state)
    np.testing.assert_array_equal(y_again, y)
    np.testing.assert_array_equal(final_again, final)
    np.testing.assert_array_equal(final_state(recurrence, u, state), final)


def test_chunked_gradients_are_those_of_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whole numbers with |ā| = 1 stay whole and small, so that both orders of summation are exact.
    rng = np.random.default_rng(1)
    units = np.array([1, -1, 1j, -1j])
    ones = DiagonalSystem(rng.choice(units, (H, M)), rng.choice(units, (H, M)), rng.choice(units, (H, M)))
    recurrence = Truncated(ones, order=2)
    u = rng.integers(-1, 2, (BATCH, H, LENGTH)).astype(float)
    state = np.ones(recurrence.state_shape(u.shape[:-1]), complex)
    whole = run_vjp(recurrence, u, state, u, state)
    for steps in (1, 7, 1000):
        monkeypatch.setattr(_recurrence, "CHUNK_STEPS", steps)
        chunked = run_vjp(recurrence, u, state, u, state)
        for name, gradient in whole[0].items():
            assert np.abs(gradient).max() > 0
            np.testing.assert_array_equal(chunked[0][name], gradient)
        np.testing.assert_array_equal(chunked[1], whole[1])
        np.testing.assert_array_equal(chunked[2], whole[2])


def test_cotangents_given_as_none_are_zero() -> None:
    recurrence, u, state = recurrences("diagonal")
    gradients, grad_u, grad_state = run_vjp(recurrence, u, state, None, None)
    for value in (*gradients.values(), grad_u, grad_state):
        np.testing.assert_array_equal(value, np.zeros_like(value))
    # Gradients add up over the two cotangents, exactly where one of them does not reach: C is read from y alone.
    both = run_vjp(recurrence, u, state, u, state)[0]["C"]
    np.testing.assert_array_equal(run_vjp(recurrence, u, state, u, None)[0]["C"], both)


def test_no_steps_leave_everything_as_it_is() -> None:
    recurrence, u, state = recurrences("diagonal")
    y, final = run(recurrence, u[..., :0], state)
    assert y.shape == (BATCH, H, 0)
    np.testing.assert_array_equal(final, state)
    gradients, grad_u, grad_state = run_vjp(recurrence, u[..., :0], state, None, state)
    np.testing.assert_array_equal(grad_state, state)
    assert grad_u.shape == (BATCH, H, 0)
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(gradient, np.zeros_like(recurrence.parameters[name]))


def test_memory_does_not_grow_with_the_length() -> None:
    # One chunk of 64 states and its read-out are alive at a time, not the 4096 states.
    import tracemalloc

    recurrence = Scan(system_of("diagonal", np.random.default_rng(2)), liquid=True)
    state = np.zeros((BATCH, H, M), complex)
    peaks = []
    for length in (512, 4096):
        u = np.zeros((BATCH, H, length))
        tracemalloc.start()
        run(recurrence, u, state)
        peaks.append(tracemalloc.get_traced_memory()[1] - u.nbytes)
        tracemalloc.stop()
    all_states = 4096 * state.nbytes
    assert peaks[1] - peaks[0] < 0.1 * all_states


def test_like_returns_the_parameters_dtype() -> None:
    gradient = np.array([1 + 2j])
    assert like(np.ones(1, np.float32), gradient).dtype == np.float32
    np.testing.assert_array_equal(like(np.ones(1, np.float32), gradient), [1])
    np.testing.assert_array_equal(like(np.ones(1, np.complex64), gradient), [1 + 2j])
    np.testing.assert_array_equal(like(np.ones(1, np.complex64), None), [0])
