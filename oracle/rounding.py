"""How a computation rounds: what the error bounds need to know of it (docs/bounds.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, log2, sqrt
from typing import Literal

import numpy as np
import numpy.typing as npt

# One complex product in floating point has relative error at most √5·u if nothing is contracted, 2u if each part
# is one fused multiply-add (Brent, Percival, Zimmermann 2007; Jeannerod, Kornerup, Louvet, Muller 2017), and at
# most √5·u if only one part is (docs/bounds.md, local facts).
COMPLEX_PRODUCT = sqrt(5.0)
FUSED_PRODUCT = 2.0

# The same product zw added to a number v part by part, as LAPACK's substitution may do, fused or not: the share
# of |zw| is at most √5 as well, and |v| loses ADDEND units besides (docs/bounds.md, local facts).
ACCUMULATED_PRODUCT = sqrt(5.0)
ADDEND = 1.0

# How far a float32 number is from what a matrix unit multiplies in its place.  Tensor cores that are fed float32 ignore
# the last 13 bits, so 11 bits are left by truncation; numbers that are rounded to 11 bits are nearer.  bfloat16 numbers
# are half as wide as float32 ones, so they come from a conversion, which rounds to nearest (8 bits).
FACTOR_UNITS = {"tf32": 2.0**-10, "bfloat16": 2.0**-8}

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
        fused: multiply and add are contracted (True), never (False), or it is not known (None).  True: of the
            products that a step adds up, each is one fused multiply-add with what it is added to, except the
            innermost.  False: every product and sum is rounded by itself, and a complex product is formed whole
            before it is added to anything.  None: either, or a mixture.
        scan: recurrences run in the order of time, or as a scan bracketed in any way (tree, chunks).
        powers: powers of Ā are products, or exponentials exp(i log ā).
        scan_chunk: with scan='any', a number of steps after which, counted from the first, a state is passed on in
            the order of time: bracketings are any inside these chunks; None where that is not so.
        state_unit: unit roundoff of the precision in which recurrences are computed, read-out included, where it is
            finer than the working one, to which outputs are then rounded once; None for the working one.
        state_tiny: smallest subnormal of that precision.
        kernels: a kernel that is not transformed by an FFT is the answer of the recurrence to an impulse, or comes
            from other tables: of powers (`diagonal`), Cauchy sums (`dplr`), matrix powers (`dense`).
        table_unit: unit roundoff of the precision in which tables of powers are formed before they are rounded to
            the working one; None where they are formed in it.
        joint_adjacent: `kb` over adjacent index tuples, without window, of a `diagonal` or `dplr` system is one
            recurrence that is driven by the sum of all orders, and so are its gradients; else one recurrence per order.
        linear_chunk: steps Q that the linear recurrence of a `diagonal` system takes at once, by tables, wherever
            it likes, with plain steps in between; None for plain steps only.
        scaled_states: `liquid`, the linear recurrence and the orders of `truncated` of a `diagonal` system may keep
            x / B̄, the order p x / B̄^p, in place of x, and change from one to the other between any two steps, in the
            precision of states; chains of `kb` never do.
        factor_unit: how far, relative to them, both factors of every product in the matrix products of `linear_chunk`
            may be rounded before they are multiplied; their sums then lose up to 2u per addition.  None where factors
            are taken as they are.
        gradient_chunk: steps Q that gradients of the linear recurrence of a `diagonal` system take at once, counted
            from the first, by tables that are formed in `table_unit` and rounded once; None for step by step.
        correlations: sums and polynomials of inputs run in the order of time; or as running sums in any bracketing, one
            order after the other (`sums`); or also as products of polynomials in any bracketing (`any`).
        correlation_chunk: with correlations='any', a number of steps after which, counted from the first, the
            polynomials are passed on in the order of time; None where that is not so.
    """

    unit: float
    tiny: float
    pairwise: bool = False
    fft: bool = False
    kernel_unit: float | None = None
    fused: bool | None = None
    scan: Literal["sequential", "any"] = "sequential"
    powers: Literal["products", "exponentials"] = "products"
    scan_chunk: int | None = None
    state_unit: float | None = None
    state_tiny: float | None = None
    kernels: Literal["recurrence", "tables"] = "recurrence"
    table_unit: float | None = None
    joint_adjacent: bool = False
    linear_chunk: int | None = None
    scaled_states: bool = False
    factor_unit: float | None = None
    gradient_chunk: int | None = None
    correlations: Literal["sequential", "sums", "any"] = "sequential"
    correlation_chunk: int | None = None

    def __post_init__(self) -> None:
        if self.scan not in ("sequential", "any"):
            raise ValueError(f"scan={self.scan!r} is unknown; allowed: sequential, any")
        if self.scan_chunk is not None and (self.scan != "any" or self.scan_chunk < 1):
            raise ValueError(
                f"scan_chunk={self.scan_chunk} with scan={self.scan!r}; allowed: a number of steps >= 1 with scan='any'"
            )
        if self.kernels not in ("recurrence", "tables"):
            raise ValueError(f"kernels={self.kernels!r} is unknown; allowed: recurrence, tables")
        if self.linear_chunk is not None and (self.scan != "sequential" or self.linear_chunk < 1):
            raise ValueError(
                f"linear_chunk={self.linear_chunk} with scan={self.scan!r}; allowed: a number of steps >= 1 with "
                "scan='sequential'"
            )
        # In shorter chunks a term may pass more roundings than step by step, which the bound by moduli counts.
        if self.gradient_chunk is not None and (self.scan != "sequential" or self.gradient_chunk < 8):
            raise ValueError(
                f"gradient_chunk={self.gradient_chunk} with scan={self.scan!r}; allowed: a number of steps >= 8 with "
                "scan='sequential'"
            )
        if self.correlations not in ("sequential", "sums", "any"):
            raise ValueError(f"correlations={self.correlations!r} is unknown; allowed: sequential, sums, any")
        if self.correlation_chunk is not None and (self.correlations != "any" or self.correlation_chunk < 1):
            raise ValueError(
                f"correlation_chunk={self.correlation_chunk} with correlations={self.correlations!r}; allowed: a "
                "number of steps >= 1 with correlations='any'"
            )
        if self.factor_unit is not None and not self.unit < self.factor_unit < 2.0**-6:
            raise ValueError(
                f"factor_unit={self.factor_unit} with unit={self.unit}; allowed: coarser than unit, below 2^-6"
            )
        for name in ("state_unit", "table_unit"):
            value = getattr(self, name)
            if value is not None and not value < self.unit:
                raise ValueError(f"{name}={value} is not finer than unit={self.unit}; leave it out")

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
        scan_chunk: int | None = None,
        state_dtype: npt.DTypeLike | None = None,
        kernels: Literal["recurrence", "tables"] = "recurrence",
        table_dtype: npt.DTypeLike | None = None,
        joint_adjacent: bool = False,
        linear_chunk: int | None = None,
        scaled_states: bool = False,
        factor_dtype: str | None = None,
        gradient_chunk: int | None = None,
        correlations: Literal["sequential", "sums", "any"] = "sequential",
        correlation_chunk: int | None = None,
    ) -> RoundingModel:
        """The model of a real floating dtype, round to nearest; dtypes no finer than it count as the same.

        `factor_dtype` is `tf32` or `bfloat16`, or None; only factors in float32 are ever rounded to them.
        """
        unit = unit_roundoff(dtype)
        if factor_dtype is not None and factor_dtype not in FACTOR_UNITS:
            raise ValueError(f"factor_dtype={factor_dtype!r} is unknown; allowed: {', '.join(FACTOR_UNITS)}, None")
        state_unit = _finer(state_dtype, unit)
        return cls(
            unit,
            smallest_subnormal(dtype),
            pairwise=pairwise,
            fft=fft,
            kernel_unit=None if kernel_dtype is None else unit_roundoff(kernel_dtype),
            fused=fused,
            scan=scan,
            powers=powers,
            scan_chunk=scan_chunk,
            state_unit=state_unit,
            state_tiny=None if state_unit is None or state_dtype is None else smallest_subnormal(state_dtype),
            kernels=kernels,
            table_unit=_finer(table_dtype, unit),
            joint_adjacent=joint_adjacent,
            linear_chunk=linear_chunk,
            scaled_states=scaled_states,
            factor_unit=FACTOR_UNITS[factor_dtype] if factor_dtype and unit == 2.0**-24 else None,
            gradient_chunk=gradient_chunk,
            correlations=correlations,
            correlation_chunk=correlation_chunk,
        )

    @property
    def in_states(self) -> RoundingModel:
        """The arithmetic of recurrences: this one, or that of `state_unit` where states are finer."""
        if self.state_unit is None:
            return self
        tiny = self.tiny if self.state_tiny is None else self.state_tiny
        return replace(self, unit=self.state_unit, tiny=tiny, state_unit=None, state_tiny=None, table_unit=None)

    @property
    def in_working_precision(self) -> RoundingModel:
        """The same with recurrences in the working precision, which covers finer ones that are rounded at the end."""
        return replace(self, state_unit=None, state_tiny=None)

    @property
    def unscaled(self) -> RoundingModel:
        """The same for a recurrence whose states are never scaled."""
        return replace(self, scaled_states=False) if self.scaled_states else self

    @property
    def for_correlations(self) -> RoundingModel:
        """The same for running sums of inputs, which the bounds of scans know as scans of their own."""
        if self.correlations == "sequential" or self.scan == "any":
            return self
        return replace(self, scan="any", linear_chunk=None)

    @property
    def finest(self) -> float:
        """The smallest unit roundoff of a recurrence."""
        return self.in_states.unit

    @property
    def product(self) -> float:
        """κ: one complex product is off by at most κ u |zw|, formed by itself or accumulated."""
        if self.fused is None:
            return max(COMPLEX_PRODUCT, ACCUMULATED_PRODUCT)
        return FUSED_PRODUCT if self.fused else COMPLEX_PRODUCT

    @property
    def addend(self) -> float:
        """α: a complex product that is added to v part by part costs α u |v| besides."""
        return 0.0 if self.fused is False else ADDEND

    @property
    def conversion(self) -> float:
        """c: a state that is scaled and scaled back changes by at most c|x|, of which the second order is part."""
        return 2 * self.unit * (1 + 2 * self.unit) if self.scaled_states else 0.0

    def depth(self, terms: int) -> int:
        """Rounded additions that a term of a sum may pass through."""
        if terms < 2:
            return 0
        return ceil(log2(terms)) if self.pairwise else terms - 1


def unit_roundoff(dtype: npt.DTypeLike) -> float:
    """Half the distance from 1 to the next float: the largest relative error of one rounding."""
    return float(np.finfo(dtype).eps) / 2


def smallest_subnormal(dtype: npt.DTypeLike) -> float:
    """What an operation that underflows may lose."""
    return float(np.finfo(dtype).smallest_subnormal)


def _finer(dtype: npt.DTypeLike | None, unit: float) -> float | None:
    found = None if dtype is None else unit_roundoff(dtype)
    return found if found is not None and found < unit else None
