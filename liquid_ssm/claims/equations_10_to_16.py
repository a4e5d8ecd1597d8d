"""Section 3.2: the liquid system, its discretisation, and its unrolling into kernels and correlations."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import combinations, pairwise
from math import comb, prod
from typing import Any

import numpy as np

from ..oracle import exact
from ..oracle.realization import Realization
from . import formulas
from .claim import Claim, Finding, percent, ruling
from .formulas import Exponent, printed_exponent
from .ring import (
    Matrix,
    System,
    Vector,
    add,
    all_zero,
    apply,
    combine,
    diagonal,
    difference,
    dot,
    hadamard,
    identity,
    multiply,
    power,
    repeat,
    scale,
    total,
)
from .samples import generic_system, indexed, legs, rational_system, variables

COMMUTE = "diag(B̄) and Ā commute"
ADJACENT = "only products of adjacent inputs are counted"


def _elementwise(B: Vector) -> Matrix:
    return diagonal(B)


def _all_ones(B: Vector) -> Matrix:
    """B 1ᵀ: B_n added to every entry of row n."""
    return [[b] * len(B) for b in B]


def equation_10(reading: Callable[[Vector], Matrix] = _elementwise) -> Finding:
    """Which matrix "I_N B" gives the term CB̄²u_0u_1 of Eq. 12, as polynomials.

    Args:
        reading: the matrix that multiplies u_k x_{k−1}, from B̄.
    """

    def term_of_two_inputs(matrix: Callable[[Vector], Matrix], n: int) -> Any:
        s = generic_system(n, 1)
        return dot(s.C, apply(matrix(s.B), s.B)) - dot(s.C, power(s.B, 2))

    gaps = [term_of_two_inputs(reading, n) for n in (2, 3)]
    others = [term_of_two_inputs(_all_ones, n) for n in (2, 3)]
    # B̄ = (1, 2), C = (1, 1): C B̄² = 5, C (B̄ 1ᵀ) B̄ = 9.
    example = dot([1, 1], apply(_all_ones([1, 2]), [1, 2]))
    return Finding(
        ruling(
            all_zero(gaps) and all_zero(others),
            condition="I_N B u stands for diag(B) u",
            under_condition=all_zero(gaps),
        ),
        {"coefficient_all_ones": example, "coefficient_printed": dot([1, 1], power([1, 2], 2))},
        f"with an all-ones matrix, B̄ = (1, 2) and C = (1, 1) the coefficient of u_0u_1 is {example} instead of 5",
    )


def equation_11(euler_factor: int = 1) -> Finding:
    """One forward Euler step of Eq. 10 against Eq. 11 with Ā = I + δt A, B̄ = δt B, as polynomials.

    Args:
        euler_factor: Ā = I + euler_factor · δt A.
    """
    gaps: list[Any] = []
    for n in (1, 2, 3):
        count = n * n
        v = variables(*indexed("a", count), *indexed("b", n), *indexed("x", n), "u", "h")
        A = [v[i * n : (i + 1) * n] for i in range(n)]
        B, x, (u, h) = v[count : count + n], v[count + n : count + 2 * n], v[-2:]
        rate = add(apply(A, x), scale(u, hadamard(B, x)), scale(u, B))
        euler = add(x, scale(h, rate))
        A_bar, B_bar = combine(identity(n), A, euler_factor * h), scale(h, B)
        printed = add(apply(combine(A_bar, diagonal(B_bar), u), x), scale(u, B_bar))
        gaps += difference(euler, printed)
    return Finding(ruling(all_zero(gaps)), {"identities_proved": sum(g == 0 for g in gaps), "identities": len(gaps)})


def _liquid_error(factor: float, count: int) -> float:
    """Relative error of Eq. 11 with Ā = 1 + factor·δt·a, B̄ = δt·b at time 2, for a = −1, b = ½, u = 1."""
    a, b, h = -1.0, 0.5, 2.0 / count
    x = 0.0
    for _ in range(count):
        x = (1 + factor * h * a + h * b) * x + h * b
    exact_value = b / (a + b) * np.expm1(2.0 * (a + b))
    return float(abs(x - exact_value) / abs(exact_value))


def equation_11_parameters(factor: float = 0.5) -> Finding:
    """Whether Eq. 11 with Ā = I + factor·δt A converges to Eq. 10 as δt → 0."""
    counts = (64, 256, 1024, 4096)
    errors = [_liquid_error(factor, count) for count in counts]
    consistent = _liquid_error(1.0, counts[-1])
    # Each refinement by 4 must divide the error of a convergent first-order method by about 4.
    return Finding(
        ruling(all(fine < coarse / 2 for coarse, fine in pairwise(errors))),
        {
            "relative_error_as_printed": errors[-1],
            "relative_error_with_full_step": consistent,
            "steps": counts[-1],
        },
        ""
        if errors[-1] < 0.01
        else f"for a = −1, b = ½, u = 1 and {counts[-1]} steps the state at time 2 is off by "
        f"{percent(errors[-1])}, with Ā = I + δt A by {percent(consistent)}",
    )


def equation_11_bilinear(radius: Callable[[Any], Any] = lambda z: np.abs((1 + z / 2) / (1 - z / 2))) -> Finding:
    """Spectral radii of Euler's and the bilinear Ā for HiPPO-LegS, whose eigenvalues are −1 … −N."""
    v, w = variables("v", "w")
    # |1 + z|² − |1 − z|² = 4 Re z for z = v + i w, so |(1 + z)/(1 − z)| < 1 where Re z < 0.
    proved = (1 + v) * (1 + v) + w * w - (1 - v) * (1 - v) - w * w == 4 * v
    dts = np.array([1e-3, 1e-2, 0.1, 0.2, 1.0])
    z = -np.multiply.outer(dts, np.arange(1, 65))
    bilinear, euler = radius(z).max(axis=1), np.abs(1 + z).max(axis=1)
    return Finding(
        ruling(bool(proved) and bool((bilinear < 1).all()) and bool((euler > 1).any())),
        {
            "radius_bilinear": float(bilinear[2]),
            "radius_euler": float(euler[2]),
            "largest_radius_bilinear": float(bilinear.max()),
            "largest_radius_euler": float(euler.max()),
        },
    )


def _printed_outputs(s: System) -> list[Any]:
    """y_0, y_1, y_2 of Eq. 12, the products B̄^p elementwise."""
    u0, u1, u2 = s.u[:3]
    B, B2, B3 = s.B, power(s.B, 2), power(s.B, 3)
    AB, A2B, AB2 = apply(s.A, B), repeat(s.A, B, 2), apply(s.A, B2)
    x0 = scale(u0, B)
    x1 = add(scale(u0, AB), scale(u1, B), scale(u0 * u1, B2))
    x2 = add(
        scale(u0, A2B),
        scale(u1, AB),
        scale(u2, B),
        scale(u0 * u1, AB2),
        scale(u0 * u2, AB2),
        scale(u1 * u2, B2),
        scale(u0 * u1 * u2, B3),
    )
    return [dot(s.C, x) for x in (x0, x1, x2)]


@cache
def legs_difference(length: int = 8) -> tuple[float, float, list[float]]:
    """How far Eq. 13 with all orders is from Eq. 11 for HiPPO-LegS, N = 6, δt = 0.1, in exact arithmetic.

    The outputs are the six states one by one (C = unit vectors), the inputs are standard normal (seed 0).

    Returns:
        (largest relative difference of a single output, difference of all outputs in the 2-norm, relative;
        the largest relative difference at each step).
    """
    n = 6
    A, B = legs(n, 0.1)
    every = Realization("dense", np.stack([A] * n), np.stack([B] * n), np.eye(n), conjugate_pairs=False)
    u = np.broadcast_to(np.random.default_rng(0).normal(size=length), (1, n, length))
    liquid = exact.outputs(every, u, "liquid")
    gap = exact.outputs(every, u, "kb", order=length) - liquid
    relative = np.abs((gap / liquid).astype(float))
    norms = [float(np.linalg.norm(values.astype(float))) for values in (gap, liquid)]
    return float(relative.max()), norms[0] / norms[1], [float(r) for r in relative[0].max(axis=0)]


def equation_12(printed: Callable[[System], list[Any]] = _printed_outputs) -> Finding:
    """The printed y_0, y_1, y_2 against Eq. 11 as polynomials, for diagonal and for any Ā; size of the gap for LegS."""
    commuting = [
        gap
        for n in (1, 2, 3)
        for s in [generic_system(n, 3, commuting=True)]
        for gap in difference(formulas.outputs(s, liquid=True), printed(s))
    ]
    s = generic_system(2, 3)
    gaps = difference(formulas.outputs(s, liquid=True), printed(s))
    # The one term that differs: C diag(B̄) Ā B̄ u_0u_2 is printed as C Ā B̄² u_0u_2.
    commutator = combine(multiply(diagonal(s.B), s.A), multiply(s.A, diagonal(s.B)), -1)
    # Order by order, as the cascade that mode `truncated` runs, Eq. 11 unrolls for every Ā.
    cascade = difference(formulas.outputs(s, liquid=True), formulas.truncated_outputs(s, 3))
    located = gaps[2] == dot(s.C, apply(commutator, s.B)) * s.u[0] * s.u[2] and all_zero(gaps[:2])
    largest, overall, by_step = legs_difference()
    return Finding(
        ruling(all_zero(gaps), condition=COMMUTE, under_condition=all_zero([*commuting, *cascade])),
        {
            "largest_relative_difference_of_an_output_legs": largest,
            "relative_difference_at_step_2_legs": by_step[2],
            "relative_difference_2_norm_legs": overall,
            "identities_proved_diagonal": sum(gap == 0 for gap in commuting),
            "cascade_identities_proved": sum(gap == 0 for gap in cascade),
            "gap_is_the_commutator_term": int(located),
        },
        f"for HiPPO-LegS with N = 6, δt = 0.1 single outputs differ by up to {percent(largest)} within 8 steps, "
        f"{percent(by_step[2])} at step 2; the term is C diag(B̄) Ā B̄ u_0u_2",
    )


def equation_13(exponent: Exponent = printed_exponent) -> Finding:
    """Eq. 13 with all orders against Eq. 11, with orders up to P against the orders of Eq. 12, as polynomials.

    Args:
        exponent: of Ā, from k, p and the smallest index i.
    """
    length = 5
    d = generic_system(2, length, commuting=True)
    whole = difference(formulas.outputs(d, liquid=True), formulas.equation_13(d, length, exponent=exponent))
    cut = [
        gap
        for order in (2, 3)
        for gap in difference(formulas.truncated_outputs(d, order), formulas.equation_13(d, order, exponent=exponent))
    ]
    g = generic_system(2, 4)
    general = difference(formulas.outputs(g, liquid=True), formulas.equation_13(g, 4, exponent=exponent))
    # Each order as a chain of p recurrences started from B̄^p; this needs no commutation.
    chains = [
        formulas.chain_outputs(g, p)[k] - formulas.correlation_terms(g, k, p, exponent=exponent)
        for p in (2, 3, 4)
        for k in range(4)
    ]
    largest, overall, by_step = legs_difference()
    commuting = all_zero(whole) and all_zero(cut)
    return Finding(
        ruling(commuting and all_zero(general), condition=COMMUTE, under_condition=commuting and all_zero(chains)),
        {
            "largest_relative_difference_of_an_output_legs": largest,
            "relative_difference_2_norm_legs": overall,
            "relative_difference_at_last_step_legs": by_step[-1],
            "identities_proved_diagonal": sum(gap == 0 for gap in [*whole, *cut]),
            "cascade_identities_proved": sum(gap == 0 for gap in chains),
        },
        f"for HiPPO-LegS with N = 6, δt = 0.1 single outputs differ by up to {percent(largest)} within 8 steps",
    )


def equation_13_counts(shift: int = 1) -> Finding:
    """How many products of p inputs a signal of length L = 100 has; the paper says binom(L + 1, p).

    Args:
        shift: the count is compared with binom(L + shift, p).
    """
    length = 100
    counts = {p: sum(1 for _ in combinations(range(length), p)) for p in (2, 3)}
    # C(100, 4) = 3,921,225 tuples need not be listed: order 4 adds every index above a triple of lower ones.
    counts[4] = sum(comb(last, 3) for last in range(length))
    return Finding(
        ruling(all(counts[p] == comb(length + shift, p) for p in counts)),
        {
            "pairs": counts[2],
            "pairs_as_printed": comb(length + shift, 2),
            "triples": counts[3],
            "triples_as_printed": comb(length + shift, 3),
            "quadruples": counts[4],
            "quadruples_as_printed": comb(length + shift, 4),
        },
        ""
        if counts[2] == comb(length + shift, 2)
        else f"a signal of 100 samples has binom(100, 2) = {counts[2]} pairs, not binom(101, 2) = {comb(101, 2)}",
    )


def equation_13_convolution(delay: int = 1) -> Finding:
    """Whether the order-p sum of Eq. 13 is the kernel C Āᵐ B̄^p convolved with one sequence of products.

    Args:
        delay: the convolution of order p is delayed by p − delay steps.
    """
    length = 5
    s = generic_system(2, length)

    def convolved(p: int) -> list[Any]:
        # c_j = u_j u_{j+1} … u_{j+p−1}, known at step j + p − 1.
        c = [prod(s.u[j : j + p]) for j in range(length - p + 1)]
        late = [*[0] * (p - delay), *formulas.convolution(formulas.kernel(s, len(c), p), c)]
        return [*late, *[0] * length][:length]

    gaps = {
        adjacent: [
            formulas.correlation_terms(s, k, p, adjacent=adjacent) - convolved(p)[k]
            for p in (2, 3, 4)
            for k in range(length)
        ]
        for adjacent in (True, False)
    }
    r = rational_system(3, 8, seed=1)
    parts = [total(formulas.correlation_terms(r, 7, p, adjacent=a) for p in (2, 3, 4)) for a in (True, False)]
    missing = float(abs(1 - parts[0] / parts[1]))
    return Finding(
        ruling(all_zero(gaps[False]), condition=ADJACENT, under_condition=all_zero(gaps[True])),
        {
            "products_of_two_at_step_7": comb(8, 2),
            "adjacent_products_of_two_at_step_7": 7,
            "relative_difference_of_the_sums": missing,
            "identities_proved_adjacent": sum(gap == 0 for gap in gaps[True]),
        },
        f"at step 7 a convolution with one product per step reaches 7 of {comb(8, 2)} products of two inputs",
    )


def _printed_kernel(s: System, window: int, p: int, exponent: Callable[[int, int, int], int]) -> dict[int, Any]:
    """Entries of Eq. 14 whose power of Ā exists, by i."""
    exponents = {i: exponent(window, i, p) for i in range(window)}
    return {i: dot(s.C, repeat(s.A, power(s.B, p), m)) for i, m in exponents.items() if m >= 0}


def equation_14(exponent: Callable[[int, int, int], int] = lambda window, i, p: window - i - p) -> Finding:
    """Eq. 14 against the weights of u_i u_{i+1} … u_{i+p−1} in Eq. 13 at k = L̃ − 1, as polynomials.

    Args:
        exponent: of Ā, from L̃, i and p.
    """
    window = 6
    s = generic_system(2, window)
    right, undefined = [], 0
    for p in (2, 3, 4):
        entries = _printed_kernel(s, window, p, exponent)
        undefined += window - len(entries)
        printed = total(entry * prod(s.u[i : i + p]) for i, entry in entries.items() if i + p <= window)
        right.append(
            printed == formulas.correlation_terms(s, window - 1, p, adjacent=True) and len(entries) == window - p + 1
        )
    return Finding(
        ruling(undefined == 0 and all(right), condition="i stops at L̃ − p", under_condition=all(right)),
        {
            "negative_exponents": undefined,
            "entries_of_orders_2_to_4": 3 * window,
            "orders_proved": sum(right),
            "window": window,
        },
        f"for L̃ = {window} and p = 2, 3, 4 the index i ∈ [L̃] asks for {undefined} negative powers of Ā",
    )


def equation_15(p_offset: int = 0) -> Finding:
    """Eq. 14 with Ā = I against C B̄^p; the sum over all index tuples against e_p by its recurrence.

    Args:
        p_offset: B̄ is raised to p + p_offset.
    """
    length = 5
    s = generic_system(2, length)
    unit = s._replace(A=identity(2))
    gaps: list[Any] = []
    for p in (2, 3, 4):
        response = dot(s.C, power(s.B, p + p_offset))
        entries = _printed_kernel(unit, length, p, lambda window, i, p: window - i - p)
        gaps += [entry - response for entry in entries.values()]
        gaps += [
            formulas.correlation_terms(unit, k, p) - response * formulas.elementary(s.u, p)[k][p - 1]
            for k in range(length)
        ]
    return Finding(
        ruling(all_zero(gaps)),
        {"identities_proved": sum(gap == 0 for gap in gaps), "identities": len(gaps)},
    )


def equation_16(repeated: bool = True) -> Finding:
    """The kernel and correlation vectors of Appendix A against the liquid terms of Eq. 13, exactly.

    Args:
        repeated: each power of Ā appears once for each product that it multiplies; False: once.
    """
    k, order = 6, 4
    s = rational_system(3, k + 1, seed=2)
    weights: list[Any] = []
    correlations: list[Any] = []
    for p in range(2, order + 1):
        tuples = list(formulas.index_tuples(k, p))
        if not repeated:
            tuples = [t for t in tuples if t == tuple(range(t[0], t[0] + p))]
        weights += [dot(s.C, repeat(s.A, power(s.B, p), printed_exponent(k, p, t[0]))) for t in tuples]
        correlations += [prod(s.u[i] for i in t) for t in tuples]
    wanted = total(formulas.correlation_terms(s, k, p) for p in range(2, order + 1))
    inner = dot(weights, correlations)
    convolved = dot(weights, correlations[::-1])
    return Finding(
        ruling(
            convolved == wanted,
            condition="∗ is an inner product and each power of Ā is repeated for each product it multiplies",
            under_condition=inner == wanted,
        ),
        {
            "relative_difference_as_convolution": float(abs(convolved / wanted - 1)),
            "relative_difference_as_inner_product": float(abs(inner / wanted - 1)),
            "length": len(weights),
            "distinct_powers": k + (k - 1) + (k - 2),
        },
        f"as the last value of a convolution the sum is off by {percent(float(abs(convolved / wanted - 1)))} on "
        f"random fractions with k = {k}",
    )


CLAIMS = (
    Claim(
        "equation-10",
        "Eq. 10",
        "ẋ = [A + I_N B u] x + B u, y = C x; a unit matrix adds B u element-wise to A.",
        "I_N B u is the diagonal matrix diag(B) u. The text also calls it J_N, an N × N unit matrix; the other "
        "reading, an all-ones matrix, is the one tested against the B̄² of Eq. 12.",
        "holds if I_N B u stands for diag(B) u",
        equation_10,
    ),
    Claim(
        "equation-11",
        "Eq. 11",
        "x_k = (Ā + B̄ u_k) x_{k−1} + B̄ u_k, y_k = C̄ x_k is the forward Euler transformation of Eq. 10.",
        "Ā = I + δt A and B̄ = δt B as in Appendix D; B̄ u_k in the bracket is diag(B̄) u_k. Proved for all values, "
        "N ≤ 3.",
        "holds",
        equation_11,
    ),
    Claim(
        "equation-11-parameters",
        "Eq. 11, text",
        "The discretised parameters correspond to Ā = I + δt/2 A, B̄ = δt B, C̄ = C.",
        "As printed below Eq. 11; Appendix D prints Ā = I + δt A.",
        "fails",
        equation_11_parameters,
    ),
    Claim(
        "equation-11-bilinear",
        "Eq. 11, text",
        "We could use the more stable bilinear discretisation of A and B, of Eq. 3, as well.",
        "More stable: the spectral radius of Ā is below 1 for every A with eigenvalues to the left and every δt "
        "(proved), where that of Euler's is not. Numbers for HiPPO-LegS, N = 64, δt = 0.1, eigenvalues −1 … −N.",
        "holds",
        equation_11_bilinear,
    ),
    Claim(
        "equation-12",
        "Eq. 12",
        "Unrolling Eq. 11: x_2 = Ā²B̄u_0 + ĀB̄u_1 + B̄u_2 + ĀB̄²u_0u_1 + ĀB̄²u_0u_2 + B̄²u_1u_2 + B̄³u_0u_1u_2, y_2 = C x_2.",
        "B̄^p is the elementwise power. Proved for all values with diagonal Ā, N ≤ 3; for a full Ā the gap is "
        "proved to be C (diag(B̄) Ā − Ā diag(B̄)) B̄ u_0u_2. The orders as a cascade of recurrences (mode "
        "truncated) add up to Eq. 11 for every Ā.",
        f"holds if {COMMUTE}",
        equation_12,
    ),
    Claim(
        "equation-13",
        "Eq. 13",
        "y_k = (K ∗ u)_k + Σ_{p=2..P} Σ_{Π(k+1,p)} C Ā^{k+1−p−i} B̄^p u_i u_{i+1} … u_p.",
        "Π(k+1, p) are all index tuples i₁ < … < i_p ≤ k and i is the smallest. Proved for all values with diagonal Ā, "
        "N = 2, L = 5, all orders and truncated; as cascades of recurrences for every Ā.",
        f"holds if {COMMUTE}",
        equation_13,
    ),
    Claim(
        "equation-13-counts",
        "Eq. 13, text",
        "For L = 100, P = 4, u_correlations contains all combinations of order 2, binom(L+1, 2), of order 3, "
        "binom(L+1, 3), and of order 4, binom(L+1, 4).",
        "Products of p different samples out of L = 100, counted. (With the last index k = L − 1, Π(k+1, p) of Eq. "
        "13 has binom(L, p) elements.)",
        "fails",
        equation_13_counts,
    ),
    Claim(
        "equation-13-convolution",
        "Eq. 13",
        "→ y = K ∗ u + K_liquid ∗ u_correlations.",
        "A convolution: one kernel and one sequence of products per order, the same for all steps. Proved for all "
        "values with N = 2, L = 5, p ≤ 4.",
        f"holds if {ADJACENT}",
        equation_13_convolution,
    ),
    Claim(
        "equation-14",
        "Eq. 14",
        "K_liquid ∈ R^L̃ = (C Ā^{L̃−i−p} B̄^p)_{i∈[L̃], p∈[P]} = (C Ā^{L̃−2} B̄², …, C B̄^p).",
        "[L̃] = {0, …, L̃−1}; entry i is the weight of u_i u_{i+1} … u_{i+p−1} in Eq. 13 at k = L̃ − 1. Proved for all "
        "values with N = 2, L̃ = 6.",
        "holds if i stops at L̃ − p",
        equation_14,
    ),
    Claim(
        "equation-15",
        "Eq. 15",
        "With Ā set to the identity in the correlation terms, K_liquid=p = (C B̄^p)_{i∈[L̃], p∈[P]}.",
        "All entries are the same number, so order p of the output is C B̄^p e_p(u_0, …, u_k) with the elementary "
        "symmetric polynomial; e_p(k) = e_p(k−1) + u_k e_{p−1}(k−1). Proved for all values with N = 2, L = 5.",
        "holds",
        equation_15,
    ),
    Claim(
        "equation-16",
        "Eq. 16",
        "K_liquid ∗ u_correlations = [C Ā^{k−1} B̄², …, C B̄², …, C Ā^{k−2} B̄³, …, C B̄³, …, C Ā^{k−3} B̄⁴, "
        "…, C B̄⁴] ∗ [u_0u_1, …, u_{k−1}u_k, …].",
        "Orders 2 to 4 of Eq. 13 at step k, from two vectors of equal length; index tuples in lexicographic order.",
        "holds if ∗ is an inner product and each power of Ā is repeated for each product it multiplies",
        equation_16,
    ),
)
