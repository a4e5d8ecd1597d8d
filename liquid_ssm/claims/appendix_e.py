"""Appendix E: the autoregressive mode of the PB kernel."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import comb
from typing import Any

import numpy as np

from ..apply import apply, step
from ..initialize import initialize
from ..oracle import exact
from ..oracle.realization import Realization
from . import formulas
from .claim import Claim, Finding, ruling
from .counting import Tally
from .ring import Vector, add, dot, hadamard, identity, power, scale, total
from .samples import generic_system, rationals

# (x, e_1 … e_P, all inputs so far) of the mode that is stepped.
_State = tuple[Vector, list[Any], list[Any]]
# The liquid terms of one step from (C B̄² … C B̄^P, e_1 … e_P, inputs so far): their sum and the new e.
Liquid = Callable[[Vector, list[Any], list[Any]], tuple[Any, list[Any]]]


def _recurrence(responses: Vector, e: list[Any], inputs: list[Any]) -> tuple[Any, list[Any]]:
    """e_p ← e_p + u_k e_{p−1}, then Σ_p C B̄^p e_p."""
    u = inputs[-1]
    e = [own + u * below for own, below in zip(e, [1, *e[:-1]], strict=True)]
    return dot(responses, e[1:]), e


def by_products(responses: Vector, e: list[Any], inputs: list[Any]) -> tuple[Any, list[Any]]:
    """The violet terms of Eq. 13 as they stand: every product of p inputs so far."""
    k = len(inputs) - 1
    sums = [
        total(_product([inputs[i] for i in indices]) for indices in formulas.index_tuples(k, p))
        for p in range(2, len(responses) + 2)
    ]
    return dot(responses, sums), e


def _product(factors: list[Any]) -> Any:
    # Not math.prod, whose start value would be one more factor.
    result = factors[0]
    for factor in factors[1:]:
        result = result * factor
    return result


def _step(
    a: Vector, B: Vector, C: Vector, responses: Vector, state: _State, u: Any, liquid: Liquid
) -> tuple[Any, _State]:
    """One step of mode PB with diagonal Ā."""
    x, e, inputs = state
    x = add(hadamard(a, x), scale(u, B))
    inputs = [*inputs, u]
    correlations, e = liquid(responses, e, inputs)
    return dot(C, x) + correlations, (x, e, inputs)


def _rest(n_state: int, order: int) -> _State:
    return [0] * n_state, [0] * order, []


def pb_extra_operations(order: int, n_state: int, at_step: int, liquid: Liquid = _recurrence) -> int:
    """Multiplications that orders 2 … P add to the step with that index, beyond those of order 1."""

    def last_step(liquid: Liquid) -> int:
        tally = Tally()
        a, B, C = (tally.numbers([Fraction(1, 2)] * n_state) for _ in range(3))
        responses = tally.numbers([Fraction(1, 3)] * (order - 1))
        state, before = _rest(n_state, order), 0
        for u in tally.numbers([Fraction(1, 5)] * (at_step + 1)):
            before = tally.multiplications
            _, state = _step(a, B, C, responses, state, u, liquid)
        return tally.multiplications - before

    return last_step(liquid) - last_step(lambda responses, e, inputs: (0, e))


def cost_per_step(liquid: Liquid = _recurrence) -> Finding:
    """Multiplications that the liquid terms add to one step of mode PB, counted for several P, N and k.

    Args:
        liquid: computes the liquid terms.
    """
    orders = (2, 3, 4, 5)
    counts = {p: pb_extra_operations(p, 4, 9, liquid) for p in orders}
    elsewhere = [pb_extra_operations(3, n, k, liquid) for n, k in ((4, 9), (16, 9), (4, 14))]
    per_order = [counts[p] / (p - 1) for p in orders]
    return Finding(
        ruling(len(set(per_order)) == 1 and len(set(elsewhere)) == 1),
        {
            "multiplications_per_order": per_order[0],
            "multiplications_P_3": counts[3],
            "multiplications_P_5": counts[5],
            "multiplications_P_3_N_16": elsewhere[1],
            "multiplications_P_3_step_14": elsewhere[2],
        },
    )


def step_by_step(liquid: Liquid = _recurrence) -> Finding:
    """Steps of mode PB from the state of plain S4 and e_1 … e_P against Eq. 13 with Ā = I, in exact arithmetic.

    Args:
        liquid: computes the liquid terms.
    """
    n, length, order = 3, 10, 3
    draw = rationals(3 * n + length, seed=7)
    a, B, C, u = draw[:n], draw[n : 2 * n], draw[2 * n : 3 * n], draw[3 * n :]
    responses = [dot(C, power(B, p)) for p in range(2, order + 1)]
    state, y = _rest(n, order), []
    for u_k in u:
        y_k, state = _step(a, B, C, responses, state, u_k, liquid)
        y.append(y_k)

    def row(values: list[Any], *shape: int) -> Any:
        array = np.empty(len(values), object)
        array[:] = values
        return array.reshape(shape)

    realization = Realization("diagonal", row(a, 1, n), row(B, 1, n), row(C, 1, n), conjugate_pairs=False)
    whole = exact.outputs(realization, row(u, 1, 1, length), "pb", order=order)[0, 0]
    equal = sum(found == wanted for found, wanted in zip(y, whole, strict=True))
    # The same of the package's own step, in float64.
    system = initialize("s4d-lin", n_channels=1, n_state=8).discretize()
    signal = np.random.default_rng(0).normal(size=(1, 1, 32))
    options: dict[str, Any] = {"mode": "pb", "order": order, "backend": "numpy"}
    own, carried = [], None
    for k in range(32):
        y_now, carried = step(system, signal[..., k], carried, **options)
        own.append(float(y_now[0, 0]))
    sequence = apply(system, signal, **options)[0, 0]
    return Finding(
        ruling(equal == length),
        {
            "steps_equal": equal,
            "steps": length,
            "relative_difference_of_the_package": float(np.abs(own - sequence).max() / np.abs(sequence).max()),
        },
    )


def violet_terms(k: int = 99) -> Finding:
    """Multiplications of the violet terms of one step as written in Eq. 13, and through e_p.

    Args:
        k: index of the step.
    """
    # A product of p inputs takes p − 1 multiplications; small cases are counted, the large one follows the formula.
    checked = all(
        pb_extra_operations(p, 1, step_index, by_products)
        == sum(comb(step_index + 1, q) * (q - 1) for q in range(2, p + 1)) + p - 1
        for p in (2, 3)
        for step_index in (5, 8)
    )
    written = {p: sum(comb(k + 1, q) * (q - 1) for q in range(2, p + 1)) + p - 1 for p in (2, 3, 4)}
    carried = {p: pb_extra_operations(p, 1, 9) for p in (2, 3, 4)}
    return Finding(
        ruling(
            checked and all(written[p] <= 2 * p for p in written),
            condition="the sums are carried along as e_p(k) = e_p(k−1) + u_k e_{p−1}(k−1)",
            under_condition=checked and all(carried[p] <= 2 * p for p in carried),
        ),
        {
            "multiplications_as_written_P_3": written[3],
            "multiplications_carried_P_3": carried[3],
            "multiplications_as_written_P_2": written[2],
            "multiplications_carried_P_2": carried[2],
            "step": k,
        },
        f"as written, step {k} takes {written[3]:,} multiplications for P = 3, against {carried[3]} through e_p",
    )


def _step_multiplications(n_state: int, order: int) -> int:
    """Of one step of mode PB, linear term and output included."""
    tally = Tally()
    a, B, C = (tally.numbers([Fraction(1, 2)] * n_state) for _ in range(3))
    responses = tally.numbers([Fraction(1, 3)] * (order - 1))
    state, before = _rest(n_state, order), 0
    # The sums e_p are all there from step P on.
    for u in tally.numbers([Fraction(1, 5)] * (order + 1)):
        before = tally.multiplications
        _, state = _step(a, B, C, responses, state, u, _recurrence)
    return tally.multiplications - before


def _convolution_multiplications(order: int, length: int) -> int:
    """Of one value of K ∗ u and of each order's kernel with its products, formed from those of the order below."""
    return length + 2 * (order - 1) * length


def against_convolution(slower: int = 1) -> Finding:
    """Multiplications of one new output: by a step of mode PB, and by the convolutions over the past.

    Args:
        slower: factor on the cost of a step.
    """
    length = 64
    faster: dict[bool, list[bool]] = {True: [], False: []}
    for p in (2, 3, 6):
        limit = p * length // 2
        for n in (7, limit - 1, 4 * limit):
            cost = slower * _step_multiplications(n, p)
            faster[n < limit].append(cost < _convolution_multiplications(p, length))
    usual, large = slower * _step_multiplications(64, 3), slower * _step_multiplications(1024, 3)
    long, short = _convolution_multiplications(3, 1024), _convolution_multiplications(3, length)
    return Finding(
        ruling(
            all(faster[True]) and all(faster[False]), condition="N is below p L/2", under_condition=all(faster[True])
        ),
        {
            "multiplications_step_N_64_P_3": usual,
            "multiplications_convolution_P_3_L_1024": long,
            "multiplications_step_N_1024_P_3": large,
            "multiplications_convolution_P_3_L_64": short,
        },
        f"with N = 64, p = 3, L = 1024 a new output takes {usual:,} multiplications instead of {long:,}; with N = "
        f"1024 and L = 64 it takes {large:,} instead of {short:,}",
    )


def pairwise_correlations(order: int = 2) -> Finding:
    """The weights of u_i u_j in the newest output of mode PB, as polynomials in B̄ and C.

    Args:
        order: P.
    """
    length = 5
    s = generic_system(2, length)
    unit = s._replace(A=identity(2))
    y = total(formulas.correlation_terms(unit, length - 1, p) for p in range(2, order + 1))
    kb = formulas.correlation_terms(s, length - 1, 2)
    response = dot(s.C, power(s.B, 2))
    pairs = {(i, j) for i in range(length) for j in range(i)}
    symmetric = y == response * total(s.u[i] * s.u[j] for i, j in pairs)

    def weights(y: Any) -> dict[tuple[int, int], Any]:
        """For every pair of inputs the set of terms that multiply it."""
        found: dict[tuple[int, int], set[Any]] = {}
        for exponents, value in (y.to_dict() if y != 0 else {}).items():
            degrees = exponents[-length:]
            used = tuple(i for i in range(length) if degrees[i])
            if len(used) <= 2 and sum(degrees) == 2:
                pair = (used[-1], used[0])
                found.setdefault(pair, set()).add((tuple(map(int, exponents[:-length])), str(value)))
        return {pair: frozenset(terms) for pair, terms in found.items()}

    pb_weights, kb_weights = weights(y), weights(kb)
    return Finding(
        ruling(set(pb_weights) == pairs and bool(symmetric)),
        {
            "pairs_with_a_weight": len(pb_weights),
            "pairs_of_different_inputs": len(pairs),
            "different_weights_PB": len(set(pb_weights.values())),
            "different_weights_KB": len(set(kb_weights.values())),
        },
    )


CLAIMS = (
    Claim(
        "appendix-e-step",
        "Appendix E",
        "In the autoregressive mode of PB we can use Eq. 13; for the black parts we can reuse the AR mode of the "
        "plain S4 model and only have to compute the new (violet) parts.",
        "The state is that of S4 and e_1, …, e_P of the inputs so far; all outputs equal those of the whole "
        "sequence. Exact fractions, N = 3, L = 10, P = 3.",
        "holds",
        step_by_step,
    ),
    Claim(
        "appendix-e-violet-terms",
        "Appendix E",
        "The violet parts consist of p multiplications of input terms (and the corresponding matrices), so "
        "computing the AR mode is feasible.",
        "Multiplications of one step that do not belong to plain S4, at most 2p; with Ā = I, C B̄^p known.",
        "holds if the sums are carried along as e_p(k) = e_p(k−1) + u_k e_{p−1}(k−1)",
        violet_terms,
    ),
    Claim(
        "appendix-e-cost",
        "Appendix E",
        "This adds a complexity of O(p) to the inference in the AR mode of PB.",
        "Multiplications that the liquid terms add to one step, counted by numbers that count: in proportion to P − "
        "1 and independent of N and of the step.",
        "holds",
        cost_per_step,
    ),
    Claim(
        "appendix-e-speed",
        "Appendix E",
        "Because p is much smaller than L, the AR mode can significantly speed up inference compared to the "
        "convolution.",
        "One new output, multiplications counted: a step, C x included, against one value of each convolution with "
        "adjacent products. N from 7 to 2 p L, p = 2, 3, 6, L = 64.",
        "holds if N is below p L/2",
        against_convolution,
    ),
    Claim(
        "appendix-e-correlations",
        "Appendix E",
        "The pairwise correlation of inputs is a property that the PB kernel also possesses.",
        "Every product u_i u_j with i < j has a weight in the output. In PB it is the same for all pairs, C B̄², "
        "whatever their distance, while KB has one for each i; u_i² has none. Proved for all values with N = 2, L = "
        "5.",
        "holds",
        pairwise_correlations,
    ),
)
