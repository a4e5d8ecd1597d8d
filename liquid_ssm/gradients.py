"""Vector-Jacobian products of the modes, composed like the modes themselves from those of the primitives."""

from __future__ import annotations

from typing import Any

import numpy as np

from .backend import Gradients
from .modes import (
    Primitives,
    State,
    initial_state,
    input_power_response,
    joins_orders,
    order_first,
    require_finite_state,
)
from .problem import ModeSpec, commutes

Array = Any


def run_vjp(
    backend: Primitives,
    system: Any,
    u: Array,
    spec: ModeSpec,
    grad_y: Array,
    state: Any = None,
    grad_state: Any = None,
) -> Gradients:
    """Gradients of Σ grad_y·y + Re Σ conj(grad_state)·final, by parameter name, for u and for the state.

    Args:
        backend: one that does not reject the problem with gradient=True.
        state: as in `modes.run`; None is rest, whose gradient is returned as well.
        grad_state: cotangent of the final state, in the form of that state, or None.

    Returns:
        Gradients: complex ones are dL/dRe + i·dL/dIm.  That of the state is None where the backend has no recurrence
        and so no state.
    """
    for given in (state, grad_state):
        require_finite_state(given)
    if state is None and grad_state is None and joins_orders(backend, system.structure, spec):
        return _joint_vjp(backend, system, u, spec, grad_y)
    fine = backend.arithmetic.state_dtype
    start = initial_state(system, spec, u, state, fine)
    final = None if grad_state is None else initial_state(system, spec, u, grad_state, fine)
    if spec.mode == "liquid":
        return backend.scan_vjp(system, u, start, grad_y, final, liquid=True)  # type: ignore[no-any-return]
    if spec.mode == "s4":
        return _linear_vjp(backend, system, u, start, grad_y, final)
    if spec.mode == "truncated":
        return backend.cascade_vjp(system, u, start, grad_y, final, order=spec.order, kind="truncated")  # type: ignore[no-any-return]
    if commutes(system.structure, spec):
        grads = backend.cascade_vjp(
            system, u, start.x, grad_y, None if final is None else final.x, order=spec.order, kind="truncated"
        )
        return Gradients(grads.parameters, grads.u, State(grads.state))
    return _with_correlations_vjp(backend, system, u, spec, grad_y, start, final)


def _joint_vjp(backend: Primitives, system: Any, u: Array, spec: ModeSpec, grad_y: Array) -> Gradients:
    """Adjoint of all orders as one recurrence: the initial states of the orders have the same gradient."""
    found = backend.joint_scan_vjp(system, u, grad_y, order=spec.order)
    x, inputs = found.state
    return found._replace(state=State(np.repeat(x[:, None], spec.order, axis=1), inputs=inputs))  # type: ignore[no-any-return]


def _linear_vjp(backend: Primitives, system: Any, u: Array, x: Array, grad_y: Array, final: Array | None) -> Gradients:
    """Adjoint of the linear term; where the backend has no recurrence, by its kernel, and without a state."""
    if system.structure in backend.capabilities.primitives.get("scan", ()):
        return backend.scan_vjp(system, u, x, grad_y, final, liquid=False)  # type: ignore[no-any-return]
    kernel = backend.kernel(system, u.shape[-1])
    grad_kernel, grad_u = backend.convolve_vjp(kernel, u, grad_y)
    return Gradients(backend.kernel_vjp(system, u.shape[-1], 1, grad_kernel), grad_u, None)


def _with_correlations_vjp(
    backend: Primitives, system: Any, u: Array, spec: ModeSpec, grad_y: Array, start: State, final: State | None
) -> Gradients:
    total = _Total(system)
    grad_x = np.zeros_like(start.x)
    length, previous = u.shape[-1], start.inputs
    held = 0 if previous is None else previous.shape[-1]
    extended = u if previous is None else np.concatenate([previous, u], axis=-1)
    grad_extended = np.zeros_like(extended)
    if final is not None and final.inputs is not None:
        grad_extended[..., length:] += final.inputs
    grad_sums = None

    linear = _linear_vjp(backend, system, u, start.x[:, 0], grad_y, None if final is None else final.x[:, 0])
    total.add(linear.parameters)
    grad_extended[..., held:] += linear.u
    if linear.state is None:
        grad_x = None
    else:
        grad_x[:, 0] = linear.state

    orders = range(2, spec.order + 1)
    if spec.order > 1 and spec.mode == "pb":
        grad_u, grad_responses, grad_sums, grad_previous = _added_vjp(backend, system, u, spec, grad_y, start, final)
        for p, grad_response in zip(orders, grad_responses, strict=True):
            total.add(backend.kernel_vjp(system, 1, p, grad_response[:, None]))
        grad_extended[..., held:] += grad_u
        if grad_previous is not None:
            grad_extended[..., :held] += grad_previous
    elif spec.correlations == "all":
        for p in orders:
            block = slice(p * (p - 1) // 2, p * (p + 1) // 2)
            powered = system.with_input_power(p)
            if spec.window is None:
                grads = backend.cascade_vjp(
                    powered,
                    u,
                    start.x[:, block],
                    grad_y,
                    None if final is None else final.x[:, block],
                    order=p,
                    kind="chain",
                )
                grad_x[:, block] = grads.state
                grad_extended[..., held:] += grads.u
            else:
                grads = backend.cascade_vjp(
                    powered, extended, None, _padded(grad_y, held), None, order=p, kind="chain", window=spec.window
                )
                grad_extended += grads.u
            total.add(grads.parameters, power=p)
    elif spec.order > 1:
        source = extended if spec.window else u
        before = None if spec.window else previous
        terms, _ = backend.correlate(source, order=spec.order, kind="products", previous=before)
        grad_terms = np.zeros_like(terms)
        for p in orders:
            powered = system.with_input_power(p)
            if spec.window is None:
                end = None if final is None else final.x[:, p - 1]
                grads = _linear_vjp(backend, powered, terms[p - 2], start.x[:, p - 1], grad_y, end)
                grad_terms[p - 2] = grads.u
                if grad_x is not None:
                    grad_x[:, p - 1] = grads.state
                total.add(grads.parameters, power=p)
            else:
                size = min(spec.window - p + 1, source.shape[-1])
                head = backend.kernel(powered, size)
                grad_head, grad_terms[p - 2] = backend.convolve_vjp(head, terms[p - 2], _padded(grad_y, held))
                total.add(backend.kernel_vjp(powered, size, 1, grad_head), power=p)
        grad_source, _, grad_before = backend.correlate_vjp(
            source, grad_terms, None, order=spec.order, kind="products", previous=before
        )
        if spec.window:
            grad_extended += grad_source
        else:
            grad_extended[..., held:] += grad_source
            if grad_before is not None:
                grad_extended[..., :held] += grad_before
    grad_previous = None if previous is None else grad_extended[..., :held]
    if grad_x is None:
        return Gradients(total.parameters, grad_extended[..., held:], None)
    return Gradients(total.parameters, grad_extended[..., held:], State(grad_x, order_first(grad_sums), grad_previous))


def _added_vjp(
    backend: Primitives, system: Any, u: Array, spec: ModeSpec, grad_y: Array, start: State, final: State | None
) -> tuple[Array, Array, Array | None, Array | None]:
    """Adjoint of the terms of Eq. 15: gradients of u, of what they are multiplied with, of sums and earlier inputs."""
    responses = np.stack([input_power_response(backend, system, p) for p in range(2, spec.order + 1)])
    of_sums = None if final is None else order_first(final.sums)
    options = {
        "order": spec.order,
        "kind": "elementary" if spec.correlations == "all" else "running",
        "sums": order_first(start.sums),
        "previous": start.inputs,
    }
    if spec.window is None and backend.capabilities.fuses("add_correlations_vjp", system.structure):
        return backend.add_correlations_vjp(u, responses, grad_y, of_sums, **options)  # type: ignore[no-any-return]
    terms, _ = backend.correlate(u, window=spec.window, **options)
    grad_responses = np.stack([(term * grad_y).sum(axis=(0, 2)) for term in terms])
    grad_terms = responses[:, None, :, None] * grad_y
    grad_u, *others = backend.correlate_vjp(u, grad_terms, of_sums, window=spec.window, **options)
    return grad_u, grad_responses, *others


def _padded(grad_y: Array, held: int) -> Array:
    """grad_y behind `held` zeros: outputs of the carried inputs are not part of y."""
    return np.concatenate([np.zeros((*grad_y.shape[:-1], held), grad_y.dtype), grad_y], axis=-1)


class _Total:
    """Sum of parameter gradients; those with respect to B̄^{∘p} are brought back to B̄."""

    def __init__(self, system: Any) -> None:
        self.system = system
        self.parameters = {name: np.zeros_like(a) for name, a in system.parameters.items()}

    def add(self, grads: dict[str, Array], power: int = 1) -> None:
        for name, grad in grads.items():
            if name == "B_bar" and power > 1:
                grad = grad * np.conj(power * self.system.with_input_power(power - 1).B_bar)
            self.parameters[name] = self.parameters[name] + grad
