"""At which lengths a certificate's backend has been verified: residues modulo 128, the size of tiles."""

from __future__ import annotations

from ..certificate import Certificate
from .verification import RESIDUES


def residues_of(certificate: Certificate) -> frozenset[int] | None:
    """Residues modulo 128 of verified lengths; None for all of the domain."""
    found = certificate.oracle.get("residues", "all")
    return frozenset(found) if isinstance(found, (list, tuple)) else None


def holds_length(certificate: Certificate, length: int) -> bool:
    """Whether a length of the domain is among those at which the backend has been verified."""
    residues = residues_of(certificate)
    return residues is None or length % RESIDUES in residues
