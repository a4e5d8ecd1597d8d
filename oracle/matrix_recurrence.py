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


def both_halves(realization: Realization, v: Array) -> Array:
    """A bound on the stored half as one on the full state."""
    return np.concatenate([v, v], axis=-1) if realization.conjugate_pairs else v


class _ConstantBlocks:
    """Error propagation through powers of one matrix."""

    def __init__(self, A: Array, C: Array) -> None:
        power = np.eye(len(A), dtype=complex)
        entries, rows, outputs, output_norms = [], [], [], []
        for _ in range(BLOCK + 1):
            entries.append(np.abs(power))
            rows.append(np.linalg.norm(power, axis=1))
            outputs.append(np.abs(C @ power))
            output_norms.append(np.linalg.norm(C @ power))
            last, power = power, A @ power
        self.entries, self.rows = np.array(entries), np.array(rows)
        self.outputs, self.output_norms = np.array(outputs), np.array(output_norms)
        self.norm = float(np.linalg.norm(last, 2))

    def advance(self, local: Array, start: Array) -> tuple[Array, Array, Array]:
        """From local errors (X, T, N) and ‖e‖ at the start (X,): E (X, T, N), |C e| (X, T), ‖e‖ at the end."""
        steps = local.shape[1]
        E = np.zeros_like(local)
        y = np.zeros(local.shape[:2])
        for d in range(steps):
            E[:, d:] += local[:, : steps - d] @ self.entries[d].T
            y[:, d:] += local[:, : steps - d] @ self.outputs[d]
        end = np.linalg.norm(E[:, -1], axis=1) + self.norm * start
        E += self.rows[1 : steps + 1] * start[:, None, None]
        y += self.output_norms[1 : steps + 1] * start[:, None]
        return E * _SECOND_ORDER, y * _SECOND_ORDER, end * _SECOND_ORDER


def _varying_block(M: Array, C: Array, local: Array, start: Array, stored: int) -> tuple[Array, Array, Array]:
    """As `_ConstantBlocks.advance`, for transitions M (T, N, N) that change from step to step.

    Only the first `stored` rows of E are formed; the others are their conjugates' and have the same bound.
    """
    steps, size, _ = M.shape
    E = np.zeros((len(start), steps, stored))
    y = np.zeros(local.shape[:2])
    identity = np.eye(stored, size, dtype=complex)
    products = np.broadcast_to(identity, (steps, stored, size)).copy()  # rows of Φ(k, k-d), for every k
    rows, row_norms = np.empty((steps, stored)), np.empty(steps)
    norm = 1.0
    for d in range(steps):
        live = products[d:]  # k = d … T-1, acting on the local error of step k-d
        outputs = _both(C, live)
        # sqrt(re² + im²) is several times faster than abs, and its underflow below 1e-154 is out of all proportion
        size_of = np.sqrt(live.real**2 + live.imag**2)
        E[:, d:] += np.matmul(size_of, local[:, : steps - d, :, None])[..., 0]
        y[:, d:] += np.einsum("km,xkm->xk", np.abs(outputs), local[:, : steps - d])
        live = live @ M[: steps - d]
        products[d:] = live
        rows[d] = np.linalg.norm(live[0], axis=1)
        row_norms[d] = np.linalg.norm(_both(C, live[0]))
        if d == steps - 1:
            norm = float(np.linalg.norm(_closed(live[0]), 2))
    end = np.sqrt(size / stored) * np.linalg.norm(E[:, -1], axis=1) + norm * start
    E += rows * start[:, None, None]
    y += row_norms * start[:, None]
    return E * _SECOND_ORDER, y * _SECOND_ORDER, end * _SECOND_ORDER


def _closed(rows: Array) -> Array:
    """The full matrix of a conjugate-closed map from the rows (…, M, N) of its stored half."""
    stored, size = rows.shape[-2:]
    if stored == size:
        return rows
    mirrored = np.concatenate([rows[..., stored:], rows[..., :stored]], axis=-1).conj()
    return np.concatenate([rows, mirrored], axis=-2)


def _both(C: Array, rows: Array) -> Array:
    """C times the full matrix whose stored rows are given."""
    return np.asarray(C @ _closed(rows))


@dataclass(frozen=True)
class _Block:
    """A stretch of the exact run; T steps, arrays (T, …)."""

    w: Array  # drive (T, batch, H, M)
    u: Array  # inputs (T, batch, H)
    after: Array  # states (T, order, batch, H, M)
    cap: Array  # |computed state| entering each step is at most this, (T, order, batch, H, M)
    cap_after: Array  # the same for the state that the step leaves


class _ErrorRun:
    """The error bound of one rounding model, block after block."""

    def __init__(
        self, transition: Transition, model: RoundingModel, link: str | None, power: int, shape: tuple[int, ...]
    ) -> None:
        self.transition, self.model, self.link, self.power = transition, model, link, power
        self.constant = (
            None
            if link == "liquid"
            else [_ConstantBlocks(A, C) for A, C in zip(transition.matrix, transition.C, strict=True)]
        )
        self.norm = np.zeros(shape[:-1])  # spectral-norm bound at the start of the block, (order, batch, H)
        self.last = np.zeros(shape)  # componentwise bound on the last state of the previous block
        self.too_large = np.zeros(shape[1:-1], bool)

    def advance(self, block: _Block, wrong: Array | float) -> Array:
        """Bound on the outputs of the block, (batch, H, T).

        Args:
            wrong: error that the input brings into the drive (T, batch, H, M).
        """
        order = block.after.shape[1]
        total = np.zeros((*block.u.shape[1:], len(block.u)))
        below = np.zeros(block.w.shape)
        for p in range(order):
            E, out = self._propagate(p, block, self._local(p, block, below, wrong))
            total = total + out if self.link == "drive" else out
            self.too_large |= (block.cap_after[:, p] - np.abs(block.after[:, p]) < E).any(axis=(0, 3))
            # the next order is fed by the error of this one, one step earlier
            below = np.concatenate([self.last[p][None], E[:-1]])
            self.last[p] = E[-1]
        return self._read_out(block, total)

    def _local(self, p: int, block: _Block, below: Array, wrong: Array | float) -> Array:
        """Error that step k makes on its own in order p, plus what it takes from the order below."""
        unit, kappa = self.model.unit, COMPLEX_PRODUCT
        beta = np.abs(block.w).astype(float)
        dw = ((self.power - 1) * kappa + 1) * unit * beta + wrong
        cap, after = block.cap[:, p], np.abs(block.after[:, p]).astype(float)
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
            entering = block.cap[:, p - 1]
            local = local + (off + kappa * unit * (factor + off)) * entering + factor * below
            sums = sums + factor * entering
        return np.asarray((local + 2 * unit * sums) * _SECOND_ORDER + 16 * cap.shape[-1] * self.model.tiny)

    def _propagate(self, p: int, block: _Block, local: Array) -> tuple[Array, Array]:
        """E (T, batch, H, M) and |C e| (batch, H, T) of order p."""
        realization = self.transition.realization
        E, out = np.empty_like(local), np.empty((*local.shape[1:3], len(local)))
        full = both_halves(realization, local)
        for h in range(local.shape[2]):
            if self.constant is not None:
                state, output, end = self.constant[h].advance(full[:, :, h].swapaxes(0, 1), self.norm[p, :, h])
                E[:, :, h], out[:, h], self.norm[p, :, h] = state[..., : local.shape[3]].swapaxes(0, 1), output, end
                continue
            for b in range(local.shape[1]):
                shift = block.w[:, b, h].astype(complex)
                shift = np.concatenate([shift, shift.conj()], axis=-1) if realization.conjugate_pairs else shift
                M = self.transition.matrix[h] + shift[:, :, None] * np.eye(shift.shape[1])
                state, output, end = _varying_block(
                    M, self.transition.C[h], full[None, :, b, h], self.norm[p, b : b + 1, h], local.shape[3]
                )
                E[:, b, h], out[b, h], self.norm[p, b, h] = state[0], output[0], end[0]
        return E, out

    def _read_out(self, block: _Block, inherited: Array) -> Array:
        realization, model = self.transition.realization, self.model
        modes = block.w.shape[-1]
        orders = block.after.shape[1]
        summed = self.link == "drive"
        seen = block.cap_after.sum(axis=1) if summed else block.cap_after[:, -1]
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
    run = _run(realization, u, link, order, x0, models, power, input_error, _GUESSES[0])
    if np.isfinite(run.error).all():
        return run
    again = _run(realization, u, link, order, x0, models, power, input_error, _GUESSES[1])
    return MatrixRun(run.y, np.minimum(run.error, again.error))


def _run(
    realization: Realization,
    u: Array,
    link: str | None,
    order: int,
    x0: Array,
    models: Sequence[RoundingModel],
    power: int,
    input_error: Array | None,
    guess: float,
) -> MatrixRun:
    batch, channels, length = u.shape
    dtype = np.result_type(u.dtype, np.complex64)
    transition = Transition(realization, dtype)
    B, C = realization.B.astype(dtype), realization.C.astype(dtype)
    drive = B
    for _ in range(power - 1):
        drive = drive * B
    x = np.zeros((order, batch, channels, B.shape[-1]), dtype)
    x[0] = x0
    runs = [_ErrorRun(transition, model, link, power, x.shape) for model in models]
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
        caps = np.empty((len(w) + 1, *x.shape))
        caps[0] = np.abs(x) + guess * largest[..., None]
        for t in range(len(w)):
            moved = transition.apply(x)
            moved[0] += w[t] * x[0] + w[t] if link == "liquid" else w[t]
            if order > 1:
                moved[1:] += (w[t] if link == "drive" else inputs[t][..., None]) * x[:-1]
            x = after[t] = moved
            largest = np.maximum(largest, np.abs(x).max(axis=(0, 3), initial=0))
            caps[t + 1] = np.abs(x) + guess * largest[..., None]
        block = _Block(w, inputs, after, caps[:-1], caps[1:])
        outputs = after.sum(axis=1) if link == "drive" else after[:, -1]
        terms = C.real * outputs.real - C.imag * outputs.imag
        y[..., part] = np.moveaxis(realization.weight * terms.sum(axis=-1), 0, -1)
        for i, run in enumerate(runs):
            wrong: Array | float = 0.0
            if input_error is not None:
                wrong = np.abs(drive).astype(float) * np.moveaxis(input_error[i][..., part], -1, 0)[..., None]
            error[i][..., part] = run.advance(block, wrong)
    for i, run in enumerate(runs):
        error[i][run.too_large] = np.inf
    return MatrixRun(y, error)
