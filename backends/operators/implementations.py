"""Which backend computes an operator: a table by name, and by device where no name is given."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from liquid_ssm.backend import Backend, Rejection
from liquid_ssm.errors import BackendRejected, BackendUnavailable, ParameterError, unknown_name

# Name: module, what makes the backend there, and whether it computes on NumPy arrays.
BUILT_IN: dict[str, tuple[str, str, bool]] = {
    "numba": ("numba_backend", "NumbaBackend", True),
    "numba-wide-state": ("numba_backend", "float64_state", True),
    "triton": ("triton_backend", "TritonBackend", False),
    "keops": ("keops_backend", "KeOpsBackend", False),
}
BY_DEVICE = {"cpu": "numba", "cuda": "triton"}

# Backends with options of their own: an operator's arguments are tensors, numbers and strings, never objects.
_configured: dict[str, tuple[Backend, bool]] = {}


def register(key: str, backend: Backend, *, on_numpy: bool) -> None:
    """Let operators find a backend with options under `key`, which must say all of them."""
    _configured[key] = backend, on_numpy


@cache
def _built_in(name: str) -> tuple[Backend, bool]:
    module, attribute, on_numpy = BUILT_IN[name]
    backend: Backend = getattr(import_module(f"..{module}", __package__), attribute)()
    missing = backend.missing_packages()
    if missing:
        raise BackendUnavailable(
            f"operators on {name!r} need {', '.join(missing)}, which is not installed. Run: {backend.install}"
        )
    return backend, on_numpy


def implementation(name: str, device: str) -> tuple[Backend, bool]:
    """The backend, and whether it computes on NumPy arrays, which it can for tensors on the CPU.

    Args:
        name: of the table, or "" for the one of the device.
        device: type of the tensors' device: `cpu`, `cuda`, …

    Raises:
        ParameterError: no such name, or none for this device.
        BackendUnavailable: a package is not installed; the message says how to install it.
    """
    if not name:
        if device not in BY_DEVICE:
            # A fake tensor may pretend to be anywhere, a real one may be where nothing is compiled for.
            raise ParameterError(
                f"the tensors are on {device!r}; operators are compiled for {' and '.join(BY_DEVICE)}. Move them with "
                ".to('cpu'), or use liquid_ssm.apply with backend='torch', which runs on any device."
            )
        name = BY_DEVICE[device]
    if name in _configured:
        found = _configured[name]
    elif name in BUILT_IN:
        found = _built_in(name)
    else:
        raise unknown_name("implementation of operators", name, (*BUILT_IN, *_configured))
    if found[1] and device != "cpu":
        raise ParameterError(
            f"the tensors are on {device!r} and {name!r} computes on the CPU; move them with .to('cpu') or leave "
            "backend out."
        )
    return found


def require_gradients(name: str, device: str, operator: str) -> None:
    """Raise where an input requires gradients that the implementation does not have."""
    backend, _ = implementation(name, device)
    if not backend.capabilities.gradients:
        reason: Any = Rejection(
            backend.name,
            "gradient",
            "inputs without requires_grad",
            "one that requires it",
            "detach the inputs, or call it under torch.no_grad()",
        )
        raise BackendRejected(f"{backend.name} has no gradient of liquid_ssm::{operator}:", [reason])
