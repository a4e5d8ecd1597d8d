"""Elementary symmetric polynomials e_1 … e_P of all inputs so far or of the newest ones.

e_p is the coefficient of tᵖ in Π (1 + u_i t); e_0 = 1 is not stored.  Time is the last axis and order p is entry p - 1
of the first.  No loop runs over time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from .sliding import advanced, delayed, reversed_sum, running_sum

# The coefficients of t, t², … of a polynomial whose constant term is 1; those beyond the last are zero.
Polynomial = list[torch.Tensor]


def elementary(u: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """e_p after 0, 1, …, L inputs, order by order: e_p(k) = e_p(k-1) + u_k e_{p-1}(k-1) is a running sum.

    Args:
        u: (..., L).
        start: e_1 … e_P before u_0, (P, ...).

    Returns:
        (P, ..., L + 1).

    Accuracy:
        p - 1 products and p running sums, each in a bracketing of its own, as docs/bounds.md ("Running sums") has it.
    """
    sums: Polynomial = []
    for first in start:
        terms = u * sums[-1][..., :-1] if sums else u
        sums.append(running_sum(torch.cat([first[..., None], terms], -1)))
    return torch.stack(sums)


def elementary_vjp(
    u: torch.Tensor, e: torch.Tensor, grad: torch.Tensor, grad_final: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of u and of `start` from cotangents of e_p(0) … e_p(L-1), (P, ..., L), and of the last one, (P, ...).

    Args:
        e: what `elementary` returned.

    Accuracy:
        Order by order as well: a term passes one sum over time per order forwards and one per order backwards.
    """
    grad_u, firsts = torch.zeros_like(u), []
    above = None
    for p in reversed(range(len(e))):
        cotangent = pad(grad[p], (1, 0))
        if grad_final is not None:
            cotangent = cotangent + pad(grad_final[p][..., None], (u.shape[-1], 0))
        if above is not None:
            cotangent = cotangent + pad(u * above, (0, 1))
        total = reversed_sum(cotangent)
        firsts.append(total[..., 0])
        above = total[..., 1:]
        grad_u = grad_u + (above * e[p - 1][..., :-1] if p else above)
    return grad_u, torch.stack(firsts[::-1])


def windowed_elementary(u: torch.Tensor, order: int, window: int) -> torch.Tensor:
    """e_1 … e_P of the newest `window` inputs, zeros before the start.

    Polynomials of 1, 2, 4, … inputs are multiplied modulo t^{P+1}, and those that make up `window` joined from the
    newest to the oldest: no division, no subtraction, O(P² log window) operations per step.

    Args:
        u: (..., L).
        order: P, 1 <= P <= window.

    Returns:
        (P, ..., L).

    Accuracy:
        With w = min(window, L) a term of e_p passes p - 1 products and, in each of the at most ceil(log2 w) products
        of polynomials, ceil(log2(p + 1)) additions.
    """
    parts, joins = _doubled(u, order, _useful(u, window))
    whole = _multiply(*joins[-1], order) if joins else parts[-1]
    return _filled(whole, u, order)


def windowed_elementary_vjp(u: torch.Tensor, order: int, window: int, grad: torch.Tensor) -> torch.Tensor:
    """Gradient of u from cotangents (P, ..., L), by the adjoint of the same products.

    Memory: about 2 log2(window) polynomials.

    Accuracy:
        Backwards a term passes, per product of polynomials, one product, ceil(log2 P) additions and two more where
        cotangents meet.
    """
    window = _useful(u, window)
    parts, joins = _doubled(u, order, window)
    whole: Polynomial = list(grad)
    cotangents: list[torch.Tensor] | None = None
    for bit in reversed(range(len(parts))):
        size, part = 1 << bit, parts[bit]
        found = None
        if cotangents is not None:
            earlier = _multiply_adjoint(part, cotangents, len(part))
            newer = _multiply_adjoint(_delayed(part, size), cotangents, len(part))
            found = [x + advanced(y, size) for x, y in zip(newer, earlier, strict=True)]
        if window & size:
            covered = window & (size - 1)
            if covered:
                newest, oldest = joins.pop()
                joined = [advanced(y, covered) for y in _multiply_adjoint(newest, whole, len(part))]
                whole = _multiply_adjoint(oldest, whole, len(newest))
            else:
                joined = whole[: len(part)]
            found = joined if found is None else [x + y for x, y in zip(found, joined, strict=True)]
        cotangents = found
    return cotangents[0] if cotangents else torch.zeros_like(u)


def _useful(u: torch.Tensor, window: int) -> int:
    """The window without the steps that lie before every input."""
    return min(window, max(1, u.shape[-1]))


def _doubled(u: torch.Tensor, order: int, window: int) -> tuple[list[Polynomial], list[tuple[Polynomial, Polynomial]]]:
    """The polynomials of the newest 1, 2, 4, … inputs, and the pairs whose products grow to that of the window."""
    parts: list[Polynomial] = [[u]]
    joins: list[tuple[Polynomial, Polynomial]] = []
    total: Polynomial | None = None
    covered = 0
    for bit in range(window.bit_length()):
        size, part = 1 << bit, parts[-1]
        if window & size:
            if total is None:
                total = part
            else:
                joins.append((total, _delayed(part, covered)))
                total = _multiply(*joins[-1], order)
            covered += size
        if window >= 2 * size:
            parts.append(_multiply(part, _delayed(part, size), order))
    return parts, joins


def _delayed(polynomial: Polynomial, steps: int) -> Polynomial:
    return [delayed(coefficient, steps) for coefficient in polynomial]


def _multiply(a: Polynomial, b: Polynomial, order: int) -> Polynomial:
    """Coefficients 1 … of (1 + Σ a_i tⁱ)(1 + Σ b_j tʲ) modulo t^{order+1}."""
    product = []
    for p in range(1, min(order, len(a) + len(b)) + 1):
        terms = [a[i - 1] * b[p - i - 1] for i in range(max(1, p - len(b)), min(p - 1, len(a)) + 1)]
        terms += [factor[p - 1] for factor in (a, b) if p <= len(factor)]
        product.append(_tree_sum(terms))
    return product


def _multiply_adjoint(other: Polynomial, grad: Sequence[torch.Tensor], degree: int) -> Polynomial:
    """Cotangent of a factor of that degree: entry i is Σ_{p ≥ i} grad_p·other_{p-i} with other_0 = 1."""
    cotangent = []
    for i in range(1, degree + 1):
        last = min(len(grad), i + len(other))
        terms = [grad[i - 1], *(grad[p - 1] * other[p - i - 1] for p in range(i + 1, last + 1))]
        cotangent.append(_tree_sum(terms))
    return cotangent


def _tree_sum(terms: Sequence[torch.Tensor]) -> torch.Tensor:
    """Σ by a balanced tree: a term passes through ceil(log2 n) additions."""
    while len(terms) > 1:
        pairs = [x + y for x, y in zip(terms[::2], terms[1::2], strict=False)]
        terms = [*pairs, terms[-1]] if len(terms) % 2 else pairs
    return terms[0]


def _filled(polynomial: Polynomial, u: torch.Tensor, order: int) -> torch.Tensor:
    missing = [torch.zeros_like(u)] * (order - len(polynomial))
    return torch.stack([*polynomial, *missing])
