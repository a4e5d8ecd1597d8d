"""How errors travel through coupled transitions: exact products inside blocks, norms beyond (docs/bounds.md).

A cascade of p orders has the transition M + D t mod t^p, M a matrix and D a diagonal one that feeds each order
into the next: products of transitions are polynomials in t with matrices for coefficients, (p, N, N).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

BLOCK = 64  # steps whose products are formed explicitly
_SHORT = 8  # steps between norms inside a block
_REMEMBERED = 32  # earlier blocks whose products are kept

# Room for second-order terms and for the rounding of the bound itself (products of many matrices).
SECOND_ORDER = 1 + 2.0**-9


class ConstantBlocks:
    """Error propagation through the powers of one matrix, inside blocks of at most BLOCK steps."""

    def __init__(self, A: Array, C: Array) -> None:
        power = np.eye(len(A), dtype=complex)
        norms, outputs = [], []
        for _ in range(BLOCK + 1):
            norms.append(np.linalg.norm(power, 2))
            outputs.append(C @ power)
            power = A @ power
        self.norms = np.array(norms)
        self.outputs, self.output_norms = np.abs(outputs), np.linalg.norm(outputs, axis=1)

    def advance(self, local: Array, source: Array, start: Array) -> tuple[Array, Array]:
        """|C e| and ‖e‖₂ at every step, both (X, T).

        Args:
            local: componentwise bounds (X, T, N) on what each step adds.
            source: 2-norms (X, T) of what it adds besides.
            start: ‖e‖₂ before the first step, (X,).
        """
        steps = local.shape[1]
        added = np.linalg.norm(local, axis=2) + source
        norm = self.norms[1 : steps + 1] * start[:, None]
        y = self.output_norms[1 : steps + 1] * start[:, None]
        for d in range(steps):
            norm[:, d:] += self.norms[d] * added[:, : steps - d]
            y[:, d:] += local[:, : steps - d] @ self.outputs[d] + self.output_norms[d] * source[:, : steps - d]
        return y * SECOND_ORDER, norm * SECOND_ORDER


@dataclass
class Arrivals:
    """Where the error at the start of a block comes from: Σ_i Φ_i r_i + r, |r_i| <= vectors_i, ‖r‖₂ <= rest.

    Keeping the exact products Φ_i since each earlier block avoids a factor of their norms per block.

    Attributes:
        parts: (Φ_i (p, N, N), vectors_i (p, N)), one for each remembered block.
        rest: for each order the 2-norm of what came from older blocks, (p,).
    """

    parts: list[tuple[Array, Array]]
    rest: Array

    @classmethod
    def none(cls, order: int) -> Arrivals:
        return cls([], np.zeros(order))

    def norm(self) -> Array:
        return _norms(self.parts, len(self.rest)) + self.rest

    def carry_rest(self, product: Array) -> Array:
        """Bound on the norms of `rest` behind a product of transitions."""
        sizes = np.array([np.linalg.norm(coefficient, 2) for coefficient in product]) * SECOND_ORDER
        return np.array([sizes[s::-1] @ self.rest[: s + 1] for s in range(len(self.rest))])

    def advance(self, product: Array, vectors: Array) -> None:
        """Behind a block with the given product of transitions, which added at most `vectors`."""
        self.parts = [(_multiply(product, earlier), v) for earlier, v in self.parts]
        self.parts.append((_identity(*product.shape[:2]), vectors))
        self.rest = self.carry_rest(product)
        if len(self.parts) > _REMEMBERED:
            self.rest = self.rest + _norms(self.parts[:1], len(self.rest))
            self.parts = self.parts[1:]


def varying_block(
    M: Array, D: Array | None, norms: Array, C: Array, local: Array, start: Arrivals, *, summed: bool
) -> tuple[Array, Array]:
    """|C e| (T,) and bounds on ‖e‖₂ (p, T) at every step of one block.

    Args:
        M: (T, N, N), or (N, N) if it does not change.
        D: what feeds an order into the next, (T, N); None for a single order.
        norms: bounds on ‖M_k‖₂, (T,); they only serve between the steps whose products are formed.
        local: componentwise bounds on what each step adds to each order, (p, T, N).
        start: the error before the first step; advanced to the end of the block.
        summed: the output reads the sum of all orders; else the highest.
    """
    order, steps, size = local.shape
    fed = np.zeros((steps, size)) if D is None else D
    each = np.broadcast_to(M, (steps, size, size))

    def read(rows: Array) -> Array:
        """What an error of order r does to the output, index r first: sums of coefficients of C Φ."""
        return np.asarray(np.cumsum(rows, axis=0) if summed else rows)[::-1]

    y = np.zeros(steps)
    rows = np.zeros((order, steps, size), complex)  # C Φ(k, k-d) for every k
    rows[0] = C
    for d in range(steps):
        y[d:] += (np.abs(read(rows)) * local[:, : steps - d]).sum(axis=(0, 2))
        moved = rows @ M if M.ndim == 2 else np.matmul(rows[:, :, None, :], each[: steps - d])[:, :, 0]
        moved[1:] += rows[:-1] * fed[: steps - d]
        whole, rows = moved[:, 0], moved[:, 1:]
        for product, vectors in start.parts:
            y[d] += (np.abs(read(_multiply(whole[:, None], product)[:, 0])) * vectors).sum()
        y[d] += np.linalg.norm(read(whole), axis=1) @ start.rest

    norm = np.empty((order, steps))
    entering, since_start = start.norm(), _identity(order, size)
    gathered: list[tuple[Array, Array]] = []
    largest_feed = np.abs(fed).max(axis=1, initial=0)
    for first in range(0, steps, _SHORT):
        stop = min(steps, first + _SHORT)
        for k in range(first, stop):
            lower = np.concatenate([[0.0], entering[:-1]])
            entering = norms[k] * entering + largest_feed[k] * lower + np.linalg.norm(local[:, k], axis=1)
            norm[:, k] = entering
        suffix, arriving = _identity(order, size), np.zeros((order, size))
        for k in reversed(range(first, stop)):
            arriving += _transported(suffix, local[:, k])
            moved = suffix @ each[k]
            moved[1:] += suffix[:-1] * fed[k]
            suffix = moved
        gathered = [(_multiply(suffix, product), vectors) for product, vectors in gathered]
        gathered.append((_identity(order, size), arriving))
        since_start = _multiply(suffix, since_start)
        carried = [(_multiply(since_start, product), vectors) for product, vectors in start.parts]
        entering = np.minimum(entering, start.carry_rest(since_start) + _norms(carried + gathered, order))
        norm[:, stop - 1] = entering
    start.advance(since_start, np.sum([_transported(product, vectors) for product, vectors in gathered], axis=0))
    return y * SECOND_ORDER, norm * SECOND_ORDER


def _identity(order: int, size: int) -> Array:
    one = np.zeros((order, size, size), complex)
    one[0] = np.eye(size)
    return one


def _multiply(left: Array, right: Array) -> Array:
    """Product of two polynomials with matrix coefficients mod t^p."""
    product = np.zeros((len(right), left.shape[1], right.shape[2]), complex)
    for q in range(len(right)):
        for a in range(q + 1):
            product[q] += left[a] @ right[q - a]
    return product


def _transported(product: Array, vectors: Array) -> Array:
    """Componentwise bound (p, N) on what a product of transitions makes of errors below `vectors` (p, N)."""
    sizes = np.abs(product)
    return np.array([sum(sizes[s - r] @ vectors[r] for r in range(s + 1)) for s in range(len(vectors))])


def _norms(parts: list[tuple[Array, Array]], order: int) -> Array:
    if not parts:
        return np.zeros(order)
    return np.asarray(np.linalg.norm(np.sum([_transported(*part) for part in parts], axis=0), axis=1))
