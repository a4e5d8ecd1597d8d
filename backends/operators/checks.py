"""What the operators ask of their arguments, the same for real tensors and for fake ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from liquid_ssm.backend import Backend, Rejection
from liquid_ssm.errors import BackendRejected, DTypeError, ParameterError, ShapeError, unknown_name

from .._correlations import KINDS

_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
_REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}
_HALF = (torch.float16, torch.bfloat16)

PARAMETERS = ("A_bar", "B_bar", "C", "P_bar", "Q_bar")

Shape = Sequence[Any]  # of numbers, symbolic ones among them
Named = dict[str, torch.Tensor | None]


def on_one_device(tensors: Named) -> None:
    """Raise unless all tensors that are given are on one device."""
    given = {name: tensor.device for name, tensor in tensors.items() if tensor is not None}
    if len(set(given.values())) > 1:
        places = ", ".join(f"{name} on {device}" for name, device in given.items())
        raise ParameterError(f"the tensors are on different devices ({places}); move them to one with .to(...).")


def signal(u: torch.Tensor, name: str = "u") -> None:
    """Raise unless `u` is a real (batch, H, L) tensor in a precision that is computed in."""
    if u.dtype in _HALF:
        raise DTypeError(
            f"{name} has dtype {u.dtype}; operators compute in float32 or float64. Cast it with .float(), or use "
            "liquid_ssm.apply, which does so."
        )
    if u.dtype not in _COMPLEX:
        raise DTypeError(f"{name} has dtype {u.dtype}; allowed: torch.float32, torch.float64. Cast it with .to(...).")
    if u.ndim != 3:
        raise ShapeError(f"{name} has shape {tuple(u.shape)}; it must be (batch, H, L). Add the missing axes.")


def in_precision_of(reference: str, real: torch.dtype, tensors: Named) -> None:
    """Raise unless every tensor is of that real dtype or its complex one."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.dtype not in (real, _COMPLEX[real]):
            raise DTypeError(
                f"{name} has dtype {tensor.dtype} and {reference} is {real}; allowed for {name}: {real}, "
                f"{_COMPLEX[real]}. Bring all to one precision with .to(...)."
            )


def shaped(name: str, tensor: torch.Tensor | None, shape: Shape, meaning: str) -> None:
    """Raise unless the tensor, if given, has this shape."""
    if tensor is not None and (tensor.ndim != len(shape) or tuple(tensor.shape) != tuple(shape)):
        raise ShapeError(f"{name} has shape {tuple(tensor.shape)}; it must be {meaning} = {tuple(shape)}.")


def of_dtype(name: str, tensor: torch.Tensor | None, dtype: torch.dtype) -> None:
    """Raise unless the tensor, if given, is of this dtype."""
    if tensor is not None and tensor.dtype != dtype:
        raise DTypeError(f"{name} has dtype {tensor.dtype}; it must be {dtype}. Cast it with .to({dtype}).")


def at_least(name: str, value: int, lowest: int) -> None:
    if value < lowest:
        raise ParameterError(f"{name} is {value}; it must be at least {lowest}.")


def parameters(given: Sequence[Any]) -> torch.dtype:
    """The real dtype of a system's parameters (Ā or Λ̄, B̄, C, P̄, Q̄), after checking that they fit each other."""
    A_bar, B_bar, C, P_bar, Q_bar = given
    named: Named = dict(zip(PARAMETERS, given, strict=True))
    if (P_bar is None) != (Q_bar is None):
        one, other = ("P_bar", "Q_bar") if Q_bar is None else ("Q_bar", "P_bar")
        raise ParameterError(f"{one} is given without {other}; give both (a dplr system) or none (a diagonal one).")
    on_one_device(named)
    real: torch.dtype = _REAL.get(A_bar.dtype, A_bar.dtype)
    if real not in _COMPLEX:
        raise DTypeError(
            f"A_bar has dtype {A_bar.dtype}; allowed: torch.complex64, torch.complex128, torch.float32, torch.float64. "
            "Cast it with .to(...)."
        )
    in_precision_of("A_bar", real, named)
    if A_bar.ndim != 2:
        raise ShapeError(f"A_bar has shape {tuple(A_bar.shape)}; it must be (H, M).")
    shaped("B_bar", B_bar, A_bar.shape, "(H, M) of A_bar")
    shaped("C", C, A_bar.shape, "(H, M) of A_bar")
    if P_bar is not None and Q_bar is not None:
        if P_bar.ndim != 3:
            raise ShapeError(f"P_bar has shape {tuple(P_bar.shape)}; it must be (R, H, M).")
        shaped("P_bar", P_bar, (P_bar.shape[0], *A_bar.shape), "(R, H, M) with A_bar's H and M")
        shaped("Q_bar", Q_bar, P_bar.shape, "(R, H, M) of P_bar")
    return real


def complex_of(real: torch.dtype) -> torch.dtype:
    """The complex dtype of the same precision."""
    return _COMPLEX[real]


def state_dtype(backend: Backend, real: torch.dtype, *given: torch.Tensor | None) -> torch.dtype:
    """The dtype of states: complex exactly if a parameter is, finer than u's where the backend computes so."""
    fine = torch.float64 if backend.arithmetic.state_dtype == "float64" else real
    return _COMPLEX[fine] if any(p is not None and p.is_complex() for p in given) else fine


def recurrence(
    backend: Backend, u: torch.Tensor, system: Sequence[Any], state: torch.Tensor | None, orders: Shape
) -> torch.dtype:
    """The dtype of states, after checking the arguments of a scan or, with `orders` = (order,), of a cascade."""
    signal(u)
    A_bar = system[0]
    given: Named = {"u": u, **dict(zip(PARAMETERS, system, strict=True))}
    on_one_device({**given, "state": state})
    in_precision_of("u", u.dtype, given)
    parameters(system)
    if u.shape[1] != A_bar.shape[0]:
        raise ShapeError(
            f"u has shape {tuple(u.shape)}, so {u.shape[1]} channel(s); the system has {A_bar.shape[0]}. u must be "
            "(batch, H, L)."
        )
    kind = state_dtype(backend, u.dtype, *system)
    shaped("state", state, (u.shape[0], *orders, *A_bar.shape), f"(batch, {'order, ' if orders else ''}H, M)")
    of_dtype("state", state, kind)
    return kind


def fuses(backend: Backend, form: str, structure: str) -> None:
    """Raise unless the backend has the fused form for systems of this structure."""
    if not backend.capabilities.fuses(form, structure):
        structures = backend.capabilities.fused.get(form, ())
        needed = f"{' or '.join(structures)} for {form}" if structures else f"{form}, which it does not have"
        hint = "" if structures else "use liquid_ssm.apply, which composes the same of what it has"
        reason = Rejection(backend.name, "structure" if structures else "primitive", needed, structure, hint)
        raise BackendRejected(f"{backend.name} does not compute {form} for this system:", [reason])


def cascade(order: int, kind: str, window: int | None, state: torch.Tensor | None) -> None:
    """Raise unless the options of a cascade go together."""
    at_least("order", order, 1)
    if kind not in ("truncated", "chain"):
        raise unknown_name("cascade kind", kind, ("truncated", "chain"))
    if window is None:
        return
    at_least("window", window, order)
    if kind != "chain" or state is not None:
        raise ParameterError(
            f"window is {window} with kind {kind!r} and {'no' if state is None else 'a'} state; a window needs kind "
            "'chain', which starts at rest. Leave out the window or the state."
        )


def has_sums(kind: str, window: int | None) -> bool:
    """Whether a kind of correlation carries sums from one call to the next."""
    return kind != "products" and window is None


def n_sums(order: int, kind: str) -> int:
    return order if kind == "elementary" else order - 1


def correlations(
    u: torch.Tensor,
    sums: torch.Tensor | None,
    previous: torch.Tensor | None,
    order: int,
    kind: str,
    window: int | None,
    kinds: Sequence[str] = KINDS,
) -> None:
    """Raise unless these are arguments of `correlate`."""
    signal(u)
    on_one_device({"u": u, "sums": sums, "previous": previous})
    if kind not in kinds:
        raise unknown_name("correlation kind", kind, kinds)
    at_least("order", order, 1)
    if window is not None:
        at_least("window", window, order)
    if sums is not None and not has_sums(kind, window):
        raise ParameterError(
            f"sums were given for kind {kind!r} with window {window}; only `running` and `elementary` without a window "
            "carry sums. Leave them out and give the newest inputs as `previous`."
        )
    if previous is not None and kind == "elementary" and window is None:
        raise ParameterError(
            "previous was given for kind 'elementary' without a window; what came before u_0 is in `sums`. Leave "
            "previous out."
        )
    for name, tensor in (("sums", sums), ("previous", previous)):
        of_dtype(name, tensor, u.dtype)
    shaped("sums", sums, (n_sums(order, kind), *u.shape[:-1]), "(sums, batch, H)")
    if previous is not None and (previous.ndim != 3 or previous.shape[:-1] != u.shape[:-1]):
        raise ShapeError(f"previous has shape {tuple(previous.shape)}; it must be (batch, H, n) with u's batch and H.")
