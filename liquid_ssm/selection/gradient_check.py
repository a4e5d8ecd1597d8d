"""One contender's vector-Jacobian products against exact derivatives, and on the problem itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..compute import Array, compute_vjp
from ..problem import ModeSpec
from ..registry import get_backend
from ..rounding_errors import options, rounding_model
from .contenders import Contender
from .data import Data, to_numpy
from .truth import Finding
from .verification import Refused

# Derivatives by rationals: a few steps of a few modes.
_EXACT_STEPS, _EXACT_MODES = 6, 6
# Where every product of matrices carries the derivatives by all parameters: six modes would take some five seconds.
_COUPLED_MODES = 2
# Derivatives by another backend in float64, within the bounds of both.
STEPS = 128

# What the oracle calls the parameters of a system.
_NAMES = {"A_bar": "A", "Lambda_bar": "A", "B_bar": "B", "C": "C", "P_bar": "P", "Q_bar": "Q"}


def check_gradients(contender: Contender, data: Data) -> Finding:
    """Gradients of a few steps against exact ones, and of one row of the real shape against float64 within both bounds.

    Raises:
        Refused: no bound is derived for them.
    """
    found = _against_exact(contender, data)
    # Who fails here need not be asked for more, and this is the error that is shown.
    return found.worse(_against_float64(contender, data)) if found.ratio <= 1 else found


def _against_exact(contender: Contender, data: Data) -> Finding:
    from ..oracle.adjoint import gradients, gradients_by_duals
    from ..rounding_errors import realization_of

    system, u = _one(data, contender.problem.dtype, _EXACT_STEPS)
    spec = data.problem.spec
    by_adjoint = spec.mode in ("s4", "liquid", "truncated")
    system = _fewer_modes(system, _EXACT_MODES if by_adjoint or system.structure == "diagonal" else _COUPLED_MODES)
    grad_y = _cotangent(u)
    found = compute_vjp(*data.same_kind(system, u), spec, data.same_kind(system, grad_y)[1], backend=contender.backend)

    def derivatives() -> Any:
        realization = realization_of(system)
        if by_adjoint:
            return gradients(realization, u, mode=spec.mode, grad_y=grad_y, grad_state=None, order=spec.order)
        return gradients_by_duals(realization, u, mode=spec.mode, grad_y=grad_y, grad_state=None, **options(spec))

    exact = data.shared(("exact gradients", contender.problem.dtype), derivatives)
    bounds = _bounds(contender.backend, contender.problem, system, u, spec, grad_y)
    finding = Finding(0.0, 0.0, 0.0, -1)
    for name, gradient in _pairs(found):
        key = _NAMES.get(name, name)
        expected = np.array([complex(z.real, z.imag) for z in exact[key].ravel()]).reshape(exact[key].shape)
        # The conversion of the exact value rounds once more.
        finding = finding.worse(_compared(gradient, expected, bounds[key] + 2.0**-52 * np.abs(expected)))
    return finding


def _against_float64(contender: Contender, data: Data) -> Finding:
    spec, problem = data.problem.spec, contender.problem
    system, u = _one(data, problem.dtype, STEPS)
    grad_y = _cotangent(u)
    wide = "float64"
    posed = replace(problem, dtype=wide, arrays="numpy", device="cpu")
    reference, others = data.shared(
        ("float64 gradients", problem.dtype),
        lambda: (
            compute_vjp(system.astype(wide), u.astype(wide), spec, grad_y.astype(wide), backend="numpy"),
            _bounds(get_backend("numpy"), posed, system, u, spec, grad_y),
        ),
    )
    bounds = _bounds(contender.backend, problem, system, u, spec, grad_y)
    given = data.same_kind(system, u)
    by_fft = contender.backend.arithmetic_for(problem).fft_gradients
    if by_fft or data.problem.structure == "mimo":
        # The bound of a transform is that of its own length.
        found = compute_vjp(*given, spec, data.same_kind(system, grad_y)[1], backend=contender.backend)
        pairs = list(_pairs(found))
    else:
        pairs = list(_pairs(_within_whole(contender, data, grad_y)))
    expected = dict(_pairs(reference))
    finding = Finding(0.0, 0.0, 0.0, -1)
    for name, gradient in pairs:
        key = _NAMES.get(name, name)
        finding = finding.worse(_compared(gradient, expected[name], bounds[key] + others[key]))
    return finding


def _within_whole(contender: Contender, data: Data, grad_y: Array) -> Any:
    """Gradients of the real shape for a cotangent that is zero but on one row, one channel and its first steps.

    By causality they are those of that row's first steps; products with zeros add nothing.
    """
    system, u = data.whole(contender.problem.dtype)
    row, channel, n = data.rows[0], data.channels[0], grad_y.shape[-1]
    seed = np.zeros(tuple(u.shape), contender.problem.dtype)
    seed[row, channel, :n] = grad_y[0, 0]
    cotangent = data.same_kind(data.system, seed)[1] if data.problem.arrays == "torch" else seed
    found = compute_vjp(system, u, data.problem.spec, cotangent, backend=contender.backend)
    rest = to_numpy(found.u).copy()
    own = rest[row : row + 1, channel : channel + 1, :n].copy()
    rest[row, channel, :n] = 0
    if rest.any():
        raise Refused("a cotangent of one row's first steps reaches inputs of other rows, channels or later steps")
    parameters = {}
    for name, gradient in found.parameters.items():
        axis = 1 if name in ("P_bar", "Q_bar") else 0
        parameters[name] = np.take(to_numpy(gradient), [channel], axis=axis)
        if np.delete(to_numpy(gradient), channel, axis=axis).any():
            raise Refused(f"a cotangent of one channel reaches {name} of another")
    return found._replace(u=own, parameters=parameters)


def _one(data: Data, dtype: str, steps: int) -> tuple[Any, Array]:
    """One row and its channel (`mimo`: all), as NumPy arrays."""
    system, u = data.few(dtype)
    if data.problem.structure != "mimo":
        system, u = system.take([0]), u[:, :1]
    return system, u[:1, :, :steps]


def _fewer_modes(system: Any, most: int) -> Any:
    n = min(system.n_modes, most)
    cut = {}
    for name, array in system.parameters.items():
        if name == "A_bar" and system.structure == "dense":
            cut[name] = array[:, :n, :n]
        elif system.structure == "mimo" and name == "B_bar":
            cut[name] = array[:n]
        else:
            cut[name] = array[..., :n]
    return type(system)(**cut, conjugate_pairs=system.conjugate_pairs)


def _cotangent(u: Array) -> Array:
    return np.random.default_rng(0).normal(size=u.shape).astype(u.dtype)


def _bounds(backend: Any, problem: Any, system: Any, u: Array, spec: ModeSpec, grad_y: Array) -> dict[str, Array]:
    from ..oracle.adjoint_bounds import gradient_bounds
    from ..rounding_errors import realization_of

    model = rounding_model(backend, problem)
    # Where there is a recurrence, the linear term's vector-Jacobian product is one.
    linear_fft = problem.structure not in backend.capabilities.primitives.get("scan", ())
    if not (linear_fft or backend.arithmetic_for(problem).fft_gradients):
        model = replace(model, fft=False)
    try:
        bounds = gradient_bounds(
            realization_of(system),
            u,
            mode=spec.mode,
            grad_y=grad_y,
            model=model,
            linear_fft=linear_fft,
            **options(spec),
        )
    except ValueError as error:
        raise Refused(f"no bound is derived for its gradients: {error}") from None
    if not all(np.isfinite(bound).all() for bound in bounds.values()):
        raise Refused("the bound on its gradients is not finite here, so nothing can be decided")
    return bounds


def _pairs(found: Any) -> list[tuple[str, Array]]:
    return [("u", to_numpy(found.u)), *((name, to_numpy(g)) for name, g in found.parameters.items())]


def _compared(gradient: Array, expected: Array, bound: Array) -> Finding:
    error = np.abs(gradient - expected)
    error = np.where(np.isfinite(error), error, np.inf)
    size = float(np.abs(expected).max(initial=0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error == 0, 0.0, error / bound)
    worst, limit = float(error.max(initial=0.0)), float(bound.max(initial=0.0))
    return Finding(
        0.0 if worst == 0 else worst / size if size else np.inf,
        # Relative to a gradient that is zero only errors count: it has no digits to lose.
        limit / size if size else 0.0 if np.isfinite(limit) else np.inf,
        float(ratio.max(initial=0.0)),
        -1,
    )
