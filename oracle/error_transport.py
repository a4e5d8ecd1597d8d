"""How errors travel through coupled transitions: exact products inside blocks, norms beyond (docs/bounds.md).

A cascade of p orders has the transition M + D t mod t^p, M a matrix and D a diagonal one that feeds each order
into the next: products of transitions are polynomials in t with matrices for coefficients, (p, N, N).  None of
them depends on the rounding model, so the errors of K models are carried side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

BLOCK = 64  # steps whose products are formed explicitly
_SHORT = 8  # steps between norms inside a block
_REMEMBERED = 32  # earlier blocks whose products are kept

# Room for second-order terms and for the rounding of the bound itself (products of many matrices).
SECOND_ORDER = 1 + 2.0**-9


@dataclass(frozen=True)
class Frame:
    """How a state e of M complex entries, and linear maps of it, are stored: in as few real numbers as they need.

    Without conjugate pairs vectors and matrices are complex.  With them the full state is (e, ē), a map of it is
    e -> F e + G ē, and it is stored as the real matrix that acts on (Re e, Im e): it has the same 2-norm, and a
    product costs a quarter.  Errors are known by bounds on |e|, entry by entry.
    """

    pairs: bool

    def matrix(self, full: Array) -> Array:
        """A map of the full state, (N, N), in this frame."""
        if not self.pairs:
            return full.astype(complex)
        half = len(full) // 2
        F, G = full[:half, :half], full[:half, half:]
        return np.block([[F.real + G.real, G.imag - F.imag], [F.imag + G.imag, F.real - G.real]]).astype(float)

    def row(self, full: Array) -> Array:
        """The output Re(C e) of the full state, (N,), in this frame."""
        if not self.pairs:
            return full.astype(complex)
        c = full[: len(full) // 2]
        return np.concatenate([2 * c.real, -2 * c.imag]).astype(float)

    def scaled(self, rows: Array, entries: Array) -> Array:
        """rows · diag(entries), rows (…, N); entries (…, M) complex, or real and the same for all: (…, 1)."""
        if not self.pairs or not np.iscomplexobj(entries):
            return rows * entries
        half = rows.shape[-1] // 2
        re, im = rows[..., :half], rows[..., half:]
        return np.concatenate([re * entries.real + im * entries.imag, im * entries.real - re * entries.imag], axis=-1)

    def row_sizes(self, rows: Array) -> Array:
        """What one unit of |e_m| may make of each output, (…, M)."""
        if not self.pairs:
            return np.abs(rows)
        half = rows.shape[-1] // 2
        re, im = rows[..., :half], rows[..., half:]
        return np.asarray(np.sqrt(re * re + im * im))

    def sizes(self, maps: Array) -> Array:
        """The same for maps, (…, M, M): |F| + |G|."""
        if not self.pairs:
            return np.abs(maps)
        half = maps.shape[-1] // 2
        a, b, c, d = maps[..., :half, :half], maps[..., :half, half:], maps[..., half:, :half], maps[..., half:, half:]
        F, G = (a + d) ** 2 + (c - b) ** 2, (a - d) ** 2 + (c + b) ** 2
        return np.asarray((np.sqrt(F) + np.sqrt(G)) / 2)


class ConstantBlocks:
    """Error propagation through the powers of one matrix, inside blocks of at most BLOCK steps.

    Attributes:
        A, C: the matrix (N, N) and its output (N,) in `frame`.
        norms: ‖A^d‖₂ for d = 0 … BLOCK.
        outputs, output_norms: C A^d by entries (BLOCK + 1, M) and as 2-norms.
    """

    def __init__(self, A: Array, C: Array, frame: Frame) -> None:
        self.A, self.C, self.frame = A, C, frame
        powers = [np.eye(len(A), dtype=A.dtype)]
        for _ in range(BLOCK):
            powers.append(A @ powers[-1])
        self.norms = np.linalg.norm(np.array(powers), 2, axis=(1, 2))
        rows = C @ np.array(powers)
        self.outputs, self.output_norms = frame.row_sizes(rows), np.linalg.norm(rows, axis=1)

    @classmethod
    def of(cls, A: Array, C: Array, frame: Frame) -> ConstantBlocks:
        """The same object for the same matrices: the norms cost more than many a signal."""
        return _remembered(A.tobytes(), C.tobytes(), A.dtype.char, frame, BLOCK)

    def norm(self, added: Array, start: Array) -> Array:
        """‖e‖₂ at every step (X, T), from 2-norms (X, T) of what each step adds and of what was there before (X,)."""
        steps = added.shape[1]
        norm = self.norms[1 : steps + 1] * start[:, None]
        for d in range(steps):
            norm[:, d:] += self.norms[d] * added[:, : steps - d]
        return np.asarray(norm * SECOND_ORDER)

    def advance(self, local: Array, source: Array, start: Array) -> tuple[Array, Array]:
        """|C e| and ‖e‖₂ at every step, both (X, T).

        Args:
            local: componentwise bounds (X, T, M) on what each step adds.
            source: 2-norms (X, T) of what it adds besides.
            start: ‖e‖₂ before the first step, (X,).
        """
        steps = local.shape[1]
        y = self.output_norms[1 : steps + 1] * start[:, None]
        for d in range(steps):
            y[:, d:] += local[:, : steps - d] @ self.outputs[d] + self.output_norms[d] * source[:, : steps - d]
        return y * SECOND_ORDER, self.norm(np.linalg.norm(local, axis=2) + source, start)


@lru_cache(maxsize=64)
def _remembered(A: bytes, C: bytes, kind: str, frame: Frame, block: int) -> ConstantBlocks:
    row = np.frombuffer(C, kind)
    return ConstantBlocks(np.frombuffer(A, kind).reshape(len(row), len(row)), row, frame)


class Arrivals:
    """Where the error at the start of a block comes from: Σ_i Φ_i r_i + r, |r_i| <= vectors_i, ‖r‖₂ <= rest.

    Keeping the exact products Φ_i since each earlier block avoids a factor of their norms per block.

    Attributes:
        products: Φ_i of each remembered block, (n, p, N, N).
        vectors: for each model, (n, K, p, M).
        rest: for each model and order the 2-norm of what came from older blocks, (K, p).
        norm: bound on ‖e‖₂, (K, p).
    """

    def __init__(self, frame: Frame, models: int, order: int, size: int) -> None:
        self.frame = frame
        self.products: Array = np.zeros((0, order, size, size), float if frame.pairs else complex)
        self.vectors: Array = np.zeros((0, models, order, size // 2 if frame.pairs else size))
        self.rest, self.norm = np.zeros((models, order)), np.zeros((models, order))

    def carry_rest(self, product: Array) -> Array:
        """Bound on the norms of `rest` behind a product of transitions."""
        return _by_norms(np.linalg.norm(product, 2, axis=(1, 2)) * SECOND_ORDER, self.rest)

    def advance(self, product: Array, vectors: Array) -> None:
        """Behind a block with the given product of transitions, which added at most `vectors` (K, p, M)."""
        self.products = np.concatenate([_multiply(product, self.products), _identity(product)[None]])
        self.vectors = np.concatenate([self.vectors, vectors[None]])
        arrived = [_transported(self.frame.sizes(p), v) for p, v in zip(self.products[:-1], self.vectors, strict=False)]
        if self.rest.any():
            self.rest = self.carry_rest(product)
        if len(self.products) > _REMEMBERED:
            self.rest = self.rest + np.linalg.norm(arrived.pop(0), axis=-1)
            self.products, self.vectors = self.products[1:], self.vectors[1:]
        self.norm = np.linalg.norm(sum(arrived, vectors), axis=-1) + self.rest


@dataclass(frozen=True)
class Steps:
    """The transitions of T steps: A + diag(shift_k) on each order, feed_k from each order to the next.

    Attributes:
        powers: of A.
        shift: (T, M), None for none.
        feed: (T, M) complex or (T, 1) real, None for a single order.
    """

    powers: ConstantBlocks
    shift: Array | None = None
    feed: Array | None = None

    def after(self, maps: Array, k: slice | int) -> Array:
        """maps · (transition of step k), coefficients (p, …, N) of polynomials in t."""
        frame = self.powers.frame
        moved = np.asarray(maps @ self.powers.A)
        if self.shift is not None:
            moved += frame.scaled(maps, self.shift[k])
        if self.feed is not None and len(maps) > 1:
            moved[1:] += frame.scaled(maps[:-1], self.feed[k])
        return moved


def varying_block(steps: Steps, local: Array, start: Arrivals, *, summed: bool) -> tuple[Array, Array]:
    """|C e| (K, T) and bounds on ‖e‖₂ (K, p, T) at every step of one block, for K models.

    Args:
        steps: their transitions.
        local: componentwise bounds on what each step adds to each order, (K, p, T, M).
        start: the error before the first step; advanced to the end of the block.
        summed: the output reads the sum of all orders; else the highest.
    """
    models, order, length, _ = local.shape
    powers, frame = steps.powers, steps.powers.frame
    size = len(powers.C)

    def read(rows: Array) -> Array:
        """What an error of order r does to the output, index r first: sums of coefficients of C Φ."""
        return np.asarray(np.cumsum(rows, axis=-3) if summed else rows)[..., ::-1, :, :]

    y = np.zeros((models, length))
    rows = np.zeros((order, length, size), powers.A.dtype)  # C Φ(k, k-d) for every k
    rows[0] = powers.C
    whole = np.empty_like(rows)  # C Φ(k, start)
    for d in range(length):
        y[:, d:] += _paired(frame.row_sizes(read(rows)), local[:, :, : length - d])
        moved = steps.after(rows, slice(length - d))
        whole[:, d], rows = moved[:, 0], moved[:, 1:]
    for product, vectors in zip(start.products, start.vectors, strict=True):
        y += _paired(frame.row_sizes(read(_multiply(whole, product))), vectors[:, :, None])
    if start.rest.any():
        y += start.rest @ np.linalg.norm(read(whole), axis=-1)

    suffix, arriving = (
        _identity(np.empty((order, size, size), powers.A.dtype)),
        np.zeros((models, order, local.shape[3])),
    )
    for k in reversed(range(length)):
        arriving += _transported(frame.sizes(suffix), local[:, :, k])
        suffix = steps.after(suffix, k)
    norm = _norms_inside(steps, local, start.norm)
    start.advance(suffix, arriving)
    # two bounds on the end of the block
    norm[..., -1] = start.norm = np.minimum(norm[..., -1], start.norm)
    return y * SECOND_ORDER, norm


def _norms_inside(steps: Steps, local: Array, start: Array) -> Array:
    """Bounds on ‖e‖₂ (K, p, T) at every step, from those before the first, (K, p)."""
    models, order, length, _ = local.shape
    added = np.linalg.norm(local, axis=3)
    norm = np.empty((models, order, length))
    if steps.shift is None and steps.feed is not None and not np.iscomplexobj(steps.feed):
        return _norms_of_chain(steps, np.concatenate([start[..., None], added], axis=2))
    if steps.shift is None:
        source = np.zeros((models, length))
        for p in range(order):
            norm[:, p] = steps.powers.norm(added[:, p] + source, start[:, p])
            if steps.feed is not None:
                below = np.concatenate([start[:, p, None], norm[:, p, :-1]], axis=1)
                source = np.abs(steps.feed).max(axis=1) * below * SECOND_ORDER
        return norm
    # the shift may exceed what A contracts, so norms of products over a few steps are formed (one order only)
    entering, inside = start[:, 0], np.zeros(models)
    each = (steps.powers.norms[1] + np.abs(steps.shift).max(axis=1, initial=0)) * SECOND_ORDER
    since_start = np.eye(len(steps.powers.C), dtype=steps.powers.A.dtype)[None]
    for first in range(0, length, _SHORT):
        stop = min(length, first + _SHORT)
        for k in range(first, stop):
            entering = each[k] * entering + added[:, 0, k] * SECOND_ORDER
            norm[:, 0, k] = entering
        product, arriving = _identity(since_start), np.zeros((models, 1, local.shape[3]))
        for k in reversed(range(first, stop)):
            arriving += _transported(steps.powers.frame.sizes(product), local[:, :, k])
            product = steps.after(product, k)
        since_start = product @ since_start
        spectral = np.linalg.norm(np.concatenate([product, since_start]), 2, axis=(1, 2)) * SECOND_ORDER
        inside = spectral[0] * inside + np.linalg.norm(arriving[:, 0], axis=1) * SECOND_ORDER
        norm[:, 0, stop - 1] = entering = np.minimum(entering, spectral[1] * start[:, 0] + inside)
    return norm


def _norms_of_chain(steps: Steps, added: Array) -> Array:
    """The same where feeds are numbers u_k: coefficient q of a product of d transitions is A^{d-q} e_q(u_k, …).

    Args:
        added: 2-norms of the error before the first step and of what each step adds, (K, p, T + 1).
    """
    assert steps.feed is not None
    order, length = added.shape[1], added.shape[2] - 1
    elementary = np.zeros((order, length + 1))  # e_q of the inputs from each step to the present one
    gain = np.zeros((order, length + 1, length))  # ‖A^{d-q}‖ |e_q|, by where from and where to
    for k in range(length):
        elementary[0, : k + 1] = 1
        elementary[1:, : k + 1] += steps.feed[k, 0] * elementary[:-1, : k + 1]
        for q in range(min(order, k + 2)):
            reach = slice(0, k + 2 - q)  # windows of at least q inputs; the last one is empty
            powers = steps.powers.norms[k + 1 - q :: -1][: k + 2 - q]
            sizes = np.abs(elementary[q, reach]) if q else 1.0
            gain[q, reach, k] = powers * sizes
    norm = np.zeros((len(added), order, length))
    for p in range(order):
        for q in range(p + 1):
            norm[:, p] += added[:, p - q] @ gain[q]
    return norm * SECOND_ORDER


def _identity(like: Array) -> Array:
    one = np.zeros_like(like)
    one[0] = np.eye(like.shape[-1])
    return one


def _multiply(left: Array, right: Array) -> Array:
    """Product of two polynomials with matrix coefficients mod t^p: (p, R, N) and (…, p, N, N) to (…, p, R, N)."""
    order = right.shape[-3]
    product = np.zeros((*right.shape[:-2], left.shape[-2], right.shape[-1]), np.result_type(left, right))
    for q in range(order):
        for a in range(q + 1):
            product[..., q, :, :] += left[a] @ right[..., q - a, :, :]
    return product


def _transported(sizes: Array, vectors: Array) -> Array:
    """What a product of transitions with moduli `sizes` (p, M, M) makes of errors below `vectors` (K, p, M)."""
    moved = np.zeros_like(vectors)
    for s in range(len(sizes)):
        for r in range(s + 1):
            moved[:, s] += vectors[:, r] @ sizes[s - r].T
    return moved


def _by_norms(sizes: Array, norms: Array) -> Array:
    """The same by 2-norms, (p,) and (K, p)."""
    return np.stack([(sizes[s::-1] * norms[:, : s + 1]).sum(axis=1) for s in range(len(sizes))], axis=1)


def _paired(rows: Array, vectors: Array) -> Array:
    """Σ over orders and entries of rows (p, T, M) times vectors (K, p, T, M) or (K, p, 1, M): (K, T)."""
    return np.asarray((rows * vectors).sum(axis=(1, 3)))
