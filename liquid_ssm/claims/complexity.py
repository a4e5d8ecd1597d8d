"""The computational complexity of the S4 and the liquid kernels, by counting multiplications."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from math import log2
from typing import Any

import numpy as np

from .claim import Claim, Finding, ruling
from .convergence import slope
from .fast_series import PRIME, FastSeries, direct_kernel, direct_low_rank_kernel

# Õ hides powers of logarithms; the tree of fractions has log₂² and the padding to powers of two is covered by one more.
_LOGARITHMS = 3


def _draw(count: int, *shape: int) -> list[Any]:
    random = np.random.default_rng(0)
    return [random.integers(1, PRIME, size=shape) for _ in range(count)]


def _nearly_linear(sizes: list[int], counts: list[int]) -> bool:
    """count/(size log₂³ size) does not grow."""
    ratios = [count / (size * log2(size) ** _LOGARITHMS) for size, count in zip(sizes, counts, strict=True)]
    return all(later <= earlier for earlier, later in itertools.pairwise(ratios))


def s4(fast: bool = True) -> Finding:
    """Multiplications of the kernel of Λ − P Q*, N = L, by fast polynomial arithmetic and by line 2's direct sums.

    Args:
        fast: False counts direct sums in place of the fast ones.
    """
    sizes = [2**j for j in range(5, 12)]
    counts, equal = [], True
    for n in sizes:
        arguments = _draw(5, n)
        series = FastSeries()
        kernel = series.low_rank_kernel(arguments, n)
        counts.append(series.multiplications)
        if n <= 256:
            equal = equal and bool((kernel == direct_low_rank_kernel(arguments, n)).all())
    # Line 2 of Algorithm 1 for each of L points and N states: 1/(g − λ_n) and its product with four weights.
    direct = [5 * n * n for n in sizes]
    whole = [2 * n for n in sizes]
    achieved = equal and _nearly_linear(whole, counts if fast else direct)
    return Finding(
        ruling(
            achieved and _nearly_linear(whole, direct),
            condition="the Cauchy sums are evaluated by fast polynomial arithmetic",
            under_condition=achieved,
        ),
        {
            "growth_exponent_fast": slope(sizes[-4:], counts[-4:]),
            "growth_exponent_direct_sums": slope(sizes, direct),
            "multiplications_fast_N_L_2048": counts[-1],
            "multiplications_direct_N_L_2048": direct[-1],
            "results_equal": int(equal),
        },
        f"for N = L = 2048 {counts[-1]:.3g} multiplications; line 2 of Algorithm 1 as a sum over N for each of L "
        f"points takes {direct[-1]:.3g}",
    )


def _kb_count(n_state: int, order: int, window: int) -> int:
    """Orders 2 … P of mode KB as one fast kernel each; they all cost the same, so one is counted."""
    weights, poles = _draw(2, n_state)
    series = FastSeries()
    series.kernel(series.times(weights, poles), poles, window)
    return (order - 1) * series.multiplications


def _line_8_count(n_state: int, order: int, window: int) -> int:
    """Line 8 of Algorithm 1: for each order the products of L̃ × N numbers with B̄^{p−1}."""
    return (order - 1) * n_state * window


def _pb_count(n_state: int, order: int, window: int) -> int:
    """C B̄^p for all p ≤ P at once: the series of Σ_n C_n/(1 − B̄_n t)."""
    weights, poles = _draw(2, n_state)
    series = FastSeries()
    series.kernel(weights, poles, order + 1)
    return series.multiplications


_SCALES = [64, 128, 256, 512, 1024]


def _within_the_statement(count: Any, window_of: Any) -> tuple[bool, float, float]:
    """Whether the count is Õ(N + L + P L̃) for N = L = s, P = s/4; the ratio at the smallest and largest s."""
    counts, bounds = [], []
    for s in _SCALES:
        counts.append(_s4_count(s, s) + count(s, s // 4, window_of(s)))
        bounds.append(2 * s + s // 4 * window_of(s))
    # In the sense of `_nearly_linear`, with the logarithm of s.
    ratios = [c / (b * log2(s) ** _LOGARITHMS) for c, b, s in zip(counts, bounds, _SCALES, strict=True)]
    bounded = all(later <= earlier for earlier, later in itertools.pairwise(ratios))
    return bounded, counts[0] / bounds[0], counts[-1] / bounds[-1]


def _s4_count(n_state: int, length: int) -> int:
    """Multiplications of the S4 kernel."""
    series = FastSeries()
    series.low_rank_kernel(_draw(5, n_state), length)
    return series.multiplications


def liquid_kb(count: Callable[[int, int, int], int] = _kb_count) -> Finding:
    """Multiplications of mode KB over the stated N + L + P L̃ along two families of sizes: L̃ = N, and L̃ = 4.

    Args:
        count: multiplications for orders 2 … P from (N, P, L̃).
    """
    weights, poles = _draw(2, 64)
    equal = bool((FastSeries().kernel(weights, poles, 100) == direct_kernel(weights, poles, 100)).all())
    long, first_long, last_long = _within_the_statement(count, lambda s: s)
    short, first_short, last_short = _within_the_statement(count, lambda s: 4)
    usual = count(64, 3, 64) / _s4_count(64, 4096)
    return Finding(
        ruling(equal and long and short, condition="N ≤ L̃", under_condition=equal and long),
        {
            "count_over_stated_N_1024_window_4": last_short,
            "count_over_stated_N_64_window_4": first_short,
            "count_over_stated_N_1024_window_1024": last_long,
            "count_over_stated_N_64_window_64": first_long,
            "share_of_S4_kernel_N_64_L_4096_window_64_P_3": usual,
        },
        f"for L̃ = 4, P = N/4 the multiplications over N + L + P L̃ grow from {first_short:.3g} at N = L = 64 to "
        f"{last_short:.3g} at 1024: every order needs a sum over all N states",
    )


def liquid_pb(count: Callable[[int, int, int], int] = _pb_count) -> Finding:
    """Multiplications of mode PB over the stated N + L + P L̃, as in `liquid_kb`; the responses against direct sums.

    Args:
        count: multiplications for orders 2 … P from (N, P, L̃).
    """
    weights, poles = _draw(2, 64)
    equal = bool((FastSeries().kernel(weights, poles, 5) == direct_kernel(weights, poles, 5)).all())
    long, _, last_long = _within_the_statement(count, lambda s: s)
    short, first_short, last_short = _within_the_statement(count, lambda s: 4)
    return Finding(
        ruling(equal and long and short),
        {
            "count_over_stated_N_1024_window_4": last_short,
            "count_over_stated_N_64_window_4": first_short,
            "count_over_stated_N_1024_window_1024": last_long,
            "direct_products_N_1024_P_256": 255 * 1024,
        },
    )


CLAIMS = (
    Claim(
        "complexity-s4",
        "Complexity",
        "The S4-LegS convolution kernel by the Cauchy kernel takes Õ(N + L).",
        "Multiplications in exact arithmetic, N = L from 32 to 2048: nearly linear if the count over (N + L) log³(N "
        "+ L) does not grow. The fast way adds up the fractions of the Cauchy sums in a tree and expands them by "
        "Newton's iteration; it is run modulo a prime and agrees with C Āⁱ B̄. Nothing is said on rounding errors.",
        "holds if the Cauchy sums are evaluated by fast polynomial arithmetic",
        s4,
    ),
    Claim(
        "complexity-liquid-kb",
        "Complexity",
        "Liquid-S4 in mode KB can be computed in Õ(N + L + p_max L̃).",
        "The kernels K and K_liquid=p, without the correlations. Each order is a kernel of its own, by the fast way of "
        "complexity-s4. The bound is tested with N = L = s, P = s/4, for L̃ = s and for L̃ = 4, s from 64 to 1024.",
        "holds if N ≤ L̃",
        liquid_kb,
    ),
    Claim(
        "complexity-liquid-pb",
        "Complexity",
        "Liquid-S4 in mode PB can be computed in Õ(N + L + p_max L̃).",
        "As complexity-liquid-kb. All C B̄^p are the series of Σ_n C_n/(1 − B̄_n t), Õ(N + P) in all.",
        "holds",
        liquid_pb,
    ),
)
