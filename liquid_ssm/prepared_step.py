"""`liquid_ssm.step` of one system again and again: what is the same at every step is looked at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .apply import SELECTING, step
from .backend import Backend
from .compute import Array, is_finite, problem_of, ready_backend
from .modes import State, run_from
from .problem import ModeSpec
from .registry import AUTO, CERTIFIED_ONLY


class _Ready(NamedTuple):
    """What the steps of one shape have in common."""

    wanted: str | Backend
    backend: Any
    form: tuple[Any, ...]
    selection: Any  # a Reselection, None for a backend that is named


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
        if ready is not None and not self.recheck and _form(state) == ready.form:
            u = u_k[..., None]
            if ready.selection is None or ready.selection(u) == ready.wanted:
                with np.errstate(over="ignore", invalid="ignore"):
                    y, final = run_from(ready.backend, self.system, u, self.spec, state)
                # What is not finite is named by the long way, which comes to it again.
                if is_finite(y, final):
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
        self._ready[u_k.shape, u.dtype] = _Ready(wanted, backend, _form(final), selection)


def _form(state: Any) -> tuple[Any, ...]:
    """Shapes and dtypes of a state's parts."""
    if isinstance(state, State):
        return tuple(None if part is None else (part.shape, part.dtype) for part in state)
    return (None if state is None else (state.shape, state.dtype),)
