"""The fastest backend that is proved accurate enough for a problem, on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .errors import ParameterError
from .problem import Problem
from .selection.defaults import BUDGET, DT_MAX, DT_MIN

if TYPE_CHECKING:
    from .certificate import Candidate, Certificate


@dataclass(frozen=True)
class Choice:
    """A backend with the proof that speaks for it.

    Attributes:
        backend: what `apply` takes as `backend`: a name, or name:dtype.
        certificate: the domain that it covers and everything that was measured.
        new: whether it was made now, or read from disk.
        reasons: why certificates on disk were not used.
    """

    backend: str
    certificate: Certificate
    new: bool
    reasons: tuple[str, ...]

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every backend that was asked, with its status, reason, error, bound and time."""
        return self.certificate.candidates

    def explain(self) -> str:
        """Why this backend, why not the others, and what the certificate covers, in sentences."""
        from .selection.explanation import explain

        return explain(self.certificate, new=self.new, reasons=self.reasons)


def select(
    problem: Problem,
    tolerance: float | None = None,
    *,
    system: Any = None,
    u: Any = None,
    budget: float = BUDGET,
    again: bool = False,
    backends: str | Sequence[str] | None = None,
    seed: int = 0,
    dt_min: float = DT_MIN,
    dt_max: float = DT_MAX,
) -> Choice:
    """Verify and time every backend on a problem and take the fastest that is accurate enough.

    Args:
        problem: mode, sizes, dtype, device, gradient, state; see `liquid_ssm.Problem`.
        tolerance: largest error of y (with gradients, of each gradient) relative to the largest |y| of its row, against
            the exact value for the data as given.  A backend passes if its derived bound is below it, or if its error
            on the verified rows is at most a quarter of it.  None: backends that compute in the data's dtype, within
            their derived bound of rounding errors.
        system: whose accuracy counts, a discrete system or a `ContinuousSystem` (discretised by `bilinear`); None for a
            standard one of the problem's structure.
        u: inputs (batch, H, L); None for a normal distribution.
        budget: seconds that the selection may take, > 0, what first calls compile aside; who would not fit is
            `not tried`, but contenders are verified until one passes.
        again: select anew even if a valid certificate is on disk.
        backends: names to consider, in which case the certificate is not kept; None for all.
        seed: of the standard system and inputs.
        dt_min, dt_max: range of the standard system's step sizes [time], 0 < dt_min <= dt_max.

    Returns:
        Choice: `.backend`, `.certificate`, `.candidates`, `.explain()`.

    Raises:
        BackendRejected: no backend passes; carries the reason of each.
        ParameterError, ShapeError: a tolerance or budget that is not positive, a system that does not fit the problem.
    """
    for name, value in (("tolerance", tolerance), ("budget", budget)):
        if value is not None and not value > 0:
            raise ParameterError(f"{name} is {value}; it must be positive.")
    if problem.structure == "integrator":
        raise ParameterError("an integrator has one way of being computed; select among discrete systems.")
    if 0 in (problem.batch, problem.n_channels, problem.n_modes, problem.length):
        raise ParameterError(f"{problem} has no numbers to compute; every size must be at least 1.")
    # What follows costs more than the rest of the package's import.
    from .certificate_store import CertificateStore
    from .selection.certify import certify
    from .selection.given import data_for

    data = data_for(problem, system, u, seed=seed, dt_min=dt_min, dt_max=dt_max)
    only = (backends,) if isinstance(backends, str) else tuple(backends or ())
    certificate, reasons, new = certify(data, tolerance=tolerance, budget=budget, again=again, only=only)
    assert certificate is not None
    if new and data.dt is not None and not only:
        # Calls with the discrete system do not know its dt, and what was verified holds for them as well.
        CertificateStore().save(replace(certificate, domain=replace(certificate.domain, dt=None)))
    return Choice(certificate.backend, certificate, new, tuple(reasons))
