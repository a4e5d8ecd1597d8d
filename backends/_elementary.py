"""Elementary symmetric polynomials e_1 … e_P of all inputs so far or of the newest ones.

e_p is the coefficient of tᵖ in Π (1 + u_i t); e_0 = 1 is not stored.  Time is the last axis and
order p is entry p - 1 of the first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from liquid_ssm.summation import pairwise_sum

Array = npt.NDArray[Any]


def elementary(u: Array, start: Array) -> Array:
    """e_p(k) = e_p(k-1) + u_k e_{p-1}(k-1).

    Args:
        u: (..., L).
        start: e_1 … e_P before u_0, (P, ...).

    Returns:
        (P, ..., L).

    Accuracy:
        A term of e_p passes through at most L additions and p - 1 products, so the error is at most
        ((1 + u)^(L + p - 1) - 1) e_p(|u|).
    """
    steps = np.moveaxis(u, -1, 0)
    e = np.empty((len(steps), *start.shape), u.dtype)
    before = start
    for u_k, after in zip(steps, e, strict=True):
        after[0] = before[0] + u_k
        after[1:] = before[1:] + u_k * before[:-1]
        before = after
    return np.moveaxis(e, 0, -1)


def elementary_vjp(u: Array, start: Array, e: Array, grad: Array, grad_final: Array) -> tuple[Array, Array]:
    """Gradients of u and of `start` from cotangents of e (P, ..., L) and of its last value (P, ...)."""
    grad_u = np.empty_like(u)
    carry = grad_final.copy()
    for k in reversed(range(u.shape[-1])):
        carry += grad[..., k]
        before = e[..., k - 1] if k else start
        products = carry.copy()
        products[1:] *= before[:-1]
        grad_u[..., k] = pairwise_sum(products, axis=0)
        carry[:-1] += u[..., k] * carry[1:]
    return grad_u, carry


def windowed_elementary(u: Array, order: int, window: int) -> Array:
    """e_1 … e_P of the newest `window` inputs, zeros before the start, by sliding aggregation.

    Time is cut into blocks of `window` steps.  A window is the end of one block and the beginning of
    the next, so its polynomial is the product of a suffix and a prefix polynomial modulo t^{P+1}:
    no division and no subtraction, O(P²) per step (van Herk's scheme for an associative product).

    Args:
        u: (..., L).
        order: P >= 1.
        window: number of inputs >= 1.

    Returns:
        (P, ..., L).

    Accuracy:
        A term of e_p passes through at most n = min(window, L) additions in suffix and prefix together,
        p - 1 products and ceil(log2(p + 1)) additions in the product of the two polynomials, so the
        error is at most ((1 + u)^(n + p - 1 + ceil(log2(p + 1))) - 1) e_p(|u|).
    """
    blocks = _Blocks(u.shape[-1], window)
    if blocks.count == 0:
        return np.zeros((order, *u.shape), u.dtype)
    return _multiply(*_window_parts(u, order, blocks))


def windowed_elementary_vjp(u: Array, order: int, window: int, grad: Array) -> Array:
    """Gradient of u from cotangents (P, ..., L), by the adjoint of the same scheme."""
    blocks = _Blocks(u.shape[-1], window)
    if blocks.count == 0:
        return np.zeros_like(u)
    suffix, prefix = _window_parts(u, order, blocks)
    grad_suffix = _multiply_adjoint(prefix, grad)
    # A window that is a whole block has the suffix 1, which no input enters.
    grad_suffix[..., :: blocks.size] = 0
    forward = blocks.cut(u, blocks.size - 1)
    backward = forward[..., ::-1]
    grad_forward = blocks.cut(_multiply_adjoint(suffix, grad), blocks.size - 1)
    grad_backward = blocks.cut(grad_suffix, 0)[..., ::-1]
    rest = np.zeros((order, *forward.shape[:-1]), u.dtype)
    from_prefix, _ = elementary_vjp(forward, rest, elementary(forward, rest), grad_forward, rest)
    from_suffix, _ = elementary_vjp(backward, rest, elementary(backward, rest), grad_backward, rest)
    return blocks.join(from_prefix + from_suffix[..., ::-1], blocks.size - 1)


class _Blocks:
    """Time in blocks of min(window, L) steps; the window that ends at step k begins at entry k."""

    def __init__(self, length: int, window: int) -> None:
        self.length = length
        self.size = min(window, length)
        self.count = -(-(length + self.size - 1) // self.size) if length else 0

    def cut(self, signal: Array, offset: int) -> Array:
        """(..., L) at entries offset … offset + L - 1 of zeros, as (..., blocks, size)."""
        padded = np.zeros((*signal.shape[:-1], self.count * self.size), signal.dtype)
        padded[..., offset : offset + self.length] = signal
        return padded.reshape(*signal.shape[:-1], self.count, self.size)

    def join(self, blocks: Array, offset: int) -> Array:
        """The inverse of `cut`."""
        padded = blocks.reshape(*blocks.shape[:-2], self.count * self.size)
        return np.ascontiguousarray(padded[..., offset : offset + self.length])


def _window_parts(u: Array, order: int, blocks: _Blocks) -> tuple[Array, Array]:
    """For each window its polynomial up to the end of the block it begins in, and from there on."""
    forward = blocks.cut(u, blocks.size - 1)
    rest = np.zeros((order, *forward.shape[:-1]), u.dtype)
    prefix = blocks.join(elementary(forward, rest), blocks.size - 1)
    suffix = blocks.join(elementary(forward[..., ::-1], rest)[..., ::-1], 0)
    # A window that is a whole block is its prefix alone.
    suffix[..., :: blocks.size] = 0
    return suffix, prefix


def _multiply(s: Array, q: Array) -> Array:
    """Coefficients 1 … P of (1 + Σ s_i tⁱ)(1 + Σ q_j tʲ)."""
    product = np.empty_like(s)
    for p in range(1, len(s) + 1):
        terms = [q[p - 1], *(s[i - 1] * q[p - i - 1] for i in range(1, p)), s[p - 1]]
        product[p - 1] = pairwise_sum(np.stack(terms), axis=0)
    return product


def _multiply_adjoint(other: Array, grad: Array) -> Array:
    """Cotangent of one factor: entry i is Σ_{p ≥ i} grad_p·other_{p-i} with other_0 = 1."""
    cotangent = np.empty(grad.shape, grad.dtype)
    for i in range(1, len(grad) + 1):
        terms = [grad[i - 1], *(grad[p - 1] * other[p - i - 1] for p in range(i + 1, len(grad) + 1))]
        cotangent[i - 1] = pairwise_sum(np.stack(terms), axis=0)
    return cotangent
