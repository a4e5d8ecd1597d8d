"""Appendix A: lengths of the correlation vector and of its kernel (Eq. 16 itself is in `equations_10_to_16`)."""

from __future__ import annotations

from collections import Counter
from math import comb

from .claim import Claim, Finding, ruling
from .formulas import index_tuples, printed_exponent


def correlation_length(offset: int = 1) -> Finding:
    """The products of 2, 3 and 4 inputs at step k, counted one by one, against binomials.

    Args:
        offset: the sum of binom(k + offset, p) is tested.
    """
    wrong = 0
    for k in range(1, 16):
        counted = sum(1 for p in (2, 3, 4) for _ in index_tuples(k, p))
        wrong += counted != sum(comb(k + offset, p) for p in (2, 3, 4))
    return Finding(
        ruling(wrong == 0),
        {"wrong_lengths": wrong, "steps": 15, "length_at_step_15": sum(comb(15 + offset, p) for p in (2, 3, 4))},
    )


def kernel_entries(offset: int = 1) -> Finding:
    """The exponents of Ā run from k + 1 − p down to 0; exponent m belongs to binom(m + p − 1, p − 1) products.

    Args:
        offset: the largest exponent is compared with k + offset − p.
    """
    wrong, longest = 0, 0
    for k in range(3, 13):
        for p in (2, 3, 4):
            exponents = Counter(printed_exponent(k, p, indices[0]) for indices in index_tuples(k, p))
            wrong += sorted(exponents) != list(range(k + offset - p + 1))
            wrong += any(count != comb(m + p - 1, p - 1) for m, count in exponents.items())
            wrong += sum(exponents.values()) != comb(k + 1, p)
            longest = max(longest, *exponents.values())
    return Finding(ruling(wrong == 0), {"wrong_counts": wrong, "most_products_with_one_power": longest})


CLAIMS = (
    Claim(
        "appendix-a-length",
        "Appendix A",
        "u_correlations is a vector of length binom(k+1, 2) + binom(k+1, 3) + binom(k+1, 4).",
        "All products of 2, 3 and 4 different inputs out of u_0, …, u_k; counted for k ≤ 15.",
        "holds",
        correlation_length,
    ),
    Claim(
        "appendix-a-kernel",
        "Appendix A",
        "The kernel is [C Ā^{k−1} B̄², …, C B̄², …, C Ā^{k−2} B̄³, …, C B̄³, …, C Ā^{k−3} B̄⁴, …, C B̄⁴], as "
        "long as u_correlations.",
        "Order p has the powers k + 1 − p, …, 0 of Ā, power m once for each of its binom(m + p − 1, p − 1) "
        "products; counted for k ≤ 12.",
        "holds",
        kernel_entries,
    ),
)
