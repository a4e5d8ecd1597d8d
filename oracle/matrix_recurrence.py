"""Recurrences with a coupled transition (`dplr` and `dense`) and bounds on their rounding errors.

Componentwise bounds through |Ā| would grow exponentially although Ā contracts, so errors are carried
through the true transition: inside a block of steps by the absolute value of its exact products, from block
to block by their spectral norm.  Derivation: docs/bounds.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from . import error_transport
from .error_transport import SECOND_ORDER, Arrivals, ConstantBlocks, Frame, Steps, varying_block
from .realization import Realization
from .rounding import RoundingModel
from .scalar_recurrence import Drive

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
        self.frame = Frame(realization.conjugate_pairs)

    @cached_property
    def powers(self) -> list[ConstantBlocks]:
        """The full matrix of each channel with its output, and what is known of its powers."""
        A, _, C = self.realization.astype(self.A.dtype).full_matrices()
        return [
            ConstantBlocks.of(self.frame.matrix(a), self.frame.row(c), self.frame) for a, c in zip(A, C, strict=True)
        ]

    def apply(self, x: Array) -> Array:
        """Ā x for x (…, H, M)."""
        if self.dense:
            return np.asarray(np.einsum("hnm,...hm->...hn", self.A, x))
        s = (self.Q.conj() * x[..., None, :, :]).sum(axis=-1)  # (…, R, H)
        s = 2 * s.real if self.realization.conjugate_pairs else s
        return np.asarray(self.A * x - (self.P * s[..., None]).sum(axis=-3))

    def magnitudes(self, X: Array, shift: Array | None = None) -> tuple[Array, Array]:
        """|Λ̄ + shift| X and Σ_r |P̄_r| Σ |Q̄_r| X where |x| <= X (…, H, M); for `dense` |Ā| X and 0."""
        magnitude = np.abs(self.A).astype(float)
        if self.dense:
            product = np.einsum("hnm,...hm->...hn", magnitude, X)
            return product, np.zeros_like(product)
        if shift is not None:
            magnitude = np.abs(self.A + shift).astype(float)
        P, Q = np.abs(self.P).astype(float), np.abs(self.Q).astype(float)
        s = self.realization.weight * (Q * X[..., None, :, :]).sum(axis=-1)  # (…, R, H)
        return magnitude * X, (P * s[..., None]).sum(axis=-3)

    def rounding(self, own: Array, coupled: Array, model: RoundingModel) -> Array:
        """Bound on the error of one computed Ā x, or (Ā + diag(shift)) x, from its `magnitudes`.

        The rounding of the shift itself is not counted here.
        """
        depth = model.depth(own.shape[-1])
        if self.dense:
            return np.asarray(model.unit * (model.product + depth) * own)
        rank = self.P.shape[0]
        return np.asarray(model.unit * ((model.product + rank) * own + (2 * model.product + depth + rank) * coupled))

    def local_error(self, X: Array, model: RoundingModel, shift: Array | None = None) -> Array:
        """The same from X (…, H, M), a bound on the computed |x|."""
        return self.rounding(*self.magnitudes(X, shift), model)


@dataclass(frozen=True)
class _Block:
    """A stretch of the exact run; T steps."""

    w: Array  # drive (T, batch, H, M)
    u: Array  # inputs (T, batch, H)
    sizes: Array  # |states| before each step and after the last, (T + 1, order, batch, H, M)
    room: Array  # computed states are this near exact ones, at the same times, (order, T + 1, batch, H)

    def cap(self, p: int) -> Array:
        """Bound on the computed state of order p that enters each step, (T, batch, H, M)."""
        return np.asarray(self.sizes[:-1, p] + self.room[p, :-1, ..., None])


class _ErrorRun:
    """The error bounds of K rounding models, block after block."""

    def __init__(
        self,
        transition: Transition,
        models: Sequence[RoundingModel],
        link: str | None,
        power: int,
        shape: tuple[int, ...],
        by_norms: bool,
        joint: bool,
    ) -> None:
        self.transition, self.models, self.link, self.power, self.by_norms = transition, models, link, power, by_norms
        self.joint = joint
        orders, batch, channels, _ = shape
        # ‖e‖₂ at the end of the previous block, (K, order, batch, H); or where the error comes from, in every run
        self.norm = np.zeros((len(models), orders, batch, channels))
        self.arrivals = {
            (b, h): Arrivals(transition.frame, len(models), orders, len(transition.powers[h].C))
            for b, h in np.ndindex(batch, 0 if by_norms else channels)
        }
        self.too_large = np.zeros((len(models), batch, channels), bool)

    def advance(self, block: _Block, wrong: Array | None, found: Array) -> Array:
        """Bounds on the outputs of the block, (K, batch, H, T).

        Args:
            wrong: errors that the input brings into the drive (K, T, batch, H, M), None for none; all of the drive's
                errors if it is `joint`.
            found: raised to ‖e‖₂ of every order after each step, (order, T, batch, H).
        """
        total, norm = (self._by_norms if self.by_norms else self._by_products)(block, wrong)
        self.too_large |= (norm > block.room[:, 1:]).any(axis=(1, 2))
        np.maximum(found, norm.max(axis=0, initial=0), out=found)
        return self._read_out(block, total)

    def _by_products(self, block: _Block, wrong: Array | None) -> tuple[Array, Array]:
        """|C e| (K, batch, H, T) and ‖e‖₂ (K, order, T, batch, H), all orders carried through exact products."""
        transition, orders = self.transition, range(block.sizes.shape[1])
        local = np.stack([self._local(p, block, wrong) for p in orders], axis=1)  # (K, order, T, batch, H, M)
        out = np.empty((len(self.models), *block.u.shape[1:], len(block.u)))
        norm = np.empty((len(self.models), len(orders), *block.u.shape))
        for b, h in np.ndindex(block.u.shape[1:]):
            shift = feed = None
            if self.link == "liquid":
                shift = block.w[:, b, h].astype(complex)
            elif len(orders) > 1:
                feed = block.w[:, b, h].astype(complex)
                if self.link == "input":
                    feed = block.u[:, b, h, None].astype(float)
            steps = Steps(transition.powers[h], shift, feed)
            out[:, b, h], norm[..., b, h] = varying_block(
                steps, local[:, :, :, b, h], self.arrivals[b, h], summed=self.link == "drive"
            )
        return out, norm

    def _by_norms(self, block: _Block, wrong: Array | None) -> tuple[Array, Array]:
        """The same, with the error that an order takes from the one below by its 2-norm: cheap for many runs."""
        models, (steps, batch, channels) = len(self.models), block.u.shape
        total = np.zeros((models, batch, channels, steps))
        norm = np.empty((models, block.sizes.shape[1], *block.u.shape))
        source = np.zeros((models, *block.u.shape))
        feed = np.abs(block.w if self.link == "drive" else block.u[..., None]).max(axis=-1, initial=0).astype(float)
        for p in range(block.sizes.shape[1]):
            local = self._local(p, block, wrong)
            out = np.empty_like(total)
            for h, powers in enumerate(self.transition.powers):
                added = local[:, :, :, h].swapaxes(1, 2).reshape(models * batch, steps, -1)
                entering = source[..., h].swapaxes(1, 2).reshape(-1, steps)
                y, size = powers.advance(added, entering, self.norm[:, p, :, h].ravel())
                out[:, :, h] = y.reshape(models, batch, steps)
                norm[:, p, :, :, h] = size.reshape(models, batch, steps).swapaxes(1, 2)
            total = total + out if self.link == "drive" else out
            below = np.concatenate([self.norm[:, p, None], norm[:, p, :-1]], axis=1)
            self.norm[:, p] = norm[:, p, -1]
            source = feed * below * SECOND_ORDER
        return total, norm

    def _local(self, p: int, block: _Block, wrong: Array | None) -> Array:
        """Componentwise bounds on what each step adds to the error of order p by itself, (K, T, batch, H, M)."""
        transition, liquid = self.transition, self.link == "liquid"
        cap, beta = block.cap(p), np.abs(block.w).astype(float)
        own, coupled = transition.magnitudes(cap, block.w if liquid else None)
        sums = block.sizes[1:, p]  # what the last additions round
        if p == 0:
            acting = beta if transition.dense else np.abs(transition.A + block.w).astype(float)
            sums = sums + beta
            if liquid:
                sums = sums + beta * cap
        else:
            entering = block.cap(p - 1)
            factor = beta if self.link == "drive" else np.abs(block.u).astype(float)[..., None]
            sums = sums + factor * entering
        result = np.empty((len(self.models), *cap.shape))
        for i, model in enumerate(self.models):
            unit, kappa = model.unit, model.product
            dw = 0.0 if wrong is None else wrong[i]
            if self.joint:
                # The low-rank part may be subtracted from a sum that has the drive in it.
                dw = dw + len(transition.P) * unit * beta
            else:
                dw = dw + ((self.power - 1) * kappa + 1) * unit * beta
            local = transition.rounding(own, coupled, model)
            if p == 0:
                local = local + dw + model.addend * unit * beta
                if liquid:
                    local = local + (dw + unit * (acting + kappa * (beta + dw))) * cap
            else:
                off = dw if self.link == "drive" else 0.0
                local = local + (off + kappa * unit * (factor + off)) * entering
            result[i] = (local + 2 * unit * sums) * SECOND_ORDER + 16 * cap.shape[-1] * model.tiny
        return result

    def _read_out(self, block: _Block, inherited: Array) -> Array:
        realization, orders = self.transition.realization, block.sizes.shape[1]
        modes, summed = block.w.shape[-1], self.link == "drive"
        states = block.sizes[1:] + np.moveaxis(block.room[:, 1:, ..., None], 0, 1)
        seen = states.sum(axis=1) if summed else states[:, -1]
        spread = np.moveaxis((np.abs(realization.C).astype(float) * seen).sum(axis=-1), 0, -1)
        result = np.empty_like(inherited)
        for i, model in enumerate(self.models):
            depth = 2 + model.depth(modes) + (orders - 1 if summed else 0)
            own = realization.weight * depth * model.unit * spread + 4 * modes * model.tiny
            result[i] = (inherited[i] + own) * SECOND_ORDER
        return result


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
    drive: Callable[[slice], Drive] | None = None,
) -> MatrixRun:
    """Whole runs: `link` None = linear, `liquid` = Eq. 11, `drive` = `truncated`, `input` = a chain of `kb`.

    Args:
        u: (batch, H, L) in the working dtype of the reference.
        order: number of coupled orders (1 for None and `liquid`).
        x0: (batch, H, M), the first order's start.
        power: exponent of B̄ in the drive.
        input_error: for each model, the error of the computed input (K, batch, H, L); None = none.
        many: many short runs: bound what an order takes from the one below by norms, which is cheaper and wider.
        drive: in place of B̄^{∘power} u, the drive of some steps with its errors, one per model; for `dplr`.
    """
    distinct = _distinct(models, input_error) if drive is None else list(range(len(models)))
    chosen = [models[i] for i in dict.fromkeys(distinct)]
    wrong = None if input_error is None else input_error[list(dict.fromkeys(distinct))]
    transition = Transition(realization, np.result_type(u.dtype, np.complex64))
    by_norms = link is None or many
    run, found = _run(transition, by_norms, u, link, order, x0, chosen, power, wrong, drive, None)
    if not np.isfinite(run.error).all():
        second, _ = _run(transition, by_norms, u, link, order, x0, chosen, power, wrong, drive, _ALLOWANCE * found)
        run = MatrixRun(run.y, np.minimum(run.error, second.error))
    places = list(dict.fromkeys(distinct))
    return MatrixRun(run.y, run.error[[places.index(i) for i in distinct]])


def _distinct(models: Sequence[RoundingModel], input_error: Array | None) -> list[int]:
    """For each model the first that computes a recurrence in the same way."""
    first: dict[Any, int] = {}
    places = []
    for i, m in enumerate(models):
        brought = None if input_error is None else input_error[i].tobytes()
        places.append(first.setdefault((m.unit, m.tiny, m.pairwise, m.fused, brought), i))
    return places


def _run(
    transition: Transition,
    by_norms: bool,
    u: Array,
    link: str | None,
    order: int,
    x0: Array,
    models: Sequence[RoundingModel],
    power: int,
    input_error: Array | None,
    drive: Callable[[slice], Drive] | None,
    allowed: Array | None,
) -> tuple[MatrixRun, Array]:
    """One run, and the largest ‖e‖₂ over models before each step and at the end, (order, L + 1, batch, H).

    Args:
        allowed: by how much a computed state may differ from the exact one, of that shape; None for _GUESS.
    """
    realization, dtype = transition.realization, transition.A.dtype
    batch, channels, length = u.shape
    B, C = realization.B.astype(dtype), realization.C.astype(dtype)
    powered = B
    for _ in range(power - 1):
        powered = powered * B
    x = np.zeros((order, batch, channels, B.shape[-1]), dtype)
    x[0] = x0
    run = _ErrorRun(transition, models, link, power, x.shape, by_norms, drive is not None)
    y = np.zeros((batch, channels, length), u.dtype)
    error = np.zeros((len(models), batch, channels, length))
    # An error may appear before any state does: from underflow, or in an order whose state is still zero.
    floor = 2.0**40 * max((m.tiny for m in models), default=0.0)
    size = np.abs(x).astype(float)
    largest = np.maximum(size.max(axis=(0, 3), initial=0), floor)  # (batch, H)
    found = np.zeros((order, length + 1, batch, channels))
    for start in range(0, length, error_transport.BLOCK):
        part = slice(start, min(length, start + error_transport.BLOCK))
        inputs = np.moveaxis(u[..., part], -1, 0)  # (T, batch, H)
        driven = None if drive is None else drive(part)
        w = powered * inputs[..., None] if driven is None else driven.value
        after = np.empty((len(w), *x.shape), dtype)
        for t in range(len(w)):
            moved = transition.apply(x)
            moved[0] += w[t] * x[0] + w[t] if link == "liquid" else w[t]
            if order > 1:
                moved[1:] += (w[t] if link == "drive" else inputs[t][..., None]) * x[:-1]
            x = after[t] = moved
        outputs = after.sum(axis=1) if link == "drive" else after[:, -1]
        terms = C.real * outputs.real - C.imag * outputs.imag
        y[..., part] = np.moveaxis(realization.weight * terms.sum(axis=-1), 0, -1)
        if not models:
            continue
        sizes = np.concatenate([size[None], np.abs(after).astype(float)])
        size = sizes[-1]
        grown = np.maximum.accumulate(
            np.maximum(sizes.max(axis=(1, 4), initial=0), largest), axis=0
        )  # (T + 1, batch, H)
        largest = grown[-1]
        room = np.broadcast_to(_GUESS * grown, (order, *grown.shape))
        if allowed is not None:
            room = allowed[:, start : start + len(w) + 1] + floor
        wrong = None if driven is None else driven.error
        if input_error is not None:
            wrong = np.abs(powered).astype(float) * np.moveaxis(input_error[..., part], -1, 1)[..., None]
        inside = found[:, start + 1 : start + 1 + len(w)]
        error[..., part] = run.advance(_Block(w, inputs, sizes, room), wrong, inside)
    error[run.too_large] = np.inf
    return MatrixRun(y, error), found
