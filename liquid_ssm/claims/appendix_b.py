"""Appendix B: the steps of the proof of Proposition 1."""

from __future__ import annotations

from math import prod
from typing import Any

from . import formulas
from .claim import Claim, Finding, percent, ruling
from .proposition_1 import unsummed
from .ring import all_zero, dot, power, repeat, total
from .samples import generic_system, rational_system

_WINDOW = 5


def multiply(p: int = 2, exponent: int = 1) -> Finding:
    """Entries C Āⁱ B̄ times B̄ (p = 2) before and after the sum over the state, as polynomials.

    Args:
        p: the order.
        exponent: of B̄ in the factor.
    """
    s = generic_system(2, 0)
    wanted = [dot(s.C, repeat(s.A, power(s.B, p), i)) for i in range(_WINDOW)]
    inside = sum(dot(unsummed(s, i), power(s.B, exponent)) == wanted[i] for i in range(_WINDOW))
    # After the sum there is no index n left; Σ_n B̄_n, the published code's choice, stands for B̄.
    outside = sum(
        k * total(power(s.B, exponent)) == w for k, w in zip(formulas.kernel(s, _WINDOW), wanted, strict=True)
    )
    return Finding(
        ruling(
            outside == _WINDOW,
            condition="the product is taken before the sum over the state",
            under_condition=inside == _WINDOW,
        ),
        {"entries_proved_before_the_sum": inside, "entries_proved_after_it": outside, "entries": _WINDOW},
        f"after the sum {outside} of {_WINDOW} entries agree",
    )


def flip(reverse: bool = True) -> Finding:
    """The flipped kernel against order 2 of Eq. 13 with adjacent products, in an inner product and in a convolution.

    Args:
        reverse: whether the kernel is flipped.
    """
    s = generic_system(2, _WINDOW)
    products = [prod(s.u[i : i + 2]) for i in range(_WINDOW - 1)]
    kernel = formulas.kernel(s, _WINDOW - 1, 2)
    flipped = kernel[::-1] if reverse else kernel
    wanted = formulas.correlation_terms(s, _WINDOW - 1, 2, adjacent=True)
    inner = dot(flipped, products) == wanted
    convolved = formulas.convolution(flipped, products)[-1] == wanted
    unflipped = formulas.convolution(kernel, products)[-1] == wanted
    r = rational_system(2, _WINDOW, seed=4)
    c, K = [prod(r.u[i : i + 2]) for i in range(_WINDOW - 1)], formulas.kernel(r, _WINDOW - 1, 2)
    off = abs(formulas.convolution(K[::-1], c)[-1] / dot(K[::-1], c) - 1)
    return Finding(
        ruling(
            convolved and inner,
            condition="the flipped kernel enters an inner product, or the unflipped one the convolution",
            under_condition=inner and unflipped,
        ),
        {
            "relative_difference_flipped_and_convolved": float(off),
            "inner_product_proved": int(inner),
            "convolution_of_unflipped_proved": int(unflipped),
        },
        "a convolution reverses its kernel by itself; with the flipped kernel it is off by "
        f"{percent(float(off))} on random fractions",
    )


def higher_orders(power_offset: int = -1) -> Finding:
    """The same two steps for p = 2 … 5, as polynomials.

    Args:
        power_offset: the kernel is multiplied by B̄ to the power p + power_offset.
    """
    proved = 0
    s = generic_system(2, _WINDOW + 1)
    last = _WINDOW
    for p in (2, 3, 4, 5):
        products: list[Any] = [prod(s.u[i : i + p]) for i in range(last + 2 - p)]
        kernel = [dot(unsummed(s, i), power(s.B, p + power_offset)) for i in range(last + 2 - p)]
        proved += all_zero([dot(kernel[::-1], products) - formulas.correlation_terms(s, last, p, adjacent=True)])
    return Finding(ruling(proved == 4), {"orders_proved": proved, "orders": 4})


CLAIMS = (
    Claim(
        "appendix-b-multiply",
        "Appendix B",
        "For p = 2 the S4 kernel should be multiplied by B̄, which gives (CB̄², CĀB̄², …, CĀ^{L−1}B̄²).",
        "Multiplying components by B̄ after the sum over the state is read as multiplying by Σ_n B̄_n, as the "
        "published code does. Proved for all values with N = 2.",
        "holds if the product is taken before the sum over the state",
        multiply,
    ),
    Claim(
        "appendix-b-flip",
        "Appendix B",
        "We obtain the liquid kernel by flipping the above kernel, to be convolved with the 2-term correlation terms.",
        "The 2-term correlations are u_i u_{i+1}, as the positions of a kernel with one entry per power of Ā "
        "require; the result is order 2 of Eq. 13 for adjacent inputs at the newest step. Proved for all values "
        "with N = 2, L̃ = 5.",
        "holds if the flipped kernel enters an inner product, or the unflipped one the convolution",
        flip,
    ),
    Claim(
        "appendix-b-higher-orders",
        "Appendix B",
        "Similarly, we can obtain liquid kernels for higher liquid orders.",
        "Multiplied by B̄^{p−1} before the sum, flipped, and in an inner product with the products of p adjacent "
        "inputs; proved for all values with N = 2 and p = 2, …, 5.",
        "holds",
        higher_orders,
    ),
)
