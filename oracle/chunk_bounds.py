"""Error bounds of the linear recurrence of a diagonal system that is computed by chunks of Q steps (docs/bounds.md).

A chunk takes the state before it and Q inputs to Q outputs and the state after it, by tables of powers of Ā.  Where
chunks begin is not known, so every bound is the largest over all places of chunks with plain steps in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from .convolution import kernel_and_size
from .correlation import count
from .realization import Realization
from .rounding import COMPLEX_PRODUCT, INFLATION, RoundingModel
from .scalar_recurrence import size

Array = npt.NDArray[Any]

_PIECE_ELEMENTS = 1 << 18  # states of one piece of time steps


def chunked_errors(
    realization: Realization, start: Array, source: Array, power: int, source_error: Array, model: RoundingModel
) -> Array:
    """Errors (batch, H, L) of y = weight · Re(C x), x_k = Ā x_{k-1} + B̄^{∘power} u_k, by chunks and plain steps.

    Args:
        start: exact x_{-1}, (batch, H, M).
        source: exact inputs (batch, H, L), float64.
        source_error: errors of the computed inputs, in the same shape.
    """
    assert model.linear_chunk is not None
    run = _Chunks(realization, np.asarray(start, complex), source, power, source_error, model)
    errors = np.empty(source.shape)
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow becomes an infinite bound
        for part, found in run.pieces():
            errors[..., part] = found
    errors[np.isnan(errors)] = np.inf
    return errors


class _Chunks:
    """E_k, a bound on the error of a state after step k wherever chunks are, and the errors of outputs.

    With Q-step sums S = Σ_i |ā|^i|b̄ u_{k-i}| and the relative errors τ of tables, γ of sums,

        E_k = max(|ā|E_{k-1} + those of a plain step, |ā|^Q E_{k-Q} + those of a chunk),
        of a chunk: (τ_D + √2γ_{Q+2})|ā|^Q(|x| + E) + Σ_i τ_i|ā|^i|b̄ u_{k-i}| + γ_{Q+2} S.

    Where states may be scaled, E + 2u(|x| + E) takes the place of E in a state that a step or a chunk begins with.
    """

    def __init__(
        self,
        realization: Realization,
        start: Array,
        source: Array,
        power: int,
        source_error: Array,
        model: RoundingModel,
    ) -> None:
        r, u = realization, model.unit
        self.model, self.weight, self.modes = model, r.weight, r.n_modes
        self.Q = int(model.linear_chunk or 1)
        self.A, self.C = r.A.astype(complex), size(r.C)
        self.B = r.B.astype(complex) ** power
        self.alpha, self.beta = size(self.A), size(self.B)
        self.x, self.source, self.length = start, source, source.shape[-1]
        self.power_error = float(count((power - 1) * COMPLEX_PRODUCT, np.array(u)))
        self.wrong, self.conversion = source_error, model.conversion
        self.computed = np.abs(source) + source_error
        # tables: formed in one precision, rounded to the other; and states that are rounded before they enter
        inner, outer = model.table_unit or u, u if model.table_unit else 0.0
        entering = u if model.state_unit is not None else 0.0
        # both factors of a product, and what an addition costs then
        factors = 0.0 if model.factor_unit is None else model.factor_unit * (2 + model.factor_unit)
        lost = 1.0 if model.factor_unit is None else 2.0
        # of the last Q states; there are none before the start
        self.X, self.E = np.zeros((2, self.Q, *start.shape))
        self.X[-1] = size(start)
        self.E[-1] = entering * self.X[-1]
        steps = np.arange(self.Q)

        def relative(products: Array | float, entry: float = 0.0) -> Array:
            return count(np.array(1.0), np.asarray(outer + entry + COMPLEX_PRODUCT * inner * products))

        powers = self.alpha[..., None] ** np.arange(self.Q + 1) * INFLATION  # (H, M, Q + 1)
        self.decay = powers[..., : self.Q]
        self.whole = powers[..., self.Q]
        self.into_state = relative(steps, factors)  # of V and the inputs, newest first
        self.carried = relative(self.Q - 1.0, entering)  # of D
        self.read = self.weight * self.C[..., None] * powers[..., 1:]  # (H, M, Q)
        self.read_error = relative(steps + 1.0, entering + factors)
        kernel, moduli = kernel_and_size(r, self.Q, power)
        self.kernel = np.abs(kernel) + 2.0**-50 * self.Q * moduli
        table = count(np.array(1.0), COMPLEX_PRODUCT * inner * (steps + 1.0) + 2 * self.modes * inner)
        self.kernel_error = outer * self.kernel + (table * (1 + outer) + self.power_error) * moduli
        self.kernel_error = self.kernel_error + factors * (self.kernel + self.kernel_error)
        self.sums = count(lost * (steps + 1.0 + 2 * self.modes), np.array(u))
        self.sum = float(count(lost * (self.Q + 2.0), np.array(u)))
        # what an underflow in a table may be multiplied by
        largest = np.maximum(1, self.C) * np.maximum(1, self.beta) * np.maximum(1, powers[..., -1])
        # conversions to a shorter format may flush subnormal numbers to zero
        tiny = model.tiny if model.factor_unit is None else model.tiny / (2 * u)
        self.floor = tiny * self.weight * self.Q * largest.max(axis=-1, initial=1.0)  # (H,)

    def pieces(self) -> Iterator[tuple[slice, Array]]:
        """Steps and the errors of their outputs, (batch, H, T)."""
        step = max(4 * self.Q, _PIECE_ELEMENTS // max(1, self.x.size))
        for first in range(0, self.length, step):
            part = slice(first, min(self.length, first + step))
            self._advance(part)
            yield part, np.moveaxis(self._outputs(part), 0, -1)
            self.X, self.E = self.X[-self.Q :], self.E[-self.Q :]

    def _advance(self, part: slice) -> None:
        """X and E of the states after the steps of a piece, behind those of the Q states before it."""
        model, u, Q = self.model, self.model.unit, self.Q
        w = self.B * np.moveaxis(self.source[..., part], -1, 0)[..., None]
        x = np.empty((len(w), *self.x.shape), complex)
        for t in range(len(w)):
            x[t] = self.x = self.A * self.x + w[t]
        X = np.concatenate([self.X, size(x)])
        E = np.concatenate([self.E, np.zeros(x.shape)])
        S, turned, brought, total = self._window_sums(part)
        computed, wrong = (np.moveaxis(v[..., part], -1, 0)[..., None] for v in (self.computed, self.wrong))
        drive = self.beta * (1 + self.power_error) * computed
        plain = model.product * u * self.alpha * X[Q - 1 : -1] + (1 + model.addend) * u * drive
        plain = (1 + 2 * u) * (plain + self.beta * (wrong + self.power_error * computed))
        lost = (16 + 4 * self.beta * model.scaled_states) * model.tiny
        plain = (plain + u * X[Q:] + lost) * INFLATION
        keep = (1 + 2 * u) * self.alpha * (1 + 2 * COMPLEX_PRODUCT * u) * INFLATION
        # a chunk: errors of D, rounding of the sum of Q inputs and two products of the state
        carried = (1 + self.carried) * (1 + sqrt(2.0) * self.sum) - 1
        chunk = brought + turned + self.sum * (S + turned)
        chunk = (chunk + self.floor[:, None] * (8 * (Q + 2) + 2 * total)) * INFLATION**4
        chunk = chunk + (self.whole * carried + 2 * self.floor[:, None]) * X[: len(w)] * INFLATION**2
        taken = (self.whole * (1 + carried) + 2 * self.floor[:, None]) * INFLATION**2
        for t in range(len(w)):
            found = keep * self._taken_up(E[Q - 1 + t], X[Q - 1 + t]) + plain[t]
            if part.start + t >= Q - 1:
                found = np.maximum(found, taken * self._taken_up(E[t], X[t]) + chunk[t])
            E[Q + t] = found
        self.X, self.E = X, E

    def _taken_up(self, E: Array, X: Array) -> Array:
        """Errors of states that steps or chunks begin with: they may have been scaled and scaled back."""
        return E + self.conversion * (X + E)

    def _windows(self, values: Array, part: slice) -> Array:
        """(T, batch, H, Q): the newest Q values before and at each step, newest first, zeros before the first."""
        first = part.start - self.Q + 1
        taken = values[..., max(0, first) : part.stop]
        padded = np.concatenate([np.zeros((*taken.shape[:2], max(0, -first))), taken], axis=-1)
        rows = np.lib.stride_tricks.sliding_window_view(padded, self.Q, axis=-1)[..., ::-1]
        return np.moveaxis(rows, 2, 0)

    def _window_sums(self, part: slice) -> tuple[Array, Array, Array, Array]:
        """Over the newest Q inputs: S, Σ τ_i|ā|^i|b̄ u|, what the inputs bring along, and Σ|u|."""
        rows, wrong = self._windows(self.computed, part), self._windows(self.wrong, part)
        beta = self.beta * (1 + self.power_error)
        ones = beta * _contracted(rows, self.decay)
        turns = beta * _contracted(rows * self.into_state, self.decay)
        brought = self.beta * _contracted(wrong + self.power_error * rows, self.decay)
        return ones, turns, brought, rows.sum(axis=-1)[..., None]

    def _outputs(self, part: slice) -> Array:
        """Errors (T, batch, H) of the outputs of a piece: of a plain step, and of step q of a chunk for every q."""
        model, Q, steps = self.model, self.Q, part.stop - part.start
        rows, wrong = self._windows(self.computed, part), self._windows(self.wrong, part)
        inherited = np.cumsum(self.kernel * wrong + self.kernel_error * rows, axis=-1)
        moduli = np.cumsum((self.kernel + self.kernel_error) * rows, axis=-1)
        q = np.arange(Q)
        before = np.arange(steps)[:, None] + Q - 1 - q  # where the state is that the chunk began with

        def read(states: Array, table: Array) -> Array:
            return np.moveaxis(_mapped(states, table)[before, ..., q], 1, -1)

        begun = self._taken_up(self.E, self.X)
        cap = self.X + begun
        errors, states = read(begun, self.read), read(cap, self.read)
        found = errors + inherited + self.read_error * states + self.sums * (moduli + (1 + self.read_error) * states)
        seen = rows.sum(axis=-1, keepdims=True) + read(cap, np.ones_like(self.read))
        found = found + self.floor[:, None] * (8 * (Q + 2 * self.modes) + 2 * seen)
        began = part.start + before - Q + 1
        possible = (began >= 0) & (began <= self.length - Q)
        found = np.where(possible[:, None, None], found, 0).max(axis=-1)
        depth = (2 + model.depth(self.modes) + model.scaled_states) * model.unit
        plain = (self.C * (self.E[Q:] + depth * (1 + depth) * (self.X[Q:] + self.E[Q:]))).sum(axis=-1)
        plain = self.weight * plain + 4 * self.modes * model.tiny
        return np.asarray(np.maximum(plain, found) * INFLATION**8)


def _contracted(rows: Array, table: Array) -> Array:
    """Σ_i rows_i table_i: (T, batch, H, Q), (H, M, Q) -> (T, batch, H, M)."""
    return np.moveaxis(np.moveaxis(rows, 2, 0) @ table.swapaxes(-1, -2)[:, None], 0, 2)


def _mapped(states: Array, table: Array) -> Array:
    """Σ_n states_n table_n: (T, batch, H, M), (H, M, Q) -> (T, batch, H, Q)."""
    return np.moveaxis(np.moveaxis(states, 2, 0) @ table[:, None], 0, 2)
