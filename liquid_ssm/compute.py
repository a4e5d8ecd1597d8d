"""One computation by a backend that is named: arrays in, checked, through it, checked, arrays out.

`apply` adds the choice of the backend; what checks backends calls this.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from .arrays import dtype_name, is_tensor, namespace
from .backend import Backend, Gradients
from .errors import BackendRejected, DTypeError, ParameterError, ShapeError
from .finite import all_finite
from .instability import raise_not_finite, require_finite_input
from .modes import require_mode, run
from .problem import DTYPES, ModeSpec, Problem
from .registry import FIRST, default_backend, get_backend, rejection

Array = Any  # numpy.ndarray, or torch.Tensor where the docstring says so

# Systems of NumPy arrays, which never change, in other dtypes.
_CAST: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()

_ALLOWED = tuple(map(np.dtype, DTYPES))


def compute(
    system: Any,
    u: Array,
    spec: ModeSpec,
    *,
    backend: str | Backend = FIRST,
    state: Any = None,
    return_state: bool = False,
) -> Any:
    """`liquid_ssm.apply` by one backend, or by the first of the fixed order that accepts the problem; see there."""
    if isinstance(backend, str) and ":" in backend:
        name, system, inputs = _in_dtype(backend, system, u)
        result = compute(system, inputs, spec, backend=name, state=state, return_state=return_state)
        y, final = result if return_state else (result, None)
        y = _as_given(y, u, backend)
        return (y, final) if return_state else y
    if is_tensor(u):
        from .tensors import compute_tensors

        return compute_tensors(system, u, spec, backend=backend, state=state, return_state=return_state)
    # What is not finite in u makes an output that is not; so u is looked at only then, or where no output would tell.
    u = check_input(system, u, finite=system.n_modes == 0)
    system = system.astype(u.dtype)
    problem = problem_of(system, u, spec, state=return_state or state is not None)
    if system.structure == "integrator":
        if backend not in (FIRST, "numpy"):
            raise BackendRejected(
                f"{system.name} is computed by its own NumPy code; leave backend out or give 'numpy'."
            )
        y, final = system.scan(u, state)
        return (y, final) if return_state else y
    chosen = ready_backend(problem, backend)
    with np.errstate(over="ignore", invalid="ignore"):  # overflow is found and named below
        y, final = run(chosen, system, u, spec, state, carry=return_state)
    _check_finite(chosen, system, u, spec, problem, y, final, state)
    return (y, final) if return_state else y


def compute_vjp(
    system: Any,
    u: Array,
    spec: ModeSpec,
    grad_y: Array,
    *,
    backend: str | Backend = FIRST,
    state: Any = None,
    grad_state: Any = None,
) -> Gradients:
    """`liquid_ssm.vjp` by one backend, or by the first of the fixed order that accepts the problem; see there."""
    from .gradients import run_vjp

    if isinstance(backend, str) and ":" in backend:
        name, narrow, inputs = _in_dtype(backend, system, u)
        seed = _converted(grad_y, dtype_name(inputs.dtype))
        found = compute_vjp(narrow, inputs, spec, seed, backend=name, state=state, grad_state=grad_state)
        return found._replace(u=_as_given(found.u, u, backend))
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
    chosen = ready_backend(problem_of(system, u, spec, gradient=True, state=given), backend)
    return run_vjp(chosen, system, u, spec, grad_y.astype(u.dtype, copy=False), state, grad_state)


def _in_dtype(backend: str, system: Any, u: Array) -> tuple[str, Any, Array]:
    """The backend's name, the system and u in the dtype that `name:dtype` asks for."""
    name, _, dtype = backend.partition(":")
    if dtype not in DTYPES:
        raise ParameterError(
            f"backend {backend!r} asks for dtype {dtype!r}; allowed: {', '.join(DTYPES)}, as in {name + ':float32'!r}."
        )
    if system.structure == "integrator":
        raise BackendRejected(f"{system.name} computes in u's own dtype; leave backend out or give 'numpy'.")
    u = u if is_tensor(u) else check_input(system, u)
    narrow = _converted(u, dtype)
    if not is_tensor(narrow) and not all_finite(narrow):
        raise ParameterError(
            f"u holds values up to {np.abs(u).max():.3g}, beyond the range of {dtype}; scale u down or leave "
            f"{':' + dtype!r} out."
        )
    return name, _system_in(system, narrow.dtype), narrow


def _system_in(system: Any, dtype: Any) -> Any:
    """The system in another dtype, the same object at every call: backends keep what they derive from one."""
    if system.is_torch:
        return system.astype(dtype)  # its parameters may change in place
    known = _CAST.setdefault(system, {})
    if dtype not in known:
        known[dtype] = system.astype(dtype)
    return known[dtype]


def _as_given(y: Array, u: Array, backend: str) -> Array:
    """y in the dtype of u."""
    u = u if is_tensor(u) else np.asarray(u)
    out = _converted(y, dtype_name(u.dtype))
    if not is_tensor(out) and not all_finite(out):
        raise ParameterError(
            f"{backend} computes values up to {np.abs(y).max():.3g}, beyond the range of {u.dtype}, which u has; give "
            "u in float64."
        )
    return out


def _converted(array: Array, dtype: str) -> Array:
    if is_tensor(array):
        return array.to(getattr(namespace(array), dtype))
    with np.errstate(over="ignore"):  # found and named by who asks for it
        return np.asarray(array).astype(dtype, copy=False)


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


def ready_backend(problem: Problem, wanted: str | Backend) -> Any:
    """The backend that is wanted, if it takes the problem.

    Raises:
        BackendRejected, BackendUnavailable: it does not, or none does.
    """
    if wanted == FIRST:
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
    if not is_finite(y, final):
        raise_not_finite(chosen, system, u, spec, problem, y, final, state)


def is_finite(y: Array, final: Any) -> bool:
    """Whether y and every part of the final state, if there is one, are finite."""
    parts = final if isinstance(final, tuple) else (final,)
    return all_finite(y, *(part for part in parts if part is not None))
