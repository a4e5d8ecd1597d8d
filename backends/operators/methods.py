"""Methods of a backend given tensors, as calls of operators: differentiable, and traced by torch.compile.

Each takes the name under which `implementations` finds the backend; everything else is as in `Backend`.
"""

from __future__ import annotations

import torch

from liquid_ssm.systems import DiagonalSystem, DPLRSystem

# Importing them defines the operators.
from . import added_correlations as _added_correlations  # noqa: F401
from . import cascade as _cascade  # noqa: F401
from . import checks
from . import convolve as _convolve  # noqa: F401
from . import correlate as _correlate  # noqa: F401
from . import joint_scan as _joint_scan  # noqa: F401
from . import kernel as _kernel  # noqa: F401
from . import scan as _scan  # noqa: F401
from . import shared_state as _shared_state  # noqa: F401

Tensor = torch.Tensor
System = DiagonalSystem | DPLRSystem

_operators = torch.ops.liquid_ssm


def _parts(system: System) -> tuple[Tensor | None, ...]:
    if isinstance(system, DPLRSystem):
        return system.Lambda_bar, system.B_bar, system.C, system.P_bar, system.Q_bar
    return system.A_bar, system.B_bar, system.C, None, None


def _cast(system: System, u: Tensor) -> System:
    """The system in u's precision; as it is for a u that operators refuse or autocast casts."""
    return system.astype(u.dtype) if u.dtype in (torch.float32, torch.float64) else system


def _started(system: System, state: Tensor | None, state_dtype: str | None) -> Tensor | None:
    """The state in the dtype that it is computed in; the operator refuses a complex one of a real system."""
    if state is None or (state.is_complex() and not system.is_complex):
        return state
    real = torch.float64 if state_dtype == "float64" else system.dtype
    return state.to(checks.complex_of(real) if system.is_complex else real)


def kernel(backend: str, system: System, length: int, power: int) -> Tensor:
    """As `Backend.kernel`."""
    return _operators.kernel(*_parts(system), length, power, system.conjugate_pairs, backend)  # type: ignore[no-any-return]


def convolve(backend: str, kernel: Tensor, u: Tensor) -> Tensor:
    """As `Backend.convolve`."""
    return _operators.convolve(kernel, u, backend)  # type: ignore[no-any-return]


def scan(
    backend: str, system: System, u: Tensor, state: Tensor | None, *, liquid: bool, state_dtype: str | None
) -> tuple[Tensor, Tensor]:
    """As `Backend.scan`."""
    system = _cast(system, u)
    state = _started(system, state, state_dtype)
    return _operators.scan(u, *_parts(system), state, liquid, system.conjugate_pairs, backend)  # type: ignore[no-any-return]


def joint_scan(backend: str, system: System, u: Tensor, *, order: int) -> Tensor:
    """As `Backend.joint_scan`."""
    system = _cast(system, u)
    return _operators.joint_scan(u, *_parts(system), order, system.conjugate_pairs, backend)  # type: ignore[no-any-return]


def cascade(
    backend: str,
    system: System,
    u: Tensor,
    state: Tensor | None,
    *,
    order: int,
    kind: str,
    window: int | None,
    state_dtype: str | None,
) -> tuple[Tensor, Tensor | None]:
    """As `Backend.cascade`."""
    system = _cast(system, u)
    state = _started(system, state, state_dtype)
    y, final = _operators.cascade(u, *_parts(system), state, order, kind, window, system.conjugate_pairs, backend)
    return y, final if window is None else None


def correlate(
    backend: str, u: Tensor, *, order: int, kind: str, window: int | None, sums: Tensor | None, previous: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """As `Backend.correlate`."""
    terms, final = _operators.correlate(u, sums, previous, order, kind, window, backend)
    return terms, final if checks.has_sums(kind, window) else None


def added_correlations(
    backend: str,
    y: Tensor,
    u: Tensor,
    responses: Tensor,
    *,
    order: int,
    kind: str,
    sums: Tensor | None,
    previous: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """As `Backend.add_correlations`, but y is left as it is: the sum and the final sums are returned."""
    return _operators.add_correlations(y, u, responses, sums, previous, order, kind, backend)  # type: ignore[no-any-return]
