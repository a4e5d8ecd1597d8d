"""What the bounds of the oracle allow one step of each primitive, at its worst over a box of operands.

Every number comes from the functions and constants that the running bounds are made of; docs/proofs.md compares
it with what Gappa proved on the same box.  The bound of a recurrence is a sum of products of moduli, each of them
convex in every operand by itself, so its maximum over a box is at a corner, and all corners are evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from . import correlation
from .adjoint_bounds import gradient_bounds
from .convolution import transform_error
from .discretisation_rounding import COMPLEX_QUOTIENT, discretisation_bounds, phi1_bound
from .exponential_powers import EXP_ULPS, LOG_ULPS, from_exponentials
from .matrix_recurrence import Transition
from .realization import Realization
from .reference import _Run  # the drives of a run, which no public function returns
from .rounding import RoundingModel
from .scalar_recurrence import Drive, cascade_states, liquid_states, read_out

Array = npt.NDArray[Any]

# Operand or one part of it -> largest magnitude of a part, or (lower, upper); what is not named is at most 1.
Box = Mapping[str, float | tuple[float, float]]


@dataclass(frozen=True)
class Primitive:
    """One step of a computation and the bound that the oracle has for it.

    Attributes:
        operands: names; complex ones are followed by a star.
        bound: (model, one array of corners per operand) -> bound at each corner, absolute or relative as the proof is.
        accumulated: real products are added to another number one after the other, which the rounding model
            without contraction excludes; without contraction it is compared with the model that knows nothing.
        fixed: the part of the box that the proof does not vary.
    """

    operands: str
    bound: Callable[..., Array]
    accumulated: bool = False
    fixed: Box = field(default_factory=dict)


def allowed(primitive: str, box: Box, *, fused: bool, dtype: npt.DTypeLike) -> float:
    """The largest bound that the oracle has for one step with operands in a box, in unit roundoffs.

    Args:
        primitive: a key of `PRIMITIVES`.
        box: bounds on the parts of operands that are not at most 1.
        fused: multiply and add are contracted.
        dtype: float32 or float64.

    Returns:
        float: of the modulus for complex results.
    """
    step = PRIMITIVES[primitive]
    contraction = True if fused else (None if step.accumulated else False)
    model = RoundingModel.of_dtype(dtype, pairwise=True, fused=contraction)
    return float(np.max(step.bound(model, **corners(step.operands, {**step.fixed, **box}))) / model.unit)


def corners(operands: str, box: Box) -> dict[str, Array]:
    """All combinations of the ends of all parts, one flat array per operand; intervals are cut at 9 points."""
    names = operands.split()
    axes: list[Array] = []
    for name in names:
        stem = name.rstrip("*")
        if name == stem:
            axes.append(_ends(box, name, stem))
        else:
            re, im = np.meshgrid(_ends(box, stem + "r", stem), _ends(box, stem + "i", stem), indexing="ij")
            axes.append((re + 1j * im).ravel())
    grid = np.meshgrid(*axes, indexing="ij")
    return {name.rstrip("*"): values.ravel() for name, values in zip(names, grid, strict=True)}


def _ends(box: Box, part: str, operand: str) -> Array:
    limit = box.get(part, box.get(operand, 1.0))
    if isinstance(limit, tuple):
        return np.linspace(*limit, 9)
    return np.array([-limit, limit])


def _product(model: RoundingModel, a: Array, b: Array) -> Array:
    return np.asarray(model.product * model.unit * np.abs(a) * np.abs(b))


def _accumulated_product(model: RoundingModel, v: Array, a: Array, b: Array) -> Array:
    total = v + a * b
    return np.asarray(_product(model, a, b) + model.unit * (model.addend * np.abs(v) + np.abs(total)))


def _drive(b: Array, u: Array, model: RoundingModel) -> Drive:
    """w = b u and its error, one channel per corner: (1, 1, K, 1)."""
    ones = np.ones((len(b), 1), complex)
    run = _Run(Realization("diagonal", ones, b[:, None], ones), u[None, :, None], (model,), None)
    ((_, drive),) = run._drives(run.u, 1, None, run.inner)
    return drive


def _real_times_complex(model: RoundingModel, b: Array, u: Array) -> Array:
    return np.asarray(_drive(b, u, model).error[0])


def _liquid_step(model: RoundingModel, A: Array, b: Array, u: Array, x: Array) -> Array:
    drives = iter([(slice(0, 1), _drive(b, u, model))])
    ((_, _, error),) = liquid_states(A[:, None], drives, x[None, :, None], [model])
    return error


def _linear_step(model: RoundingModel, A: Array, b: Array, u: Array, x: Array) -> Array:
    drives = iter([(slice(0, 1), _drive(b, u, model))])
    ((_, _, error),) = cascade_states(A[:, None], drives, None, 1, x[None, :, None], [model])
    return error


def _second_order(
    model: RoundingModel, A: Array, first: Array, second: Drive, start: Array, links: Array | None
) -> Array:
    """What the second of two steps adds to the error of order 2: a first step brings the states into the corner."""
    w = np.concatenate([first[None, None, :, None], second.value])
    dw = np.concatenate([np.zeros_like(second.error), second.error], axis=1)
    link = None if links is None else links[:, None, :, None]
    ((_, _, error),) = cascade_states(
        A[:, None], iter([(slice(0, 2), Drive(w, dw))]), link, 2, start[None, :, None], [model]
    )
    fed = np.abs(w[1] if link is None else link[1])
    inherited = np.abs(A)[:, None] * error[0, 1, 0] + fed * error[0, 0, 0]
    return np.asarray(error[0, 1, 1] - inherited)


def _truncated_step(model: RoundingModel, A: Array, b: Array, u: Array, x: Array, v: Array) -> Array:
    # v = A s + w and x = w s after the first step, from order 1 at s and order 2 at rest
    start = (v + np.sqrt(v * v - 4 * A * x)) / (2 * A)
    return _second_order(model, A, v - A * start, _drive(b, u, model), start, None)


def _chain_step(model: RoundingModel, A: Array, u: Array, x: Array, v: Array) -> Array:
    # the first input is 1: v = A s + w and x = s
    links = np.stack([np.ones_like(u), u])
    return _second_order(model, A, v - A * x, _drive(np.ones_like(A), u, model), x, links)


def _elementary_step(model: RoundingModel, e: Array, f: Array, u: Array) -> Array:
    # two inputs with sum f and product -|e|, then the sign that makes the result largest
    e, f, u = -np.abs(e), np.abs(f), -np.abs(u)
    root = np.sqrt(f * f - 4 * e)
    inputs = np.stack([(f + root) / 2, (f - root) / 2, u], axis=-1)
    _, (first, second) = correlation.elementary(inputs, 2, [model])
    return np.asarray(second[0, :, 2] - second[0, :, 1] - np.abs(u) * first[0, :, 1])


def _running_sum_step(model: RoundingModel, s: Array, u: Array, v: Array) -> Array:
    _, (_, product_error) = correlation.adjacent_products(np.stack([u, v], axis=-1), 2, [model])
    terms = np.stack([s, u * v], axis=-1)
    error = np.stack([np.zeros_like(s), product_error[0, :, 1]], axis=-1)[None]
    _, (bound,) = correlation.running_sums([terms], [error], [model])
    return np.asarray(bound[0, :, 1] - bound[0, :, 0])


def _read_out(model: RoundingModel, c: Array, x: Array, d: Array, z: Array) -> Array:
    C, states = np.stack([c, d], axis=-1), np.stack([x, z], axis=-1)
    _, error = read_out(C, 1, states, np.zeros((1, *states.shape)), [model])
    return error


def _butterfly(model: RoundingModel, W: Array, v: Array, z: Array) -> Array:
    # one more level of an FFT costs one product with a root and one addition on every path
    level = transform_error(8, model.unit) - transform_error(4, model.unit)
    return np.asarray(level * (np.abs(v) + np.abs(W) * np.abs(z)))


def _low_rank_step(model: RoundingModel, l: Array, p: Array, q: Array, x: Array) -> Array:  # noqa: E741
    # one channel per corner, each with a single mode
    column, factors = (slice(None), None), (None, slice(None), None)
    one = Realization("dplr", l[column], x[column], x[column], p[factors], q[factors])
    return Transition(one, np.dtype(complex)).local_error(np.abs(x)[column], model)


def _quotient(model: RoundingModel, n: Array, dr: Array, R: Array) -> Array:
    return np.asarray(COMPLEX_QUOTIENT * model.unit * np.abs(n) / np.abs(dr * (1 + 1j * R)))


def _bilinear(model: RoundingModel, Hr: Array, Hi: Array) -> Array:
    A, one = 2 * (Hr + 1j * Hi)[:, None], np.ones(len(Hr))
    return discretisation_bounds(A, np.ones_like(A), one, "bilinear", model=model).A


def _phi1_relative(model: RoundingModel, z: Array) -> Array:
    return np.asarray(phi1_bound(z, unit=model.unit) / np.abs(np.expm1(z) / z))


def _phi1_numerator(model: RoundingModel, a: Array, b: Array) -> Array:
    # φ₁ without the quotient's share
    return np.asarray(_phi1_relative(model, a + 1j * b) - COMPLEX_QUOTIENT * model.unit)


def _exponential_power(model: RoundingModel, T: Array, Y: Array) -> Array:
    """Relative, of a^8 = e^(T + iY): what a kernel pays for log and exp, and the rounding of 8 log a."""
    column = np.exp((T + 1j * Y) / 8)[:, None]
    kernel = Realization("diagonal", column, np.ones_like(column), np.ones_like(column), conjugate_pairs=False)
    with_library, without = (
        from_exponentials(kernel, 9, 0, model.unit, log_ulps=log, exp_ulps=exp)[:, 8] / np.exp(T)
        for log, exp in ((LOG_ULPS, EXP_ULPS), (0.0, 0.0))
    )
    # cosine and sine come after what is proved
    library = with_library - without - 2 * EXP_ULPS * model.unit
    return np.asarray(library + model.unit * np.hypot(T, Y))


def _gradient(
    model: RoundingModel, name: str, A: Array, b: Array, u: Array, c: Array, r: Array, x: Array, g: Array
) -> Array:
    """The bound on one gradient of one liquid step, one channel with one mode per corner."""
    one = Realization("diagonal", A[:, None], b[:, None], c[:, None], conjugate_pairs=False)
    bounds = gradient_bounds(
        one,
        u[None, :, None],
        mode="liquid",
        grad_y=r[None, :, None],
        grad_state=g[None, :, None],
        state=x[None, :, None],
        model=model,
    )
    return bounds[name]


def _adjoint_step(model: RoundingModel, A: Array, b: Array, u: Array, g: Array, c: Array, r: Array) -> Array:
    return _gradient(model, "state", A, b, u, c, r, 0 * g, g)


def _input_gradient(model: RoundingModel, b: Array, g: Array, x: Array) -> Array:
    nothing = np.zeros(len(b))
    return _gradient(model, "u", 0 * b, b, nothing, 0 * b, nothing, x, g)


PRIMITIVES = {
    "complex_product": Primitive("a* b*", _product),
    "accumulated_product": Primitive("v* a* b*", _accumulated_product, accumulated=True),
    "real_times_complex": Primitive("b* u", _real_times_complex),
    "square": Primitive("a*", lambda model, a: _product(model, a, a)),
    "liquid_step": Primitive("A* b* u x*", _liquid_step),
    "liquid_step_accumulated": Primitive("A* b* u x*", _liquid_step, accumulated=True),
    "linear_step": Primitive("A* b* u x*", _linear_step),
    "linear_step_accumulated": Primitive("A* b* u x*", _linear_step, accumulated=True),
    "truncated_step": Primitive("A* b* u x* v*", _truncated_step),
    "truncated_step_accumulated": Primitive("A* b* u x* v*", _truncated_step, accumulated=True),
    "chain_step": Primitive("A* u x* v*", _chain_step),
    "chain_step_accumulated": Primitive("A* u x* v*", _chain_step, accumulated=True),
    "low_rank_step": Primitive("l* p* q* x*", _low_rank_step),
    "elementary_step": Primitive("e f u", _elementary_step),
    "running_sum_step": Primitive("s u v", _running_sum_step),
    "read_out": Primitive("c* x* d* z*", _read_out),
    "adjoint_step": Primitive("A* b* u g* c* r", _adjoint_step),
    "input_gradient": Primitive("b* g* x*", _input_gradient),
    "butterfly": Primitive("W* v* z*", _butterfly),
    "exponential_power": Primitive("T Y", _exponential_power),
    "complex_quotient": Primitive("n* dr R", _quotient, fixed={"dr": (0.5, 1), "R": (-1, 1)}),
    "bilinear": Primitive("Hr Hi", _bilinear, fixed={"Hr": (-1, 0), "Hi": (0, 1)}),
    "phi1_real": Primitive("z", _phi1_relative, fixed={"z": (-1, -(2.0**-40))}),
    "phi1_numerator": Primitive("a b", _phi1_numerator, fixed={"a": (-1, -(2.0**-40)), "b": (2.0**-40, 1)}),
}
