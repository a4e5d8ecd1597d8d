"""`apply`, `step` and `vjp`: one computation by the backend that is named, or by the one that selection proves."""

from __future__ import annotations

from typing import Any

from .arrays import is_tensor
from .backend import Backend, Gradients
from .compute import Array, compute, compute_vjp
from .errors import ParameterError, ShapeError
from .problem import DEFAULT_ORDER, ModeSpec
from .registry import AUTO, CERTIFIED_ONLY

SELECTING = (None, AUTO, CERTIFIED_ONLY)


def apply(
    system: Any,
    u: Array,
    *,
    mode: str,
    order: int = DEFAULT_ORDER,
    correlations: str = "all",
    window: int | None = None,
    backend: str | Backend | None = AUTO,
    tolerance: float | None = None,
    recheck: float = 0.0,
    state: Any = None,
    return_state: bool = False,
) -> Any:
    """Outputs of a system for a whole sequence.  NumPy arrays give NumPy arrays, torch tensors give tensors.

    Args:
        system: a discrete system (or an integrator, mode `liquid`); its parameters are rounded to u's dtype.  For a
            tensor u they may be tensors on the same device, to which gradients flow.
        u: inputs (batch, H, L), float32 or float64; batch and L may be 0.  Tensors may be bfloat16 or float16: they are
            computed in float32, and y is rounded to their dtype.
        mode: `s4` (Eq. 2), `liquid` (Eq. 11), `truncated` (Eq. 12), `kb` (Eq. 14), `pb` (Eq. 15).
        order: highest liquid order P >= 1 of `truncated`, `kb` and `pb`.
        correlations: `all` index tuples or `adjacent` ones; `kb` and `pb`.
        window: restrict correlations to the newest `window` inputs, >= order; `kb` and `pb`.
        backend: `auto` (or None): the fastest backend that has passed verification on this machine for a domain that
            holds this call; if no certificate holds it, one is made first, which takes up to some seconds.
            `certified-only`: the same, but an error where no certificate holds the call.  `first`: the first that
            accepts the problem, in the fixed order of `liquid_ssm.registry.backend_names()`, unchecked.  A name, or
            name:dtype (`numba:float32`) to compute in another dtype than u's.  A `Backend` of your own.
        tolerance: largest error of y relative to the largest |y| of its row, with `auto` and `certified-only`; None
            asks for the derived bound of rounding errors alone.  See docs/selection.md.
        recheck: the share of calls, at random, in which one row is compared with the reference after it is computed;
            with `auto` and `certified-only`.
        state: x_{-1} (batch, H, M), or the state that an earlier call returned; None is rest.
        return_state: also return the final state.

    Returns:
        y (batch, H, L) in u's dtype, or (y, state).

    Raises:
        ShapeError, DTypeError, ParameterError: bad arrays or options.
        BackendRejected, BackendUnavailable: the named backend cannot, or none can.
        NotCertified: `certified-only`, and no certificate holds the call.
        UnstableRecurrence: the state left the range of the dtype (not looked for while torch compiles or transforms).

    Accuracy: a selected backend is within the bound of docs/bounds.md, as its certificate says; `verify` compares any
        backend.
    """
    spec = ModeSpec(mode, order, correlations, window)
    if backend not in SELECTING:
        require_no_selection(backend, tolerance, recheck)
        return compute(system, u, spec, backend=backend, state=state, return_state=return_state)
    from .selection.auto import selected  # what it needs costs more than the rest of the package's import

    given = return_state or state is not None
    if not 0 <= recheck <= 1:
        raise ParameterError(f"recheck is {recheck}; it is a share of calls, from 0 to 1, such as 1e-4.")
    chosen, certificate = selected(system, u, spec, state=given, tolerance=tolerance, strict=backend == CERTIFIED_ONLY)
    result = compute(system, u, spec, backend=chosen, state=state, return_state=return_state)
    if recheck and certificate is not None:
        from .selection.recheck import watch

        watch(certificate, system, u, result[0] if return_state else result, state, recheck)
    return result


def step(
    system: Any,
    u_k: Array,
    state: Any = None,
    *,
    mode: str,
    order: int = DEFAULT_ORDER,
    correlations: str = "all",
    window: int | None = None,
    backend: str | Backend | None = AUTO,
    tolerance: float | None = None,
    recheck: float = 0.0,
) -> tuple[Array, Any]:
    """One time step: u_k (batch, H) and the state before it give y_k (batch, H) and the state after it.

    Running it L times equals `apply` on the whole sequence with the same backend's recurrence
    (Appendix E).  Options as in `apply`; state=None is rest.
    """
    if not is_tensor(u_k):
        import numpy as np

        u_k = np.asarray(u_k)
    if u_k.ndim != 2:
        raise ShapeError(f"u_k has shape {tuple(u_k.shape)}; step takes (batch, H). Use apply for a whole sequence.")
    y, final = apply(
        system,
        u_k[..., None],
        mode=mode,
        order=order,
        correlations=correlations,
        window=window,
        backend=backend,
        tolerance=tolerance,
        recheck=recheck,
        state=state,
        return_state=True,
    )
    return y[..., 0], final


def vjp(
    system: Any,
    u: Array,
    grad_y: Array,
    *,
    mode: str,
    order: int = DEFAULT_ORDER,
    correlations: str = "all",
    window: int | None = None,
    backend: str | Backend | None = AUTO,
    tolerance: float | None = None,
    state: Any = None,
    grad_state: Any = None,
) -> Gradients:
    """Vector-Jacobian product: gradients of Σ grad_y·y + Re Σ conj(grad_state)·final state.

    Args:
        grad_y: cotangent of y, (batch, H, L).
        grad_state: cotangent of the final state, in its form, or None.
        tolerance: as in `apply`; of each gradient, relative to its largest entry.
        others: as in `apply`.

    Returns:
        Gradients: `.parameters` by field name of the system, `.u`, `.state`; a complex gradient is
        dL/dRe + i·dL/dIm.
    """
    spec = ModeSpec(mode, order, correlations, window)
    if backend in SELECTING:
        from .selection.auto import selected

        given = state is not None or grad_state is not None
        strict = backend == CERTIFIED_ONLY
        backend, _ = selected(system, u, spec, gradient=True, state=given, tolerance=tolerance, strict=strict)
    else:
        require_no_selection(backend, tolerance, 0.0)
    return compute_vjp(system, u, spec, grad_y, backend=backend, state=state, grad_state=grad_state)


def require_no_selection(backend: Any, tolerance: float | None, recheck: float) -> None:
    """Raise a `ParameterError` if an option of selection is given with a backend that is named."""
    for name, value in (("tolerance", tolerance), ("recheck", recheck or None)):
        if value is not None:
            raise ParameterError(
                f"{name}={value} goes with a backend that is selected; leave backend={backend!r} out, or {name}."
            )
