from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from liquid_ssm.backends._windowed_chain import windowed_chain as readable
from liquid_ssm.backends.compiled import windowed_chain as module
from liquid_ssm.backends.compiled.windowed_chain import PIECE, windowed_chain
from liquid_ssm.systems import DiagonalSystem

Array = npt.NDArray[Any]


def integers(n_channels: int, n_modes: int, seed: int = 0) -> DiagonalSystem:
    """Gaussian integers of modulus up to √2: sums of products of a dozen are exact in float64."""
    rng = np.random.default_rng(seed)
    A, B, C = rng.integers(-1, 2, (3, n_channels, n_modes)) + 1j * rng.integers(-1, 2, (3, n_channels, n_modes))
    return DiagonalSystem(A, B, C)


@pytest.mark.parametrize(("order", "window"), [(1, 1), (1, 4), (2, 2), (2, 5), (3, 3), (3, 4), (4, 7)])
def test_exact_for_integers(order: int, window: int) -> None:
    # Whole blocks and parts of them, few and many modes and rows.
    for length in {window + 1, 2 * window, 2 * window + 1, 4 * window - 1} - {window}:
        for batch, n_channels, n_modes in ((0, 2, 3), (1, 1, 1), (2, 3, 5), (3, 7, 2), (1, 2, 19)):
            system = integers(n_channels, n_modes)
            u = np.random.default_rng(length).integers(-1, 3, (batch, n_channels, length)).astype(float)
            y = windowed_chain(system, u, order, window, 1)
            exact = readable(*system.parameters.values(), u, order, window, 2)  # type: ignore[arg-type]
            np.testing.assert_array_equal(y, exact)
            assert y.shape == u.shape


def test_pieces_of_a_row_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def backwards(work: Any, pieces: int, threads: int) -> None:
        # Each by itself, so that it finds nothing that another one has left.
        for piece in reversed(range(pieces)):
            work(piece, piece + 1)

    monkeypatch.setattr(module, "share", backwards)
    system = integers(1, 2)
    u = np.random.default_rng(0).integers(-1, 3, (1, 1, 3 * PIECE + 5)).astype(float)
    exact = readable(*system.parameters.values(), u, 2, 3, 2)  # type: ignore[arg-type]
    np.testing.assert_array_equal(windowed_chain(system, u, 2, 3, 1), exact)


def test_inputs_that_left_the_window_leave_no_trace() -> None:
    system, u = integers(2, 3), np.random.default_rng(0).standard_normal((1, 2, 30))
    spoiled = u.copy()
    spoiled[..., 3] = 1e100
    y = windowed_chain(system, u, 3, 5, 1)
    np.testing.assert_array_equal(windowed_chain(system, spoiled, 3, 5, 1)[..., 8:], y[..., 8:])
