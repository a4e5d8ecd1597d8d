"""Rigorous recurrences: balls over short blocks, and the discs between them in float64.

A rectangular ball grows by up to √2 at every rotation, so L steps would cost L/2 bits. A block of a few steps
therefore starts from exact midpoints m, and the balls of that block enclose only the trajectory x̃ from m. The
recurrences are linear in the state, so the difference δ = x - x̃ to the true trajectory obeys

    liquid: δ_k = (Ā + diag d_k) δ_{k-1};   truncated: δ^p_k = Ā δ^p_{k-1} + d_k∘δ^{p-1}_{k-1},   d_k = B̄ u_k,

and is bounded by discs: per mode |δ_k| ≤ |ā + d_k| |δ_{k-1}| where Ā is diagonal, else by the Euclidean norm,
‖δ_k‖ ≤ (‖Ā‖₂ + max|d_k|) ‖δ_{k-1}‖. At the end of a block the balls' radii join δ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from flint import acb, acb_mat, arb

from .realization import Array

State = list[acb]
Step = Callable[[int, list[State]], list[State]]

# Exceeds the product of all 1 + 2^-53 roundings of the expression that it multiplies, sums of < 2^20 terms included.
_UP = 1 + 2.0**-30
# Exceeds one rounded product and sum; used where L factors multiply, so that they stay near 1.
_STEP_UP = 1 + 2.0**-48
# Exceeds what underflow can take from one expression.
_TINY = 2.0**-1060
# Exponent of a zero: far below the smallest subnormal.
_NOTHING = -4000

# Floats times 2^int: a norm's bound may grow by thousands of bits where the state does not.
Scaled = tuple[Array, int]


def balls(values: Array) -> list[acb]:
    """Exact balls of the floats of a vector."""
    return [acb(z.real, z.imag) for z in values.tolist()]


@dataclass(frozen=True)
class Discs:
    """What bounds δ: D discs, one per mode, or a single one for the norm of the whole state.

    Attributes:
        growth: upper bounds of the factor of δ^p_{k-1}, (L, D).
        coupling: upper bounds of the factor of δ^{p-1}_{k-1}, (L, D).
        readout: upper bounds of |∂y_o/∂δ|, (D, outputs), without the weight.
        per_mode: D counts modes; else D = 1.
        block: steps between restarts from midpoints.
        wrapping: factor by which one step may grow the ball's radius beyond `growth`.
    """

    growth: Array
    coupling: Array
    readout: Array
    per_mode: bool
    block: int
    wrapping: float

    def lost_bits(self) -> float:
        """Estimate of log₂(radius / (2^-precision ‖x‖)): a block's wrapping, and growth that x need not share."""
        lost = self.block * float(np.log2(self.wrapping))
        if not self.per_mode:
            # A mode's own growth moves its state as much as its radius; a norm's is a bound only.
            with np.errstate(over="ignore", invalid="ignore"):
                level = np.cumsum(np.log2(np.maximum(self.growth[:, 0], 2.0**-1000)))
            lost += max(0.0, float((level - np.minimum.accumulate(level)).max()))
        return lost

    def join(self, states: list[State]) -> Scaled:
        """Radii of the balls, (order, D)."""
        radii = [[v.rad() for v in x] for x in states]
        largest = max(max(row, default=arb(0)) for row in radii)
        if not largest.is_finite():
            return np.full((len(radii), self.growth.shape[1]), np.inf), 0
        mantissa, exponent = largest.man_exp() if largest > 0 else (0, _NOTHING)
        top = int(exponent) + int(mantissa).bit_length()
        unit = arb((1, -top))
        values = np.array([[float(r * unit) for r in row] for row in radii])
        return values if self.per_mode else norm_bound(values)[:, None], top

    def outputs(self, errors: list[Scaled]) -> tuple[Array, list[int]]:
        """Bounds of |C Σ_p δ^p_k| from the radii that join at the start of each block.

        Returns:
            (L, outputs), and for each block the power of two that its rows carry.
        """
        n_orders = len(errors[0][0])
        delta: Array = np.zeros(errors[0][0].shape)
        deltas: Array = np.empty((len(self.growth), *delta.shape))
        exponents: list[int] = []
        for k in range(len(deltas)):
            if k % self.block == 0:
                delta, exponent = _add((delta, exponents[-1] if exponents else _NOTHING), errors[k // self.block])
                exponents.append(exponent)
            moved: Array = deltas[k]
            np.multiply(self.growth[k], delta, out=moved)
            moved += _TINY
            if n_orders > 1:
                moved[1:] += self.coupling[k] * delta[:-1]
            delta = moved
        return np.asarray((deltas.sum(axis=1) @ self.readout) * _UP + _TINY), exponents


def _add(a: Scaled, b: Scaled) -> Scaled:
    """Upper bound of the sum, the largest element near 1."""
    exponents = [exponent + int(np.frexp(values.max(initial=0.0))[1]) for values, exponent in (a, b)]
    top = max(exponents)
    # Beyond the range of floats an element is zero, which the last term covers.
    total = sum(np.ldexp(values, max(exponent - top, -4000)) for values, exponent in (a, b))
    return np.asarray(total * _STEP_UP + _TINY), top


def modulus_bound(total: Array, terms: Array, n_terms: int) -> Array:
    """Upper bound of |exact sum| from its float value, the float Σ|terms| and the number of complex products."""
    # A float sum of n complex products is off by at most (n + 4) 2^-51 Σ|terms|, np.abs by a few 2^-53.
    return np.asarray((np.abs(total) + (n_terms + 8) * 2.0**-50 * terms) * _STEP_UP + _TINY)


def norm_bound(v: Array) -> Array:
    """Upper bound of the Euclidean norm over the last axis, without the underflow of squares."""
    with np.errstate(over="ignore"):
        return np.asarray(np.hypot.reduce(np.abs(v), axis=-1) * _UP + _TINY)


def spectral_norm_bound(A: Array) -> float:
    """Upper bound of ‖A‖₂ = ‖(A*A)^{2^j}‖₂^{2^{-j-1}} ≤ ‖(A*A)^{2^j}‖_F^{2^{-j-1}} for a complex (N, N) matrix.

    Accuracy: above ‖A‖₂ by a factor of at most N^{2^-12}·(1 + N·2^-40), below 1.002 for N ≤ 256. Rounding: an
    entry of a float product G G is off by at most 2√2 (2N + 2) 2^-53 ‖row‖‖column‖ in any order of summation,
    hence the product by `gamma`·‖G‖_F² in the Frobenius norm.
    """
    if not A.any():
        return 0.0
    if not np.isfinite(A).all():
        return float("inf")
    exponent = int(np.frexp(np.maximum(np.abs(A.real), np.abs(A.imag)).max())[1])
    F = np.ldexp(A.real, -exponent) + 1j * np.ldexp(A.imag, -exponent)
    gamma = (2 * len(A) + 8) * 2.0**-51
    squarings = 10
    G = F.conj().T @ F
    error, log2_scale = gamma * float(np.linalg.norm(F)) ** 2, 0.0
    for _ in range(squarings):
        norm = float(np.linalg.norm(G))
        shift = int(np.frexp(norm)[1])
        G, error, norm = G * 2.0**-shift, error * 2.0**-shift, norm * 2.0**-shift * _UP
        log2_scale = 2 * (log2_scale + shift)
        G, error = G @ G, (2 * norm * error + error**2 + gamma * norm**2) * _UP
    log2_norm = (log2_scale + np.log2((np.linalg.norm(G) + error) * _UP)) / 2 ** (squarings + 1)
    return float(np.ldexp(2.0**log2_norm * _UP, exponent)) + _TINY


def trajectory(step: Step, start: list[State], C: Array, weight: int, discs: Discs) -> list[list[arb]]:
    """Enclosures of y_k = weight · Re(C Σ_p x^p_k) at the working precision, one list over k per row of C.

    Args:
        step: k and the states x^1 … x^P at k - 1 to those at k, in balls.
        start: the states before step 0, exact or balls.
        C: (outputs, M) complex.
        weight: 1 or 2.
        discs: bounds for this recurrence; their length is the number of steps.
    """
    length = len(discs.growth)
    readout = acb_mat(len(C[0]), len(C), balls(C.T.ravel()))
    states, errors = start, []
    values: list[list[arb]] = []
    for first in range(0, length, discs.block):
        errors.append(discs.join(states))
        states = [[v.mid() for v in x] for x in states]
        rows = []
        for k in range(first, min(first + discs.block, length)):
            states = step(k, states)
            total = states[0]
            for x in states[1:]:
                total = [t + v for t, v in zip(total, x, strict=True)]
            rows.append(total)
        values += [[y.real for y in row] for row in (acb_mat(rows) * readout).tolist()]
    with np.errstate(over="ignore", invalid="ignore"):
        bounds, exponents = discs.outputs(errors)
    radii = np.nan_to_num(bounds, nan=np.inf, posinf=np.inf).tolist()
    units = [arb((1, exponent)) for exponent in exponents]
    return [
        [
            (row[o] + arb(0, radius[o]) * units[k // discs.block]) * weight
            for k, (row, radius) in enumerate(zip(values, radii, strict=True))
        ]
        for o in range(len(C))
    ]
