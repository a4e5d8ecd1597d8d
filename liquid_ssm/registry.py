"""Which backends exist, in the order in which they are preferred, and how one is found by name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module

from .backend import Backend, Rejection
from .errors import BackendRejected, BackendUnavailable, unknown_name
from .problem import Problem

ENTRY_POINT_GROUP = "liquid_ssm.backends"
# Not a backend's name: the first in the fixed order that accepts the problem, whether or not anything has checked it.
FIRST = "first"
# Nor are these: the fastest that is proved good enough, and the same without ever making the proof at a call.
AUTO = "auto"
CERTIFIED_ONLY = "certified-only"

# Faster first.  `default_backend` takes the first that does not reject; docs/backends.md says so.
BUILT_IN: tuple[tuple[str, str], ...] = (
    ("numba", "liquid_ssm.backends.numba_backend:NumbaBackend"),
    ("scipy", "liquid_ssm.backends.scipy_backend:SciPyBackend"),
    ("numpy", "liquid_ssm.backends.numpy_backend:NumPyBackend"),
    ("numba-wide-state", "liquid_ssm.backends.numba_backend:float64_state"),
    # NumPy arrays find theirs before these; torch tensors on a GPU, or of structures that numba lacks, do not.
    ("triton", "liquid_ssm.backends.triton_backend:TritonBackend"),
    ("torch", "liquid_ssm.backends.torch_backend:TorchBackend"),
    ("torch-split-real", "liquid_ssm.backends.torch_backend:split_real"),
    ("keops", "liquid_ssm.backends.keops_backend:KeOpsBackend"),
)


@cache
def _targets() -> dict[str, str]:
    """Name to "module:Class", built-in backends first, then installed entry points by name."""
    # A third of the whole import's time, so only who looks for a backend pays.
    from importlib.metadata import entry_points

    found = dict(BUILT_IN)
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda p: p.name):
        found.setdefault(point.name, point.value)
    return found


def backend_names() -> tuple[str, ...]:
    """Names of all known backends, preferred first, whether or not their packages are installed."""
    return tuple(_targets())


def _instance(backend: str | Backend) -> Backend:
    return backend if isinstance(backend, Backend) else _named(backend)


@cache
def _named(name: str) -> Backend:
    """The backend of that name, whether or not the packages that it computes with are installed."""
    if name not in _targets():
        raise unknown_name("backend", name, backend_names())
    module, _, attribute = _targets()[name].partition(":")
    # Backends import what they need inside their methods, so this import fails only if one is broken.
    backend: Backend = getattr(import_module(module), attribute)()
    return backend


def get_backend(name: str | Backend) -> Backend:
    """The backend of that name, or the one given, ready to compute.

    Raises:
        ParameterError: no backend has that name.
        BackendUnavailable: a package that it needs is not installed.
    """
    backend = _instance(name)
    missing = backend.missing_packages()
    if missing:
        raise BackendUnavailable(
            f"backend {backend.name!r} needs {', '.join(missing)}, which is not installed. Run: {backend.install}"
        )
    return backend


@dataclass(frozen=True)
class Choice:
    """The backend taken for a problem and why the ones before it were not."""

    backend: str
    rejections: tuple[Rejection, ...]

    def explain(self) -> str:
        lines = [f"took {self.backend}: the first of {', '.join(backend_names())} that accepts the problem"]
        return "\n".join([*lines, *(f"  - {reason}" for reason in self.rejections)])


def rejection(name: str | Backend, problem: Problem) -> Rejection | None:
    """Why the backend of that name, or the one given, does not take the problem, or None."""
    return _instance(name).reject(problem)


def default_backend(problem: Problem) -> Choice:
    """The first backend, in the order of `backend_names()`, that accepts the problem.

    Raises:
        BackendRejected: none does; carries every reason.
    """
    reasons: list[Rejection] = []
    for name in backend_names():
        reason = rejection(name, problem)
        if reason is None:
            return Choice(name, tuple(reasons))
        reasons.append(reason)
    raise BackendRejected(f"no backend computes {problem.spec.label} for this problem:", reasons)
