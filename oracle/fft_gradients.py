"""Bounds on gradients of convolutions that are computed by FFT, forwards and backwards (docs/bounds-gradients.md).

With y = K ∗ s the gradient with respect to s is K reversed in time ∗ g, that with respect to K the correlation of s and
g; both by FFT, so known by their 2-norms over time, and the latter goes on to the parameters by explicit sums.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from . import convolution
from .adjoint import gradients
from .adjoint_moduli import GradientProblem, _products, moduli_gradients, roundings
from .correlation import adjacent_products, count
from .kernel_gradients import kernel_gradient_bounds, kernel_gradients
from .realization import Array, Realization
from .reference import _kernel_and_error
from .rounding import COMPLEX_PRODUCT, INFLATION, RoundingModel
from .scaling import normalised, scaled


def by_fft(problem: GradientProblem, model: RoundingModel, linear_fft: bool) -> bool:
    """Whether any part of this gradient is computed by FFT: of `liquid` and of cascades none is."""
    p = problem
    if not linear_fft:
        return model.fft and (p.mode, p.correlations) == ("kb", "adjacent") and p.window is not None and p.order > 1
    linear = p.mode == "s4" or (p.mode in ("kb", "pb") and p.order == 1)
    return model.fft and (linear or not p.one_recurrence)


def fft_gradient_bounds(
    problem: GradientProblem, model: RoundingModel, linear_bounds: dict[str, Array] | None = None
) -> dict[str, Array]:
    """Errors of the gradients of `u` (batch, H, L) and of `A`, `B`, `C` (H, M) of a `diagonal` realization.

    A transform spreads errors over all steps: every entry of a row of the gradient of u has the bound of the row.

    Args:
        linear_bounds: of the linear term where that is a recurrence; None where it is an FFT like the others.
    """
    p, r = problem, problem.realization
    if r.structure != "diagonal" and (r.structure != "dplr" or linear_bounds is None):
        raise ValueError(
            f"gradients of kernels by sums are bounded for diagonal realizations, not for {r.structure!r}; give "
            "fft=False if vector-Jacobian products are recurrences and direct sums, else use a tolerance of your own"
        )
    if p.mode == "kb" and p.correlations == "adjacent" and linear_bounds is not None:
        return _of_adjacent_products(p, None, linear_bounds, model)
    linear = _Convolution.of(r, p.u, np.zeros(p.u.shape), p.grad_y, 1, p.u.shape[-1], model)
    if p.order == 1:
        return {"u": linear.of_source(), **linear.errors}
    if p.mode == "kb" and p.correlations == "adjacent":
        return _of_adjacent_products(p, linear, {"u": linear.of_source(), **linear.errors}, model)
    # The linear term apart; the others are products and sums, with the exponentials of their responses.
    sizes = moduli_gradients(p, model)
    share = moduli_gradients(p.linear, model)
    responses = 16.0 if model.powers == "exponentials" else 0.0
    gamma = count(roundings(p, model) + responses, np.array(model.unit))
    bounds = {}
    for name, error in {"u": linear.of_source(), **linear.errors}.items():
        others = gamma * np.maximum(sizes[name] - share[name] * (1 - 2.0**-40), 0)
        bounds[name] = others + error + 2 * (p.order + 1) * model.unit * (share[name] + error)
    return bounds


def _of_adjacent_products(
    p: GradientProblem, linear: _Convolution | None, linear_bounds: dict[str, Array], model: RoundingModel
) -> dict[str, Array]:
    """`kb` over adjacent index tuples: one convolution per order, whose input is a product of inputs.

    The linear term may be a recurrence (None).
    """
    unit = model.unit
    # Windows take zeros in front of the first input along, which makes transforms longer.
    held = 0 if p.window is None else p.window - 1
    u, grad_y = (np.pad(np.asarray(v, np.longdouble), ((0, 0), (0, 0), (held, 0))) for v in (p.u, p.grad_y))
    terms, errors = adjacent_products(u, p.order, [model])
    parts = []
    for power in range(2, p.order + 1):
        size = u.shape[-1] if p.window is None else max(p.window - power + 1, 0)
        source, wrong = terms[power - 1], errors[power - 1][0]
        parts.append(_Convolution.of(p.realization, source, wrong, grad_y, power, size, model))
    floor = model.tiny / unit
    _, pull = _products(np.abs(u), p.order, floor)
    sizes = pull([np.abs(part.grad_source).astype(np.longdouble) for part in parts])
    inherited = pull([np.asarray(part.of_source(), np.longdouble) for part in parts])
    # products of the others, one by the cotangent, and the sum over their places and the orders
    gamma = count(2 * p.order + p.order * (p.order + 1) / 2 + 4, np.array(unit))
    pulled = inherited + gamma * (sizes + inherited)
    bounds = {"u": linear_bounds["u"] + pulled[..., held:]}
    share = moduli_gradients(p.linear, model) if linear is None else linear.sizes | {"u": np.abs(linear.grad_source)}
    totals = {"u": share["u"] + sizes[..., held:]}
    for name in parts[0].errors:
        bounds[name] = sum((part.errors[name] for part in parts), linear_bounds[name])
        totals[name] = sum((part.sizes[name] for part in parts), share[name])
    return {name: bound + 2 * (p.order + 1) * unit * (totals[name] + bound) for name, bound in bounds.items()}


@dataclass(frozen=True)
class _Convolution:
    """K_p ∗ s with the first `size` entries of K_p.

    Attributes:
        grad_source: exact gradient of s, (batch, H, L).
        source_error: 2-norm over time of its error, (batch, H).
        errors, sizes: of the gradients with respect to the parameters, (H, M).
    """

    grad_source: Array
    source_error: Array
    errors: dict[str, Array]
    sizes: dict[str, Array]

    @classmethod
    def of(
        cls,
        r: Realization,
        source: Array,
        wrong: Array,
        grad_y: Array,
        power: int,
        size: int,
        model: RoundingModel,
    ) -> _Convolution:
        length = source.shape[-1]
        kernel, entries, norm = _kernel_and_error(r, size, power, model)
        kernel_error = _norms(entries) + norm
        reversed_g = np.asarray(grad_y, float)[..., ::-1]
        exact_g = np.zeros(reversed_g.shape[:2])
        source_error = convolution.fft_bound(kernel, kernel_error, reversed_g, exact_g, model)
        exact = np.asarray(source, float)
        found = _correlated(np.asarray(source, np.longdouble), grad_y, size)  # (batch, H, size)
        rows = np.zeros(exact.shape[:2])
        for b in range(len(exact)):
            arguments = exact[b], _norms(wrong[b]), reversed_g[b : b + 1], exact_g[b : b + 1], model
            # with room for all lags, or for those of the kernel only
            rooms = [convolution.fft_bound(*arguments, total)[0] for total in (2 * length - 1, length + size - 1)]
            rows[b] = np.maximum(*rooms)
        # rows may be added up as spectra, which know all lags
        spectra = [_circular_norms(exact, reversed_g, total) for total in (2 * length - 1, length + size - 1)]
        values = np.maximum(*spectra) + rows
        # the sum over the batch in any order
        total = rows.sum(axis=0) + count(max(1, len(exact)) - 1.0, np.array(model.unit)) * values.sum(axis=0)
        cotangent, total = found.sum(axis=0), total * INFLATION
        if r.structure == "diagonal":
            errors = kernel_gradient_bounds(r, cotangent, power, model, grad_error=total)
            sizes = {name: np.abs(v).astype(float) for name, v in kernel_gradients(r, cotangent, power).items()}
        else:
            errors, sizes = _of_impulse(r, cotangent, power, model, total)
        whole = np.zeros((1, *exact.shape[1:]), np.longdouble)
        whole[0, :, :size] = kernel
        grad_source = np.asarray(_correlated(whole, grad_y, length), float)
        return cls(grad_source, source_error, errors, sizes)

    def of_source(self) -> Array:
        """The bound of a row at each of its entries."""
        return np.broadcast_to(self.source_error[..., None], self.grad_source.shape)


def _of_impulse(
    r: Realization, cotangent: Array, power: int, model: RoundingModel, wrong: Array
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Errors and moduli of the gradients of a kernel by the adjoint of the recurrence that answers to an impulse.

    Args:
        cotangent: exact cotangent of the kernel, (H, size), and the 2-norm of its error, (H,).
    """
    wide = np.clongdouble
    powered, size = replace(r, B=r.B.astype(wide) ** power), cotangent.shape[-1]
    slope = np.conj(power * r.B.astype(wide) ** (power - 1))
    impulse = np.zeros((1, *cotangent.shape))
    impulse[..., :1] = 1

    def brought_back(found: dict[str, Array]) -> dict[str, Array]:
        kept = {name: np.abs(found[name]) for name in ("A", "C", "P", "Q") if name in found}
        return kept | {"B": np.abs(slope) * np.abs(found["B"])}

    # what an error of one entry does, and all of them by Cauchy's inequality
    slopes = []
    for i in range(size):
        unit = np.zeros_like(impulse)
        unit[..., i] = 1
        slopes.append(brought_back(gradients(powered, impulse, "s4", unit, precision="longdouble")))
    computed = np.abs(cotangent).astype(float) + wrong[:, None]
    problem = GradientProblem(powered, impulse, "s4", 1, "all", None, None, computed[None], None)
    sizes = brought_back(moduli_gradients(problem, model))
    # powers of B̄ and the slope are in the working precision
    gamma = count(roundings(problem, model) + 2 * power * COMPLEX_PRODUCT + 2, np.array(model.unit))
    errors = {}
    for name, moduli in sizes.items():
        squares = sum((found[name] ** 2 for found in slopes), np.zeros(moduli.shape, np.longdouble))
        errors[name] = np.asarray(gamma * moduli + wrong[:, None] * np.sqrt(squares) * (1 + 2.0**-40), float)
    return errors, {name: np.asarray(moduli, float) for name, moduli in sizes.items()}


def _circular_norms(a: Array, b: Array, total: int) -> Array:
    """‖a ∗ b‖₂ over all lags of a transform with room for `total` steps, (batch, H)."""
    size = 1 << max(0, (max(1, total) - 1).bit_length())
    (a, scale_a), (b, scale_b) = normalised(a), normalised(b)
    spectra = np.abs(np.fft.fft(a, size) * np.fft.fft(b, size)) if a.shape[-1] else np.zeros((*a.shape[:-1], 1))
    return scaled(np.sqrt((spectra**2).sum(axis=-1) / size) * (1 + 2.0**-30), scale_a + scale_b)


def _correlated(values: Array, g: Array, size: int) -> Array:
    """Σ_k values_{k-i} g_k for i < size, (batch, H, size), by direct sums."""
    found = np.zeros((*np.broadcast_shapes(values.shape[:-1], g.shape[:-1]), size), values.dtype)
    for i in range(size):
        found[..., i] = (values[..., : values.shape[-1] - i] * g[..., i:]).sum(axis=-1)
    return found


def _norms(errors: Array) -> Array:
    entries = np.asarray(errors, float)
    return np.asarray(np.sqrt((entries**2).sum(axis=-1)) * INFLATION)
