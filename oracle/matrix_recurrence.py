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

from . import error_transport
from .error_transport import SECOND_ORDER, Arrivals, ConstantBlocks, varying_block
from .realization import Realization
from .rounding import COMPLEX_PRODUCT, RoundingModel

Array = npt.NDArray[Any]


# |computed state − exact state| <= _GUESS · (largest exact entry so far), checked afterwards.  Where it does not
# hold, a second run allows twice what the first one found, which is checked as well.
_GUESS = 2.0**-8
_ALLOWANCE = 2.0


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
        self.norms = np.linalg.norm(self.matrix, 2, axis=(1, 2)) * SECOND_ORDER

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


@dataclass(frozen=True)
class _Block:
    """A stretch of the exact run; T steps."""

    w: Array  # drive (T, batch, H, M)
    u: Array  # inputs (T, batch, H)
    after: Array  # states (T, order, batch, H, M)
    room: Array  # computed states are this near exact ones, before each step and after, (order, T + 1, batch, H)

    def cap(self, p: int, before: Array) -> Array:
        """Bound on the computed state of order p that enters each step, (T, batch, H, M)."""
        entering = np.concatenate([before[None, p], self.after[:-1, p]])
        return np.asarray(np.abs(entering).astype(float) + self.room[p, :-1, ..., None])


class _ErrorRun:
    """The error bound of one rounding model, block after block."""

    def __init__(
        self,
        transition: Transition,
        constant: list[ConstantBlocks] | None,
        model: RoundingModel,
        link: str | None,
        power: int,
        shape: tuple[int, ...],
    ) -> None:
        self.transition, self.constant, self.model, self.link, self.power = transition, constant, model, link, power
        self.norm = np.zeros(shape[:-1])  # ‖e‖₂ of each order at the end of the previous block, (order, batch, H)
        self.arrivals = {index: Arrivals.none(shape[0]) for index in np.ndindex(shape[1:-1])}  # by (batch, channel)
        self.too_large = np.zeros(shape[1:-1], bool)

    def advance(self, block: _Block, before: Array, wrong: Array | float, found: Array) -> Array:
        """Bound on the outputs of the block, (batch, H, T).

        Args:
            found: raised to ‖e‖₂ of every order after each step, (order, T, batch, H).
            before: exact states entering the block (order, batch, H, M).
            wrong: error that the input brings into the drive (T, batch, H, M).
        """
        if self.constant is None:
            total, norm = self._by_products(block, before, wrong)
        else:
            total, norm = self._by_norms(self.constant, block, before, wrong)
        self.too_large |= (norm > block.room[:, 1:]).any(axis=(0, 1))
        np.maximum(found, norm, out=found)
        return self._read_out(block, total)

    def _by_products(self, block: _Block, before: Array, wrong: Array | float) -> tuple[Array, Array]:
        """|C e| (batch, H, T) and ‖e‖₂ (order, T, batch, H), all orders carried through exact products."""
        realization, orders = self.transition.realization, range(len(before))
        local = np.array([self._both(self._local(p, block, before, wrong)) for p in orders])
        out, norm = np.empty((*block.u.shape[1:], len(block.u))), np.empty((len(before), *block.u.shape))
        for b, h in np.ndindex(block.u.shape[1:]):
            w = block.w[:, b, h].astype(complex)
            w = np.concatenate([w, w.conj()], axis=-1) if realization.conjugate_pairs else w
            M, norms, fed = self.transition.matrix[h], np.full(len(w), self.transition.norms[h]), None
            if self.link == "liquid":
                M = M + w[:, :, None] * np.eye(w.shape[1])
                norms = norms + np.abs(w).max(axis=1, initial=0)
            elif len(before) > 1:
                fed = w if self.link == "drive" else block.u[:, b, h].astype(complex)[:, None] * np.ones(w.shape[1])
            out[b, h], norm[:, :, b, h] = varying_block(
                M,
                fed,
                norms,
                self.transition.C[h],
                local[:, :, b, h],
                self.arrivals[b, h],
                summed=self.link == "drive",
            )
        return out, norm

    def _by_norms(
        self, constant: list[ConstantBlocks], block: _Block, before: Array, wrong: Array | float
    ) -> tuple[Array, Array]:
        """The same, with the error that an order takes from the one below by its 2-norm: cheap for many runs."""
        total = np.zeros((*block.u.shape[1:], len(block.u)))
        norm = np.empty((len(before), *block.u.shape))
        source = np.zeros(block.u.shape)
        for p in range(len(before)):
            local = self._both(self._local(p, block, before, wrong))
            out = np.empty_like(total)
            for h, powers in enumerate(constant):
                added = local[:, :, h].swapaxes(0, 1)
                out[:, h], size = powers.advance(added, source[:, :, h].T, self.norm[p, :, h])
                norm[p, :, :, h] = size.T
            total = total + out if self.link == "drive" else out
            below = np.concatenate([self.norm[p][None], norm[p, :-1]])
            self.norm[p] = norm[p, -1]
            feed = block.w if self.link == "drive" else block.u[..., None]
            source = np.abs(feed).max(axis=-1, initial=0).astype(float) * below * SECOND_ORDER
        return total, norm

    def _both(self, local: Array) -> Array:
        pairs = self.transition.realization.conjugate_pairs
        return np.concatenate([local, local], axis=-1) if pairs else local

    def _local(self, p: int, block: _Block, before: Array, wrong: Array | float) -> Array:
        """Componentwise bound on what each step adds to the error of order p by its own roundings, (T, batch, H, M)."""
        unit, kappa = self.model.unit, COMPLEX_PRODUCT
        beta = np.abs(block.w).astype(float)
        dw = ((self.power - 1) * kappa + 1) * unit * beta + wrong
        cap, after = block.cap(p, before), np.abs(block.after[:, p]).astype(float)
        liquid = self.link == "liquid"
        local = self.transition.local_error(cap, self.model, block.w if liquid else None)
        sums = after  # what the last additions round
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
        return np.asarray((local + 2 * unit * sums) * SECOND_ORDER + 16 * cap.shape[-1] * self.model.tiny)

    def _read_out(self, block: _Block, inherited: Array) -> Array:
        realization, model = self.transition.realization, self.model
        modes, orders = block.w.shape[-1], block.after.shape[1]
        summed = self.link == "drive"
        states = np.abs(block.after).astype(float) + np.moveaxis(block.room[:, 1:, ..., None], 0, 1)
        seen = states.sum(axis=1) if summed else states[:, -1]
        spread = np.moveaxis((np.abs(realization.C).astype(float) * seen).sum(axis=-1), 0, -1)
        depth = 2 + model.depth(modes) + (orders - 1 if summed else 0)
        own = realization.weight * depth * model.unit * spread + 4 * modes * model.tiny
        return np.asarray((inherited + own) * SECOND_ORDER)


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
    many: bool = False,
) -> MatrixRun:
    """Whole runs: `link` None = linear, `liquid` = Eq. 11, `drive` = `truncated`, `input` = a chain of `kb`.

    Args:
        u: (batch, H, L) in the working dtype of the reference.
        order: number of coupled orders (1 for None and `liquid`).
        x0: (batch, H, M), the first order's start.
        power: exponent of B̄ in the drive.
        input_error: for each model, the error of the computed input (K, batch, H, L); None = none.
        many: many short runs: bound what an order takes from the one below by norms, which is cheaper and wider.
    """
    transition = Transition(realization, np.result_type(u.dtype, np.complex64))
    constant = None
    if link is None or many:
        constant = [ConstantBlocks(A, C) for A, C in zip(transition.matrix, transition.C, strict=True)]
    first, found = _run(transition, constant, u, link, order, x0, models, power, input_error, None)
    if np.isfinite(first.error).all():
        return first
    second, _ = _run(transition, constant, u, link, order, x0, models, power, input_error, _ALLOWANCE * found)
    return MatrixRun(first.y, np.minimum(first.error, second.error))


def _run(
    transition: Transition,
    constant: list[ConstantBlocks] | None,
    u: Array,
    link: str | None,
    order: int,
    x0: Array,
    models: Sequence[RoundingModel],
    power: int,
    input_error: Array | None,
    allowed: Array | None,
) -> tuple[MatrixRun, Array]:
    """One run, and the largest ‖e‖₂ over models before each step and at the end, (order, L + 1, batch, H).

    Args:
        allowed: by how much a computed state may differ from the exact one, of that shape; None for _GUESS.
    """
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
    found = np.zeros((order, length + 1, batch, channels))
    for start in range(0, length, error_transport.BLOCK):
        part = slice(start, min(length, start + error_transport.BLOCK))
        inputs = np.moveaxis(u[..., part], -1, 0)  # (T, batch, H)
        w = drive * inputs[..., None]
        after = np.empty((len(w), *x.shape), dtype)
        room = np.empty((order, len(w) + 1, batch, channels))
        before, room[:, 0] = x, _GUESS * largest
        for t in range(len(w)):
            moved = transition.apply(x)
            moved[0] += w[t] * x[0] + w[t] if link == "liquid" else w[t]
            if order > 1:
                moved[1:] += (w[t] if link == "drive" else inputs[t][..., None]) * x[:-1]
            x = after[t] = moved
            largest = np.maximum(largest, np.abs(x).max(axis=(0, 3), initial=0))
            room[:, t + 1] = _GUESS * largest
        if allowed is not None:
            room = allowed[:, start : start + len(w) + 1] + floor
        block = _Block(w, inputs, after, room)
        outputs = after.sum(axis=1) if link == "drive" else after[:, -1]
        terms = C.real * outputs.real - C.imag * outputs.imag
        y[..., part] = np.moveaxis(realization.weight * terms.sum(axis=-1), 0, -1)
        for i, run in enumerate(runs):
            wrong: Array | float = 0.0
            if input_error is not None:
                wrong = np.abs(drive).astype(float) * np.moveaxis(input_error[i][..., part], -1, 0)[..., None]
            error[i][..., part] = run.advance(block, before, wrong, found[:, start + 1 : start + 1 + len(w)])
    for i, run in enumerate(runs):
        error[i][run.too_large] = np.inf
    return MatrixRun(y, error), found
