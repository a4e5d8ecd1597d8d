"""Appendix F: truncation, and the scan that avoids it."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import comb, prod
from typing import Any

import numpy as np

from . import formulas
from .claim import Claim, Finding, percent, ruling
from .counting import Tally
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
    flat,
    hadamard,
    multiply,
    power,
    scale,
    total,
)
from .samples import generic_system, indexed, rational_system, variables

# An affine map x ↦ M x + v.
_Map = tuple[Matrix, Vector]


def _compose(older: _Map, newer: _Map) -> _Map:
    """First the older map, then the newer one."""
    return multiply(newer[0], older[0]), add(apply(newer[0], older[1]), newer[1])


def _compose_diagonal(older: tuple[Vector, Vector], newer: tuple[Vector, Vector]) -> tuple[Vector, Vector]:
    return hadamard(newer[0], older[0]), add(hadamard(newer[0], older[1]), newer[1])


def _tree_scan(elements: list[Any], compose: Callable[[Any, Any], Any]) -> list[Any]:
    """All prefixes by Ladner and Fischer's recursion: pairs, their prefixes, then the ones between."""
    if len(elements) < 2:
        return elements
    pairs = [compose(elements[i], elements[i + 1]) for i in range(0, len(elements) - 1, 2)]
    prefixes = _tree_scan(pairs, compose)
    result = [elements[0]]
    for i in range(1, len(elements)):
        result.append(prefixes[i // 2] if i % 2 else compose(prefixes[i // 2 - 1], elements[i]))
    return result


def _steps(s: System) -> list[_Map]:
    """x ↦ (Ā + diag(B̄) u_k) x + B̄ u_k for every k."""
    return [(combine(s.A, diagonal(s.B), u), scale(u, s.B)) for u in s.u]


def scan(compose: Callable[[_Map, _Map], _Map] = _compose) -> Finding:
    """Composition of affine maps is associative, as polynomials; a tree of them gives every state of Eq. 11, exactly.

    Args:
        compose: the operator of the scan.
    """
    n = 2
    v = iter(variables(*(indexed("m", 3 * n * n) + indexed("v", 3 * n))))
    matrices = [[[next(v) for _ in range(n)] for _ in range(n)] for _ in range(3)]
    a, b, c = zip(matrices, [[next(v) for _ in range(n)] for _ in range(3)], strict=True)
    left, right = compose(compose(a, b), c), compose(a, compose(b, c))
    associative = all_zero([*flat(combine(left[0], right[0], -1)), *difference(left[1], right[1])])
    s = rational_system(3, 13, seed=8)
    prefixes = _tree_scan(_steps(s), compose)
    found = [dot(s.C, shift) for _, shift in prefixes]
    equal = sum(x == y for x, y in zip(found, formulas.outputs(s, liquid=True), strict=True))
    return Finding(
        ruling(associative and equal == 13),
        {"outputs_equal": equal, "outputs": 13, "associativity_proved": int(associative)},
    )


def _sequential_cost(n: int, length: int, *, dense: bool, liquid: bool) -> int:
    """Multiplications of the recurrence, one step after the other."""
    tally = Tally()
    B = tally.numbers([Fraction(1, 3)] * n)
    x: Vector = [0] * n
    for u in tally.numbers([Fraction(1, 2)] * length):
        drive = scale(u, B)
        if dense:
            A = [tally.numbers([Fraction(1, 5)] * n) for _ in range(n)]
            x = add(apply(combine(A, diagonal(drive)) if liquid else A, x), drive)
        else:
            a = tally.numbers([Fraction(1, 5)] * n)
            x = add(hadamard(add(a, drive) if liquid else a, x), drive)
    return tally.multiplications


def _scan_cost(n: int, length: int, *, dense: bool) -> int:
    """Multiplications of the liquid recurrence by a tree of affine maps, its elements included."""
    tally = Tally()
    B, u = tally.numbers([Fraction(1, 3)] * n), tally.numbers([Fraction(1, 2)] * length)
    drives = [scale(u_k, B) for u_k in u]
    elements: list[Any]
    if dense:
        A = [tally.numbers([Fraction(1, 5)] * n) for _ in range(n)]
        elements = [(combine(A, diagonal(drive)), drive) for drive in drives]
        _tree_scan(elements, _compose)
    else:
        a = tally.numbers([Fraction(1, 5)] * n)
        elements = [(add(a, drive), drive) for drive in drives]
        _tree_scan(elements, _compose_diagonal)
    return tally.multiplications


def all_orders(full: bool = True) -> Finding:
    """The scan has every order of Eq. 12; what its maps cost per step and state, diagonal and dense, counted.

    Args:
        full: False drops the liquid term from the maps, which leaves order 1.
    """
    length = 5
    s = generic_system(2, length)
    maps = _steps(s) if full else [(s.A, scale(u, s.B)) for u in s.u]
    newest = dot(s.C, _tree_scan(maps, _compose)[-1][1])
    degrees = {int(sum(exponents[-length:])) for exponents in newest.to_dict()}
    complete = degrees == set(range(1, length + 1)) and newest == formulas.truncated_outputs(s, length)[-1]
    sizes, steps = (2, 4, 8), 16
    diagonal_ratio = [
        _scan_cost(n, steps, dense=False) / _sequential_cost(n, steps, dense=False, liquid=False) for n in sizes
    ]
    dense_ratio = [
        _scan_cost(n, steps, dense=True) / _sequential_cost(n, steps, dense=True, liquid=False) for n in sizes
    ]
    # The liquid term itself, in a recurrence: ā + b̄ u costs no multiplication, since b̄ u is the drive.
    added = _sequential_cost(8, steps, dense=False, liquid=True) - _sequential_cost(8, steps, dense=False, liquid=False)
    free = added == 0 and len(set(diagonal_ratio)) == 1
    return Finding(
        ruling(
            complete and free and len(set(dense_ratio)) == 1,
            condition="Ā is diagonal",
            under_condition=complete and free,
        ),
        {
            "scan_over_linear_recurrence_diagonal": diagonal_ratio[-1],
            "scan_over_linear_recurrence_dense_N_8": dense_ratio[-1],
            "scan_over_linear_recurrence_dense_N_2": dense_ratio[0],
            "multiplications_added_by_the_liquid_term": added,
            "orders": len(degrees),
        },
        f"over the recurrence without liquid term the scan takes {diagonal_ratio[-1]:.1f} times the multiplications "
        f"with diagonal Ā and every N; with a full Ā {dense_ratio[0]:.1f} times for N = 2 and {dense_ratio[-1]:.1f} "
        "for N = 8",
    )


def high_orders(chains: bool = True) -> Finding:
    """Cost of the order-p terms of one output: product by product, and by one recurrence per order, counted.

    Args:
        chains: False compares the products with themselves.
    """
    n, length = 4, 12

    def cascade(order: int) -> int:
        """Multiplications of the last step of orders 1 … P, diagonal Ā."""
        tally = Tally()
        a, B = tally.numbers([Fraction(1, 2)] * n), tally.numbers([Fraction(1, 3)] * n)
        x: list[Vector] = [[0] * n for _ in range(order)]
        before = 0
        for u in tally.numbers([Fraction(1, 5)] * length):
            before = tally.multiplications
            drive = scale(u, B)
            x = [
                add(hadamard(a, own), hadamard(drive, below)) for own, below in zip(x, [[1] * n, *x[:-1]], strict=True)
            ]
        return tally.multiplications - before

    orders = (2, 4, 6)
    products = {p: sum(comb(length, q) * (q - 1) for q in range(2, p + 1)) for p in orders}
    recurrences = {p: cascade(p) if chains else products[p] for p in orders}
    linear = recurrences[6] - recurrences[4] == recurrences[4] - recurrences[2]
    explodes = products[6] - products[4] > 2 * (products[4] - products[2])
    large = comb(1024, 4)
    return Finding(
        ruling(
            explodes and not linear, condition="products are formed one by one", under_condition=explodes and linear
        ),
        {
            "products_of_4_inputs_of_1024": large,
            "multiplications_product_by_product_P_6": products[6],
            "multiplications_recurrences_P_6": recurrences[6],
            "multiplications_recurrences_P_4": recurrences[4],
            "N": n,
            "inputs": length,
        },
        f"1024 inputs have {large:,} products of four; as recurrences each order adds "
        f"{(recurrences[6] - recurrences[4]) // 2} multiplications per step for N = {n} and diagonal Ā",
    )


def truncation(pb_order: int = 3) -> Finding:
    """Mode PB with orders up to P against PB with all orders, C (Π_k (1 + B̄ u_k) − 1) in closed form.

    Args:
        pb_order: P.
    """
    length = 5
    s = generic_system(2, length)
    e = formulas.elementary(s.u, length)[-1]
    # Σ_p B̄^p e_p = Π (1 + B̄ u) − 1, for each state.
    closed = all_zero(
        prod((1 + b * u for u in s.u), start=1) - 1 - total(b ** (p + 1) * e[p] for p in range(length)) for b in s.B
    )
    left_out = total(dot(s.C, power(s.B, p)) * e[p - 1] for p in range(pb_order + 1, length + 1))
    affected = left_out != 0

    u = np.random.default_rng(0).normal(size=64)
    a, b, c = np.array([0.95, 0.9]), np.array([0.2, 0.15]), np.array([1.0, -0.5])

    def share_left_out(transition: Any) -> float:
        """‖orders above P‖₂ over ‖all liquid orders‖₂ of one sequence, from a cascade of orders."""
        x = np.zeros((64, 2))
        cut, whole = [], []
        for u_k in u:
            x = transition * x + b * u_k * np.vstack([np.ones(2), x[:-1]])
            cut.append(c @ x[pb_order:].sum(axis=0))
            whole.append(c @ x[1:].sum(axis=0))
        return float(np.linalg.norm(cut) / np.linalg.norm(whole))

    pb, kb = share_left_out(np.ones(2)), share_left_out(a)
    return Finding(
        ruling(closed and not affected and pb == 0),
        {"share_left_out_PB": pb, "share_left_out_KB": kb, "closed_form_proved": int(closed), "P": pb_order},
        ""
        if not affected
        else f"orders above {pb_order} are {percent(pb)} of the liquid part of PB and {percent(kb)} of that of KB on "
        "64 normal inputs, ā = (0.95, 0.9), b̄ = (0.2, 0.15); PB has all orders as C (Π_k (1 + B̄ u_k) − 1)",
    )


CLAIMS = (
    Claim(
        "appendix-f-high-orders",
        "Appendix F",
        "Stacks of 1-D blocks do not allow us to exploit higher-order correlation terms, due to the high computational "
        "complexity.",
        "Multiplications of one output with orders up to P, diagonal Ā; as the orders of Eq. 12, one linear "
        "recurrence each, they grow by the same number with each order.",
        "holds if products are formed one by one",
        high_orders,
    ),
    Claim(
        "appendix-f-truncation",
        "Appendix F",
        "The truncation might also reduce the expressivity of the KB kernel, but not of PB, as its correlation "
        "terms do not depend on A.",
        "PB with orders up to P equals PB with all orders. Σ_p B̄^p e_p = Π_k (1 + B̄ u_k) − 1 is proved for all "
        "values, L = 5.",
        "fails",
        truncation,
    ),
    Claim(
        "appendix-f-scan",
        "Appendix F",
        "A parallel scan can be used over the linear LTC system, a time-varying SSM, because the state transitions "
        "of all time steps can be precomputed.",
        "x ↦ (Ā + diag(B̄) u_k) x + B̄ u_k are affine maps; their composition is associative (proved for all "
        "values, N = 2), and a tree of them gives the states of Eq. 11 (exact fractions, N = 3, L = 13, full Ā).",
        "holds",
        scan,
    ),
    Claim(
        "appendix-f-all-orders",
        "Appendix F",
        "This way we would not need to truncate the kernel and obtain all correlation terms for free.",
        "The newest output has the orders 1 … L of Eq. 12 (all values, N = 2, L = 5). For free: the scan takes a "
        "number of multiplications per step and state that does not grow with N, and the liquid term adds none.",
        "holds if Ā is diagonal",
        all_orders,
    ),
)
