"""Tier T2: every mode in mpmath, by formulas that tier T1 does not use, at two precisions that must agree.

s4 is a convolution with C Āⁱ; liquid and truncated multiply the row C from the right by the transitions of Eq. 11,
from the newest input to the oldest, and never form a state; kb and pb are summed over the oldest index, with the
elementary symmetric polynomials of the inputs after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np

from .arguments import Arguments, Parameters
from .errors import OracleDisagreement
from .realization import Array, Realization

# Digits beyond those asked for, at the lower precision: sums of up to 10^6 terms and some cancellation.
_GUARD_DIGITS = 15

Row = list[Any]


def outputs(
    realization: Realization,
    u: Any,
    mode: str,
    *,
    order: int = 3,
    correlations: str = "all",
    window: int | None = None,
    state: Any = None,
    dps: int = 50,
) -> Array:
    """The outputs y of any mode, to `dps` decimal digits of max_k |y_k|.

    Args:
        realization, u, mode, order, correlations, window, state: as in `enclosure.enclose`.
        dps: digits that the evaluations with dps + 15 and with 2 dps + 15 digits must share, >= 15.

    Returns:
        Object array of `mpmath.mpf`, (batch, H, L), from the higher precision.

    Raises:
        ValueError: as in `enclosure.enclose`, or dps < 15.
        OracleDisagreement: the two evaluations differ by more than 10^-dps · max_k |y_k|.

    Accuracy: not proved; T1 encloses. Cost: O(L²) products of a row with Ā; for L up to some hundred.

    References: Eq. 2, 11, 12, 14, 15 of arXiv 2209.12951.
    """
    if dps < 15:
        raise ValueError(f"dps is {dps}; give at least 15, the digits of a float64.")
    arguments = Arguments.of(realization, u, mode, order, correlations, window, state)
    with mpmath.workdps(dps + _GUARD_DIGITS):
        coarse = _evaluate(arguments)
    with mpmath.workdps(2 * dps + _GUARD_DIGITS):
        fine = _evaluate(arguments)
        for b, h in np.ndindex(*fine.shape[:2]):
            difference = max((abs(v - w) for v, w in zip(coarse[b, h], fine[b, h], strict=True)), default=0)
            limit = mpmath.mpf(10) ** -dps * max((abs(w) for w in fine[b, h]), default=0)
            if not difference <= limit:
                raise OracleDisagreement(
                    f"mode {mode!r}, batch element {b}, channel {h}: evaluations with {dps} and {2 * dps} digits "
                    f"differ by {mpmath.nstr(difference, 3)}, allowed {mpmath.nstr(limit, 3)}. Give a larger dps."
                )
    return fine


def _mp(value: complex) -> Any:
    return mpmath.mpc(value.real, value.imag)


@dataclass(frozen=True)
class _System:
    """One state: Ā as eigenvalues or as columns of the matrix on the full state, B̄ by input, C by output."""

    A: list[Any]
    diagonal: bool
    B: list[Row]
    C: list[Row]
    weight: int
    doubled: bool

    @classmethod
    def of(cls, p: Parameters, h: int) -> _System:
        if p.structure == "mimo":
            inputs, outputs = ([[_mp(z) for z in row] for row in v] for v in (p.B.T, p.C))
            return cls([_mp(a) for a in p.A], True, inputs, outputs, p.weight, False)
        B, C = ([_mp(z) for z in v[h]] for v in (p.B, p.C))
        if p.structure == "dense":
            return cls([[_mp(z) for z in column] for column in p.A[h].T], False, [B], [C], 1, False)
        A: Row = [_mp(z) for z in p.A[h]]
        if p.structure == "diagonal":
            return cls(A, True, [B], [C], p.weight, False)
        P, Q = ([[_mp(z) for z in row] for row in v[:, h]] for v in (p.P, p.Q))
        doubled = p.conjugate_pairs
        if doubled:
            A, B, C = (v + [z.conjugate() for z in v] for v in (A, B, C))
            P, Q = ([row + [z.conjugate() for z in row] for row in v] for v in (P, Q))
        columns = [
            [
                (A[n] if n == m else 0) - mpmath.fsum(p[n] * q[m].conjugate() for p, q in zip(P, Q, strict=True))
                for n in range(len(A))
            ]
            for m in range(len(A))
        ]
        return cls(columns, False, [B], [C], 1, doubled)

    def drive(self, inputs: Any) -> Row:
        """B̄ u_k for the inputs at one time."""
        values = [mpmath.mpf(v) for v in inputs]
        return [mpmath.fdot(values, column) for column in zip(*self.B, strict=True)]

    def start(self, x: Array) -> Row:
        """A given state, on the full state."""
        half = [_mp(z) for z in x]
        return half + [z.conjugate() for z in half] if self.doubled else half

    def times_A(self, row: Row) -> Row:
        """row · Ā."""
        if self.diagonal:
            return [r * a for r, a in zip(row, self.A, strict=True)]
        return [mpmath.fdot(row, column) for column in self.A]

    def powers(self, row: Row, count: int) -> list[Row]:
        """row · Āⁱ for i < count."""
        if self.diagonal:
            return [[r * a**i for r, a in zip(row, self.A, strict=True)] for i in range(count)]
        table = [row]
        for _ in range(count - 1):
            table.append(self.times_A(table[-1]))
        return table[:count]

    def real(self, value: Any) -> Any:
        return self.weight * mpmath.re(value)


def _evaluate(a: Arguments) -> Array:
    """All outputs at mpmath's present precision."""
    y = np.empty(a.u.shape, dtype=object)
    batch, n_channels, length = a.u.shape
    shared = a.parameters.structure == "mimo"
    for h in range(1 if shared else n_channels):
        system = _System.of(a.parameters, h)
        rows = slice(None) if shared else slice(h, h + 1)
        for b in range(batch if length else 0):
            states = [system.start(x) for x in (a.states[b] if shared else a.states[b, :, h])]
            y[b, rows] = _outputs(system, a, a.u[b, rows], states)
    return y


def _outputs(system: _System, a: Arguments, u: Array, states: list[Row]) -> list[list[Any]]:
    drives = [system.drive(column) for column in u.T]
    if a.mode in ("liquid", "truncated"):
        depth = None if a.mode == "liquid" else a.order
        return [
            [_backwards(system, row, drives[: k + 1], states, depth) for k in range(len(drives))] for row in system.C
        ]
    tables = [system.powers(row, len(drives) + 1) for row in system.C]
    linear = [
        [
            system.real(
                mpmath.fsum(mpmath.fdot(table[k - i], drives[i]) for i in range(k + 1))
                + mpmath.fdot(table[k + 1], states[0])
            )
            for k in range(len(drives))
        ]
        for table in tables
    ]
    if a.mode == "s4":
        return linear
    kernels = [
        [system.real(mpmath.fdot(row, [b**p for b in system.B[0]])) for row in tables[0]] for p in range(1, a.order + 1)
    ]
    inputs = [mpmath.mpf(v) for v in u[0].tolist()]
    return [[y + _correlations(kernels, inputs, k, a) for k, y in enumerate(linear[0])]]


def _backwards(system: _System, row: Row, drives: list[Row], states: list[Row], depth: int | None) -> Any:
    """y_k = Σ_j C A_k … A_{j+1} d_j + C A_k … A_0 x_{-1}, d_j = B̄ u_j.

    For `liquid` A_j = Ā + diag d_j; for `truncated` A_j = Ā + z diag d_j, d_j and the states of order p carry z and
    z^p, and the coefficients up to z^depth are summed.
    """
    rows, total = [row], mpmath.mpf(0)
    for d in reversed(drives):
        total += mpmath.fsum(mpmath.fdot(r, d) for r in rows)
        moved = [system.times_A(r) for r in rows]
        driven = [[x * e for x, e in zip(r, d, strict=True)] for r in rows]
        if depth is None:
            rows = [[x + w for x, w in zip(moved[0], driven[0], strict=True)]]
            continue
        zero = [mpmath.mpf(0)] * len(d)
        rows = [
            [x + w for x, w in zip(m, v, strict=True)] for m, v in zip([*moved, zero], [zero, *driven], strict=True)
        ][:depth]
    for p, x in enumerate(states, start=1):
        total += mpmath.fsum(mpmath.fdot(r, x) for r in rows[: None if depth is None else depth - p + 1])
    return system.real(total)


def _correlations(kernels: list[Row], u: Row, k: int, a: Arguments) -> Any:
    """The terms p ≥ 2 of Eq. 14 or 15 at step k: a sum over the oldest index i₁, newest first."""
    total = mpmath.mpf(0)
    # e_0 … e_{P-1} of u_{i₁+1} … u_k.
    symmetric = [mpmath.mpf(1)] + [mpmath.mpf(0)] * (a.order - 1)
    for oldest in range(k, -1 if a.window is None else max(-1, k - a.window), -1):
        for p in range(2, min(a.order, k - oldest + 1) + 1):
            others = mpmath.fprod(u[oldest + 1 : oldest + p]) if a.correlations == "adjacent" else symmetric[p - 1]
            exponent = k + 1 - p - oldest if a.mode == "kb" else 0
            total += kernels[p - 1][exponent] * u[oldest] * others
        for j in range(a.order - 1, 0, -1):
            symmetric[j] += u[oldest] * symmetric[j - 1]
    return total
