"""Errors of convolution kernels that are computed without a recurrence.

Derivations: docs/bounds-kernels.md.  All norms are evaluated in float64 and rounded up by a small factor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .cauchy_error import Channel, cauchy_error
from .convolution import kernel_and_size
from .correlation import count
from .exponential_powers import from_exponentials
from .matrix_power_error import matrix_power_error
from .realization import Realization
from .rounding import COMPLEX_PRODUCT, INFLATION, RoundingModel
from .scaling import normalised, scaled

Array = npt.NDArray[Any]


def kernel_error(realization: Realization, length: int, power: int, model: RoundingModel) -> Array:
    """A vector (H, length) whose 2-norm bounds that of the kernel's error, rounded to the working precision.

    Componentwise for `diagonal` kernels, from tables of powers or from exponentials, and for `dense` ones, from
    tables of matrix powers; a norm spread evenly for `dplr` ones, from the generating function and an inverse FFT.
    """
    inner = kernel_unit(realization, model)
    values, sizes = kernel_and_size(realization, length, power)
    outer = model.unit if inner != model.unit else 0.0
    rounding = outer * np.abs(values)
    channels = range(realization.n_channels)
    if realization.structure == "dplr":
        norms = np.array([_of_dplr(realization, h, length, power, inner) for h in channels])
        # norms add up, so the rounding of the entries is spread too
        entries, scale = normalised(rounding)
        norms = norms * (1 + outer) + scaled(np.linalg.norm(entries, axis=1), scale)
        error = np.broadcast_to((norms / np.sqrt(max(1, length)))[:, None], values.shape)
    else:
        if realization.structure == "dense":
            A, B, C = realization.A, realization.B, realization.C
            rows = [matrix_power_error(A[h], B[h], C[h], length, power, inner) for h in channels]
            error = np.array(rows).reshape(values.shape)
        elif model.kernels == "tables" and not model.fft:
            return _from_rounded_tables(realization, values, sizes, power, model)
        elif model.powers == "exponentials":
            error = from_exponentials(realization, length, power, inner)
        else:
            error = _from_powers(sizes, power, realization.n_modes, inner)
        error = error * (1 + outer) + rounding
    return np.asarray(error * INFLATION**4 + 4 * model.tiny)


def kernel_unit(realization: Realization, model: RoundingModel) -> float:
    """Unit roundoff of what a kernel is computed in before it, or its tables, are rounded to the working precision."""
    if model.kernels == "tables" and realization.structure == "diagonal" and not model.fft:
        return model.table_unit or model.unit
    return model.kernel_unit or model.unit


def _from_rounded_tables(
    realization: Realization, values: Array, sizes: Array, power: int, model: RoundingModel
) -> Array:
    """Baby steps āʲ and giant steps c b̄ᵖ ā^{kQ}, each rounded to the working precision, where the sum is.

    A single entry, C B̄^{∘power}, has no tables: it is the one that is rounded.
    """
    modes, inner, unit = realization.n_modes, kernel_unit(realization, model), model.unit
    outer = unit if inner < unit else 0.0
    relative = COMPLEX_PRODUCT * inner * (np.arange(sizes.shape[-1]) + power)
    if sizes.shape[-1] == 1:
        error = count(np.array(1.0), relative + 2 * modes * inner) * sizes
        error = error * (1 + outer) + outer * np.abs(values)
    else:
        error = count(np.array(1.0), relative + 2 * modes * unit + 2 * outer) * sizes
    # entries and products that underflow, times what they are multiplied by
    size_a, size_c = np.abs(realization.A).astype(float), np.abs(realization.C).astype(float)
    grown = np.maximum(1, size_a) ** sizes.shape[-1] * np.maximum(1, size_c)
    grown = grown * np.maximum(1, np.abs(realization.B).astype(float)) ** power
    lost = 8 * (sizes.shape[-1] + power) * model.tiny * realization.weight * grown.sum(axis=-1, keepdims=True)
    return np.asarray((error + lost) * INFLATION**4)


def _from_powers(sizes: Array, power: int, modes: int, unit: float) -> Array:
    """Entry i: i + power + 1 factors, so at most i + power complex products, then 2M real terms in any order."""
    roundings = COMPLEX_PRODUCT * (np.arange(sizes.shape[-1]) + power) + 2 * modes
    product = roundings * unit
    return np.asarray(np.where(product < 0.5, product / (1 - np.minimum(product, 0.5)) * sizes, np.inf) * INFLATION)


def _of_dplr(realization: Realization, h: int, length: int, power: int, unit: float) -> float:
    if length == 0:
        return 0.0
    P, Q = realization.P, realization.Q
    assert P is not None
    assert Q is not None
    Lambda, B, C = (v[h].astype(complex) for v in (realization.A, realization.B, realization.C))
    if length == 1:
        # C B̄ alone: products of B̄, then two real products, their sum, and the sum over the modes
        size = float((np.abs(C) * np.abs(B) ** power).sum()) * realization.weight
        return float(((power - 1) * COMPLEX_PRODUCT + 1 + len(C)) * unit * size * (1 + 2.0**-10))
    channel = Channel(Lambda, P[:, h].astype(complex), Q[:, h].astype(complex), B, C, realization.conjugate_pairs)
    return cauchy_error(channel, length, power, unit)
