"""Eq. 14 and 15 in balls: kernels, symmetric polynomials of the inputs, and convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from flint import arb, arb_poly

Series = list[arb]


def convolve(kernel: Sequence[arb], signal: Sequence[arb], length: int) -> Series:
    """Σ_i kernel_i signal_{k-i} for k < length."""
    # Trailing zeros are not stored.
    product = (arb_poly(list(kernel)) * arb_poly(list(signal))).coeffs()[:length]
    return product + [arb(0)] * (length - len(product))


def elementary(u: Series, order: int) -> list[Series]:
    """e_j(u_0 … u_k) for j ≤ order: coefficients of Π (1 + u_i z)."""
    table = [[arb(1)] * len(u)]
    for _ in range(order):
        total, row = arb(0), []
        # e_{j-1} of the inputs before k.
        before = arb(1) if len(table) == 1 else arb(0)
        for u_k, lower in zip(u, table[-1], strict=True):
            total, before = total + u_k * before, lower
            row.append(total)
        table.append(row)
    return table


def complete(u: Series, order: int) -> list[Series]:
    """h_j(u_0 … u_k) for j ≤ order: coefficients of Π 1/(1 - u_i z)."""
    table = [[arb(1)] * len(u)]
    for _ in range(order):
        total, row = arb(0), []
        for u_k, lower in zip(u, table[-1], strict=True):
            total = total + u_k * lower
            row.append(total)
        table.append(row)
    return table


def adjacent_products(u: Series, p: int) -> Series:
    """u_k u_{k-1} … u_{k-p+1}, zero while an index is negative."""
    result = list(u)
    for shift in range(1, p):
        result = [a * u[k - shift] if k >= shift else arb(0) for k, a in enumerate(result)]
    return result


def kb_terms(u: Series, kernels: list[Series], correlations: str, window: int | None) -> Series:
    """Σ_{p≥2} of Eq. 14; kernels[p-1] holds C Āⁱ B̄^{∘p}.

    With i₁ = i the other indices contribute e_{p-1}(u_{i+1} … u_k). As
    Π_{i<t≤k} (1 + u_t z) = Π_{t≤k} (1 + u_t z) · Π_{t≤i} 1/(1 + u_t z), that is
    Σ_j (-1)^j h_j(u_0 … u_i) e_{p-1-j}(u_0 … u_k): p convolutions with the head of the kernel, exponents
    0 … window-p, delayed by p-1.
    """
    length, order = len(u), len(kernels)
    total = [arb(0)] * length
    e, h = elementary(u, order - 1), complete(u, order - 1)
    for p in range(2, order + 1):
        n_terms = min(length, window or length) - p + 1
        if n_terms < 1:
            continue
        head = kernels[p - 1][:n_terms]
        if correlations == "adjacent":
            part = convolve(head, adjacent_products(u, p), length)
            total = [a + b for a, b in zip(total, part, strict=True)]
            continue
        for j in range(p):
            part = convolve(head, [(-1) ** j * a * b for a, b in zip(u, h[j], strict=True)], length - p + 1)
            for k, value in enumerate(part, start=p - 1):
                total[k] = total[k] + e[p - 1 - j][k] * value
    return total


def pb_terms(u: Series, gains: list[arb], correlations: str, window: int | None) -> Series:
    """Σ_{p≥2} of Eq. 15; gains[p-1] is C B̄^{∘p}.

    In a window e_p is Σ_j (-1)^j h_j(u_0 … u_{k-window}) e_{p-j}(u_0 … u_k), the identity of `kb_terms`.
    """
    length, order = len(u), len(gains)
    total = [arb(0)] * length
    e, h = elementary(u, order), complete(u, order)
    for p in range(2, order + 1):
        if correlations == "adjacent":
            n_terms = length if window is None else max(0, min(length, window - p + 1))
            part = convolve([arb(1)] * n_terms, adjacent_products(u, p), length)
        else:
            part = list(e[p])
            for k in range(length if window is None else window, length):
                old = k - (window or 0)
                part[k] = sum(((-1) ** j * h[j][old] * e[p - j][k] for j in range(p + 1)), arb(0))
        total = [a + gains[p - 1] * b for a, b in zip(total, part, strict=True)]
    return total
