"""Errors of a diagonal kernel whose powers are exponentials, K_i = weight · Re Σ_n C_n B̄_n^p exp(i log ā_n).

Derivation: docs/bounds-kernels.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .realization import Realization
from .rounding import COMPLEX_PRODUCT, INFLATION

Array = npt.NDArray[Any]

# What a mathematics library may be off by, in ulps; glibc's manual and CUDA's programming guide state less.
LOG_ULPS = 4.0  # each part of log ā
EXP_ULPS = 2.0  # exp of the real part, sine and cosine of the imaginary one

_BLOCK = 4096


def from_exponentials(
    realization: Realization,
    length: int,
    power: int,
    unit: float,
    *,
    log_ulps: float = LOG_ULPS,
    exp_ulps: float = EXP_ULPS,
    reduction: float = 0.0,
) -> Array:
    """Componentwise error (H, length).

    Args:
        unit: unit roundoff of the precision in which logarithm, exponentials and sums are computed.
        log_ulps: each part of log ā is within so many ulps of its own, also where |ā| is close to 1.
        exp_ulps: the same of the exponential, the sine and the cosine.
        reduction: units u of the angle i·Im log ā that its reduction to a period adds; 0 for library functions,
            which reduce exactly, 2 for subtracting a rounded multiple of 2π by hand.

    A mode with ā = 0 has no logarithm.  Its powers must be 1 and 0, 0, …, however that is arranged.
    """
    error = np.zeros((realization.n_channels, length))
    # an exponent i above 2^24 in float32 is itself rounded
    per_step = 2 * log_ulps + 1 + reduction + (1 if length * unit > 0.5 else 0)
    fixed = 4 * exp_ulps + 1 + COMPLEX_PRODUCT * (power + 1) + 2 * realization.n_modes
    for h in range(realization.n_channels):
        a = realization.A[h].astype(complex)
        moduli = np.abs(a)
        zero = moduli == 0
        log_moduli = np.log(np.where(zero, 1.0, moduli))
        weights = np.abs(realization.C[h]) * np.abs(realization.B[h]).astype(float) ** power
        # a modulus rounded near 1 may hide a logarithm of the size of its own rounding
        size_log = np.where(zero, 0.0, np.hypot(log_moduli, np.angle(a)) + 2.0**-51)
        columns = np.stack([weights, weights * size_log], axis=1)
        for start in range(0, length, _BLOCK):
            i = np.arange(start, min(length, start + _BLOCK))
            powers = np.where(zero & (i[:, None] > 0), 0.0, np.exp(np.outer(i, log_moduli)))
            sizes = powers @ columns
            largest = (fixed + per_step * i * size_log.max(initial=0.0)) * unit
            counted = (fixed * sizes[:, 0] + per_step * i * sizes[:, 1]) * unit
            inside = largest < 0.5
            error[h, i] = np.where(inside, counted / (1 - np.where(inside, largest, 0.0)), np.inf)
    # the float64 evaluation of |ā|ⁱ
    return np.asarray(error * realization.weight * (1 + (length + 16) * 2.0**-50) * INFLATION)
