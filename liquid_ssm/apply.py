"""`apply`, `step` and `vjp`: arrays in, checked, through one backend, checked, arrays out."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import is_tensor
from .backend import Backend, Gradients
from .errors import BackendRejected, DTypeError, ParameterError, ShapeError
from .finite import all_finite
from .instability import raise_not_finite, require_finite_input
from .modes import require_mode, run
from .problem import DEFAULT_ORDER, DTYPES, ModeSpec, Problem
from .registry import default_backend, get_backend, rejection

Array = Any  # numpy.ndarray, or torch.Tensor where the docstring says so

_ALLOWED = tuple(map(np.dtype, DTYPES))


def apply(
    system: Any,
    u: Array,
    *,
    mode: str,
    order: int = DEFAULT_ORDER,
    correlations: str = "all",
    window: int | None = None,
    backend: str | Backend | None = None,
    tolerance: float | None = None,
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
        backend: a name, or a `Backend` of your own; None takes the first that accepts the problem, in the fixed
            order of `liquid_ssm.registry.backend_names()`, and says so on the logger `liquid_ssm` (level INFO).
        tolerance: largest error of a state, relative to the largest modulus it takes, that rounding may cause; with
            backend=None only.  Where float32 data with a float32 state cannot promise it, the state is kept in float64
            (backend `numba-wide-state`); see `liquid_ssm.tolerance`.
        state: x_{-1} (batch, H, M), or the state that an earlier call returned; None is rest.
        return_state: also return the final state.

    Returns:
        y (batch, H, L) in u's dtype, or (y, state).

    Raises:
        ShapeError, DTypeError, ParameterError: bad arrays or options.
        BackendRejected, BackendUnavailable: the named backend cannot, or none can.
        UnstableRecurrence: the state left the range of the dtype (not looked for while torch compiles or transforms).

    Accuracy: `verify` compares any backend with the exact reference and the bound of docs/bounds.md.
    """
    spec = ModeSpec(mode, order, correlations, window)
    if is_tensor(u):
        from .tensors import apply_tensors

        return apply_tensors(
            system, u, spec, backend=backend, tolerance=tolerance, state=state, return_state=return_state
        )
    # What is not finite in u makes an output that is not; so u is looked at only then, or where no output would tell.
    u = check_input(system, u, finite=tolerance is not None or system.n_modes == 0)
    system = system.astype(u.dtype)
    problem = problem_of(system, u, spec, state=return_state or state is not None)
    if tolerance is not None:
        if backend is not None or system.structure == "integrator":
            raise ParameterError("a tolerance chooses the backend; give tolerance or backend, and a discrete system.")
        from .tolerance import backend_for

        backend = backend_for(system, problem, float(np.abs(u).max(initial=0.0)), tolerance)
    if system.structure == "integrator":
        if backend not in (None, "numpy"):
            raise BackendRejected(
                f"{system.name} is computed by its own NumPy code; leave backend out or give 'numpy'."
            )
        y, final = system.scan(u, state)
        return (y, final) if return_state else y
    chosen = _backend(problem, backend)
    with np.errstate(over="ignore", invalid="ignore"):  # overflow is found and named below
        y, final = run(chosen, system, u, spec, state, carry=return_state)
    _check_finite(chosen, system, u, spec, problem, y, final, state)
    return (y, final) if return_state else y


def step(
    system: Any,
    u_k: Array,
    state: Any = None,
    *,
    mode: str,
    order: int = DEFAULT_ORDER,
    correlations: str = "all",
    window: int | None = None,
    backend: str | Backend | None = None,
) -> tuple[Array, Any]:
    """One time step: u_k (batch, H) and the state before it give y_k (batch, H) and the state after it.

    Running it L times equals `apply` on the whole sequence with the same backend's recurrence
    (Appendix E).  Options as in `apply`; state=None is rest.
    """
    if not is_tensor(u_k):
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
    backend: str | Backend | None = None,
    state: Any = None,
    grad_state: Any = None,
) -> Gradients:
    """Vector-Jacobian product: gradients of Σ grad_y·y + Re Σ conj(grad_state)·final state.

    Args:
        grad_y: cotangent of y, (batch, H, L).
        grad_state: cotangent of the final state, in its form, or None.
        others: as in `apply`.

    Returns:
        Gradients: `.parameters` by field name of the system, `.u`, `.state`; a complex gradient is
        dL/dRe + i·dL/dIm.
    """
    from .gradients import run_vjp

    spec = ModeSpec(mode, order, correlations, window)
    if is_tensor(u):
        from .tensors import vjp_tensors

        return vjp_tensors(system, u, spec, grad_y, backend=backend, state=state, grad_state=grad_state)
    u = check_input(system, u)
    system = system.astype(u.dtype)
    if system.structure == "integrator":
        raise ParameterError(f"{system.name} has no gradients; discretise with euler, bilinear or zoh.")
    grad_y = np.asarray(grad_y)
    if grad_y.shape != u.shape:
        raise ShapeError(f"grad_y has shape {grad_y.shape}; y has shape {u.shape}.")
    given = state is not None or grad_state is not None
    problem = problem_of(system, u, spec, gradient=True, state=given)
    chosen = _backend(problem, backend)
    return run_vjp(chosen, system, u, spec, grad_y.astype(u.dtype, copy=False), state, grad_state)


def check_input(system: Any, u: Any, *, finite: bool = True) -> Array:
    """u as an array, if it is (batch, H, L), float32 or float64, and `finite` unless that is found out later.

    Raises:
        ShapeError, DTypeError, ParameterError: it is not; the message says where.
    """
    if is_tensor(u):
        raise DTypeError("u is a torch tensor; this takes NumPy arrays. Pass u.detach().cpu().numpy().")
    if getattr(system, "is_torch", False):
        raise ParameterError(
            "the system's parameters are torch tensors and u is not; pass torch.as_tensor(u), or system.to_numpy()."
        )
    array = np.asarray(u)
    if array.dtype not in _ALLOWED:
        raise DTypeError(f"u has dtype {array.dtype}; allowed: {', '.join(DTYPES)}. Convert it with .astype(...).")
    if array.ndim != 3:
        raise ShapeError(f"u has shape {array.shape}; it needs three dimensions (batch, H, L). Add them with u[None].")
    if array.shape[1] != system.n_channels:
        raise ShapeError(
            f"u has {array.shape[1]} channels (shape {array.shape}, read as (batch, H, L)); "
            f"the system has {system.n_channels}."
        )
    if finite:
        require_finite_input(array)
    return array


def problem_of(system: Any, u: Array, spec: ModeSpec, *, gradient: bool = False, state: bool = False) -> Problem:
    """The `Problem` that these arrays pose."""
    require_mode(system, spec)
    batch, channels, length = u.shape
    return Problem(
        spec, system.structure, batch, channels, system.n_modes, length, u.dtype.name, gradient=gradient, state=state
    )


def _backend(problem: Problem, wanted: str | Backend | None) -> Any:
    if wanted is None:
        import logging  # a tenth of the package's import time

        choice = default_backend(problem)
        logging.getLogger("liquid_ssm").info("%s: %s", problem.spec.label, choice.explain())
        return get_backend(choice.backend)
    backend = get_backend(wanted)
    reason = rejection(backend, problem)
    if reason is not None:
        raise BackendRejected(
            f"backend {backend.name!r} does not compute {problem.spec.label} for this problem:", [reason]
        )
    return backend


def _check_finite(
    chosen: Any, system: Any, u: Array, spec: ModeSpec, problem: Problem, y: Array, final: Any, state: Any
) -> None:
    arrays = [y, *([] if final is None else [a for a in _leaves(final)])]
    if not all(all_finite(a) for a in arrays):
        raise_not_finite(chosen, system, u, spec, problem, y, final, state)


def _leaves(state: Any) -> list[Array]:
    return [a for a in (state if isinstance(state, tuple) else (state,)) if a is not None]
