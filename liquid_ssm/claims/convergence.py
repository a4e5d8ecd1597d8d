"""Orders of convergence, fitted to errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# How far a fitted slope may be from the order it stands for. The next term of the error contributes to the slope
# about its own share of the error, and orders are whole numbers: 0.2 cannot confuse two of them.
SLOPE_TOLERANCE = 0.2


def slope(steps: Sequence[float], errors: Sequence[float]) -> float:
    """Exponent q of error ≈ c · stepᵠ, by least squares on logarithms."""
    return float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


def has_order(fitted: float, order: int) -> bool:
    return abs(fitted - order) <= SLOPE_TOLERANCE
