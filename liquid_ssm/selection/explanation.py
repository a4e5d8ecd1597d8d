"""A certificate in sentences: why this backend, why not the others, what is covered, and how that was verified."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..certificate import Candidate, Certificate, Domain, Range

# What the keys of `Certificate.oracle` say; other versions may have others, which are printed as they are.
_ORACLE = {"tiers": "reference", "coverage": "compared", "seed": "seed", "rows": "rows", "channels": "channels"}
# Numbers this close to 1 are told by their distance from it.
_NEAR_ONE = 0.1
_SECONDS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}


def explain(certificate: Certificate, *, new: bool, reasons: Sequence[str] = ()) -> str:
    """Why this backend, why not the others, and what the certificate covers.

    Args:
        certificate: to be explained.
        new: whether it was made just now, or read from disk.
        reasons: why other certificates were not used.
    """
    chosen = next(c for c in certificate.candidates if c.status == "chosen")
    others = [c for c in certificate.candidates if c is not chosen]
    why = f": {chosen.reason}" if chosen.reason else ""
    lines = [
        f"{certificate.backend} was chosen {_goal(certificate.domain.tolerance)}{why}",
        f"  {numbers(chosen)}",
        f"certificate {certificate.id}, {origin(certificate, new=new)}",
        *_section("Why other certificates on disk were not used", reasons),
        *_section("Why none of the others", (f"{c.name}: {c.status}{_after(c)}" for c in others)),
        *_section("What it covers, which is every call with", _said(covered(certificate.domain))),
        *_section("How it was verified", _said(_verified(certificate))),
    ]
    return "\n".join(lines)


def origin(certificate: Certificate, *, new: bool) -> str:
    """When it was made, and where it is from."""
    return f"{'made now' if new else 'read from disk, made'}, {certificate.created}".replace("made, ", "made ")


def numbers(candidate: Candidate) -> str:
    """Error, bound and time of a candidate in a few words."""
    parts = []
    if candidate.error is not None:
        parts.append(f"error {relative(candidate.error)}")
    if candidate.bound is not None:
        parts.append(f"bound {relative(candidate.bound)}")
    if candidate.seconds is not None:
        said = f"{duration(candidate.seconds)} per call"
        if candidate.runs > 1:
            said += f" ({spread(candidate)} in {candidate.runs} runs)"
        parts.append(f"{said}{' (1 run)' if candidate.runs == 1 else ''}")
        if candidate.compile_seconds is not None and candidate.compile_seconds > 0.1:
            parts.append(f"the first call took {duration(candidate.compile_seconds)} longer")
    return ", ".join(parts) or "nothing was measured"


def relative(error: float | None) -> str:
    """An error relative to the largest |y|, or its bound."""
    return "-" if error is None else "0" if error == 0 else f"{error:.1e}"


def duration(seconds: float | None) -> str:
    """Seconds with a unit that suits them."""
    if seconds is None:
        return "-"
    unit = _unit(seconds)
    return f"{seconds / _SECONDS[unit]:.3g} {unit}"


def spread(candidate: Candidate) -> str:
    """The shortest and the longest time of a warm call; a hyphen where it was not timed twice."""
    shortest, longest = candidate.seconds_min, candidate.seconds_max
    if shortest is None or longest is None or candidate.runs < 2:
        return "-"
    unit = _unit(longest)
    return f"{shortest / _SECONDS[unit]:.3g} to {longest / _SECONDS[unit]:.3g} {unit}"


def covered(domain: Domain) -> list[tuple[str, str]]:
    """`Domain.describe` with rounded numbers, and the largest |a| by its distance from 1, which memory depends on."""
    short = {"largest |a|": away(domain.radius), "largest |b u|": _ends(domain.drive)}
    if domain.dt is not None:
        short["step size"] = f"{_ends(domain.dt)} [time]"
    return [(name, short.get(name, value)) for name, value in domain.describe()]


def away(values: Range) -> str:
    """A range of |a|, each end by its distance from 1 where it is near."""
    low, high = _from_one(values.low), _from_one(values.high)
    return low if low == high else f"{low} to {high}"


def _ends(values: Range) -> str:
    return f"{values.low:.3g}" if values.low == values.high else f"{values.low:.3g} to {values.high:.3g}"


def _from_one(value: float) -> str:
    distance = value - 1
    if distance == 0 or abs(distance) > _NEAR_ONE:
        return f"{value:.4g}"
    return f"1 {'+' if distance > 0 else '-'} {abs(distance):.2g}"


def _goal(tolerance: float | None) -> str:
    return "for its derived bound" if tolerance is None else f"for the tolerance {tolerance:g}"


def _after(candidate: Candidate) -> str:
    """The reason, and the numbers that it does not name itself."""
    said = f": {candidate.reason}" if candidate.reason else ""
    if candidate.seconds is not None or (candidate.error is not None and "error" not in candidate.reason):
        said += f" ({numbers(candidate)})"
    return said


def _verified(certificate: Certificate) -> list[tuple[str, str]]:
    oracle, problem = certificate.oracle, certificate.problem
    lines = [(said, _text(oracle[name])) for name, said in _ORACLE.items() if name in oracle]
    if isinstance(radius := oracle.get("radius"), (int, float)):
        lines.append(("reference's own error", f"at most {relative(float(radius))}, which counts as the backend's"))
    if "residues" in oracle:
        lines.append(("lengths", _lengths(oracle["residues"])))
    if oracle.get("checks"):
        lines.append(("also", "; ".join(map(str, _list(oracle["checks"])))))
    if "margin" in oracle and certificate.domain.tolerance is not None:
        margin = _text(oracle["margin"])
        lines.append(("margin", f"a bound below the tolerance, or an error {margin} times below it"))
    known = {*_ORACLE, "radius", "residues", "checks", "margin"}
    lines += [(name, _text(value)) for name, value in oracle.items() if name not in known]
    return [*lines, *_computed(problem)]


def _computed(problem: Mapping[str, object]) -> list[tuple[str, str]]:
    """The problem that was computed, which may be another one of the domain than is asked about now."""
    sizes = ("batch", "n_channels", "length", "n_modes")
    if not all(name in problem for name in sizes):
        return [("problem", "; ".join(f"{name} {_text(value)}" for name, value in problem.items()))] if problem else []
    b, h, n, m = (problem[name] for name in sizes)
    lines = [("problem", f"{b} x {h} x {n} (batch x channels x length), {m} modes per channel")]
    if "data" in problem:
        lines.append(("data", _text(problem["data"])))
    seconds, budget = problem.get("seconds"), problem.get("budget")
    if isinstance(seconds, (int, float)) and isinstance(budget, (int, float)):
        lines.append(("time", f"{duration(float(seconds))}, with a budget of {budget:g} s"))
    return lines


def _lengths(residues: object) -> str:
    if residues == "all":
        return "all that are covered, by one of each remainder modulo 128"
    return f"those whose remainder modulo 128 is {_text(residues)}"


def _section(title: str, lines: Iterable[str]) -> list[str]:
    said = [f"  {line}" for line in lines]
    return [f"{title}:", *said] if said else []


def _said(pairs: Iterable[tuple[str, str]]) -> Iterable[str]:
    return (f"{name}: {value}" for name, value in pairs)


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, (list, tuple)) else (value,)


def _text(value: object) -> str:
    return ", ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in _list(value))


def _unit(seconds: float) -> str:
    return next((unit for unit, scale in _SECONDS.items() if seconds >= 0.9995 * scale), "µs")
