"""`liquid_ssm::shared_state`: the recurrences of a `mimo` system, whose channels share one state.

Its signals and parameters have an axis of systems in front of the channels, for which `torch.vmap` has a place.
"""

from __future__ import annotations

from typing import Any

import torch

from liquid_ssm.errors import ShapeError
from liquid_ssm.systems import MIMOSystem

from . import checks
from .batching import Place
from .library import Call, by_argument, differentiable, differentiable_once, operator, present
from .memory import tensor_of

Tensor = torch.Tensor

_SIGNAL = _STATE = Place(0, 1)
_PARAMETER = Place(None, 0)
_ARGUMENTS = (_SIGNAL, _PARAMETER, _PARAMETER, _PARAMETER, _STATE)
_RESULTS = (_SIGNAL, _STATE)
_TENSORS = "Tensor u, Tensor A_bar, Tensor B_bar, Tensor C, Tensor? state"
_OPTIONS = "SymInt? order, bool liquid, bool conjugate_pairs, str backend"


def _state_shape(u: Tensor, A_bar: Tensor, order: int | None) -> tuple[Any, ...]:
    """(batch, S, M), or with orders (batch, S, order, M)."""
    orders = () if order is None else (order,)
    return (u.shape[0], u.shape[1], *orders, A_bar.shape[1])


def _checked(arguments: tuple[Any, ...]) -> torch.dtype:
    """The dtype of states, after checking all arguments but the options."""
    u, A_bar, B_bar, C, state, order, _, _, backend = arguments
    checks.on_one_device({"u": u, "A_bar": A_bar, "B_bar": B_bar, "C": C, "state": state})
    if u.ndim != 4 or A_bar.ndim != 2:
        raise ShapeError(
            f"u has shape {tuple(u.shape)} and A_bar {tuple(A_bar.shape)}; they must be (batch, S, H, L) and (S, M), S "
            "the number of systems."
        )
    checks.signal(u[:, 0])
    checks.in_precision_of("u", u.dtype, {"A_bar": A_bar, "B_bar": B_bar, "C": C})
    systems, n_modes = A_bar.shape
    if u.shape[1] != systems:
        raise ShapeError(f"u is given for {u.shape[1]} system(s) and A_bar for {systems}; they must be as many.")
    checks.shaped("B_bar", B_bar, (systems, n_modes, u.shape[2]), "(S, M, H) with A_bar's M and u's H")
    checks.shaped("C", C, (systems, u.shape[2], n_modes), "(S, H, M) with u's H and A_bar's M")
    if order is not None:
        checks.at_least("order", order, 1)
    kind = checks.state_dtype(Call(backend, u).backend, u.dtype, A_bar, B_bar, C)
    checks.shaped("state", state, _state_shape(u, A_bar, order), f"(batch, S, {'order, ' if order else ''}M)")
    checks.of_dtype("state", state, kind)
    return kind


def _options(order: int | None, liquid: bool) -> tuple[str, dict[str, Any]]:
    """The primitive of backends, and its options."""
    return ("scan", {"liquid": liquid}) if order is None else ("cascade", {"order": order, "kind": "truncated"})


def _systems(call: Call, parameters: tuple[Any, ...], pairs: bool) -> list[MIMOSystem]:
    arrays = [call.take(p) for p in parameters]
    return [MIMOSystem(*one, conjugate_pairs=pairs) for one in zip(*arrays, strict=True)]


def _stacked(parts: list[Any], axis: int) -> Tensor:
    """Results of all systems as one; that of a single system stays where it is."""
    tensors = [tensor_of(part).unsqueeze(axis) for part in parts]
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, axis)


def _real(*arguments: Any) -> tuple[Tensor, Tensor]:
    u, A_bar, B_bar, C, state, order, liquid, pairs, backend = arguments
    kind = _checked(arguments)
    call = Call(backend, u)
    primitive, options = _options(order, liquid)
    found = []
    for s, system in enumerate(_systems(call, (A_bar, B_bar, C), pairs)):
        start = None if state is None else call.take(state[:, s])
        found.append(getattr(call, primitive)(system, call.take(u[:, s]), start, **options))
    if not found:
        return u.new_empty(u.shape), u.new_empty(_state_shape(u, A_bar, order), dtype=kind)
    return _stacked([y for y, _ in found], 1), _stacked([final for _, final in found], 1)


def _fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    u, A_bar, *_, order, _, _, _ = arguments
    return u.new_empty(u.shape), u.new_empty(_state_shape(u, A_bar, order), dtype=_checked(arguments))


def _real_backward(grad_y: Tensor | None, grad_final: Tensor | None, *arguments: Any) -> list[Tensor]:
    u, A_bar, B_bar, C, state, order, liquid, pairs, backend = arguments
    _checked(arguments)
    call = Call(backend, u)
    primitive, options = _options(order, liquid)
    found = []
    for s, system in enumerate(_systems(call, (A_bar, B_bar, C), pairs)):
        given = (None if tensor is None else call.take(tensor[:, s]) for tensor in (u, state, grad_y, grad_final))
        found.append(getattr(call, f"{primitive}_vjp")(system, *given, **options))
    if not found:
        return [tensor.new_zeros(tensor.shape) for tensor in (u, A_bar, B_bar, C, state) if tensor is not None]
    parameters = [_stacked(list(parts), 0) for parts in zip(*(by_argument(f.parameters) for f in found), strict=True)]
    of_state = [] if state is None else [_stacked([f.state for f in found], 1)]
    return [_stacked([f.u for f in found], 1), *parameters, *of_state]


def _fake_backward(grad_y: Tensor | None, grad_final: Tensor | None, *arguments: Any) -> list[Tensor]:
    _checked(arguments)
    return [tensor.new_empty(tensor.shape) for tensor in arguments[: len(_ARGUMENTS)] if tensor is not None]


shared_state = operator(
    f"shared_state({_TENSORS}, {_OPTIONS}) -> (Tensor y, Tensor final)", _real, _fake, _ARGUMENTS, lambda _: _RESULTS
)
shared_state_backward = operator(
    f"shared_state_backward(Tensor? grad_y, Tensor? grad_final, {_TENSORS}, {_OPTIONS}) -> Tensor[]",
    _real_backward,
    _fake_backward,
    (*_RESULTS, *_ARGUMENTS),
    present(*_ARGUMENTS),
)
differentiable("shared_state", shared_state, shared_state_backward, len(_ARGUMENTS))
differentiable_once("shared_state", shared_state_backward)


def run_shared(
    backend: str,
    system: MIMOSystem,
    u: Tensor,
    state: Tensor | None,
    *,
    order: int | None,
    liquid: bool,
    state_dtype: str | None,
) -> tuple[Tensor, Tensor]:
    """`Backend.scan`, or with `order` the truncated `Backend.cascade`, of one `mimo` system of tensors.

    Args:
        backend: the name under which `implementations` finds the backend.
        u: (batch, H, L).
        state: (batch, M), with `order` (batch, order, M).
        state_dtype: of the backend.
    """
    if u.ndim != 3:
        raise ShapeError(f"u has shape {tuple(u.shape)}; it must be (batch, H, L). Add the missing axes.")
    # Other precisions are refused by the operator or cast by autocast.
    system = system.astype(u.dtype) if u.dtype in (torch.float32, torch.float64) else system
    # A complex state of a real system is refused by the operator.
    if state is not None and (system.is_complex or not state.is_complex()):
        real = torch.float64 if state_dtype == "float64" else system.dtype
        state = state.to(checks.complex_of(real) if system.is_complex else real)
    start = None if state is None else state.unsqueeze(1)
    parameters = (system.A_bar[None], system.B_bar[None], system.C[None])
    y, final = torch.ops.liquid_ssm.shared_state(
        u.unsqueeze(1), *parameters, start, order, liquid, system.conjugate_pairs, backend
    )
    return y.squeeze(1), final.squeeze(1)
