"""The output of a state."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from liquid_ssm.summation import pairwise_sum

Array = npt.NDArray[Any]


def read_out(C: Array, x: Array, weight: int, axis: int) -> Array:
    """weight · Re Σ_n C_n x_n = weight · Σ_n (Re C_n Re x_n - Im C_n Im x_n), modes on `axis`.

    Args:
        C, x: complex or real arrays that broadcast.
        weight: 2 where one of each conjugate pair is stored, else 1.

    Accuracy:
        Two rounded real products and one subtraction per mode, then ceil(log2 M) additions:
        |error| <= ((1 + u)^(2 + ceil(log2 M)) - 1) · weight · Σ_n |C_n| |x_n|.
    """
    return np.asarray(weight * pairwise_sum(C.real * x.real - C.imag * x.imag, axis=axis))
