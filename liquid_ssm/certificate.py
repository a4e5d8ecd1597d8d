"""What is known about the backend of a call, as data: the domain that is covered, all candidates, and the proof.

Nothing here reads or writes files; `certificate_store` does.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, NoReturn

from .errors import CertificateInvalid, ParameterError
from .report import dump_json

# A new field of `Domain` needs a new schema, since a domain's key is made from all its fields.  New fields elsewhere
# do not: they are optional, and older versions pass over them.
SCHEMA = 1
KIND = "liquid-ssm certificate"
STATUSES = ("chosen", "passed", "refused", "rejected", "unavailable", "failed", "not tried")

# Certificates have some ten thousand characters; what is so much larger is none, and would only take time.
MAX_CHARACTERS = 4_000_000


@dataclass(frozen=True)
class Range:
    """The closed interval from `low` to `high`."""

    low: float
    high: float

    def __post_init__(self) -> None:
        # Adding 0 turns -0.0, which equals 0.0 but has another key, into it.
        object.__setattr__(self, "low", float(self.low) + 0.0)
        object.__setattr__(self, "high", float(self.high) + 0.0)
        if not self.low <= self.high:
            raise ParameterError(f"a range goes from {self.low!r} to {self.high!r}; give low <= high, and no NaN.")

    def __contains__(self, value: float) -> bool:
        # No comparison holds for NaN, which therefore is in no range.
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:.10g}" if self.low == self.high else f"{self.low:.10g} to {self.high:.10g}"


@dataclass(frozen=True)
class Domain:
    """What a certificate covers: every problem with these names, sizes in these closed intervals, ranges of the data.

    Attributes:
        mode: `s4`, `liquid`, `truncated`, `kb` or `pb`.
        order: highest liquid order P, None where the mode has none.
        correlations: `all` or `adjacent`, None where the mode has none.
        window: newest inputs that a correlation uses, None for all of them.
        structure: of the system, such as `diagonal`.
        dtype: of the data, `float32` or `float64`.
        device: where the arrays are, such as `cpu`.
        arrays: whose they are, `numpy` or `torch`.
        gradient: whether gradients are computed too.
        state: whether the final state is returned.
        batch, n_channels, n_modes, length: smallest and largest size, both covered.
        radius: of the largest |a|, dimensionless.
        drive: of the largest |b u|, dimensionless.
        dt: of the step sizes [time], None where the system was given in discrete form.
        tolerance: largest error that was allowed, as `apply` takes it; None for the backend's own bound.
    """

    mode: str
    order: int | None
    correlations: str | None
    window: int | None
    structure: str
    dtype: str
    device: str
    arrays: str
    gradient: bool
    state: bool
    batch: tuple[int, int]
    n_channels: tuple[int, int]
    n_modes: tuple[int, int]
    length: tuple[int, int]
    radius: Range
    drive: Range
    dt: Range | None
    tolerance: float | None

    def __post_init__(self) -> None:
        for name in ("order", "window"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else operator.index(value))
        for name in ("gradient", "state"):
            object.__setattr__(self, name, bool(getattr(self, name)))
        for name in ("batch", "n_channels", "n_modes", "length"):
            low, high = map(operator.index, getattr(self, name))
            if not 0 <= low <= high:
                raise ParameterError(f"{name} goes from {low} to {high}; give 0 <= smallest <= largest.")
            object.__setattr__(self, name, (low, high))
        if self.tolerance is not None:
            object.__setattr__(self, "tolerance", float(self.tolerance) + 0.0)
            if not self.tolerance >= 0:
                raise ParameterError(f"tolerance is {self.tolerance}; give a number of at least 0, or None.")

    @cached_property
    def key(self) -> str:
        """The domain's name: 16 hexadecimal digits, the same in every process and on every machine."""
        return _digest(_exact(asdict(self)), 16)

    def describe(self) -> list[tuple[str, str]]:
        """Every part of the domain in words, as pairs of what it is and what it is here."""
        mode = [self.mode]
        mode += [] if self.order is None else [f"order {self.order}"]
        mode += [] if self.correlations is None else [f"{self.correlations} correlations"]
        mode += [] if self.window is None else [f"window {self.window}"]
        computed = ["outputs", *(["final state"] if self.state else []), *(["gradients"] if self.gradient else [])]
        return [
            ("mode", ", ".join(mode)),
            ("structure", self.structure),
            ("arrays", f"{self.arrays}, {self.dtype}, on {self.device}"),
            ("computed", ", ".join(computed)),
            ("batch", _between(self.batch)),
            ("channels", _between(self.n_channels)),
            ("modes per channel", _between(self.n_modes)),
            ("length", _between(self.length)),
            ("largest |a|", str(self.radius)),
            ("largest |b u|", str(self.drive)),
            ("step size", "none: a discrete system" if self.dt is None else f"{self.dt} [time]"),
            ("tolerance", "none" if self.tolerance is None else f"{self.tolerance:.10g}"),
        ]


@dataclass(frozen=True)
class Candidate:
    """One backend that was asked, and what became of it.

    Attributes:
        name: of the backend, with the dtype where it is tried in several: `numba`, `numba:float32`.
        status: `chosen`; `passed`: within its bound, but slower; `refused`: its error was not within the bound, or
            could not be judged; `rejected`: it does not offer the problem; `unavailable`: a package is missing;
            `failed`: it raised an error; `not tried`.
        reason: why it has this status.
        error: largest error relative to the largest |y| of its row, against the exact value.
        bound: the derived bound on `error`.
        error_over_bound: largest ratio of error and bound as verification judges it; at most 1 passes.
        seconds: median time of a warm call [s].
        seconds_min: shortest time of a warm call [s].
        seconds_max: longest time of a warm call [s].
        runs: how many warm calls were timed.
        compile_seconds: what the first call took beyond a warm one [s].
    """

    name: str
    status: str
    reason: str
    error: float | None
    bound: float | None
    error_over_bound: float | None
    seconds: float | None
    seconds_min: float | None
    seconds_max: float | None
    runs: int
    compile_seconds: float | None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ParameterError(f"the status of {self.name} is {self.status!r}; allowed: {', '.join(STATUSES)}.")
        for name, read in _CANDIDATE.items():
            value = getattr(self, name)
            if read is _number_or_none and value is not None:
                object.__setattr__(self, name, float(value))
        object.__setattr__(self, "runs", operator.index(self.runs))


@dataclass(frozen=True)
class Certificate:
    """The backend that was chosen for a domain, with everything that speaks for it.

    Attributes:
        backend: name of the chosen candidate.
        domain: what is covered.
        problem: the one that was computed: sizes, specification, data.  JSON values; tuples become lists.
        candidates: every backend that was asked.
        oracle: the reference: tiers, coverage, radius, seeds, residues, checks.  JSON values.
        validators: everything outside the inputs on which the choice depends, by name.
        created: time of the selection, ISO 8601 in UTC.  For people: nothing is decided by it.
        schema: version of the format.
    """

    backend: str
    domain: Domain
    problem: Mapping[str, object]
    candidates: tuple[Candidate, ...]
    oracle: Mapping[str, object]
    validators: Mapping[str, str]
    created: str
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        object.__setattr__(self, "candidates", tuple(self.candidates))
        object.__setattr__(self, "validators", dict(self.validators))
        for name in ("problem", "oracle"):
            object.__setattr__(self, name, _plain(name, getattr(self, name)))
        chosen = [candidate.name for candidate in self.candidates if candidate.status == "chosen"]
        if chosen != [self.backend]:
            raise ParameterError(
                f"the backend is {self.backend!r} and the candidates with status 'chosen' are {chosen}; exactly the "
                "backend must be chosen."
            )

    @cached_property
    def id(self) -> str:
        """The certificate's name: the domain's key, and 8 hexadecimal digits of the validators."""
        return certificate_id(self.domain, self.validators)

    def document(self) -> dict[str, object]:
        """What `to_json` writes, as plain JSON values."""
        return sealed({"kind": KIND, **asdict(self)})

    def to_json(self) -> str:
        """Strict JSON with a checksum; `from_json` gives back an equal certificate.

        The checksum protects against accidents and careless edits, not against somebody who computes it anew.
        """
        return dump_json(self.document())

    @classmethod
    def from_json(cls, text: str | bytes) -> Certificate:
        """Read what `to_json` wrote, by this version or another one.

        Args:
            text: the whole file; bytes are UTF-8.

        Returns:
            the certificate.  Fields that this version does not know are passed over.

        Raises:
            CertificateInvalid: it is not JSON, not a certificate, changed, of a newer schema or without a field. The
                checksum finds accidents and careless edits, not those of somebody who computes it anew.
        """
        try:
            document = unsealed(strict_json(text), KIND, SCHEMA)
            values = _read(_CERTIFICATE, document, "")
            return cls(**values)
        except ParameterError as error:
            raise CertificateInvalid(f"contradicts itself: {error}") from None
        except RecursionError:
            raise CertificateInvalid("is nested deeper than a certificate ever is") from None


def certificate_id(domain: Domain, validators: Mapping[str, str]) -> str:
    """The name of the certificate for a domain that was made under these validators."""
    return f"{domain.key}-{_digest(dict(validators), 8)}"


def sealed(document: Mapping[str, object]) -> dict[str, object]:
    """The document as plain JSON values, with its checksum."""
    plain: dict[str, object] = json.loads(dump_json(document))
    return {**plain, "checksum": _digest(plain, 64)}


def unsealed(document: object, kind: str, newest: int) -> dict[str, Any]:
    """The document, once its kind, schema and checksum are right.

    Raises:
        CertificateInvalid: one of them is not.
    """
    if not isinstance(document, dict):
        raise CertificateInvalid(f"is {_short(document)}, not an object of JSON")
    if document.get("kind") != kind:
        given = _short(document["kind"]) if "kind" in document else "missing"
        raise CertificateInvalid(f"is not a {kind}: its kind is {given}")
    schema = document.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        given = _short(schema) if "schema" in document else "missing"
        raise CertificateInvalid(f"has no schema that is known: it is {given}, and must be a whole number from 1")
    if schema > newest:
        raise CertificateInvalid(f"is written by a newer version, schema {_short(schema)}; this one reads {newest}")
    content = {name: value for name, value in document.items() if name != "checksum"}
    if "checksum" not in document:
        raise CertificateInvalid("has no checksum, so it has been changed after it was written")
    if document["checksum"] != _digest(content, 64):
        raise CertificateInvalid("has been changed after it was written: its checksum is another")
    return content


def strict_json(text: str | bytes, limit: int = MAX_CHARACTERS) -> object:
    """The value of a JSON text without NaN, infinities and repeated names.

    Raises:
        CertificateInvalid: it is not such a text, or larger than `limit`.
    """
    if len(text) > limit:
        raise CertificateInvalid(f"is larger than {limit} characters, so it is not a certificate")
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        if not decoded.strip():
            raise CertificateInvalid("is empty (truncated?)")
        return json.loads(decoded, object_pairs_hook=_without_repeats, parse_constant=_no_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise CertificateInvalid(f"is not a text in UTF-8: byte {error.start} (binary?)") from None
    except json.JSONDecodeError as error:
        raise CertificateInvalid(
            f"is not JSON (truncated?): {error.msg}, line {error.lineno} column {error.colno}"
        ) from None
    except CertificateInvalid:
        raise
    except ValueError:
        # Python converts no whole number with some thousand digits.
        raise CertificateInvalid("is not JSON of ours: a number has too many digits") from None
    except RecursionError:
        raise CertificateInvalid("is nested deeper than a certificate ever is") from None


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise CertificateInvalid(f"is not JSON of ours: an object has {_short(repeated)} twice")
    return found


def _no_constant(word: str) -> NoReturn:
    raise CertificateInvalid(f"is not JSON: {word} is no number of JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise CertificateInvalid(f"is not JSON of ours: {_short(digits)} is beyond every float64")
    return value


def _plain(name: str, value: object) -> object:
    """JSON values only, so that a certificate equals what is read from its own file."""
    try:
        return json.loads(dump_json(value))
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{name} cannot be written as JSON: {error}. Give numbers, texts, lists, dicts.") from None


def _digest(value: object, digits: int) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:digits]


def _exact(value: object) -> object:
    """Every float by its bits, so that a key does not depend on how it is printed."""
    if isinstance(value, dict):
        return {name: _exact(item) for name, item in value.items()}
    return value.hex() if isinstance(value, float) else value


def _between(sizes: tuple[int, int]) -> str:
    low, high = sizes
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_Reader = Callable[[object, str], Any]


def _read(readers: Mapping[str, _Reader], value: object, where: str) -> dict[str, Any]:
    """The fields of an object, each checked; others are passed over."""
    given = _mapping(value, where)
    missing = [f"{where}{name}" for name in readers if name not in given]
    if missing:
        raise CertificateInvalid(f"has no {', '.join(missing)}")
    return {name: read(given[name], f"{where}{name}") for name, read in readers.items()}


def _mistyped(value: object, where: str, wanted: str) -> CertificateInvalid:
    return CertificateInvalid(f"has {where.strip('.')} {_short(value)}, which is not {wanted}")


def _mapping(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _mistyped(value, where, "an object")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise _mistyped(value, where, "a text")
    return value


def _boolean(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise _mistyped(value, where, "true or false")
    return value


def _integer(value: object, where: str) -> int:
    # bool is a subclass of int.
    if not isinstance(value, int) or isinstance(value, bool):
        raise _mistyped(value, where, "a whole number")
    return value


def _number(value: object, where: str) -> float:
    if value in ("inf", "-inf", "nan"):
        return float(str(value))
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise _mistyped(value, where, "a number")
    try:
        return float(value)
    except OverflowError:
        raise _mistyped(value, where, "a number that a float64 holds") from None


def _or_none(read: _Reader) -> _Reader:
    return lambda value, where: None if value is None else read(value, where)


_number_or_none = _or_none(_number)


def _sizes(value: object, where: str) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise _mistyped(value, where, "a list of two whole numbers")
    return _integer(value[0], f"{where}[0]"), _integer(value[1], f"{where}[1]")


def _range(value: object, where: str) -> Range:
    return Range(**_read(_RANGE, value, f"{where}."))


def _domain(value: object, where: str) -> Domain:
    return Domain(**_read(_DOMAIN, value, f"{where}."))


def _candidates(value: object, where: str) -> tuple[Candidate, ...]:
    if not isinstance(value, list):
        raise _mistyped(value, where, "a list")
    return tuple(Candidate(**_read(_CANDIDATE, item, f"{where}[{k}].")) for k, item in enumerate(value))


def _texts(value: object, where: str) -> dict[str, str]:
    return {name: _text(item, f"{where}[{_short(name)}]") for name, item in _mapping(value, where).items()}


# How a field is read follows from its annotation.
_READERS: dict[str, _Reader] = {
    "str": _text,
    "str | None": _or_none(_text),
    "int": _integer,
    "int | None": _or_none(_integer),
    "bool": _boolean,
    "float": _number,
    "float | None": _number_or_none,
    "tuple[int, int]": _sizes,
    "Range": _range,
    "Range | None": _or_none(_range),
    "Domain": _domain,
    "tuple[Candidate, ...]": _candidates,
    "Mapping[str, object]": _mapping,
    "Mapping[str, str]": _texts,
}


def _readers(of: type[Range] | type[Domain] | type[Candidate] | type[Certificate]) -> dict[str, _Reader]:
    return {field.name: _READERS[str(field.type)] for field in fields(of)}


_RANGE, _DOMAIN, _CANDIDATE, _CERTIFICATE = map(_readers, (Range, Domain, Candidate, Certificate))
