"""Vector-Jacobian products against exact derivatives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ...compute import problem_of
from ...modes import state_shapes
from ...oracle.adjoint import gradients, gradients_by_duals
from ...oracle.adjoint_bounds import gradient_bounds
from ...rounding_errors import realization_of, rounding_model
from ..example import Array, Example
from ..subject import PropertyViolation, Subject
from .accuracy import RECURRENCES
from .property import Property

# What the oracle calls the parameters of a system.
_NAMES = {"A_bar": "A", "Lambda_bar": "A", "B_bar": "B", "C": "C", "P_bar": "P", "Q_bar": "Q"}


def _gradient(subject: Subject, example: Example) -> None:
    """Every gradient of Σ grad_y·y, for recurrences also with a given state and a cotangent of the final state."""
    u, system = example.u, example.system
    rng = np.random.default_rng(example.choice)
    grad_y = rng.normal(size=u.shape).astype(u.dtype)
    grad_state = None
    if example.state is not None:
        shape = state_shapes(system, example.spec, len(u))["x"]
        grad_state = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(example.state.dtype)
    found = subject.vjp(example, grad_y, grad_state)

    realization = realization_of(system)
    arguments: dict[str, Any] = {"grad_y": grad_y, "grad_state": grad_state, **example.options}
    problem = problem_of(system, u, example.spec, gradient=True)
    model = rounding_model(subject.backend, problem)
    # Where there is a recurrence, the linear term's vector-Jacobian product is one.
    linear_fft = system.structure not in subject.backend.capabilities.primitives.get("scan", ())
    if not (linear_fft or subject.backend.arithmetic_for(problem).fft_gradients):
        # Outputs may be FFTs, but vector-Jacobian products are recurrences and direct sums.
        model = replace(model, fft=False)
    bounds = gradient_bounds(realization, u, state=example.state, model=model, linear_fft=linear_fft, **arguments)
    if example.spec.mode in RECURRENCES:
        only = {k: arguments[k] for k in ("mode", "grad_y", "grad_state", "order")}
        exact = gradients(realization, u, state=example.state, **only)
    else:
        exact = gradients_by_duals(realization, u, **arguments)
    pairs = [("u", found.u, "u")] + [(name, found.parameters[name], _NAMES[name]) for name in system.parameters]
    if example.state is not None:
        pairs.append(("state", found.state, "state"))
    for name, gradient, key in pairs:
        _require_gradient(name, gradient, exact[key], subject.bound_factor * bounds[key])


def _require_gradient(name: str, gradient: Array, exact: Array, bound: Array) -> None:
    expected = np.array([complex(z.real, z.imag) for z in exact.ravel()]).reshape(exact.shape)
    # The conversion of the exact value rounds once more.
    error = np.abs(gradient - expected)
    allowed = bound + 2.0**-52 * np.abs(expected)
    if not np.isfinite(bound).all():
        raise PropertyViolation(f"the oracle has no finite bound for the gradient of {name}, so nothing can be decided")
    bad = ~(error <= allowed)
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        raise PropertyViolation(
            f"the gradient of {name} is {gradient[index]} at index {index}, the exact one is {expected[index]}: the "
            f"error is {error[index] / allowed[index]:.3g} times its bound, {allowed[index]:.3g}"
        )


_SMALL = {"min_length": 1, "max_length": 4, "max_modes": 2, "max_order": 3, "min_batch": 1}

GRADIENTS = (
    Property(
        "gradients",
        "every gradient through y is within its bound of the exact derivative",
        _gradient,
        gradient=True,
        options=_SMALL,
    ),
    Property(
        "gradients-of-states",
        "every gradient, that of the initial state included, through y and the final state is within its bound of the "
        "exact derivative",
        _gradient,
        forms=RECURRENCES,
        gradient=True,
        state=True,
        options={**_SMALL, "with_state": True},
    ),
)
