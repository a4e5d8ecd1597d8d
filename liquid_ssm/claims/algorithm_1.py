"""Algorithm 1, line by line: a literal interpreter of the listing, and one claim for each of its lines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from math import prod
from typing import Any

import numpy as np
from flint import acb, acb_mat, arb

from ..hippo import diagonalise
from ..oracle.discretisation import discretize
from ..oracle.enclosure import working_precision
from ..oracle.exact import ComplexRational
from . import formulas
from .claim import Claim, Finding, percent, ruling
from .ring import (
    Matrix,
    System,
    Vector,
    all_zero,
    combine,
    diagonal,
    difference,
    dot,
    flat,
    hadamard,
    identity,
    multiply,
    power,
    repeat,
    scale,
    total,
)
from .samples import generic_system, indexed, legs, rational_system, variables

_BITS = 192
# Two results are called equal if their balls overlap and are smaller than this, relative to the largest entry.
_RADIUS = 1e-30


def _ball(z: Any) -> acb:
    def real(r: Any) -> arb:
        r = Fraction(r)
        return arb(r.numerator) / arb(r.denominator)

    return acb(real(z.real), real(z.imag)) if isinstance(z, ComplexRational) else acb(real(z))


def _relative_difference(found: Vector, wanted: Vector) -> float:
    """Largest |difference| over the largest |wanted|, an upper bound; 0 where every pair of balls agrees."""
    size = max(float(abs(w).upper()) for w in wanted)
    gaps = [abs(f - w) for f, w in zip(found, wanted, strict=True)]
    if all(gap.contains(0) and float(gap.rad()) < _RADIUS * size for gap in gaps):
        return 0.0
    return max(float(gap.upper()) for gap in gaps) / size


# Lines 1 to 5: the S4 kernel.


@dataclass(frozen=True)
class _S4:
    """HiPPO-LegS as Λ − P P* on the full state, its bilinear discretisation, and the first entries of K = C* Āⁱ B̄.

    Algorithm 1 takes C as a column and forms C*; elsewhere in the paper C is a row.
    """

    Lambda: Vector
    P: Vector
    B: Vector
    C: Vector
    step: acb
    A_bar: Matrix
    B_bar: Vector

    @property
    def row(self) -> list[Any]:
        return [c.conjugate() for c in self.C]

    def kernel(self, length: int) -> list[Any]:
        return formulas.kernel(System(self.A_bar, self.B_bar, self.row, ()), length)


@cache
def _s4() -> _S4:
    form = diagonalise("legs", 4)
    dt = np.array([0.1])
    both = [np.concatenate([v, v.conj()]) for v in (form.Lambda, form.P, form.B)]
    A_bar, B_bar = discretize(form.Lambda[None], form.B[None], dt, "bilinear", P=form.P[None, None])
    C = np.array([1 + 0.5j, -0.75 + 0.25j])

    def balls(v: Any) -> list[acb]:
        return [acb(complex(z).real, complex(z).imag) for z in v]

    with working_precision(_BITS):
        Lambda, P, B = (balls(v) for v in both)
        return _S4(
            Lambda,
            P,
            B,
            balls(np.concatenate([C, C.conj()])),
            acb(float(dt[0])),
            [[_ball(z) for z in row] for row in A_bar[0]],
            [_ball(z) for z in B_bar[0]],
        )


def _roots(length: int, sign: int = 1) -> list[acb]:
    """exp(sign · 2πik/L), k = 0 … L−1."""
    return [acb(arb(2 * sign * k) / length).exp_pi_i() for k in range(length)]


def _truncated_output(s: _S4, length: int) -> list[Any]:
    """Line 1 as a row: C̃* = C* (I − Ā^L)."""
    transposed = [list(column) for column in zip(*s.A_bar, strict=True)]
    return difference(s.row, repeat(transposed, s.row, length))


def _point(s: _S4, omega: acb) -> acb:
    """2/Δ · (1 − ω)/(1 + ω); flint divides by zero to an infinite ball."""
    return 2 / s.step * (1 - omega) / (1 + omega)


def _cauchy(left: Vector, right: Vector, point: Any, poles: Vector) -> Any:
    """Σ_n left_n right_n/(point − λ_n)."""
    return total(a * b / (point - pole) for a, b, pole in zip(left, right, poles, strict=True))


def _resolvent(s: _S4, row: Vector, omega: acb) -> Any:
    """row · (I − ωĀ)⁻¹ B̄ by Gaussian elimination."""
    n = len(s.B_bar)
    matrix = acb_mat([[int(i == j) - omega * s.A_bar[i][j] for j in range(n)] for i in range(n)])
    solved = matrix.solve(acb_mat([[b] for b in s.B_bar]))
    return dot(row, [solved[i, 0] for i in range(n)])


def _woodbury(s: _S4, row: Vector, omega: acb, correction: int = -1) -> Any:
    """Line 3 from the four sums of line 2."""
    g, P_row = _point(s, omega), [p.conjugate() for p in s.P]
    k00, k01 = _cauchy(row, s.B, g, s.Lambda), _cauchy(row, s.P, g, s.Lambda)
    k10, k11 = _cauchy(P_row, s.B, g, s.Lambda), _cauchy(P_row, s.P, g, s.Lambda)
    return 2 / (1 + omega) * (k00 + correction * k01 * k10 / (1 + k11))


def line_1(truncate: Callable[[_S4, int], Vector] = _truncated_output) -> Finding:
    """C̃* (I − ωĀ)⁻¹ B̄ against Σ_{i<L} K_i ωⁱ at the L-th roots of unity, in balls."""
    length = 9
    with working_precision(_BITS):
        s = _s4()
        K, row = s.kernel(length), truncate(s, length)
        found = [_resolvent(s, row, omega) for omega in _roots(length)]
        sums = [total(K[i] * omega**i for i in range(length)) for omega in _roots(length)]
        off = _relative_difference(found, sums)
        plain = _relative_difference([_resolvent(s, s.row, omega) for omega in _roots(length)], sums)
    return Finding(
        ruling(off == 0),
        {"relative_difference": off, "relative_difference_without_the_line": plain, "length": length},
    )


def _mobius_proved(factor: int = 2) -> bool:
    """(1 − ω)I − δt/2 (1 + ω)A = δt/2 (1 + ω)(g − A) for g δt (1 + ω) = factor (1 − ω), as polynomials."""
    a, omega, h, g = variables("a", "w", "h", "g")
    # Twice both sides; g h (1 + ω) is replaced by what it equals.
    left = 2 * (1 - omega) - h * (1 + omega) * a
    right = h * (1 + omega) * (g - a)
    constraint = g * h * (1 + omega) - factor * (1 - omega)
    return bool(left - right + constraint == 0)


def line_2(factor: int = 2) -> Finding:
    """(I − ωĀ)⁻¹B̄ = 2/(1+ω) (g − A)⁻¹B with g = 2/Δ (1−ω)/(1+ω); where this divides by zero.

    Args:
        factor: the 2 of g.
    """
    proved = _mobius_proved(factor)
    with working_precision(_BITS):
        s = _s4()
        undefined = {
            length: sum(not _point(s, omega).is_finite() for omega in _roots(length)) for length in (8, 9, 16, 17)
        }
        row = _truncated_output(s, 8)
        # At ω = −1, (I + Ā)⁻¹ B̄ = δt/2 B.
        limit = _relative_difference([_resolvent(s, row, acb(-1))], [s.step / 2 * dot(row, s.B)])
    return Finding(
        ruling(
            proved and not any(undefined.values()),
            condition="L is odd or the point ω = −1 is replaced by its limit",
            under_condition=proved and undefined[9] == undefined[17] == 0 and limit == 0,
        ),
        {
            "divisions_by_zero_length_8": undefined[8],
            "divisions_by_zero_length_16": undefined[16],
            "divisions_by_zero_length_9": undefined[9],
            "relative_difference_of_the_limit": limit,
            "identity_proved": int(proved),
        },
        "for even L one root of unity is ω = −1, where line 2 divides by 1 + ω = 0; the limit is K̂(−1) = Δ/2 C̃*B",
    )


def line_3(correction: int = -1) -> Finding:
    """Woodbury as a polynomial identity in D, P and Q; line 3 against the resolvent at L = 9 roots, in balls.

    (I + D P Q*)(D (1 + k₁₁) − D P Q* D) = (1 + k₁₁) D with D = (g − Λ)⁻¹, k₁₁ = Q* D P, multiplied by g − Λ.

    Args:
        correction: the sign of the second term.
    """
    n = 3
    v = variables(*indexed("d", n), *indexed("p", n), *indexed("q", n))
    D, P, Q = v[:n], v[n : 2 * n], v[2 * n :]
    DP = hadamard(D, P)
    outer = [[p * q for q in Q] for p in DP]
    k11 = dot(Q, DP)
    inverse = combine(diagonal(scale(1 + k11, D)), multiply(outer, diagonal(D)), correction)
    product = multiply(combine(identity(n), outer), inverse)
    proved = all_zero(flat(combine(product, diagonal(scale(1 + k11, D)), -1)))
    length = 9
    with working_precision(_BITS):
        s = _s4()
        row = _truncated_output(s, length)
        P_row = [p.conjugate() for p in s.P]
        found = [_woodbury(s, row, omega, correction) for omega in _roots(length)]
        off = _relative_difference(found, [_resolvent(s, row, omega) for omega in _roots(length)])
        smallest = min(
            float(abs(1 + _cauchy(P_row, s.P, _point(s, omega), s.Lambda)).lower()) for omega in _roots(length)
        )
    return Finding(
        ruling(proved and off == 0),
        {"relative_difference": off, "identity_proved": int(proved), "smallest_denominator": smallest},
    )


def line_4(points: Callable[[int], list[acb]] = _roots) -> Finding:
    """The L values at the roots of unity determine the L entries of K: they are its discrete Fourier transform."""
    length = 9
    with working_precision(_BITS):
        s = _s4()
        row, K = _truncated_output(s, length), s.kernel(length)
        omegas = points(length)
        found = [_woodbury(s, row, omega) for omega in omegas]
        off = _relative_difference(found, [total(K[i] * omega**i for i in range(length)) for omega in omegas])
        distinct = (
            sum(not (a - b).contains(0) for i, a in enumerate(omegas) for b in omegas[:i]) == length * (length - 1) // 2
        )
    return Finding(
        ruling(off == 0 and distinct),
        {"relative_difference": off, "points": len(omegas), "all_distinct": int(distinct)},
    )


def line_5(sign: int = 1) -> Finding:
    """The inverse FFT, (1/L) Σ_k K̂_k e^{2πikn/L}, of the values of line 4, against K.

    Args:
        sign: of the exponent in ω_k = exp(sign · 2πik/L).
    """
    length = 9
    with working_precision(_BITS):
        s = _s4()
        row, K = _truncated_output(s, length), s.kernel(length)

        def inverse(sign: int) -> list[Any]:
            values = [_woodbury(s, row, omega) for omega in _roots(length, sign)]
            conjugate = _roots(length, 1)
            return [
                total(values[k] * conjugate[(k * n) % length] for k in range(length)) / length for n in range(length)
            ]

        printed, other = _relative_difference(inverse(sign), K), _relative_difference(inverse(-1), K)
        reversed_in_time = _relative_difference(inverse(1), [K[-n % length] for n in range(length)])
    return Finding(
        ruling(printed == 0, condition="ω_k = exp(−2πik/L)", under_condition=other == 0),
        {
            "relative_difference_as_printed": printed,
            "relative_difference_with_minus_sign": other,
            "relative_difference_to_reversed_kernel": reversed_in_time,
        },
        ""
        if printed == 0
        else "with ω_k = exp(2πik/L) and the usual inverse FFT the kernel comes out as K_0, K_{L−1}, …, K_1, "
        f"off by {percent(printed)} for HiPPO-LegS, N = 4, L = {length}",
    )


# Lines 6 to 16: the liquid kernels.


@dataclass
class Run:
    """What one run of lines 6 to 16 did.

    Attributes:
        K_liquid: the appended kernels, one list of numbers each.
        orders: p of each.
        lines: how often each line was executed.
    """

    K_liquid: list[list[Any]] = field(default_factory=list)
    orders: list[int] = field(default_factory=list)
    lines: dict[int, int] = field(default_factory=dict)

    def at(self, line: int) -> None:
        self.lines[line] = self.lines.get(line, 0) + 1


# Line 8 from (terms, B̄, p, L̃) and line 13 from (C, B̄, p, L̃); terms[i] = (C Āⁱ) ∘ B̄, the kernel before the sum.
KernelLine = Callable[[Matrix, Vector, int, int], list[Any]]
ResponseLine = Callable[[Vector, Vector, int, int], list[Any]]


def _tail(terms: Matrix, B: Vector, p: int, window: int) -> list[Any]:
    """Line 8 as printed: the last L̃ entries, times B̄^{p−1}, summed over the state, reversed by J_L̃."""
    return [dot(term, power(B, p - 1)) for term in terms[len(terms) - window :]][::-1]


def head(terms: Matrix, B: Vector, p: int, window: int) -> list[Any]:
    """The first L̃ − p + 1 entries instead, which are what Eq. 14 lists."""
    return [dot(term, power(B, p - 1)) for term in terms[: window - p + 1]][::-1]


def _response(C: Vector, B: Vector, p: int, window: int) -> list[Any]:
    """Line 13 as printed, C ⊙ B̄^{p−1}, summed over the state; Eq. 15 has L̃ equal entries."""
    return [dot(C, power(B, p - 1))] * window


def full_response(C: Vector, B: Vector, p: int, window: int) -> list[Any]:
    """With B̄^p instead."""
    return [dot(C, power(B, p))] * window


def run(
    s: System,
    mode: str,
    order: int,
    length: int,
    window: int,
    line_8: KernelLine = _tail,
    line_13: ResponseLine = _response,
    last_order: int = 0,
) -> Run:
    """Lines 6 to 16 as they stand.

    Args:
        s: Ā, B̄, C.
        mode: `KB` or `PB`; anything else takes neither branch.
        order: P.
        length: L.
        window: L̃.
        line_8, line_13: what these lines compute.
        last_order: added to P in the ranges of lines 7 and 12.
    """
    transposed = [list(column) for column in zip(*s.A, strict=True)]
    terms = [hadamard(repeat(transposed, s.C, i), s.B) for i in range(length)]
    done = Run()
    orders = range(2, order + 1 + last_order)
    done.at(6)
    if mode == "KB":
        for p in orders:
            done.at(7)
            kernel = line_8(terms, s.B, p, window)
            done.at(8)
            done.K_liquid.append(kernel)
            done.orders.append(p)
            done.at(9)
        done.at(10)
    else:
        done.at(11)
        if mode == "PB":
            for p in orders:
                done.at(12)
                kernel = line_13(s.C, s.B, p, window)
                done.at(13)
                done.K_liquid.append(kernel)
                done.orders.append(p)
                done.at(14)
            done.at(15)
    done.at(16)
    return done


def _equation_14(s: System, p: int, window: int) -> list[Any]:
    """C Ā^{L̃−p} B̄^p, …, C B̄^p."""
    return formulas.kernel(s, window - p + 1, p)[::-1]


def _equation_15(s: System, p: int, window: int) -> list[Any]:
    return [dot(s.C, power(s.B, p))] * window


_LENGTH, _WINDOW, _ORDER = 12, 6, 4


def _branch(mode: str, wanted: Callable[[System, int, int], list[Any]], **lines: Any) -> tuple[bool, float]:
    """(equal for all values, largest relative difference for HiPPO-LegS) of one branch against its equation."""
    A, B = legs(4, 0.1)
    equal, largest = True, 0.0
    for system in (generic_system(2, 0), System(A, B, [1] * 4, ())):
        done = run(system, mode, _ORDER, _LENGTH, _WINDOW, **lines)
        for p, kernel in zip(done.orders, done.K_liquid, strict=True):
            target = wanted(system, p, _WINDOW)
            equal = equal and len(kernel) == len(target) and all_zero(difference(kernel, target))
            if system.B is B:
                # In a kernel that is too long, the entries for the newest inputs are the last ones.
                gaps = difference(kernel[-len(target) :], target)
                largest = max(largest, float(max(map(abs, gaps)) / max(map(abs, target))))
    return equal and bool(done.orders), largest


def line_6(corrected: KernelLine = head) -> Finding:
    """What the branch of mode KB returns, as printed and with the head in line 8, against Eq. 14."""
    printed, off = _branch("KB", _equation_14)
    repaired, rest = _branch("KB", _equation_14, line_8=corrected)
    return Finding(
        ruling(printed, condition="line 8 takes the head of K", under_condition=repaired),
        {"relative_difference_as_printed": off, "relative_difference_with_head": rest, "orders": _ORDER - 1},
        f"with the tail the kernel is off by up to {percent(off)} of its largest entry for "
        f"HiPPO-LegS with N = 4, δt = 0.1, L = {_LENGTH}, L̃ = {_WINDOW}",
    )


def _orders_of_output(mode: str, last_order: int) -> list[int]:
    """Degrees in the inputs of the newest output, from K and the collected kernels, as a polynomial."""
    s = generic_system(1, _WINDOW)
    done = run(s, mode, _ORDER, _WINDOW, _WINDOW, head, full_response, last_order)
    y = formulas.convolution(formulas.kernel(s, _WINDOW), s.u)[-1]
    for p, kernel in zip(done.orders, done.K_liquid, strict=True):
        y = y + total(kernel[i] * prod(s.u[i : i + p]) for i in range(_WINDOW - p + 1))
    # The inputs are the last variables of the ring.
    return sorted({int(sum(exponents[-_WINDOW:])) for exponents in y.to_dict()})


def _loop(mode: str, last_order: int) -> Finding:
    degrees = _orders_of_output(mode, last_order)
    return Finding(
        ruling(degrees == list(range(1, _ORDER + 1))),
        {"highest_order": max(degrees), "orders": len(degrees), "P": _ORDER},
    )


def line_7(last_order: int = 0) -> Finding:
    """Together with K the loop covers every order 1 … P once."""
    return _loop("KB", last_order)


def line_12(last_order: int = 0) -> Finding:
    """Together with K the loop covers every order 1 … P once."""
    return _loop("PB", last_order)


def line_8(slice_of_kernel: KernelLine = _tail) -> Finding:
    """Line 8 against Eq. 14; which exponents of Ā the slice has and which Eq. 14 needs."""
    equal, off = _branch("KB", _equation_14, line_8=slice_of_kernel)
    # Ā = a: entry i of K is aⁱ, so the degree in a is the exponent.
    (a,) = variables("a")
    one = System([[a]], [1], [1], ())

    def exponents(kernel: list[Any]) -> list[int]:
        return [int((k * a).total_degree()) - 1 for k in kernel]

    sliced = exponents(run(one, "KB", 2, _LENGTH, _WINDOW, slice_of_kernel).K_liquid[0])
    needed = exponents(_equation_14(one, 2, _WINDOW))
    return Finding(
        ruling(equal),
        {
            "smallest_exponent": min(sliced),
            "largest_exponent": max(sliced),
            "smallest_exponent_of_equation_14": min(needed),
            "largest_exponent_of_equation_14": max(needed),
            "relative_difference": off,
            "length": _LENGTH,
            "window": _WINDOW,
        },
        ""
        if equal
        else f"for L = {_LENGTH}, L̃ = {_WINDOW}, p = 2 the tail K_(L−L̃, L) has the exponents {min(sliced)} … "
        f"{max(sliced)} of Ā; Eq. 14 needs the head, {min(needed)} … {max(needed)}",
    )


def line_13(response: ResponseLine = _response) -> Finding:
    """Line 13 against Eq. 15; the power of B̄ that it has."""
    equal, off = _branch("PB", _equation_15, line_13=response)
    (b,) = variables("b")
    one = System([[1]], [b], [1], ())
    power_of_B = int(run(one, "PB", 2, _LENGTH, _WINDOW, line_13=response).K_liquid[0][0].total_degree())
    needed = int(_equation_15(one, 2, _WINDOW)[0].total_degree())
    # B̄ = C = 1/10, p = 2: the liquid term is ten times what Eq. 15 says.
    tenth = Fraction(1, 10)
    small = run(System([[1]], [tenth], [1], ()), "PB", 2, _LENGTH, _WINDOW, line_13=response).K_liquid[0][0]
    return Finding(
        ruling(equal),
        {
            "power_of_B_for_p_2": power_of_B,
            "power_of_B_in_equation_15_for_p_2": needed,
            "relative_difference": off,
            "factor_for_B_one_tenth": float(small / tenth**2),
        },
        ""
        if equal
        else f"B̄^(p−1) where Eq. 15 has B̄^p: for B̄ = 0.1 every order is {float(small / tenth**2):.0f} times too large",
    )


def _appended(mode: str, line: int, keep: Callable[[list[Any]], list[Any]]) -> Finding:
    """Kernels in the order p = 2 … P, one for each."""
    done = run(rational_system(3, 0, seed=3), mode, _ORDER, _LENGTH, _WINDOW)
    kept, orders = keep(done.K_liquid), keep(done.orders)
    right = orders == list(range(2, _ORDER + 1)) and all(len(kernel) == _WINDOW for kernel in kept)
    return Finding(
        ruling(right and done.lines[line] == _ORDER - 1),
        {"kernels": len(kept), "entries_each": min(map(len, kept), default=0), "times_executed": done.lines[line]},
    )


def line_9(keep: Callable[[list[Any]], list[Any]] = lambda appended: appended) -> Finding:
    """K_liquid holds P − 1 kernels of L̃ numbers, in the order of p."""
    return _appended("KB", 9, keep)


def line_14(keep: Callable[[list[Any]], list[Any]] = lambda appended: appended) -> Finding:
    """K_liquid holds P − 1 kernels of L̃ numbers, in the order of p."""
    return _appended("PB", 14, keep)


def _ends(mode: str, line: int, last_order: int) -> Finding:
    """The body runs P − 1 times, and not at all for P = 1, where Liquid-S4 is S4."""
    s = rational_system(3, 0, seed=3)
    counts = {order: run(s, mode, order, _LENGTH, _WINDOW, last_order=last_order).lines for order in (1, 2, _ORDER)}
    body = {order: lines.get(line - 2, 0) for order, lines in counts.items()}
    once = all(lines.get(line) == 1 for lines in counts.values())
    return Finding(
        ruling(once and all(times == order - 1 for order, times in body.items())),
        {"times_body_runs_P_4": body[_ORDER], "times_body_runs_P_2": body[2], "times_body_runs_P_1": body[1]},
    )


def line_10(last_order: int = 0) -> Finding:
    """The loop of mode KB ends after P − 1 turns."""
    return _ends("KB", 10, last_order)


def line_15(last_order: int = 0) -> Finding:
    """The loop of mode PB ends after P − 1 turns."""
    return _ends("PB", 15, last_order)


def line_11(corrected: ResponseLine = full_response) -> Finding:
    """What the branch of mode PB returns, as printed and with B̄^p in line 13, against Eq. 14 with Ā = I (Eq. 15)."""
    printed, off = _branch("PB", _equation_15)
    repaired, rest = _branch("PB", _equation_15, line_13=corrected)
    return Finding(
        ruling(printed, condition="line 13 has B̄^p", under_condition=repaired),
        {"relative_difference_as_printed": off, "relative_difference_with_B_to_p": rest, "orders": _ORDER - 1},
        f"with B̄^(p−1) the kernel is off by up to {percent(off)} for HiPPO-LegS with N = 4, δt = 0.1",
    )


def line_16(modes: tuple[str, str] = ("KB", "PB")) -> Finding:
    """Exactly one branch is taken in either mode, none in any other."""
    s = rational_system(3, 0, seed=3)
    taken = {
        mode: [bool(run(s, mode, _ORDER, _LENGTH, _WINDOW).lines.get(line, 0)) for line in (8, 13)]
        for mode in (*modes, "neither")
    }
    right = [taken[mode] == [mode == "KB", mode == "PB"] for mode in modes]
    distinct = sum(any(branch) for branch in zip(*(taken[mode] for mode in modes), strict=True))
    return Finding(
        ruling(all(right) and distinct == 2 and not any(taken["neither"])),
        {
            "branches_taken_KB": sum(taken[modes[0]]),
            "branches_taken_PB": sum(taken[modes[1]]),
            "branches_taken_otherwise": sum(taken["neither"]),
        },
    )


def _line(number: int, statement: str, reading: str, expected: str, check: Callable[..., Finding]) -> Claim:
    return Claim(f"algorithm-1-line-{number}", f"Algorithm 1, line {number}", statement, reading, expected, check)


_S4_READING = "C is a column here and y = C* x. HiPPO-LegS, N = 4, δt = 0.1, to 30 digits in balls."
_LOOP_READING = f"The listing is run as printed, with P = {_ORDER}, L = {_LENGTH}, L̃ = {_WINDOW}."

CLAIMS = (
    _line(
        1,
        "C̃ ← (I − Ā^L)* C̄ truncates the generating function to length L.",
        f"C̃*(I − ωĀ)⁻¹B̄ = Σ_{{i<L}} K_i ωⁱ where ω^L = 1. {_S4_READING}",
        "holds",
        line_1,
    ),
    _line(
        2,
        "[k00, k01; k10, k11](ω) ← [C̃ P]* (2/Δ (1−ω)/(1+ω) − Λ)⁻¹ [B P], the black-box Cauchy kernel.",
        f"(I − ωĀ)⁻¹B̄ = 2/(1+ω) (2/Δ (1−ω)/(1+ω) − A)⁻¹B for every ω of line 4; proved for all values. {_S4_READING}",
        "holds if L is odd or the point ω = −1 is replaced by its limit",
        line_2,
    ),
    _line(
        3,
        "K̂(ω) ← 2/(1+ω) [k00(ω) − k01(ω) (1 + k11(ω))⁻¹ k10(ω)], by the Woodbury identity.",
        f"For ω ≠ −1 (line 2). Proved for all values with N = 3. {_S4_READING}",
        "holds",
        line_3,
    ),
    _line(
        4,
        "K̂ = {K̂(ω) : ω = exp(2πi k/L)} evaluates the generating function at all roots of unity.",
        f"L different points with ω^L = 1, as line 1 needs; L odd. {_S4_READING}",
        "holds",
        line_4,
    ),
    _line(
        5,
        "K ← iFFT(K̂).",
        "The inverse FFT of numerical libraries, (1/L) Σ_k K̂_k e^{2πikn/L}, applied to the values in the order "
        "of line 4. " + _S4_READING,
        "holds if ω_k = exp(−2πik/L)",
        line_5,
    ),
    _line(
        6,
        "if Mode == KB: the liquid kernel as shown in Eq. 14.",
        "What lines 7 to 10 collect is Eq. 14 for every p ≤ P, entry by entry, with the defined exponents L̃−p, …, "
        "0; K is the kernel before its sum over the state (see proposition-1-after-sum).",
        "holds if line 8 takes the head of K",
        line_6,
    ),
    _line(7, "for p in {2, …, P} do (mode KB).", f"With K, each order 1 … P once. {_LOOP_READING}", "holds", line_7),
    _line(
        8,
        "K_liquid=p = [K_(L−L̃, L) ⊙ B̄^{p−1}_(L−L̃, L)] ∗ J_L̃, with the backward identity matrix J_L̃.",
        "K_(L−L̃, L) are the last L̃ of the L entries of K, before their sum over the state, since B̄^{p−1} has "
        "one entry for each state; compared with Eq. 14.",
        "fails",
        line_8,
    ),
    _line(
        9,
        "K_liquid.append(K_liquid=p) (mode KB).",
        f"One kernel of L̃ numbers for each p, as Eq. 14 lays them out. {_LOOP_READING}",
        "holds",
        line_9,
    ),
    _line(10, "end for (mode KB).", f"After P − 1 turns; none for P = 1. {_LOOP_READING}", "holds", line_10),
    _line(
        11,
        "else if Mode == PB: the liquid kernel of Eq. 14 with Ā reduced to the identity.",
        "What lines 12 to 15 collect is Eq. 15 for every p ≤ P.",
        "holds if line 13 has B̄^p",
        line_11,
    ),
    _line(12, "for p in {2, …, P} do (mode PB).", f"With K, each order 1 … P once. {_LOOP_READING}", "holds", line_12),
    _line(
        13,
        "K_liquid=p = C ⊙ B̄^{p−1}_(L−L̃, L).",
        "Summed over the state and repeated for the L̃ positions of Eq. 15, with which it is compared.",
        "fails",
        line_13,
    ),
    _line(
        14,
        "K_liquid.append(K_liquid=p) (mode PB).",
        f"One kernel of L̃ numbers for each p. {_LOOP_READING}",
        "holds",
        line_14,
    ),
    _line(15, "end for (mode PB).", f"After P − 1 turns; none for P = 1. {_LOOP_READING}", "holds", line_15),
    _line(
        16,
        "end if.",
        f"Exactly one branch is taken in mode KB and in mode PB, none otherwise. {_LOOP_READING}",
        "holds",
        line_16,
    ),
)
