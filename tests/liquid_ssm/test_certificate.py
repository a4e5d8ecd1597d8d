from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liquid_ssm.certificate import (
    MAX_CHARACTERS,
    SCHEMA,
    STATUSES,
    Candidate,
    Certificate,
    Domain,
    Range,
    certificate_id,
    sealed,
)
from liquid_ssm.errors import CertificateInvalid, ParameterError

Make = Callable[..., Certificate]

# Another value for every field of a domain.
OTHER: dict[str, Any] = {
    "mode": "kb",
    "order": 4,
    "correlations": "adjacent",
    "window": 32,
    "structure": "dense",
    "dtype": "float64",
    "device": "cuda",
    "arrays": "torch",
    "gradient": True,
    "state": False,
    "batch": (1, 5),
    "n_channels": (2, 4),
    "n_modes": (64, 65),
    "length": (1024, 2048),
    "radius": Range(0.9, 1.0),
    "drive": Range(0.0, 0.2),
    "dt": None,
    "tolerance": None,
}


def refused(text: str | bytes) -> str:
    with pytest.raises(CertificateInvalid) as caught:
        Certificate.from_json(text)
    return str(caught.value)


def resealed(certificate: Certificate, change: Callable[[dict[str, Any]], object]) -> str:
    """The file of somebody who changes it and computes the checksum anew."""
    document: dict[str, Any] = certificate.document()
    del document["checksum"]
    change(document)
    return json.dumps(sealed(document))


def test_a_range_is_closed_and_holds_no_nan() -> None:
    interval = Range(-1, 2)
    assert all(value in interval for value in (-1, 0.5, 2, np.float32(2)))
    assert not any(value in interval for value in (-1.0000000000000002, math.nextafter(2, 3), math.nan, math.inf))
    assert math.inf in Range(0, math.inf)


@pytest.mark.parametrize(("low", "high"), [(1, 0), (math.nan, 1), (0, math.nan)])
def test_a_range_must_be_one(low: float, high: float) -> None:
    with pytest.raises(ParameterError, match="give low <= high, and no NaN"):
        Range(low, high)


def test_the_key_is_the_same_in_every_process(make_certificate: Make) -> None:
    certificate = make_certificate()
    code = "import sys; from liquid_ssm.certificate import Certificate as C; c = C.from_json(sys.stdin.read()); "
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code + "print(c.domain.key, c.id)"],
            input=certificate.to_json(),
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        assert done.stdout.split() == [certificate.domain.key, certificate.id]
    # Certificates of other versions are found by it: another value needs another schema.
    assert certificate.domain.key == "bad22ba9a0448a19"


@pytest.mark.parametrize("name", [field.name for field in fields(Domain)])
def test_every_field_of_a_domain_is_in_its_key_and_description(name: str, make_certificate: Make) -> None:
    domain = make_certificate().domain
    other = replace(domain, **{name: OTHER[name]})
    assert other.key != domain.key
    assert other.describe() != domain.describe()
    assert len(other.key) == 16
    assert int(other.key, 16) >= 0


def test_equal_domains_have_equal_keys(make_certificate: Make) -> None:
    domain = make_certificate().domain
    same = replace(
        domain,
        order=np.int64(3),
        state=np.bool_(True),
        batch=[np.int32(1), 4],  # type: ignore[arg-type]
        drive=Range(-0.0, np.float64(0.1)),
        tolerance=np.float64(1e-5),
    )
    assert same == domain
    assert same.key == domain.key
    # The next float is another domain.
    assert replace(domain, drive=Range(0, math.nextafter(0.1, 1))).key != domain.key


@pytest.mark.parametrize(
    ("name", "value"), [("batch", (2, 1)), ("length", (-1, 1)), ("tolerance", math.nan), ("tolerance", -1.0)]
)
def test_a_domain_must_be_one(name: str, value: object, make_certificate: Make) -> None:
    with pytest.raises(ParameterError, match=name):
        make_certificate(**{name: value})


def test_a_domain_in_words(make_certificate: Make) -> None:
    words = dict(make_certificate(mode="kb", correlations="all", window=32, gradient=True).domain.describe())
    assert words["mode"] == "kb, order 3, all correlations, window 32"
    assert words["computed"] == "outputs, final state, gradients"
    assert words["length"] == "1,025 to 2,048"
    assert words["modes per channel"] == "64"
    assert words["largest |a|"] == "0.9 to 0.9990234375"


def test_the_id_has_the_domain_and_the_validators(make_certificate: Make) -> None:
    certificate = make_certificate(validators={"a": "1", "b": "2"})
    assert certificate.id == certificate_id(certificate.domain, {"b": "2", "a": "1"})
    assert certificate.id[:17] == f"{certificate.domain.key}-"
    assert len(certificate.id) == 25
    assert make_certificate(validators={"a": "1", "b": "3"}).id[17:] != certificate.id[17:]
    # What was measured is not in it.
    assert replace(certificate, created="later", problem={}).id == certificate.id


def test_exactly_the_backend_is_chosen(make_certificate: Make) -> None:
    with pytest.raises(ParameterError, match=r"'scipy'.*exactly the backend must be chosen"):
        make_certificate(backend="scipy")
    two = tuple(replace(candidate, status="chosen") for candidate in make_certificate().candidates)
    with pytest.raises(ParameterError, match="exactly the backend must be chosen"):
        make_certificate(candidates=two)
    with pytest.raises(ParameterError, match="allowed: chosen, passed"):
        replace(two[0], status="best")


def test_what_is_no_json_is_refused_at_once(make_certificate: Make) -> None:
    with pytest.raises(ParameterError, match="problem cannot be written as JSON"):
        make_certificate(problem={"system": object()})


def strict(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_file_gives_back_an_equal_certificate(make_certificate: Make) -> None:
    certificate = make_certificate(
        oracle={"radius": np.float64(1e-32), "residues": (1, np.int64(2)), "worst": math.inf}
    )
    text = certificate.to_json()
    assert strict(text)["kind"] == "liquid-ssm certificate"
    assert text.isascii()
    again = Certificate.from_json(text)
    assert again == certificate
    assert again.id == certificate.id
    assert again.to_json() == text
    assert Certificate.from_json(text.encode()) == certificate
    assert again.problem["shape"] == [4, 4, 2048]
    assert again.oracle["worst"] == "inf"


@given(
    floats=st.lists(st.floats(allow_nan=False), min_size=5, max_size=5),
    name=st.text(),
    status=st.sampled_from(STATUSES[1:]),
    values=st.dictionaries(st.text(), st.text()),
)
def test_every_float_and_text_survives(
    floats: list[float], name: str, status: str, values: dict[str, str], make_certificate: Make
) -> None:
    low, high = sorted(floats[:2])
    error, bound, seconds = floats[2:]
    candidate = Candidate(name, status, name, error, bound, None, seconds, None, None, 3, None)
    chosen = make_certificate().candidates[0]
    certificate = make_certificate(
        radius=Range(low, high), candidates=(chosen, candidate), validators=values, structure=name, oracle=values
    )
    again = Certificate.from_json(certificate.to_json())
    assert again == certificate
    assert again.domain.key == certificate.domain.key


CORRUPTION = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 10**6), st.binary(min_size=1, max_size=3)),
    st.tuples(st.just("insert"), st.integers(0, 10**6), st.binary(min_size=1, max_size=3)),
    st.tuples(
        st.just("insert"), st.integers(0, 10**6), st.sampled_from([b" ", b"0", b"[", b"{", b"}", b'"', b"NaN", b"\\"])
    ),
    st.tuples(st.just("delete"), st.integers(0, 10**6), st.integers(1, 50)),
    st.tuples(st.just("cut"), st.integers(0, 10**6), st.none()),
    st.tuples(st.just("double"), st.integers(0, 10**6), st.integers(1, 300)),
)


@given(corruptions=st.lists(CORRUPTION, min_size=1, max_size=4))
def test_a_damaged_file_is_refused_or_means_the_same(corruptions: list[Any], make_certificate: Make) -> None:
    certificate = make_certificate()
    data = bytearray(certificate.to_json().encode())
    for kind, place, what in corruptions:
        at = place % (len(data) + 1)
        if kind == "put":
            data[at : at + len(what)] = what
        elif kind == "insert":
            data[at:at] = what
        elif kind == "delete":
            del data[at : at + what]
        elif kind == "cut":
            del data[at:]
        else:
            data[at:at] = data[at : at + what]
    try:
        read = Certificate.from_json(bytes(data))
    except CertificateInvalid:
        return
    assert read == certificate


def test_every_truncation_is_refused(make_certificate: Make) -> None:
    text = make_certificate().to_json()
    for end in range(0, len(text), 7):
        assert "truncated" in refused(text[:end])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", r"is empty \(truncated\?\)"),
        (" \n", r"is empty \(truncated\?\)"),
        ("{", r"is not JSON \(truncated\?\): .*line 1 column 2"),
        ("[]", r"is \[\], not an object"),
        ("null", "is None, not an object"),
        ('"text"', "not an object"),
        ("{}", "not a liquid-ssm certificate: its kind is missing"),
        ('{"kind": "npm package"}', "its kind is 'npm package'"),
        ('{"kind": ["liquid-ssm certificate"]}', "its kind is"),
        ('{"kind": "liquid-ssm certificate"}', "has no schema that is known: it is missing"),
        ('{"kind": "liquid-ssm certificate", "schema": 0}', "must be a whole number from 1"),
        ('{"kind": "liquid-ssm certificate", "schema": true}', "must be a whole number from 1"),
        ('{"kind": "liquid-ssm certificate", "schema": "1"}', "must be a whole number from 1"),
        ('{"kind": "liquid-ssm certificate", "schema": 3}', "by a newer version, schema 3; this one reads 1"),
        ('{"kind": "liquid-ssm certificate", "schema": 1}', "has no checksum"),
        ('{"kind": "liquid-ssm certificate", "schema": 1, "checksum": []}', "has been changed after it was written"),
        ('{"a": 1, "a": 1}', "has 'a' twice"),
        ('{"a": NaN}', "NaN is no number of JSON"),
        ('{"a": -Infinity}', "-Infinity is no number of JSON"),
        ('{"a": 1e999}', "'1e999' is beyond every float64"),
        ('{"a": ' + "9" * 5000 + "}", "a number has too many digits"),
        ("[" * 100_000, "nested deeper"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested deeper"),
        ("\ufeff{}", "BOM"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"\x80\x02K\x01.", "not a text in UTF-8: byte 0"),
        (b"{\x00}", "is not JSON"),
        (" " * (MAX_CHARACTERS + 1), f"larger than {MAX_CHARACTERS} characters"),
    ],
)
def test_what_is_no_certificate_is_refused_with_the_reason(text: str | bytes, reason: str) -> None:
    with pytest.raises(CertificateInvalid, match=reason):
        Certificate.from_json(text)


def test_nesting_that_json_itself_takes_is_refused_too(make_certificate: Make) -> None:
    """What the parser still reads, the functions that look at it afterwards may not."""
    read = set()
    for depth in range(10, sys.getrecursionlimit(), 10):
        nested: Any = 0
        for _ in range(depth):
            nested = [nested]
        content = {**make_certificate().document(), "problem": {"seed": nested}}
        del content["checksum"]
        try:
            canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        except RecursionError:
            break
        text = json.dumps({**content, "checksum": hashlib.sha256(canonical.encode()).hexdigest()})
        try:
            read.add(Certificate.from_json(text).problem["seed"] == nested)
        except CertificateInvalid as error:
            read.add(str(error))
    assert read == {True, "is nested deeper than a certificate ever is"}


def test_a_careless_edit_is_found(make_certificate: Make) -> None:
    text = make_certificate().to_json()
    for old, new in (("0.155", "0.154"), ('"numpy"', '"scipy"'), ('"runs": 30', '"runs": 31'), ("truncated", "liquid")):
        assert old in text
        assert refused(text.replace(old, new)).startswith("has been changed after it was written")


def test_fields_of_another_version_are_passed_over_but_sealed(make_certificate: Make) -> None:
    certificate = make_certificate()

    def extend(document: dict[str, Any]) -> None:
        for part in (document, document["domain"], document["domain"]["radius"], document["candidates"][0]):
            part["new"] = {"x": [1]}

    text = resealed(certificate, extend)
    assert Certificate.from_json(text) == certificate
    assert refused(text.replace('{"x": [1]}', '{"x": [2]}')).startswith("has been changed")


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every field that a certificate must have."""
    for name, value in document.items():
        yield (*path, name)
        if name in ("domain", "radius", "drive", "dt"):
            yield from places(value, (*path, name))
        if name == "candidates":
            yield from places(value[1], (*path, name, 1))


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        document = document[step]
    return document


# Values of every type, and which of them a field of an annotation takes.
VALUES: tuple[Any, ...] = (None, True, 1.5, -(10**400), "x", [1, "x"], [1, 2, 3], {"a": 1})
TAKES: dict[str, tuple[Any, ...]] = {
    "str": ("x",),
    "str | None": ("x", None),
    "int": (-(10**400),),
    "int | None": (-(10**400), None),
    "bool": (True,),
    "float": (1.5,),
    "float | None": (1.5, None),
    "Range | None": (None,),
    "Mapping[str, object]": ({"a": 1},),
}


def test_every_field_must_be_there_and_of_its_type(make_certificate: Make) -> None:
    certificate = make_certificate()
    content = {name: value for name, value in certificate.document().items() if name != "checksum"}
    annotations = {
        field.name: str(field.type) for of in (Certificate, Domain, Candidate, Range) for field in fields(of)
    }
    paths = list(places(content))
    assert {path[-1] for path in paths} == {*annotations, "kind"}
    for path in paths:

        def remove(document: Any, path: tuple[Any, ...] = path) -> None:
            del at(document, path[:-1])[path[-1]]

        assert path[-1] in refused(resealed(certificate, remove))
        wrong = [value for value in VALUES if value not in TAKES.get(annotations.get(path[-1], ""), ())]
        assert len(wrong) > 5
        for value in wrong:

            def replace_it(document: Any, path: tuple[Any, ...] = path, value: Any = value) -> None:
                at(document, path[:-1])[path[-1]] = value

            assert path[-1] in refused(resealed(certificate, replace_it)), (path, value)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("domain", "batch"), [2, 1], "batch goes from 2 to 1"),
        (("domain", "batch"), [1, 2.5], r"domain.batch\[1\] 2.5, which is not a whole number"),
        (("domain", "radius", "low"), "nan", "a range goes from nan"),
        (("domain", "radius"), None, "domain.radius None, which is not an object"),
        (("domain", "gradient"), 1, "domain.gradient 1, which is not true or false"),
        (("domain", "order"), True, "domain.order True, which is not a whole number"),
        (("candidates", 1, "status"), "best", "allowed: chosen, passed"),
        (("candidates", 1, "seconds"), "1.5", r"candidates\[1\].seconds '1.5', which is not a number"),
        (("candidates", 0, "status"), "passed", "exactly the backend must be chosen"),
        (("backend",), "scipy", "exactly the backend must be chosen"),
        (("validators", "numba"), 61, r"validators\['numba'\] 61, which is not a text"),
        (("candidates",), {}, "candidates {}, which is not a list"),
    ],
)
def test_a_contradiction_is_refused(path: tuple[Any, ...], value: object, reason: str, make_certificate: Make) -> None:
    def change(document: Any) -> None:
        at(document, path[:-1])[path[-1]] = value

    with pytest.raises(CertificateInvalid, match=reason):
        Certificate.from_json(resealed(make_certificate(), change))


def test_the_schema_is_that_of_this_version(make_certificate: Make) -> None:
    assert make_certificate().schema == SCHEMA == 1
