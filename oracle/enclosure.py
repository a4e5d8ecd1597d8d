"""Tier T1: rigorous enclosures of every mode with python-flint's balls, the precision doubled until they are tight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf, isfinite, log2, nextafter
from sys import float_info
from typing import Any

import numpy as np
from flint import arb, ctx

from .arguments import Arguments, Parameters
from .enclosure_systems import System
from .enclosure_terms import Series, convolve, kb_terms, pb_terms
from .enclosure_trajectory import balls, trajectory
from .errors import OutputOverflow, PrecisionExhausted
from .realization import Array, Realization

DEFAULT_TARGET = 2.0**-70
# hi + lo cannot follow a midpoint closer than about 2^-107 of its size.
SMALLEST_TARGET = 2.0**-100
# A radius below the smallest subnormal cannot be stored.
_RADIUS_FLOOR = 2.0**-1073
MAX_PRECISION = 1 << 16
# For the condition of C x and K ∗ u, unknown in advance.
_GUARD_BITS = 20


@dataclass(frozen=True, eq=False)
class Enclosure:
    """The exact values lie in hi + lo ± radius, element by element, without exception.

    Attributes:
        hi, lo: float64, the midpoint as the unevaluated sum of two floats; |lo| is at most half an ulp of hi.
        radius: float64 ≥ 0; contains the rounding of hi + lo.
        precision: largest number of bits that an element needed.
    """

    hi: Array
    lo: Array
    radius: Array
    precision: int


def enclose(
    realization: Realization,
    u: Any,
    mode: str,
    *,
    order: int = 3,
    correlations: str = "all",
    window: int | None = None,
    state: Any = None,
    target: float = DEFAULT_TARGET,
) -> Enclosure:
    """Enclosures of the outputs y of any mode.

    Args:
        realization: discrete parameters, any structure; `mimo` in the modes s4, liquid and truncated only.
        u: real, (batch, H, L).
        mode: `s4` (Eq. 2), `liquid` (Eq. 11), `truncated` (Eq. 12), `kb` (Eq. 14) or `pb` (Eq. 15).
        order: highest order P >= 1; `s4` and `liquid` have none and ignore it.
        correlations: `all`, or `adjacent` for i_{j+1} = i_j + 1 only; `kb` and `pb`.
        window: all p >= 2 indices lie in k-window+1 … k; the linear term has no window; `kb` and `pb`.
        state: x_{-1}, (batch, H, M) (`mimo`: (batch, M)); `s4`, `liquid`, `truncated`. For `truncated` it is the
            state of the first order, or of every order where the shape is (batch, order, H, M).
        target: largest radius wanted, in units of max_k |y_k| of the same batch element and channel.

    Returns:
        Arrays of shape (batch, H, L).

    Raises:
        ValueError: an unknown name, a shape that does not fit, NaN or inf, an option that the mode lacks, or a
            target outside 2^-100 … 1.
        OutputOverflow: |y_k| is certainly above float64's range.
        PrecisionExhausted: the target is not reached with `MAX_PRECISION` bits.

    Accuracy: radius ≤ target · max_k |y_k|, or 2^-1073 where that is smaller. One full-length state costs about
    0.8 µs per mode and step in `liquid`; the convolution modes are faster where Ā is diagonal.

    References: Eq. 2, 11, 12, 14, 15 of arXiv 2209.12951. F. Johansson, Arb, IEEE Trans. Comput. 66 (2017) 1281.
    """
    _check_target(target)
    a = Arguments.of(realization, u, mode, order, correlations, window, state)
    hi, lo, radius = np.zeros((3, *a.u.shape))
    precision = 0
    if a.u.size:
        shared = a.parameters.structure == "mimo"
        for h in range(1 if shared else a.u.shape[1]):
            channel = _Channel(System.of(a.parameters, h), a)
            rows = slice(None) if shared else slice(h, h + 1)
            for b in range(len(a.u)):
                states = a.states[b] if shared else a.states[b, :, h]
                where = f"mode {mode!r}, batch element {b}, " + ("all channels" if shared else f"channel {h}")
                found, bits = _refine(channel.outputs(a.u[b, rows], states), target, where)
                hi[b, rows], lo[b, rows], radius[b, rows] = found
                precision = max(precision, bits)
    return Enclosure(hi, lo, radius, precision)


def enclose_kernel(
    realization: Realization, length: int, power: int = 1, *, target: float = DEFAULT_TARGET
) -> Enclosure:
    """Enclosures of K_i = weight · Re(C Āⁱ B̄^{∘power}), the numbers of Eq. 6, 14 and 15.

    Args:
        realization: any structure but `mimo`.
        length: number of entries, >= 0.
        power: elementwise power of B̄, >= 1.
        target: largest radius wanted, in units of max_i |K_i| of the same channel.

    Returns:
        Arrays of shape (H, length).

    Raises:
        ValueError, OutputOverflow, PrecisionExhausted: as `enclose`.

    Accuracy: as `enclose`.
    """
    _check_target(target)
    p = Parameters.of(realization)
    if p.structure == "mimo":
        raise ValueError("a mimo realization has an H x H kernel; this one serves diagonal, dplr and dense.")
    if power < 1 or length < 0:
        raise ValueError(f"power is {power} and length {length}; allowed: power >= 1, length >= 0.")
    hi, lo, radius = np.zeros((3, len(p.C), length))
    precision = 0
    for h in range(len(p.C) if length else 0):
        found, bits = _refine(_kernel(System.of(p, h), length, power), target, f"kernel of channel {h}")
        hi[h], lo[h], radius[h] = (part[0] for part in found)
        precision = max(precision, bits)
    return Enclosure(hi, lo, radius, precision)


@contextmanager
def working_precision(bits: int) -> Iterator[None]:
    """flint's global precision, put back on every way out; its own `workprec` is younger than version 0.6."""
    before = ctx.prec
    ctx.prec = bits
    try:
        yield
    finally:
        ctx.prec = before


def _check_target(target: float) -> None:
    if not SMALLEST_TARGET <= target <= 1:
        raise ValueError(f"target is {target}; hi + lo can hold 2^-100 … 1 of the largest |y|.")


@dataclass(frozen=True)
class _Evaluation:
    """Balls of some rows at the working precision, and how many bits that loses by a rough estimate."""

    run: Callable[[], list[Series]]
    lost_bits: float


def _kernel(system: System, length: int, power: int) -> _Evaluation:
    return _Evaluation(
        lambda: system.kernels([system.input_power(power)], length), log2(length) + system.kernel_bits(length)
    )


class _Channel:
    """One `System` under one mode; its kernels are kept for the whole batch."""

    def __init__(self, system: System, arguments: Arguments) -> None:
        self.system = system
        self.arguments = arguments
        self._kernels: dict[int, list[Series]] = {}

    def outputs(self, u: Array, states: Array) -> _Evaluation:
        """For u (inputs, L) and one initial state per order, (order, M)."""
        a, system, length = self.arguments, self.system, u.shape[1]
        if a.mode in ("liquid", "truncated") or (a.mode == "s4" and not (system.per_mode and len(u) == 1)):
            liquid = a.mode == "liquid"
            discs = system.discs(u, liquid=liquid)
            return _Evaluation(
                lambda: trajectory(
                    system.step(u, liquid=liquid), [balls(x) for x in states], system.C, system.weight, discs
                ),
                log2(length) + discs.lost_bits(),
            )
        lost = log2(length) + system.kernel_bits(length)
        if a.order > 1 and a.correlations == "all":
            # e_j and h_j of all inputs are that much larger than those of neighbours.
            lost += (a.order - 1) * log2(1 + float((np.abs(u) / (np.abs(u).max() or 1)).sum()))
        return _Evaluation(lambda: [self._by_convolution([arb(v) for v in u[0].tolist()], states[0])], lost)

    def _by_convolution(self, u: Series, state: Array) -> Series:
        """K ∗ u, with the free response in `s4` and the correlation terms in `kb` and `pb`."""
        a, system, length = self.arguments, self.system, len(u)
        if ctx.prec not in self._kernels:
            powers = [system.input_power(p) for p in range(1, 1 + (a.order if a.mode == "kb" else 1))]
            self._kernels[ctx.prec] = system.kernels(powers, length)
        kernels = self._kernels[ctx.prec]
        linear = convolve(kernels[0], u, length)
        if a.mode == "s4":
            if not state.any():
                return linear
            rest = system.kernels([system.product()(balls(state))], length)[0]
        elif a.mode == "kb":
            rest = kb_terms(u, kernels, a.correlations, a.window)
        else:
            gains = [system.readout(system.input_power(p)) for p in range(1, a.order + 1)]
            rest = pb_terms(u, gains, a.correlations, a.window)
        return [v + w for v, w in zip(linear, rest, strict=True)]


def _refine(evaluation: _Evaluation, target: float, where: str) -> tuple[tuple[Array, Array, Array], int]:
    """(hi, lo, radius), each (rows, L), and the bits that reached the target."""
    wanted = min(-log2(target) + evaluation.lost_bits + _GUARD_BITS, MAX_PRECISION)
    bits = -(-int(wanted) // 64) * 64
    while True:
        with working_precision(bits):
            hi, lo, radius = np.moveaxis(np.array([[_split(y, where) for y in row] for row in evaluation.run()]), 2, 0)
        peak = (np.abs(hi) - radius).max(axis=1, keepdims=True)
        limit = np.maximum(target * peak, _RADIUS_FLOOR)
        if (radius <= limit).all():
            return (hi, lo, radius), bits
        if bits >= MAX_PRECISION:
            raise PrecisionExhausted(
                f"{where}: radius {radius.max():.3g} where {limit.min():.3g} is wanted, with {bits} bits, the most "
                f"allowed. Give a larger target (now {target:.3g}) or a shorter signal."
            )
        bits = min(2 * bits, MAX_PRECISION)


def _split(y: arb, where: str) -> tuple[float, float, float]:
    """(hi, lo, radius) with y ⊂ hi + lo ± radius, whatever float() rounds."""
    hi = float(y)
    if not isfinite(hi):
        if y.abs_lower() > float_info.max:
            raise OutputOverflow(
                f"{where}: |y| ≥ {y.abs_lower().str(3, radius=False)}, above float64's largest number; scale u or "
                "choose a stable system."
            )
        return 0.0, 0.0, inf
    rest = y - hi
    lo = float(rest)
    error = (rest - lo).abs_upper()
    radius = float(error)
    while arb(radius) < error:
        radius = nextafter(radius, inf)
    return hi, lo, radius
