from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from liquid_ssm.backends.compiled.window_maps_adjoint import STEPS
from liquid_ssm.backends.compiled.windowed_chain import windowed_chain_vjp
from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.systems import DiagonalSystem

Array = npt.NDArray[Any]


def check_exact(system: DiagonalSystem, u: Array, order: int, window: int) -> None:
    grad = np.random.default_rng(1).integers(-2, 3, u.shape).astype(float)
    found = windowed_chain_vjp(system, u, grad, order, window, 1)
    exact = NumPyBackend().cascade_vjp(system, u, None, grad, None, order=order, kind="chain", window=window)
    assert found.state is None
    np.testing.assert_array_equal(found.u, exact.u)
    for name, gradient in exact.parameters.items():
        np.testing.assert_array_equal(found.parameters[name], gradient)
        assert found.parameters[name].dtype == gradient.dtype


@pytest.mark.parametrize(("order", "window"), [(1, 1), (1, 3), (2, 2), (2, 5), (3, 3), (3, 4), (4, 6)])
def test_exact_for_integers(order: int, window: int) -> None:
    for length in {window + 1, 2 * window, 2 * window + 1, 4 * window - 1} - {window}:
        for batch, n_channels, n_modes in ((0, 2, 3), (1, 1, 1), (3, 7, 2), (1, 2, 19)):
            rng = np.random.default_rng(n_modes)
            A, B, C = rng.integers(-1, 2, (3, n_channels, n_modes)) + 1j * rng.integers(-1, 2, (3, n_channels, n_modes))
            u = rng.integers(-1, 2, (batch, n_channels, length)).astype(float)
            check_exact(DiagonalSystem(A, B, C), u, order, window)


@pytest.mark.parametrize("window", [STEPS - 1, STEPS, STEPS + 1, 2 * STEPS + 1])
def test_windows_about_the_steps_that_are_added_up_together(window: int) -> None:
    # Transitions of modulus 1 or 0 keep the numbers small.
    A = np.array([[1.0, 1j, -1, -1j, 0]])
    B, C = np.array([[1.0, 1j, -1, 2, 1]]), np.array([[1 + 1j, 1, 1j, -1, 1]])
    u = np.random.default_rng(0).integers(-1, 2, (1, 1, 2 * window + 3)).astype(float)
    check_exact(DiagonalSystem(A, B, C), u, 2, window)
