"""`compute` and `compute_vjp` for tensors: device and dtype kept, gradients flow, traceable by `torch.compile`."""

from __future__ import annotations

import re
from typing import Any

import torch

from .arrays import dtype_name
from .backend import Backend, Gradients
from .errors import BackendRejected, BackendUnavailable, DTypeError, ParameterError, ShapeError
from .finite import all_finite
from .instability import raise_not_finite
from .modes import State, initial_state, joins_orders, require_mode, run
from .problem import DTYPES, ModeSpec, Problem
from .registry import FIRST, default_backend, get_backend, rejection

OLDEST = (2, 4)

# Their significands are too short for a recurrence: such inputs are computed in float32.
HALVES = (torch.bfloat16, torch.float16)

# Backends by name, as a compiler can look them up: what it finds here it knows by more than one value.
_READY: dict[str, Backend] = {}


def require_recent(version: str) -> None:
    """Raise a `BackendUnavailable` if this version of torch is too old for operators."""
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST:
        needed = ".".join(map(str, OLDEST))
        raise BackendUnavailable(
            f"tensors need torch >= {needed}; {version} is installed. Run: pip install --upgrade 'torch>={needed}'"
        )


require_recent(torch.__version__)


def compute_tensors(
    system: Any,
    u: torch.Tensor,
    spec: ModeSpec,
    *,
    backend: str | Backend,
    state: Any,
    return_state: bool,
) -> Any:
    """`liquid_ssm.compute.compute` for a tensor u.

    float32 and float64 are computed as they are, bfloat16 and float16 in float32, with y rounded to u's dtype and the
    state in float32.  `torch.autocast` changes nothing.  Under `torch.compile`, `torch.export` and `torch.func` the
    result is not checked for NaN and infinity, since that asks for numbers.
    """
    system, inputs = checked(system, u)
    gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in _leaves(system, inputs, state))
    problem = problem_of_tensors(system, inputs, spec, gradient=gradient, state=return_state or state is not None)
    chosen = _backend(problem, backend)
    with torch.autocast(u.device.type, enabled=False):
        y, final = run(chosen, system, inputs, spec, state, carry=return_state, gradient=gradient)
    traced = not has_numbers(y)
    if not traced:
        _require_finite(chosen, system, inputs, spec, problem, y, final, state)
    if u.dtype in HALVES:
        y = narrowed(y, u.dtype)
    return (y, final) if return_state else y


def narrowed(y: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Finite y in a narrower dtype.

    Raises:
        ParameterError: it is outside the range of the dtype.
    """
    y = y.to(dtype)
    if has_numbers(y) and not bool(torch.isfinite(y).all()):
        raise ParameterError(
            f"y leaves the range of {dtype}, whose largest number is {torch.finfo(dtype).max:.3g}; give u as float32 "
            "(u.float()) or bfloat16."
        )
    return y


def vjp_tensors(
    system: Any,
    u: torch.Tensor,
    spec: ModeSpec,
    grad_y: torch.Tensor,
    *,
    backend: str | Backend,
    state: Any,
    grad_state: Any,
) -> Gradients:
    """`liquid_ssm.vjp` for tensors, by automatic differentiation of `compute_tensors`."""
    system, inputs = checked(system, u)
    if tuple(grad_y.shape) != tuple(u.shape):
        raise ShapeError(f"grad_y has shape {tuple(grad_y.shape)}; y has shape {tuple(u.shape)}.")
    with torch.enable_grad():
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in system.parameters.items()}
        fresh = type(system)(**leaves, conjugate_pairs=system.conjugate_pairs)
        row = inputs.detach().requires_grad_()
        given = state is not None or grad_state is not None
        chosen = _backend(problem_of_tensors(fresh, row, spec, gradient=True, state=given), backend)
        recurrent = given or system.structure in chosen.capabilities.primitives.get("scan", ())
        start = None
        if recurrent:
            start = each_part(initial_state(system, spec, inputs, state), lambda part: part.detach().requires_grad_())
        result = compute_tensors(fresh, row, spec, backend=chosen, state=start, return_state=recurrent)
        y, final = result if recurrent else (result, None)
        # What `apply` computes without a state; in the result above every order has its own.
        joint = None
        if not given and joins_orders(chosen, system.structure, spec):
            joint = compute_tensors(fresh, row, spec, backend=chosen, state=None, return_state=False)
    seed = grad_y.to(y.dtype)
    pairs = [(y, seed)]
    if grad_state is not None:
        pairs += zip(_parts(final), _parts(initial_state(system, spec, inputs, grad_state)), strict=True)
    own, states = [*leaves.values(), row], _parts(start)
    if joint is None:
        found = _pulled_back(pairs, [*own, *states])
    else:
        found = [*_pulled_back([(joint, seed)], own), *_pulled_back(pairs, states)]
    parts = iter(found[len(own) :])
    return Gradients(
        dict(zip(leaves, found, strict=False)), found[len(leaves)].to(u.dtype), each_part(start, lambda _: next(parts))
    )


def _pulled_back(pairs: list[tuple[torch.Tensor, torch.Tensor]], wanted: list[torch.Tensor]) -> list[torch.Tensor]:
    """Gradients of what is wanted from results and their cotangents."""
    # With nothing in it (no steps, no rows) a result depends on nothing.
    reached = [(result, cotangent) for result, cotangent in pairs if result.requires_grad]
    return list(
        torch.autograd.grad(
            [result for result, _ in reached],
            wanted,
            [cotangent for _, cotangent in reached],
            allow_unused=True,
            materialize_grads=True,
        )
    )


def checked(system: Any, u: torch.Tensor) -> tuple[Any, torch.Tensor]:
    """The system and u as tensors of one dtype on one device.

    Raises:
        ShapeError, DTypeError, ParameterError: u is not (batch, H, L), no floating dtype, or elsewhere than the system.
    """
    if u.dtype not in HALVES and dtype_name(u.dtype) not in DTYPES:
        raise DTypeError(
            f"u has dtype {u.dtype}; allowed: float32, float64, and bfloat16 and float16, which are computed in "
            "float32. Convert it with .to(torch.float32)."
        )
    if u.ndim != 3:
        raise ShapeError(
            f"u has shape {tuple(u.shape)}; it needs three dimensions (batch, H, L). Add them with u[None]."
        )
    if u.shape[1] != system.n_channels:
        raise ShapeError(
            f"u has {u.shape[1]} channels (shape {tuple(u.shape)}, read as (batch, H, L)); the system has "
            f"{system.n_channels}."
        )
    if system.structure == "integrator":
        raise ParameterError(
            f"{system.name} takes NumPy arrays only; pass u.numpy(), or discretise with euler, bilinear or zoh."
        )
    if not system.is_torch:
        system = system.to_torch(u.device)
    elif system.parameters["C"].device != u.device:
        raise ParameterError(
            f"u is on {u.device}, the system on {system.parameters['C'].device}; move one of them: "
            f"system.to_torch({str(u.device)!r}) or u.to({str(system.parameters['C'].device)!r})."
        )
    inputs = u.float() if u.dtype in HALVES else u
    return system.astype(inputs.dtype), inputs


def problem_of_tensors(system: Any, u: torch.Tensor, spec: ModeSpec, *, gradient: bool, state: bool) -> Problem:
    """The `Problem` that these tensors pose."""
    require_mode(system, spec)
    # A compiler may not know the sizes of a batch and a signal; no backend's answer depends on them.
    batch, length = (1, 1) if torch.compiler.is_compiling() else (u.shape[0], u.shape[2])
    return Problem(
        spec,
        system.structure,
        batch,
        system.n_channels,
        system.n_modes,
        length,
        dtype_name(u.dtype),
        device=u.device.type,
        gradient=gradient,
        state=state,
        arrays="torch",
    )


def _backend(problem: Problem, wanted: str | Backend) -> Any:
    if isinstance(wanted, Backend):
        if not torch.compiler.is_compiling():
            _refuse(wanted, problem)
        return wanted
    spec = problem.spec
    name = _chosen_name(
        wanted,
        spec.mode,
        spec.order,
        spec.correlations,
        spec.window,
        problem.structure,
        problem.dtype,
        problem.device,
        problem.gradient,
        problem.state,
    )
    return _READY[name]


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator, unused-ignore]
def _chosen_name(
    wanted: str,
    mode: str,
    order: int,
    correlations: str,
    window: int | None,
    structure: str,
    dtype: str,
    device: str,
    gradient: bool,
    state: bool,
) -> str:
    """The name of the backend that is wanted, or of the first that accepts such a problem: a constant for a compiler.

    It is in `_READY` afterwards.
    """
    spec = ModeSpec(mode, order, correlations, window)
    problem = Problem(spec, structure, 1, 1, 1, 1, dtype, device, gradient, state, "torch")
    if wanted == FIRST:
        import logging

        choice = default_backend(problem)
        logging.getLogger("liquid_ssm").info("%s: %s", spec.label, choice.explain())
        _READY.setdefault(choice.backend, get_backend(choice.backend))
        return choice.backend
    backend = get_backend(wanted)
    _refuse(backend, problem)
    _READY.setdefault(wanted, backend)
    return wanted


def _refuse(backend: Backend, problem: Problem) -> None:
    reason = rejection(backend, problem)
    if reason is not None:
        raise BackendRejected(
            f"backend {backend.name!r} does not compute {problem.spec.label} for this problem:", [reason]
        )


def require_tensor(name: str, value: Any, *, whole: bool = False) -> None:
    """Raise a `DTypeError` unless this is a tensor of real numbers.

    Args:
        whole: whole numbers will do.
    """
    if not isinstance(value, torch.Tensor):
        raise DTypeError(f"{name} is a {type(value).__name__}; give a torch tensor, as of torch.as_tensor.")
    if not value.is_floating_point() and (not whole or value.is_complex() or value.dtype == torch.bool):
        raise DTypeError(f"{name} has dtype {value.dtype}; give real numbers, as with .float().")


def has_numbers(tensor: torch.Tensor) -> bool:
    """Whether the values may be looked at: not while a compiler or a function transform only traces them."""
    if torch.compiler.is_compiling() or tensor.is_meta:
        return False
    wrapped: bool = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return not wrapped and type(tensor).__name__ not in ("FakeTensor", "FunctionalTensor")


def _require_finite(
    chosen: Any, system: Any, u: torch.Tensor, spec: ModeSpec, problem: Problem, y: torch.Tensor, final: Any, state: Any
) -> None:
    if all(all_finite_there(part.detach()) for part in (y, *_parts(final))):
        return
    arrays = (
        each_part(value, lambda part: part.detach().cpu().resolve_conj().numpy()) for value in (u, y, final, state)
    )
    given, found, last, start = arrays
    raise_not_finite(chosen, system.to_numpy(), given, spec, problem, found, last, start)


def all_finite_there(tensor: torch.Tensor) -> bool:
    """Whether every number is finite, on the tensor's own device and without a second tensor where all are."""
    if tensor.device.type == "cpu" and tensor.dtype not in HALVES:
        return all_finite(tensor.resolve_conj().resolve_neg().numpy())
    # The largest modulus; that of a complex number may overflow where its parts do not.
    if tensor.numel() == 0 or bool(torch.isfinite(torch.linalg.vector_norm(tensor, float("inf")))):
        return True
    return bool(torch.isfinite(tensor).all())


def _leaves(system: Any, u: torch.Tensor, state: Any) -> list[torch.Tensor]:
    return [u, *system.parameters.values(), *(part for part in _parts(state) if isinstance(part, torch.Tensor))]


def _parts(state: Any) -> list[Any]:
    """The arrays of a state, whatever its form."""
    if state is None:
        return []
    return [part for part in state if part is not None] if isinstance(state, State) else [state]


def each_part(state: Any, function: Any) -> Any:
    """The function of each array of a state, whatever its form; None for None."""
    if state is None:
        return None
    if hasattr(state, "_fields"):
        return type(state)(*(None if part is None else function(part) for part in state))
    return function(state)
