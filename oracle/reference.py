"""Tier T3: NumPy in extended precision, with the running error bounds of other ways to compute the same.

One pass gives the value of a mode, a bound on this tier's own error, and for each `RoundingModel` a bound on
the error that a backend working like that may make.  Derivations: docs/bounds.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from . import convolution, correlation, correlation_brackets, scan_bounds
from .chunk_bounds import chunked_errors
from .joint_recurrence import STRUCTURES, joint_drive, joint_drives
from .kernel_error import kernel_error, kernel_unit
from .matrix_recurrence import run_matrix
from .metrics import norm2
from .realization import Realization
from .rounding import COMPLEX_PRODUCT, INFLATION, RoundingModel
from .scalar_recurrence import Drive, chunks, constants, read_out, units

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Bound:
    """An error vector is e₁ + e₂ with |e₁| <= componentwise and ‖e₂‖₂ <= normwise (over time).

    Attributes:
        componentwise: (batch, H, L).
        normwise: (batch, H); zero unless an FFT was involved.
    """

    componentwise: Array
    normwise: Array

    @property
    def is_componentwise(self) -> bool:
        return not self.normwise.any()

    def units(self, error: Array) -> float:
        """The largest error/bound: per step, or of 2-norms over time once an FFT is involved."""
        from .metrics import units_of_bound

        if self.is_componentwise:
            return units_of_bound(error, self.componentwise)
        rows = error.reshape(-1, error.shape[-1])
        errors = np.array([norm2(row) for row in rows])
        bounds = np.array([norm2(row) for row in self.componentwise.reshape(rows.shape)]) + self.normwise.ravel()
        return units_of_bound(errors, bounds)


@dataclass(frozen=True)
class Reference:
    """Values of a mode and the bounds that go with them.

    Attributes:
        value: (batch, H, L) in the working dtype.
        radius: bound on the error of `value` itself, (batch, H, L).
        bounds: one per rounding model.
    """

    value: Array
    radius: Array
    bounds: tuple[Bound, ...]


def reference(
    realization: Realization,
    u: Array,
    mode: str,
    *,
    order: int = 3,
    correlations: str = "all",
    window: int | None = None,
    state: Array | None = None,
    models: Sequence[RoundingModel] = (),
    dtype: npt.DTypeLike = np.longdouble,
    shared: dict[Any, Any] | None = None,
) -> Reference:
    """Outputs (batch, H, L) of any mode, their own error bound, and the bounds for `models`.

    Args:
        realization, u: their floats count as exact numbers.
        mode, order, correlations, window: as in the model page.
        state: x_{-1} (batch, H, M), for `mimo` (batch, M); modes s4, liquid and truncated.
        models: ways of computing whose error is to be bounded; their unit roundoff must not be smaller
            than that of `dtype`.
        dtype: float64 or longdouble, in which the reference computes.
        shared: a dict that calls with the same realization and u hand on, so that the linear term, which most
            modes have, is computed once.

    Raises:
        ValueError: an unknown mode, a mode that the structure does not have, a model finer than `dtype`, or a
            model with scan='any' where a coupled transition (`dplr`, `dense`) has to be scanned.
    """
    own = RoundingModel.of_dtype(dtype)
    if any(m.finest < own.unit for m in models):
        raise ValueError(f"a rounding model is finer than the reference's {np.dtype(dtype)}; choose a wider dtype")
    if mode not in ("s4", "liquid", "truncated", "kb", "pb"):
        raise ValueError(f"unknown mode {mode!r}; allowed: s4, liquid, truncated, kb, pb")
    if realization.structure == "mimo" and mode in ("kb", "pb") and order > 1:
        raise ValueError(f"mode {mode!r} multiplies scalar inputs, which a mimo realization does not have")
    if state is not None and mode in ("kb", "pb"):
        raise ValueError(f"an initial state is defined here for s4, liquid and truncated, not for {mode!r}")
    u = np.asarray(u, dtype)
    if u.size == 0:
        # NumPy 2.4's einsum corrupts the heap on some empty arrays of extended precision
        nothing = Bound(np.zeros(u.shape), np.zeros(u.shape[:2]))
        return Reference(np.zeros_like(u), np.zeros(u.shape), (nothing,) * len(models))
    run = _Run(realization, u, (own, *models), state)
    if mode == "liquid":
        total = run.recurrence("liquid")
    elif mode == "truncated" or (
        # diagonal matrices commute: every backend computes these as orders of `truncated`
        mode == "kb" and correlations == "all" and window is None and order > 1 and realization.structure == "diagonal"
    ):
        total = run.recurrence("drive", order)
    else:
        shared = {} if shared is None else shared
        if run.models not in shared:
            shared[run.models] = run.linear(run.u, 1, np.zeros((len(run.models), *run.u.shape)))
        total = shared[run.models]
        if mode in ("kb", "pb") and order > 1:
            total = run.sum([total, *run.correlation_terms(mode, order, correlations, window)])
            if mode == "kb" and correlations == "adjacent" and window is None and realization.structure in STRUCTURES:
                total = run.with_joint_errors(total, order)
    value, componentwise, normwise = total
    bounds = tuple(Bound(c, n) for c, n in zip(componentwise, normwise, strict=True))
    return Reference(value, bounds[0].componentwise, bounds[1:])


_WINDOW_ELEMENTS = 1 << 17  # states of all steps of the windows that are run together: few enough for the cache

# value (batch, H, L), componentwise errors (K, batch, H, L), normwise errors (K, batch, H)
Term = tuple[Array, Array, Array]


class _Run:
    """The terms of one mode for one signal."""

    def __init__(self, realization: Realization, u: Array, models: Sequence[RoundingModel], state: Array | None):
        self.r, self.u, self.models = realization, u, models
        # only a scalar input can be what is added to a state
        scalable = realization.structure == "diagonal"
        self.inner = [(model if scalable else model.unscaled).in_states for model in models]
        self.kind = np.result_type(u.dtype, np.complex64)
        batch = u.shape[0]
        modes = realization.n_modes
        shape = (batch, 1, modes) if realization.structure == "mimo" else (batch, realization.n_channels, modes)
        self.x0 = np.zeros(shape, self.kind)
        if state is not None:
            self.x0 += np.asarray(state, self.kind).reshape(shape)
        self.scalar = realization.structure in ("diagonal", "mimo")

    def recurrence(
        self,
        link: str | None,
        order: int = 1,
        power: int = 1,
        u: Array | None = None,
        input_error: Array | None = None,
        many: bool = False,
    ) -> Term:
        """Outputs of a recurrence: None linear, `liquid`, `drive` (truncated) or `input` (a kb chain).

        Args:
            u: its input, by default the signal.
            input_error: for each model, the error of the computed input (K, batch, H, L), by default none.
            many: the batch is a large number of short runs.
        """
        u = self.u if u is None else u
        start = self.x0 if power == 1 else np.zeros_like(self.x0)
        nothing = np.zeros((len(self.models), *u.shape[:2]))
        input_error = self._with_rounded_powers(u, power, input_error)
        if not self.scalar:
            if any(m.scan == "any" and not (link is None and m.fft) for m in self.models):
                raise ValueError(
                    f"a rounding model has scan='any', but a bound for scans in any order is derived for diagonal and "
                    f"mimo realizations, not for {self.r.structure!r}; give scan='sequential' if the backend runs this "
                    "structure in the order of time, else compare with a tolerance of your own"
                )
            run = run_matrix(self.r, u, link, order, start, self.inner, power=power, input_error=input_error, many=many)
            return run.y, self._rounded_once(run.y, run.error), nothing
        inner = [model.unscaled for model in self.inner] if link == "input" else self.inner
        drives = self._drives(u, power, input_error, inner)
        y, error = self._scalar_run(link, order, u, start, drives, inner)
        error = self._rounded_once(y, error)
        return y, error, nothing

    def _scalar_run(
        self,
        link: str | None,
        order: int,
        u: Array,
        start: Array,
        drives: Iterator[tuple[slice, Drive]],
        inner: Sequence[RoundingModel],
    ) -> tuple[Array, Array]:
        y = np.zeros(u.shape, u.dtype)
        error = np.zeros((len(self.models), *u.shape))
        A = self.r.A.astype(self.kind)
        C = self.r.C.astype(self.kind)
        summed = order - 1 if link == "drive" else 0
        blocks: Iterator[tuple[slice, Array, Array]]
        if link == "liquid":
            blocks = scan_bounds.liquid_states(A, drives, start, inner, u.shape[-1])
        else:
            inputs = np.moveaxis(u, -1, 0)[..., None] if link == "input" else None
            pieces = scan_bounds.cascade_states(A, drives, inputs, order, start, inner, u.shape[-1])
            blocks = (
                (p, x.sum(axis=0), E.sum(axis=1)) if link == "drive" else (p, x[-1], E[:, -1]) for p, x, E in pieces
            )
        for part, x, E in blocks:
            outputs, errors = read_out(C, self.r.weight, x, E, inner, summed)
            y[..., part], error[..., part] = np.moveaxis(outputs, 0, -1), np.moveaxis(errors, 1, -1)
        return y, error

    def _with_rounded_powers(self, u: Array, power: int, input_error: Array | None) -> Array | None:
        """`input_error`, and what B̄^{∘power} rounded to the parameters' precision does where states are finer."""
        if power == 1 or all(model.state_unit is None for model in self.models):
            return input_error
        wrong = np.zeros((len(self.models), *u.shape)) if input_error is None else input_error.copy()
        for i, model in enumerate(self.models):
            if model.state_unit is not None:
                # a relative error of the power is one of the input
                relative = correlation.count((power - 1) * COMPLEX_PRODUCT, np.array(model.unit))
                wrong[i] += relative * (np.abs(u).astype(float) + wrong[i])
        return wrong * INFLATION

    def _rounded_once(self, y: Array, error: Array) -> Array:
        """Errors of outputs of recurrences after the one rounding to the working precision, where states are finer."""
        for i, model in enumerate(self.models):
            if model.state_unit is not None:
                # error[0] is that of y itself
                rounded = np.abs(y).astype(float) + error[0] + error[i]
                error[i] = (error[i] + model.unit * rounded + model.tiny) * INFLATION
        return error

    def _drives(
        self, u: Array, power: int, input_error: Array | None, inner: Sequence[RoundingModel]
    ) -> Iterator[tuple[slice, Drive]]:
        B = self.r.B.astype(self.kind)
        powered = B
        for _ in range(power - 1):
            powered = powered * B
        time_first = np.moveaxis(u, -1, 0)  # (L, batch, H)
        for part in chunks(u.shape[-1], self.x0.size):
            inputs = time_first[part]
            unit, tiny = units(inner, inputs.ndim + 1)
            kappa, _ = constants(inner, inputs.ndim + 1)
            if self.r.structure == "mimo":
                w = np.einsum("mh,tbh->tbm", B, inputs)[:, :, None]
                size = np.einsum("mh,tbh->tbm", np.abs(B).astype(float), np.abs(inputs).astype(float))[:, :, None]
                roundings = np.array([1 + m.depth(inputs.shape[-1]) for m in inner]).reshape(unit.shape)
                error = correlation.count(roundings, unit) * size + 2 * inputs.shape[-1] * tiny
            else:
                w = powered * inputs[..., None]
                error = ((power - 1) * kappa + 1) * unit * (1 + 8 * power * unit) * np.abs(w) + 2 * tiny
                # what underflows in x / b̄ is an error of the input
                scaled = np.array([model.scaled_states for model in inner]).reshape(unit.shape)
                error = error + 4 * tiny * scaled * np.abs(powered)
                if input_error is not None:
                    wrong = np.moveaxis(input_error[..., part], -1, 1)[..., None]  # (K, T, batch, H, 1)
                    error = error + np.abs(powered) * wrong * (1 + 8 * power * unit)
            yield part, Drive(w, np.asarray(error, float) * INFLATION)

    def linear(self, source: Array, power: int, input_error: Array) -> Term:
        """K_p ∗ source, K_p from B̄^{∘p}: as a recurrence, or as kernel and FFT where the model says so.

        Args:
            input_error: componentwise error of the computed source, per model, (K, batch, H, L).
        """
        y, error, normwise = self.recurrence(None, 1, power, source, input_error)
        for i, model in enumerate(self.models):
            exact = np.asarray(source, float)
            if model.fft and self.r.structure != "mimo":
                kernel, error_k, norm_k = self._kernel(source.shape[-1], power, model)
                error[i] = 0
                norms = _norms(error_k) + norm_k
                normwise[i] = convolution.fft_bound(kernel, norms, exact, _norms(input_error[i]), model)
            elif model.linear_chunk is not None and self.r.structure == "diagonal":
                start = self.x0 if power == 1 else np.zeros_like(self.x0)
                error[i] = chunked_errors(self.r, start, exact, power, input_error[i], model)
        return y, error, normwise

    def with_joint_errors(self, total: Term, order: int) -> Term:
        """`total` with the errors of one recurrence for all orders where the model says so."""
        joint = [i for i, model in enumerate(self.models) if model.joint_adjacent and not model.fft]
        if not joint:
            return total
        value, error, normwise = total
        terms, errors = correlation.adjacent_products(self.u, order, self.models)
        B = self.r.B.astype(self.kind)
        if self.scalar:
            drives = joint_drives(B, terms, errors, self.models, self.x0.size)
            y, found = self._scalar_run(None, 1, self.u, self.x0, drives, self.inner)
        else:
            run = run_matrix(
                self.r, self.u, None, 1, self.x0, self.inner,
                drive=lambda part: joint_drive(B, terms, errors, self.models, part),
            )  # fmt: skip
            y, found = run.y, run.error
        error[joint] = self._rounded_once(y, found)[joint]
        return value, error, normwise

    def _kernel(self, length: int, power: int, model: RoundingModel) -> tuple[Array, Array, Array]:
        """Kernel (H, length) in float64 and the error of the computed one, entry by entry and (H,) in the 2-norm.

        Not to be written to.
        """
        none = np.zeros(self.r.n_channels)
        if model.fft or model.kernels == "tables":
            kernel, error, norm = _kernel_and_error(self.r, length, power, model)
            return kernel, error, norm
        # the backend reads the kernel off the recurrence
        kernel = _kernel_values(self.r, length, power)
        impulse = np.zeros((1, self.r.n_channels, length), self.u.dtype)
        impulse[..., :1] = 1
        single = _Run(self.r, impulse, (self.models[0], model), None)
        wrong = np.zeros((2, *impulse.shape))
        return kernel, single.linear(impulse, power, wrong)[1][1, 0], none

    def correlation_terms(self, mode: str, order: int, correlations: str, window: int | None) -> list[Term]:
        """The terms of order 2 … P of `kb` or `pb`."""
        orders = range(2, order + 1)
        if mode == "kb" and correlations == "all":
            if window is None:
                return [self.recurrence("input", p, p) for p in orders]
            return [self._windowed_chain(p, window) for p in orders]
        if mode == "pb" and correlations == "all":
            if window is None:
                values, errors = correlation_brackets.elementary(self.u, order, self.models)
            else:
                values, errors = correlation_brackets.windowed_elementary(self.u, order, window, self.models)
            return [self._scaled(p, values[p - 1], errors[p - 1]) for p in orders]
        values, errors = correlation.adjacent_products(self.u, order, self.models)
        if mode == "pb":
            if window is None:
                values, errors = correlation_brackets.running_sums(values, errors, self.models)
            else:
                values, errors = correlation.windowed_sums(values, errors, window, self.models)
            return [self._scaled(p, values[p - 1], errors[p - 1]) for p in orders]
        if window is None:
            return [self.linear(values[p - 1], p, errors[p - 1]) for p in orders]
        return [self._head(p, values[p - 1], errors[p - 1], window - p + 1) for p in orders]

    def _scaled(self, power: int, value: Array, error: Array) -> Term:
        """weight · Re(C B̄^{∘p}) times a correlation (Eq. 15)."""
        B, C = self.r.B.astype(self.kind), self.r.C.astype(self.kind)
        powered = B
        for _ in range(power - 1):
            powered = powered * B
        factor = self.r.weight * (C.real * powered.real - C.imag * powered.imag).sum(axis=-1)  # (H,)
        size = self.r.weight * (np.abs(C) * np.abs(powered)).sum(axis=-1).astype(float)
        y = factor[:, None] * value
        errors = np.empty((len(self.models), *y.shape))
        for i, model in enumerate(self.models):
            inner = kernel_unit(self.r, model)
            roundings = (power + 1) * model.product + 3 + model.depth(B.shape[-1])
            if model.fft or model.kernels == "tables":
                roundings = model.product * (power + 2) + 2 * B.shape[-1] + 2
            wrong = roundings * inner * (1 + 2.0**-10) * size
            if inner != model.unit:
                wrong = wrong + model.unit * (np.abs(factor).astype(float) + wrong)
            wrong, size_f = wrong[:, None], np.abs(factor).astype(float)[:, None]
            magnitude = np.abs(value).astype(float) + error[i]
            errors[i] = size_f * error[i] + wrong * magnitude + model.unit * (size_f + wrong) * magnitude + model.tiny
        return y, errors * INFLATION, np.zeros((len(self.models), *y.shape[:2]))

    def _head(self, power: int, value: Array, error: Array, size: int) -> Term:
        """Convolution with the first `size` entries of K_p: `kb`, adjacent, windowed."""
        size = min(size, value.shape[-1])
        kernel = np.zeros((self.r.n_channels, size), self.u.dtype)
        if size:
            impulse = np.zeros((1, self.r.n_channels, size), self.u.dtype)
            impulse[..., 0] = 1
            kernel = _Run(self.r, impulse, (), None).recurrence(None, 1, power)[0][0]
        y = np.zeros(value.shape, self.u.dtype)
        for i in range(size):
            y[..., i:] += kernel[:, i, None] * value[..., : value.shape[-1] - i]
        errors, normwise = np.zeros((len(self.models), *y.shape)), np.zeros((len(self.models), *y.shape[:2]))
        exact = np.asarray(value, float)
        for i, model in enumerate(self.models):
            approximate, error_k, norm_k = self._kernel(size, power, model)
            if model.fft:
                norms = _norms(error_k) + norm_k
                normwise[i] = convolution.fft_bound(approximate, norms, exact, _norms(error[i]), model)
            else:
                errors[i] = convolution.direct_error(approximate, error_k, exact, error[i], model, norm_k)
        return y, errors, normwise

    def _windowed_chain(self, power: int, window: int) -> Term:
        """Order p of `kb` over all index tuples inside the newest `window` inputs.

        All schemes form the coefficients of products of (ā + u t) by products and additions only, so their
        errors are relative to the same expression with absolute values.
        """
        A, B, C = (v.astype(self.kind) for v in (self.r.A, self.r.B, self.r.C))
        if self.r.structure != "diagonal":
            return self._windowed_by_restart(power, window)
        powered = B
        for _ in range(power - 1):
            powered = powered * B
        window = min(window, max(1, self.u.shape[-1]))
        value = _sliding_chain(A, self.u, power, window, C * powered).real * self.r.weight
        sizes = _sliding_chain(
            np.abs(A).astype(float), np.abs(self.u).astype(float), power, window, np.abs(C * powered).astype(float)
        )
        sizes = sizes * self.r.weight
        errors = np.empty((len(self.models), *value.shape))
        for i, model in enumerate(self.models):
            roundings = window * (model.product + 2) + power * (2 * model.product + 2) + model.product
            roundings += 3 + model.depth(B.shape[-1])
            errors[i] = correlation.count(roundings, np.array(model.unit)) * sizes + window * 16 * model.tiny
        return value, errors * INFLATION, np.zeros((len(self.models), *value.shape[:2]))

    def _windowed_by_restart(self, power: int, window: int) -> Term:
        """The same for coupled transitions: for every k a chain from rest, `window` inputs long."""
        batch, channels, length = self.u.shape
        padded = np.concatenate([np.zeros((batch, channels, window - 1), self.u.dtype), self.u], axis=-1)
        # every window becomes a batch row; its last output is the value wanted
        rows = np.lib.stride_tricks.sliding_window_view(padded, window, axis=-1)  # (batch, H, L, window)
        rows = np.moveaxis(rows, 2, 1).reshape(batch * length, channels, window)
        last = np.empty((len(rows), channels), self.u.dtype)
        bound = np.empty((len(self.models), len(rows), channels))
        together = max(1, _WINDOW_ELEMENTS // (rows[0].size * self.x0.shape[-1]))
        models = [model.in_working_precision for model in self.models]
        for first in range(0, len(rows), together):
            part = slice(first, first + together)
            run = _Run(self.r, np.ascontiguousarray(rows[part]), models, None)
            values, errors, _ = run.recurrence("input", power, power, many=True)
            last[part], bound[:, part] = values[..., -1], errors[..., -1]
        y = np.moveaxis(last.reshape(batch, length, channels), 1, -1)
        error = np.moveaxis(bound.reshape(len(self.models), batch, length, channels), 2, -1)
        return y, error, np.zeros((len(self.models), batch, channels))

    def sum(self, terms: Sequence[Term]) -> Term:
        """Sum of the terms from left to right, with the rounding of each addition."""
        value, error, normwise = terms[0]
        unit, _ = units(self.models, value.ndim)
        for term in terms[1:]:
            value = value + term[0]
            error = (error + term[1]) * (1 + 2 * unit) + unit * np.abs(value).astype(float)
            normwise = (normwise + term[2]) * (1 + 2 * unit[..., 0])
        return value, error * INFLATION, normwise


# Modes share kernels; a realization is its own key, since its arrays do not change.
@lru_cache(maxsize=16)
def _kernel_values(realization: Realization, length: int, power: int) -> Array:
    return convolution.kernel_and_size(realization, length, power)[0]


@lru_cache(maxsize=16)
def _kernel_and_error(
    realization: Realization, length: int, power: int, model: RoundingModel
) -> tuple[Array, Array, Array]:
    values = _kernel_values(realization, length, power)
    inner, norm = kernel_unit(realization, model), np.zeros(len(values))
    if model.fft or realization.structure != "dplr":
        error = kernel_error(realization, length, power, model)
    else:
        # the error of Cauchy sums is known by its 2-norm, that of the last rounding entry by entry
        before = replace(model.in_working_precision, unit=inner, table_unit=None)
        norm = _norms(kernel_error(realization, length, power, before)) * (1 + model.unit)
        error = (model.unit if inner < model.unit else 0.0) * np.abs(values) + model.tiny
    if power > 1 and inner < model.unit:
        # systems keep B̄^{∘power} in the working precision, whatever kernels are computed in
        relative = correlation.count((power - 1) * COMPLEX_PRODUCT, np.array(model.unit))
        wrong = relative * convolution.kernel_moduli(realization, length, power)
        error, norm = (error, norm + _norms(wrong)) if model.fft else (error + wrong, norm)
    return values, error, norm


def _sliding_chain(A: Array, u: Array, power: int, window: int, output: Array) -> Array:
    """Σ_n output_n s_n(k) with s the coefficient of t^{p-1} in Σ_i u_i Π_{j>i} (ā + u_j t) over a window."""
    time_first = np.moveaxis(u, -1, 0)[..., None]  # (L, batch, H, 1)
    kind = np.result_type(A, u)
    length = u.shape[-1]
    result = np.zeros(u.shape, kind)
    elements = A.size * u.shape[0] * (2 * power) * 4
    piece = max(4 * window, (1 << 22) // max(1, elements) // window * window)

    def combine(old: tuple[Array, ...], new: tuple[Array, ...]) -> tuple[Array, ...]:
        s_old, q_old, s_new, q_new = (np.moveaxis(v, 1, 0) for v in (*old, *new))
        s = correlation.truncated_product(s_old, q_new) + s_new
        return np.moveaxis(s, 0, 1), np.moveaxis(correlation.truncated_product(q_old, q_new), 0, 1)

    for start in range(0, length, piece):
        first = max(0, start - window + 1)
        inputs = time_first[first : start + piece]
        shape = (len(inputs), power, *inputs.shape[1:3], A.shape[-1])
        s, q = np.zeros(shape, kind), np.zeros(shape, kind)
        s[:, 0] = inputs
        q[:, 0] = A
        if power > 1:
            q[:, 1] = inputs
        sums = correlation.sliding((s, q), window, combine)[power - 1]  # (batch, H, M, T)
        values = np.einsum("hm,bhmt->bht", output, sums)
        result[..., start : start + piece] = values[..., start - first :]
    return result


def _norms(errors: Array) -> Array:
    return np.asarray(np.sqrt((np.asarray(errors, float) ** 2).sum(axis=-1)) * INFLATION)
