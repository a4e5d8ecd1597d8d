"""The readable backend: plain loops over time, NumPy over everything else.

Every primitive and every structure, float32 and float64, with states and vector-Jacobian products.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
import numpy.typing as npt

from liquid_ssm.backend import (
    Arithmetic,
    Backend,
    Capabilities,
    CascadeKind,
    CorrelationKind,
    Gradients,
    Rejection,
)
from liquid_ssm.errors import BackendRejected, ParameterError, unknown_name
from liquid_ssm.systems import System

from . import _correlations as correlations
from ._arguments import at_least, optional, shaped, signal
from ._cascade import Chain, Truncated
from ._convolution import causal_convolution, causal_convolution_vjp
from ._recurrence import Recurrence, like, run, run_vjp
from ._scan import Scan
from ._windowed import run_windowed, run_windowed_vjp

Array = npt.NDArray[Any]

_SINGLE_INPUT = ("diagonal", "dplr", "dense")
_ALL = (*_SINGLE_INPUT, "mimo")


@final
class NumPyBackend(Backend):
    """Recurrences as written, one time step after the other.

    A system is cast to u's precision first.  A state is complex exactly if a parameter of the system
    is.  Inputs are never written to and results never share memory with them.

    Accuracy:
        Every sum over modes, channels or lags is a balanced tree of depth ceil(log2 n); sums over
        time in `scan`, `cascade` and `correlate` run in time order.  docs/bounds.md counts the operations.
    """

    name = "numpy"
    requires = ("numpy",)
    install = "pip install numpy"
    capabilities = Capabilities(
        primitives={
            "kernel": _SINGLE_INPUT,
            "convolve": (),
            "scan": _ALL,
            "cascade": _ALL,
            "correlate": (),
        },
        gradients=True,
    )
    linear_method = "recurrence"
    arithmetic = Arithmetic(summation="pairwise")

    def kernel(self, system: System, length: int, power: int = 1) -> Array:
        """K_i = weight · Re(C Āⁱ B̄^{∘power}), (H, length): the recurrence's answer to an impulse."""
        self._require(system, "kernel", _SINGLE_INPUT)
        at_least("power", power, 1)
        recurrence = Scan(system.with_input_power(power), liquid=False)
        impulse = _impulse(system, length)
        y, _ = run(recurrence, impulse, _at_rest(recurrence, impulse))
        return np.ascontiguousarray(y[0])

    def kernel_vjp(self, system: System, length: int, power: int, grad: Array | None) -> dict[str, Array]:
        """Gradients of the system's parameters from the cotangent (H, length) of the kernel."""
        self._require(system, "kernel", _SINGLE_INPUT)
        at_least("power", power, 1)
        recurrence = Scan(system.with_input_power(power), liquid=False)
        impulse = _impulse(system, length)
        grad = optional("grad", grad, (system.n_channels, length), system.dtype)
        grad_y = None if grad is None else grad[np.newaxis]
        gradients, _, _ = run_vjp(recurrence, impulse, _at_rest(recurrence, impulse), grad_y, None)
        if power > 1:
            slope = power * system.with_input_power(power - 1).B_bar
            gradients["B_bar"] = like(system.B_bar, np.conj(slope) * gradients["B_bar"])
        return gradients

    def convolve(self, kernel: Array, u: Array) -> Array:
        """y_k = Σ_{j ≤ k} K_j u_{k-j} as the direct sum: O(L²) operations per row."""
        signal(u)
        return causal_convolution(_kernel(kernel, u), u)

    def convolve_vjp(self, kernel: Array, u: Array, grad: Array | None) -> tuple[Array, Array]:
        """Gradients of kernel and u from the cotangent of y."""
        signal(u)
        grad = optional("grad", grad, u.shape, u.dtype)
        if grad is None:
            return np.zeros(kernel.shape, u.dtype), np.zeros(u.shape, u.dtype)
        return causal_convolution_vjp(_kernel(kernel, u), u, grad)

    def scan(self, system: System, u: Array, state: Array | None = None, *, liquid: bool) -> tuple[Array, Array]:
        """Eq. 11, or Eq. 2 without `liquid`: y and the final state.

        Memory: the states of at most 64 time steps.
        """
        recurrence, initial = self._scan(system, u, state, liquid)
        return run(recurrence, u, initial)

    def scan_vjp(
        self,
        system: System,
        u: Array,
        state: Array | None,
        grad_y: Array | None,
        grad_state: Array | None,
        *,
        liquid: bool,
    ) -> Gradients:
        """Adjoint of `scan`.

        Memory: one state per chunk of at most 64 steps, and the states of one chunk.
        """
        recurrence, initial = self._scan(system, u, state, liquid)
        return _vjp(recurrence, u, state, initial, grad_y, grad_state)

    def cascade(
        self,
        system: System,
        u: Array,
        state: Array | None = None,
        *,
        order: int,
        kind: CascadeKind,
        window: int | None = None,
    ) -> tuple[Array, Array | None]:
        """Orders 1 … `order` of Eq. 12, or the index sum of Eq. 14: y and the final states.

        With `window`, O(window) work per step and no states: the second result is None.
        """
        recurrence = self._cascade(system, u, order, kind, window, state)
        if window is not None:
            return run_windowed(recurrence, u, window), None
        initial = _initial(recurrence, u, state)
        y, final_state = run(recurrence, u, initial)
        return y, _batch_first(final_state)

    def cascade_vjp(
        self,
        system: System,
        u: Array,
        state: Array | None,
        grad_y: Array | None,
        grad_state: Array | None,
        *,
        order: int,
        kind: CascadeKind,
        window: int | None = None,
    ) -> Gradients:
        """Adjoint of `cascade`; with `window` the gradient of the state is None.

        Memory: as `scan_vjp`.
        """
        recurrence = self._cascade(system, u, order, kind, window, state)
        if window is None:
            initial = _initial(recurrence, u, state)
            return _vjp(recurrence, u, state, initial, grad_y, grad_state)
        if grad_state is not None:
            raise ParameterError("grad_state was given, but a cascade with a window has no states; pass None.")
        grad_y = optional("grad_y", grad_y, u.shape, u.dtype)
        return Gradients(*run_windowed_vjp(recurrence, u, window, grad_y), None)

    def correlate(
        self,
        u: Array,
        *,
        order: int,
        kind: CorrelationKind,
        window: int | None = None,
        sums: Array | None = None,
        previous: Array | None = None,
    ) -> tuple[Array, Array | None]:
        """Products of adjacent inputs, their sums, or elementary symmetric polynomials, by order."""
        return correlations.correlate(u, order=order, kind=kind, window=window, sums=sums, previous=previous)

    def correlate_vjp(
        self,
        u: Array,
        grad_terms: Array | None,
        grad_sums: Array | None,
        *,
        order: int,
        kind: CorrelationKind,
        window: int | None = None,
        sums: Array | None = None,
        previous: Array | None = None,
    ) -> tuple[Array, Array | None, Array | None]:
        """Gradients of u, `sums` and `previous`; None where the argument was not given."""
        return correlations.correlate_vjp(
            u, grad_terms, grad_sums, order=order, kind=kind, window=window, sums=sums, previous=previous
        )

    def _require(self, system: System, what: str, structures: tuple[str, ...]) -> None:
        if system.structure not in structures:
            reason = Rejection(self.name, "structure", f"{' or '.join(structures)} for {what}", system.structure)
            raise BackendRejected(f"{self.name} does not compute {what} for this system:", [reason])

    def _scan(self, system: System, u: Array, state: Array | None, liquid: bool) -> tuple[Scan, Array]:
        self._require(system, "scan", _ALL)
        recurrence = Scan(system.astype(signal(u, system.n_channels).dtype), liquid=liquid)
        return recurrence, _initial(recurrence, u, state)

    def _cascade(
        self, system: System, u: Array, order: int, kind: str, window: int | None, state: Array | None
    ) -> Truncated | Chain:
        at_least("order", order, 1)
        system = system.astype(signal(u, system.n_channels).dtype)
        if kind == "chain":
            self._require(system, "a cascade of kind chain", _SINGLE_INPUT)
            if window is not None:
                at_least("window", window, order)
                if state is not None:
                    raise ParameterError("a state was given with a window; a windowed chain starts at rest. Pass None.")
            return Chain(system, order=order)
        if kind != "truncated":
            raise unknown_name("cascade kind", kind, ("truncated", "chain"))
        self._require(system, "a cascade of kind truncated", _ALL)
        if window is not None:
            raise ParameterError(f"window is {window}; a cascade of kind 'truncated' has none. Leave it out.")
        return Truncated(system, order=order)


def _impulse(system: System, length: int) -> Array:
    impulse = np.zeros((1, system.n_channels, at_least("length", length, 0)), system.dtype)
    impulse[..., :1] = 1
    return impulse


def _kernel(kernel: Array, u: Array) -> Array:
    n = kernel.shape[-1] if kernel.ndim else 0
    return shaped("kernel", kernel, (u.shape[1], n), u.dtype)


def _batch_first(state: Array) -> Array:
    """States (order, batch, …) as (batch, order, …), or the other way round."""
    return np.ascontiguousarray(np.moveaxis(state, 0, 1))


def _at_rest(recurrence: Recurrence, u: Array) -> Array:
    return np.zeros(recurrence.state_shape(u.shape[:-1]), recurrence.dtype)


def _public_shape(recurrence: Recurrence, u: Array) -> tuple[int, ...]:
    shape = recurrence.state_shape(u.shape[:-1])
    return shape if isinstance(recurrence, Scan) else (shape[1], shape[0], *shape[2:])


def _initial(recurrence: Recurrence, u: Array, state: Array | None, name: str = "state") -> Array:
    """A state as the recurrence keeps it, from the caller's; at rest for None."""
    if state is None:
        return _at_rest(recurrence, u)
    state = shaped(name, state, _public_shape(recurrence, u), recurrence.dtype)
    return state if isinstance(recurrence, Scan) else _batch_first(state)


def _vjp(
    recurrence: Recurrence,
    u: Array,
    state: Array | None,
    initial: Array,
    grad_y: Array | None,
    grad_state: Array | None,
) -> Gradients:
    grad_y = optional("grad_y", grad_y, u.shape, u.dtype)
    final_cotangent = _initial(recurrence, u, grad_state, "grad_state")
    parameters, grad_u, grad_initial = run_vjp(recurrence, u, initial, grad_y, final_cotangent)
    if not isinstance(recurrence, Scan):
        grad_initial = _batch_first(grad_initial)
    return Gradients(parameters, grad_u, grad_initial if state is None else like(state, grad_initial))
