"""The backend of a call: by a certificate that holds it, or by a new selection."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import is_tensor
from ..backend import Backend
from ..certificate import Certificate, Range
from ..compute import Array, check_input, problem_of
from ..errors import NotCertified, ParameterError
from ..problem import ModeSpec, Problem
from ..registry import FIRST, get_backend
from ..validators import live
from .data import Data
from .domain import largest, measures, of_system
from .residues import residues_of


@dataclass(frozen=True)
class _Grant:
    """A valid certificate, as a call asks for it."""

    certificate: Certificate
    backend: str | Backend
    radius: Range
    drive: Range
    settings: tuple[object, ...]
    residues: frozenset[int] | None  # None: all

    def holds(self, radius: float, length: int) -> bool:
        """Whether it holds a system with this radius and this length."""
        return radius in self.radius and (self.residues is None or length % 128 in self.residues)


# By everything of a problem that is in a domain, sizes by their number of binary digits.
_grants: dict[tuple[Any, ...], list[_Grant]] = {}
# How often they have changed.
_version = 0
_selecting = threading.RLock()


def selected(
    system: Any,
    u: Array,
    spec: ModeSpec,
    *,
    gradient: bool = False,
    state: bool = False,
    tolerance: float | None = None,
    strict: bool = False,
) -> tuple[str | Backend, Certificate | None]:
    """What `compute` takes for this call, a backend or `name:dtype`, and the certificate that says so.

    A problem without numbers (no steps, no rows, an integrator, a function that torch compiles or transforms) is left
    to the fixed order.

    Args:
        strict: an error instead of a selection, and every value of u is looked at.

    Raises:
        NotCertified: `strict`, and no valid certificate holds the call.
        BackendRejected: no backend passes.
    """
    tensors = is_tensor(u)
    if tensors:
        from ..tensors import has_numbers

        if not has_numbers(u) or not all(has_numbers(a) for a in system.parameters.values() if is_tensor(a)):
            if strict:
                raise NotCertified(
                    "backend='certified-only' looks at numbers, which there are none of while torch compiles or "
                    "transforms a function; name the backend there."
                )
            return FIRST, None
        gradient = gradient or needs_gradient(system, u)
    else:
        u = np.asarray(u)
    if tolerance is not None and not tolerance > 0:
        raise ParameterError(f"tolerance is {tolerance}; it must be a positive relative error, such as 1e-5.")
    if system.structure == "integrator":
        if tolerance is not None:
            raise ParameterError(f"{system.name} has one way of being computed; leave the tolerance out.")
        return FIRST, None
    if u.ndim != 3 or 0 in u.shape or system.n_modes == 0:
        return FIRST, None  # wrong shapes are named there
    key = _key(system, u, spec, tensors, gradient, state, tolerance)
    if key in _grants:
        grant = _granted(key, *measures(system, u, exact=strict), u.shape[2])
        if grant is not None:
            return grant.backend, grant.certificate
    return _certified(key, system, u, spec, gradient, state, tolerance, strict)


class Reselection:
    """The backend of one call with arrays and a state again and again, as `selected` finds it.

    Args:
        system, u, spec, tolerance, strict: of `selected`; the values of u may change, its shape and dtype may not.
    """

    def __init__(self, system: Any, u: Array, spec: ModeSpec, *, tolerance: float | None, strict: bool) -> None:
        self._key = _key(system, u, spec, False, False, True, tolerance)
        self._radius, self._gain = of_system(system)
        self._length, self._strict = u.shape[2], strict
        self._version, self._grants = -1, list[_Grant]()

    def __call__(self, u: Array) -> str | Backend | None:
        """The backend of the certificate that holds this u; None where none does that this process knows."""
        if self._version != _version:
            # In this order: what changes in between is found at the next call.
            self._version = _version
            known = _grants.get(self._key, ())
            self._grants = [grant for grant in known if grant.holds(self._radius, self._length)]
        if not self._grants:
            return None
        drive, settings = self._gain * largest(u, exact=self._strict), _settings(self._grants)
        for grant in self._grants:
            if drive in grant.drive and grant.settings == settings:
                return grant.backend
        return None


def _key(
    system: Any, u: Array, spec: ModeSpec, tensors: bool, gradient: bool, state: bool, tolerance: float | None
) -> tuple[Any, ...]:
    return (
        spec, system.structure, *map(int.bit_length, u.shape), system.n_modes.bit_length(), u.dtype,
        u.device.type if tensors else "cpu", tensors, gradient, state, tolerance,
    )  # fmt: skip


def _granted(key: tuple[Any, ...], radius: float, drive: float, length: int) -> _Grant | None:
    """The certificate that this process knows and that holds a call."""
    grants = _grants.get(key)
    if not grants:
        return None
    settings = _settings(grants)
    for grant in grants:
        if grant.holds(radius, length) and drive in grant.drive and grant.settings == settings:
            return grant
    return None


def _settings(grants: list[_Grant]) -> tuple[object, ...]:
    """What they depend on of what can change in a running process, as it is now."""
    return live(grants[0].certificate.domain.arrays)


def needs_gradient(system: Any, u: Any) -> bool:
    """Whether torch records what is done with these."""
    import torch

    if not torch.is_grad_enabled():
        return False
    return u.requires_grad or any(a.requires_grad for a in system.parameters.values() if is_tensor(a))


def _certified(
    key: tuple[Any, ...],
    system: Any,
    u: Array,
    spec: ModeSpec,
    gradient: bool,
    state: bool,
    tolerance: float | None,
    strict: bool,
) -> tuple[str | Backend, Certificate | None]:
    """The backend of a certificate on disk, or of a new one."""
    from .certify import certify

    data = data_of(system, u, spec, gradient=gradient, state=state)
    with _selecting:
        certificate, reasons, _ = certify(data, tolerance=tolerance, only_stored=strict)
        if certificate is None:
            raise NotCertified(
                f"no valid certificate holds this call ({spec.label}, {data.problem.structure}, u {tuple(u.shape)} "
                f"{data.problem.dtype}, largest |a| and |b u| {measures(data.system, data.u, exact=True)}); make one "
                "with liquid_ssm.select(..., system=system, u=u), or call with backend='auto'."
                + "".join(f"\n  - {reason}" for reason in reasons)
            )
        grant = grant_of(certificate, data.problem)
        # Another backend of the same domain keeps the lengths for which it has been chosen.
        own = (certificate.domain, certificate.backend)
        others = [g for g in _grants.get(key, []) if (g.certificate.domain, g.certificate.backend) != own]
        _grants[key] = [grant, *others]
        _changed()
    logging.getLogger("liquid_ssm").info("%s: %s by certificate %s", spec.label, certificate.backend, certificate.id)
    return grant.backend, certificate


def grant_of(certificate: Certificate, problem: Problem) -> _Grant:
    """The certificate in the form that calls look up."""
    domain = certificate.domain
    name = certificate.backend
    return _Grant(
        certificate,
        name if ":" in name else get_backend(name),
        domain.radius,
        domain.drive,
        live(problem.arrays),
        residues_of(certificate),
    )


def data_of(system: Any, u: Array, spec: ModeSpec, *, gradient: bool, state: bool) -> Data:
    """The problem of a call with its numbers, checked and finite."""
    if is_tensor(u):
        from ..tensors import checked, problem_of_tensors

        system, u = checked(system, u.detach())
        check_input(system.to_numpy(), u.numpy(force=True))
        problem = problem_of_tensors(system, u, spec, gradient=gradient, state=state)
        system = _detached(system)
    else:
        u = check_input(system, u)
        system = system.astype(u.dtype)
        problem = problem_of(system, u, spec, gradient=gradient, state=state)
    return Data(problem, system, u, "the caller's own")


def _detached(system: Any) -> Any:
    parameters = {name: a.detach() for name, a in system.parameters.items()}
    return type(system)(**parameters, conjugate_pairs=system.conjugate_pairs)


def forget() -> None:
    """Drop what this process knows of certificates: the next call reads them from disk or selects again."""
    with _selecting:
        _grants.clear()
        _changed()


def withdraw(certificate: Certificate) -> None:
    """Drop one certificate from this process."""
    with _selecting:
        for key, grants in list(_grants.items()):
            _grants[key] = [g for g in grants if g.certificate.id != certificate.id]
        _changed()


def _changed() -> None:
    """Tell every `Reselection`; after the change, under the lock."""
    global _version
    _version += 1
