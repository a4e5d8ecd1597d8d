"""`liquid_ssm.step` of one system again and again: what is the same at every step is looked at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .apply import SELECTING, step
from .backend import Backend
from .backend import PreparedStep as BackendStep
from .compute import Array, problem_of, ready_backend
from .finite import finite
from .modes import State, run_from
from .problem import ModeSpec
from .registry import AUTO, CERTIFIED_ONLY


class _Ready(NamedTuple):
    """What the steps of one shape have in common."""

    wanted: str | Backend
    backend: Any
    advance: BackendStep | None  # of the backend, None for its primitives
    structured: bool  # states are a `State`
    form: tuple[Any, ...]
    selection: Any  # a Reselection, None for a backend that is named

    def takes(self, state: Any) -> bool:
        """Whether a state has the form that states have here."""
        if isinstance(state, State) is not self.structured:
            return False
        for part, wanted in zip(_parts(state), self.form, strict=True):
            if part is None or wanted is None:
                if part is not wanted:
                    return False
            elif part.shape != wanted[0] or part.dtype != wanted[1]:
                return False
        return True


class PreparedStep:
    """Steps of a system of NumPy arrays; results and errors are those of `liquid_ssm.step`, bit for bit.

    A selected backend is asked for at every step, so certificates that are withdrawn, or do not hold larger inputs, are
    noticed here as there.

    Args:
        system: its parameters must not change.
        spec: of the mode.
        backend, tolerance, recheck: as in `liquid_ssm.apply`.
    """

    def __init__(
        self,
        system: Any,
        spec: ModeSpec,
        *,
        backend: str | Backend | None = AUTO,
        tolerance: float | None = None,
        recheck: float = 0.0,
    ) -> None:
        self.system, self.spec = system, spec
        self.backend, self.tolerance, self.recheck = backend, tolerance, recheck
        self._ready: dict[tuple[Any, ...], _Ready] = {}

    def __call__(self, u_k: Array, state: Any = None) -> tuple[Array, Any]:
        """u_k (batch, H) and the state before it give y_k (batch, H) and the state after it."""
        ready = self._ready.get((u_k.shape, u_k.dtype))
        if ready is not None and not self.recheck and ready.takes(state):
            u = u_k[..., None]
            if ready.selection is None or ready.selection(u) == ready.wanted:
                y, final, is_finite = self._step(ready, u, state)
                # What is not finite is named by the long way, which comes to it again.
                if is_finite:
                    return y[..., 0], final
        y, final = step(
            self.system,
            u_k,
            state,
            mode=self.spec.mode,
            order=self.spec.order,
            correlations=self.spec.correlations,
            window=self.spec.window,
            backend=self.backend,
            tolerance=self.tolerance,
            recheck=self.recheck,
        )
        self._prepare(u_k, final)
        return y, final

    def _step(self, ready: _Ready, u: Array, state: Any) -> tuple[Array, Any, bool]:
        """y, the state after it, and whether all is finite."""
        if ready.advance is not None:
            y, x, sums, inputs, is_finite = ready.advance(u, *_parts(state))
            return y, State(x, sums, inputs) if ready.structured else x, is_finite
        with np.errstate(over="ignore", invalid="ignore"):
            y, final = run_from(ready.backend, self.system, u, self.spec, state)
            return y, final, finite(y) and all(part is None or finite(part) for part in _parts(final))

    def _prepare(self, u_k: Array, final: Any) -> None:
        """Keep what steps of this shape have in common."""
        u = np.asarray(u_k)[..., None]
        wanted, selection = self.backend, None
        if wanted in SELECTING:
            from .selection.auto import Reselection, selected

            given, strict = (self.system, u, self.spec), wanted == CERTIFIED_ONLY
            wanted, certificate = selected(*given, state=True, tolerance=self.tolerance, strict=strict)
            if certificate is not None:  # else there is nothing to compute
                selection = Reselection(*given, tolerance=self.tolerance, strict=strict)
        other_dtype = isinstance(wanted, str) and ":" in wanted
        if wanted is None or other_dtype or self.system.structure == "integrator" or self.system.dtype != u.dtype:
            return
        backend = ready_backend(problem_of(self.system, u, self.spec, state=True), wanted)
        advance = backend.prepared_step(self.system, self.spec, u.shape, u.dtype)
        self._ready[u_k.shape, u.dtype] = _Ready(
            wanted, backend, advance, isinstance(final, State), _form(final), selection
        )


def _parts(state: Any) -> tuple[Any, Any, Any]:
    """Those of a `State`, of which an array is the first."""
    return state if isinstance(state, State) else (state, None, None)


def _form(state: Any) -> tuple[Any, ...]:
    """Shapes and dtypes of a state's parts."""
    return tuple(None if part is None else (part.shape, part.dtype) for part in _parts(state))
