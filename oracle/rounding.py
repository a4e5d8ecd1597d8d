"""How a computation rounds: what the error bounds need to know of it (docs/bounds.md)."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2, sqrt
from typing import Literal

import numpy as np
import numpy.typing as npt

# One complex product in floating point has relative error at most √5·u, and 2u where the compiler
# fuses multiply and add (Brent, Percival, Zimmermann 2007; Jeannerod, Kornerup, Louvet, Muller 2017).
COMPLEX_PRODUCT = sqrt(5.0)

# The same product added to a number part by part, as LAPACK's substitution may do: √2 from the four real
# products, 1 from the partial sums (docs/bounds.md).
ACCUMULATED_PRODUCT = 1 + sqrt(2.0)

# The bounds themselves are computed in floating point; each factor carries this much room, more than
# the few roundings (2^-53 each) that went into it.
INFLATION = 1 + 2.0**-40


@dataclass(frozen=True)
class RoundingModel:
    """One way of computing, as far as its rounding errors go.

    Args:
        unit: unit roundoff u of the working precision (2^-24, 2^-53, …).
        tiny: smallest subnormal: what an underflowing operation may lose (no flush to zero).
        pairwise: sums over n terms are balanced trees of depth ceil(log2 n); else of unknown order.
        fft: the linear term and other convolutions are kernel and FFT; else recurrence and direct sums.
        kernel_unit: unit roundoff of the precision in which kernels are computed before they are
            rounded to the working one.
        fused: multiply and add are contracted (True), never (False), or it is not known (None).
        scan: recurrences run in the order of time, or as a scan bracketed in any way (tree, chunks).
        powers: powers of Ā are products, or exponentials exp(i log ā).
    """

    unit: float
    tiny: float
    pairwise: bool = False
    fft: bool = False
    kernel_unit: float | None = None
    fused: bool | None = None
    scan: Literal["sequential", "any"] = "sequential"
    powers: Literal["products", "exponentials"] = "products"

    @classmethod
    def of_dtype(
        cls,
        dtype: npt.DTypeLike,
        *,
        pairwise: bool = False,
        fft: bool = False,
        kernel_dtype: npt.DTypeLike | None = None,
        fused: bool | None = None,
        scan: Literal["sequential", "any"] = "sequential",
        powers: Literal["products", "exponentials"] = "products",
    ) -> RoundingModel:
        """The model of a real floating dtype, round to nearest."""
        kernel_unit = None if kernel_dtype is None else unit_roundoff(kernel_dtype)
        tiny = float(np.finfo(dtype).smallest_subnormal)
        return cls(unit_roundoff(dtype), tiny, pairwise, fft, kernel_unit, fused, scan, powers)

    def depth(self, terms: int) -> int:
        """Rounded additions that a term of a sum may pass through."""
        if terms < 2:
            return 0
        return ceil(log2(terms)) if self.pairwise else terms - 1


def unit_roundoff(dtype: npt.DTypeLike) -> float:
    """Half the distance from 1 to the next float: the largest relative error of one rounding."""
    return float(np.finfo(dtype).eps) / 2
