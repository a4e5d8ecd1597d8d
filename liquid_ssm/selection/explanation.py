"""A certificate in sentences, and its candidates as a table."""

from __future__ import annotations

from collections.abc import Sequence

from ..certificate import Candidate, Certificate


def explain(certificate: Certificate, *, new: bool, reasons: Sequence[str] = ()) -> str:
    """Why this backend, why not the others, and what the certificate covers."""
    chosen = next(c for c in certificate.candidates if c.status == "chosen")
    asked = certificate.domain.tolerance
    goal = "within its derived bound" if asked is None else f"within the tolerance {asked:g}"
    lines = [
        f"{certificate.backend}: {chosen.reason}, {goal}: {numbers(chosen)}",
        f"certificate {certificate.id}, {'made now' if new else 'read from disk'}, {certificate.created}",
        *(f"not used: {reason}" for reason in reasons),
        "the others:",
        *(f"  {c.name}: {c.status}: {c.reason}{_measured(c)}" for c in certificate.candidates if c is not chosen),
        "it covers:",
        *(f"  {name}: {value}" for name, value in certificate.domain.describe()),
        "it was verified:",
        *(f"  {name}: {_text(value)}" for name, value in certificate.oracle.items()),
    ]
    return "\n".join(lines)


def numbers(candidate: Candidate) -> str:
    """Error, bound and time of a candidate in a few words."""
    parts = []
    if candidate.error is not None:
        parts.append(f"error {candidate.error:.2g}")
    if candidate.bound is not None:
        parts.append(f"bound {candidate.bound:.2g}")
    if candidate.seconds is not None:
        spread = f" ({duration(candidate.seconds_min)} to {duration(candidate.seconds_max)}, {candidate.runs} runs)"
        parts.append(f"{duration(candidate.seconds)}{spread if candidate.runs > 1 else ' (1 run)'}")
        if candidate.compile_seconds is not None and candidate.compile_seconds > 0.1:
            parts.append(f"first call {duration(candidate.compile_seconds)} longer")
    return ", ".join(parts) or "nothing was measured"


def duration(seconds: float | None) -> str:
    """Seconds with a unit that suits them."""
    if seconds is None:
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= 0.9995 * scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.2g} µs"


def _measured(candidate: Candidate) -> str:
    return "" if candidate.error is None and candidate.seconds is None else f" ({numbers(candidate)})"


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
