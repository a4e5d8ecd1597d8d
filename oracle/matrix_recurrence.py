"""Recurrences with a coupled transition (`dplr` and `dense`) and bounds on their rounding errors.

Componentwise bounds through |Ā| would grow exponentially although Ā contracts, so errors are carried
through the true transition: inside a block of steps by the absolute value of its exact products, from block
to block by their spectral norm.  Derivation: docs/bounds.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .realization import Realization
from .rounding import COMPLEX_PRODUCT, RoundingModel

Array = npt.NDArray[Any]

BLOCK = 64  # steps whose products are formed explicitly
_SHORT = 8  # steps between norms inside a block
_REMEMBERED = 32  # earlier blocks whose products are kept

# Room for second-order terms and for the rounding of the bound itself (products of up to 64 matrices).
_SECOND_ORDER = 1 + 2.0**-9
# |computed state| <= |exact state| + guess · (largest exact entry so far); checked afterwards, and the larger
# guess is only used where the smaller one did not hold.
_GUESSES = (2.0**-8, 2.0**-2)


@dataclass(frozen=True)
class MatrixRun:
    """Outputs of a recurrence on a full matrix, and bounds for each rounding model.

    Attributes:
        y: (batch, H, L), in the working dtype of the reference.
        error: (K, batch, H, L); inf where the errors are too large for the derivation to hold.
    """

    y: Array
    error: Array


class Transition:
    """x -> Ā x on the stored half, its full matrix, and the local error of one computed product."""

    def __init__(self, realization: Realization, dtype: np.dtype[Any]) -> None:
        self.realization = realization
        self.A = realization.A.astype(dtype)
        self.dense = realization.structure == "dense"
        if not self.dense:
            assert realization.P is not None
            assert realization.Q is not None
            self.P, self.Q = realization.P.astype(dtype), realization.Q.astype(dtype)
        A, _, C = realization.astype(dtype).full_matrices()
        self.matrix, self.C = A.astype(np.complex128), C.astype(np.complex128)
        self.norms = np.linalg.norm(self.matrix, 2, axis=(1, 2)) * _SECOND_ORDER

    def apply(self, x: Array) -> Array:
        """Ā x for x (…, H, M)."""
        if self.dense:
            return np.asarray(np.einsum("hnm,...hm->...hn", self.A, x))
        s = (self.Q.conj() * x[..., None, :, :]).sum(axis=-1)  # (…, R, H)
        s = 2 * s.real if self.realization.conjugate_pairs else s
        return np.asarray(self.A * x - (self.P * s[..., None]).sum(axis=-3))

    def local_error(self, X: Array, model: RoundingModel, shift: Array | None = None) -> Array:
        """Bound on the error of one computed Ā x, or (Ā + diag(shift)) x, where |computed x| <= X (…, H, M).

        The rounding of `shift` itself is not counted here.
        """
        magnitude = np.abs(self.A).astype(float)
        if self.dense:
            inner = COMPLEX_PRODUCT + model.depth(X.shape[-1])
            return np.asarray(model.unit * inner * np.einsum("hnm,...hm->...hn", magnitude, X))
        if shift is not None:
            magnitude = np.abs(self.A + shift).astype(float)
        P, Q = np.abs(self.P).astype(float), np.abs(self.Q).astype(float)
        rank = P.shape[0]
        s = self.realization.weight * (Q * X[..., None, :, :]).sum(axis=-1)  # (…, R, H)
        coupled = (P * s[..., None]).sum(axis=-3)
        per_term = 2 * COMPLEX_PRODUCT + model.depth(X.shape[-1])
        own = COMPLEX_PRODUCT * magnitude * X + per_term * coupled + rank * (magnitude * X + coupled)
        return np.asarray(model.unit * own)


class _ConstantBlocks:
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
        return y * _SECOND_ORDER, norm * _SECOND_ORDER


@dataclass
class _Arrivals:
    """Where the error at the start of a block comes from: Σ_i Φ_i r_i + r, |r_i| <= vector_i, ‖r‖₂ <= rest.

    Keeping the exact products Φ_i since each earlier block avoids a factor of their norms per block.
    """

    parts: list[tuple[Array, Array]]
    rest: float = 0.0

    def norm(self) -> float:
        return (_norm_of(self.parts) if self.parts else 0.0) + self.rest

    def advance(self, product: Array, vector: Array) -> None:
        """Behind a block with the given product of transitions, which added at most `vector`."""
        self.parts = [(product @ earlier, v) for earlier, v in self.parts] + [(np.eye(len(vector)), vector)]
        self.rest *= float(np.linalg.norm(product, 2)) * _SECOND_ORDER
        if len(self.parts) > _REMEMBERED:
            self.rest += _norm_of(self.parts[:1])
            self.parts = self.parts[1:]


def _norm_of(parts: list[tuple[Array, Array]]) -> float:
    return float(np.linalg.norm(np.sum([np.abs(product) @ vector for product, vector in parts], axis=0)))


def _varying_block(M: Array, norms: Array, C: Array, local: Array, start: _Arrivals) -> tuple[Array, Array]:
    """|C e| and bounds on ‖e‖₂ at every step, both (T,), for transitions M (T, N, N) that change.

    Args:
        norms: bounds on ‖M_k‖₂, (T,); they only serve between the steps whose products are formed.
        local: componentwise bounds (T, N) on what each step adds.
        start: the error before the first step; advanced to the end of the block.
    """
    steps, size, _ = M.shape
    y = np.zeros(steps)
    rows = np.broadcast_to(C, (steps, size))  # C Φ(k, k-d) for every k
    for d in range(steps):
        y[d:] += (np.abs(rows) * local[: steps - d]).sum(axis=1)
        rows = np.matmul(rows[:, None, :], M[: steps - d])[:, 0]
        whole = rows[0]
        y[d] += sum(np.abs(whole @ product) @ vector for product, vector in start.parts)
        y[d] += np.linalg.norm(whole) * start.rest
        rows = rows[1:]

    # ‖e‖ by short products inside, by products over everything remembered at the end of each
    norm = np.empty(steps)
    entering, since_start = start.norm(), np.eye(size, dtype=complex)
    gathered: list[tuple[Array, Array]] = []
    for first in range(0, steps, _SHORT):
        stop = min(steps, first + _SHORT)
        for k in range(first, stop):
            entering = norms[k] * entering + float(np.linalg.norm(local[k]))
            norm[k] = entering
        suffix, arriving = np.eye(size, dtype=complex), np.zeros(size)
        for k in reversed(range(first, stop)):
            arriving += np.abs(suffix) @ local[k]
            suffix = suffix @ M[k]
        gathered = [(suffix @ product, vector) for product, vector in gathered] + [(np.eye(size), arriving)]
        since_start = suffix @ since_start
        carried = [(since_start @ product, vector) for product, vector in start.parts]
        long = float(np.linalg.norm(since_start, 2)) * start.rest + _norm_of(carried + gathered)
        entering = norm[stop - 1] = min(long, entering)
    start.advance(since_start, np.sum([np.abs(product) @ vector for product, vector in gathered], axis=0))
    return y * _SECOND_ORDER, norm * _SECOND_ORDER


@dataclass(frozen=True)
class _Block:
    """A stretch of the exact run; T steps."""

    w: Array  # drive (T, batch, H, M)
    u: Array  # inputs (T, batch, H)
    after: Array  # states (T, order, batch, H, M)
    room: Array  # computed states differ from exact ones by at most this, before each step and after (T + 1, batch, H)

    def cap(self, p: int, before: Array) -> Array:
        """Bound on the computed state of order p that enters each step, (T, batch, H, M)."""
        entering = np.concatenate([before[None, p], self.after[:-1, p]])
        return np.asarray(np.abs(entering).astype(float) + self.room[:-1, ..., None])


class _ErrorRun:
    """The error bound of one rounding model, block after block."""

    def __init__(
        self,
        transition: Transition,
        constant: list[_ConstantBlocks] | None,
        model: RoundingModel,
        link: str | None,
        power: int,
        shape: tuple[int, ...],
    ) -> None:
        self.transition, self.constant, self.model, self.link, self.power = transition, constant, model, link, power
        self.norm = np.zeros(shape[:-1])  # ‖e‖₂ of each order at the end of the previous block, (order, batch, H)
        self.arrivals = {index: _Arrivals([]) for index in np.ndindex(shape[1:-1])}  # by (batch, channel), `liquid`
        self.too_large = np.zeros(shape[1:-1], bool)

    def advance(self, block: _Block, before: Array, wrong: Array | float) -> Array:
        """Bound on the outputs of the block, (batch, H, T).

        Args:
            before: exact states entering the block (order, batch, H, M).
            wrong: error that the input brings into the drive (T, batch, H, M).
        """
        total = np.zeros((*block.u.shape[1:], len(block.u)))
        below = np.zeros(block.u.shape)  # ‖e‖₂ of the order below, one step earlier
        for p in range(len(before)):
            local, source = self._local(p, block, before, below, wrong)
            out, norm = self._propagate(p, block, local, source)
            total = total + out if self.link == "drive" else out
            self.too_large |= (norm > block.room[1:]).any(axis=0)
            below = np.concatenate([self.norm[p][None], norm[:-1]])
            self.norm[p] = norm[-1]
        return self._read_out(block, total)

    def _local(self, p: int, block: _Block, before: Array, below: Array, wrong: Array | float) -> tuple[Array, Array]:
        """What each step adds to the error of order p: (T, batch, H, M) by its own roundings, and the 2-norm
        (T, batch, H) of what it takes from the order below."""
        unit, kappa = self.model.unit, COMPLEX_PRODUCT
        beta = np.abs(block.w).astype(float)
        dw = ((self.power - 1) * kappa + 1) * unit * beta + wrong
        cap, after = block.cap(p, before), np.abs(block.after[:, p]).astype(float)
        liquid = self.link == "liquid"
        local = self.transition.local_error(cap, self.model, block.w if liquid else None)
        sums = after  # what the last additions round
        source = np.zeros(block.u.shape)
        if p == 0:
            local = local + dw + 1.5 * unit * beta
            sums = sums + beta
            if liquid:
                acting = beta if self.transition.dense else np.abs(self.transition.A + block.w).astype(float)
                local = local + (dw + unit * (acting + kappa * (beta + dw))) * cap
                sums = sums + beta * cap
        else:
            factor = beta if self.link == "drive" else np.abs(block.u).astype(float)[..., None]
            off = dw if self.link == "drive" else 0.0
            entering = block.cap(p - 1, before)
            local = local + (off + kappa * unit * (factor + off)) * entering
            sums = sums + factor * entering
            source = factor.max(axis=-1, initial=0) * below * _SECOND_ORDER
        return (local + 2 * unit * sums) * _SECOND_ORDER + 16 * cap.shape[-1] * self.model.tiny, source

    def _propagate(self, p: int, block: _Block, local: Array, source: Array) -> tuple[Array, Array]:
        """|C e| (batch, H, T) and ‖e‖₂ (T, batch, H) of order p."""
        pairs = self.transition.realization.conjugate_pairs
        full = np.concatenate([local, local], axis=-1) if pairs else local
        out, norm = np.empty((*local.shape[1:3], len(local))), np.empty(block.u.shape)
        for h in range(local.shape[2]):
            if self.constant is not None:
                y, size = self.constant[h].advance(full[:, :, h].swapaxes(0, 1), source[:, :, h].T, self.norm[p, :, h])
                out[:, h], norm[:, :, h] = y, size.T
                continue
            for b in range(local.shape[1]):
                shift = block.w[:, b, h].astype(complex)
                shift = np.concatenate([shift, shift.conj()], axis=-1) if pairs else shift
                M = self.transition.matrix[h] + shift[:, :, None] * np.eye(shift.shape[1])
                norms = self.transition.norms[h] + np.abs(shift).max(axis=1, initial=0)
                out[b, h], norm[:, b, h] = _varying_block(
                    M, norms, self.transition.C[h], full[:, b, h], self.arrivals[b, h]
                )
        return out, norm

    def _read_out(self, block: _Block, inherited: Array) -> Array:
        realization, model = self.transition.realization, self.model
        modes, orders = block.w.shape[-1], block.after.shape[1]
        summed = self.link == "drive"
        states = np.abs(block.after).astype(float) + block.room[1:, None, ..., None]
        seen = states.sum(axis=1) if summed else states[:, -1]
        spread = np.moveaxis((np.abs(realization.C).astype(float) * seen).sum(axis=-1), 0, -1)
        depth = 2 + model.depth(modes) + (orders - 1 if summed else 0)
        own = realization.weight * depth * model.unit * spread + 4 * modes * model.tiny
        return np.asarray((inherited + own) * _SECOND_ORDER)


def run_matrix(
    realization: Realization,
    u: Array,
    link: str | None,
    order: int,
    x0: Array,
    models: Sequence[RoundingModel],
    *,
    power: int = 1,
    input_error: Array | None = None,
) -> MatrixRun:
    """Whole runs: `link` None = linear, `liquid` = Eq. 11, `drive` = `truncated`, `input` = a chain of `kb`.

    Args:
        u: (batch, H, L) in the working dtype of the reference.
        order: number of coupled orders (1 for None and `liquid`).
        x0: (batch, H, M), the first order's start.
        power: exponent of B̄ in the drive.
        input_error: for each model, the error of the computed input (K, batch, H, L); None = none.
    """
    transition = Transition(realization, np.result_type(u.dtype, np.complex64))
    constant = None
    if link != "liquid":
        constant = [_ConstantBlocks(A, C) for A, C in zip(transition.matrix, transition.C, strict=True)]
    run = _run(transition, constant, u, link, order, x0, models, power, input_error, _GUESSES[0])
    if np.isfinite(run.error).all():
        return run
    again = _run(transition, constant, u, link, order, x0, models, power, input_error, _GUESSES[1])
    return MatrixRun(run.y, np.minimum(run.error, again.error))


def _run(
    transition: Transition,
    constant: list[_ConstantBlocks] | None,
    u: Array,
    link: str | None,
    order: int,
    x0: Array,
    models: Sequence[RoundingModel],
    power: int,
    input_error: Array | None,
    guess: float,
) -> MatrixRun:
    realization, dtype = transition.realization, transition.A.dtype
    batch, channels, length = u.shape
    B, C = realization.B.astype(dtype), realization.C.astype(dtype)
    drive = B
    for _ in range(power - 1):
        drive = drive * B
    x = np.zeros((order, batch, channels, B.shape[-1]), dtype)
    x[0] = x0
    runs = [_ErrorRun(transition, constant, model, link, power, x.shape) for model in models]
    y = np.zeros((batch, channels, length), u.dtype)
    error = np.zeros((len(models), batch, channels, length))
    # An error may appear before any state does: from underflow, or in an order whose state is still zero.
    floor = 2.0**40 * max((m.tiny for m in models), default=0.0)
    largest = np.maximum(np.abs(x).max(axis=(0, 3), initial=0).astype(float), floor)  # (batch, H)
    for start in range(0, length, BLOCK):
        part = slice(start, min(length, start + BLOCK))
        inputs = np.moveaxis(u[..., part], -1, 0)  # (T, batch, H)
        w = drive * inputs[..., None]
        after = np.empty((len(w), *x.shape), dtype)
        room = np.empty((len(w) + 1, batch, channels))
        before, room[0] = x, guess * largest
        for t in range(len(w)):
            moved = transition.apply(x)
            moved[0] += w[t] * x[0] + w[t] if link == "liquid" else w[t]
            if order > 1:
                moved[1:] += (w[t] if link == "drive" else inputs[t][..., None]) * x[:-1]
            x = after[t] = moved
            largest = np.maximum(largest, np.abs(x).max(axis=(0, 3), initial=0))
            room[t + 1] = guess * largest
        block = _Block(w, inputs, after, room)
        outputs = after.sum(axis=1) if link == "drive" else after[:, -1]
        terms = C.real * outputs.real - C.imag * outputs.imag
        y[..., part] = np.moveaxis(realization.weight * terms.sum(axis=-1), 0, -1)
        for i, run in enumerate(runs):
            wrong: Array | float = 0.0
            if input_error is not None:
                wrong = np.abs(drive).astype(float) * np.moveaxis(input_error[i][..., part], -1, 0)[..., None]
            error[i][..., part] = run.advance(block, before, wrong)
    for i, run in enumerate(runs):
        error[i][run.too_large] = np.inf
    return MatrixRun(y, error)
