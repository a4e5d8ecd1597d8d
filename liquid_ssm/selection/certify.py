"""A certificate for a problem: the one on disk if it still holds, else a new one."""

from __future__ import annotations

import logging

from ..certificate import Certificate, Domain
from ..certificate_store import CertificateStore
from ..validators import validators
from .choose import Selection
from .data import Data
from .defaults import BUDGET
from .domain import domain_of, measures, outside
from .residues import holds_length, residues_of

# Certificates of other domains that an error names.
_NEAREST = 3


def certify(
    data: Data,
    *,
    tolerance: float | None = None,
    budget: float = BUDGET,
    only_stored: bool = False,
    again: bool = False,
    only: tuple[str, ...] = (),
    store: CertificateStore | None = None,
) -> tuple[Certificate | None, list[str], bool]:
    """The certificate that holds the problem.

    Args:
        data: the problem with its numbers.
        tolerance: largest relative error, or None.
        budget: seconds for a selection.
        only_stored: no selection.
        again: a selection whatever is on disk.
        only: the backends to consider, () for all; then nothing on disk is read or written.
        store: where certificates are; None for the user's cache folder.

    Returns:
        the certificate, or None if there is none and `only_stored`; why stored ones were not used; whether it is new.

    Raises:
        BackendRejected: no backend passes.
    """
    store = CertificateStore() if store is None else store
    problem = data.problem
    domain = domain_of(problem, *measures(data.system, data.u, exact=True), tolerance, data.dt)
    current = validators(problem.arrays, problem.device)
    stored, reasons = store.find(domain, current)
    if stored is not None and not holds_length(stored, problem.length):
        reasons.append(f"certificate {stored.id}: length {problem.length} is none of those that were verified")
    elif stored is not None and not (again or only):
        return stored, reasons, False
    for reason in reasons:
        logging.getLogger("liquid_ssm").info("selecting again: %s", reason)
    if only_stored:
        return None, [*reasons, *_near(store, data, tolerance)], False
    previous = stored or _latest(store, domain)
    selection = Selection(
        data,
        tolerance=tolerance,
        budget=budget,
        validators=current,
        incumbent=None if previous is None else previous.backend,
        excluded=store.quarantined(domain, current),
        residues=sorted(residues_of(stored) or ()) if stored is not None else (),
        only=only,
    )
    certificate = selection.run()
    if not only:
        # What is kept is the fastest of all.
        store.save(certificate)
    return certificate, reasons, True


def _near(store: CertificateStore, data: Data, tolerance: float | None) -> list[str]:
    """Why the certificates that come nearest do not hold the problem: those with the fewest reasons."""
    measured = measures(data.system, data.u, exact=True)
    found = []
    for _, certificate in store.all():
        if isinstance(certificate, Certificate):
            reasons = outside(certificate.domain, data.problem, *measured, data.dt)
            if certificate.domain.tolerance != tolerance:
                reasons.append(f"the tolerance is {tolerance}, the certificate's is {certificate.domain.tolerance}")
            if reasons:
                found.append((len(reasons), f"certificate {certificate.id}: {'; '.join(reasons)}"))
    return [text for _, text in sorted(found)[:_NEAREST]]


def _latest(store: CertificateStore, domain: Domain) -> Certificate | None:
    """A certificate of the same domain that no longer holds: who was chosen then is kept if that costs nothing."""
    found = [c for _, c in store.all() if isinstance(c, Certificate) and c.domain == domain]
    return max(found, key=lambda c: c.created, default=None)
