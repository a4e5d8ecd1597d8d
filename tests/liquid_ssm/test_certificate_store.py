"""Certificates on disk: found again, refused when damaged, and whole whatever happens to the process or the disk."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from liquid_ssm import certificate_store, validators
from liquid_ssm.certificate import Certificate, sealed
from liquid_ssm.certificate_store import MAX_CHARACTERS, CertificateStore
from liquid_ssm.errors import BackendUnavailable, CertificateInvalid, ParameterError

Make = Callable[..., Certificate]

posix = pytest.mark.skipif(os.name != "posix", reason="needs signals, links and pipes of POSIX")


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has been warned about or withdrawn yet."""
    monkeypatch.setattr(certificate_store, "_warned", False)
    monkeypatch.setattr(certificate_store, "_withdrawn", {})


@pytest.fixture
def store(tmp_path: Path, machine: dict[str, str]) -> CertificateStore:
    return CertificateStore(tmp_path / "cache" / "certificates")


def names(store: CertificateStore) -> list[str]:
    return sorted(os.listdir(store.folder)) if store.folder.exists() else []


def saved(store: CertificateStore, certificate: Certificate) -> Path:
    path = store.save(certificate)
    assert path is not None
    return path


def valid(store: CertificateStore) -> list[Certificate]:
    return [found for _, found in store.all() if isinstance(found, Certificate)]


def invalid(store: CertificateStore) -> dict[str, str]:
    return {path.name: str(found) for path, found in store.all() if isinstance(found, CertificateInvalid)}


def test_the_default_folder_is_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path / "new"))
    store = CertificateStore()
    assert store.folder == tmp_path / "new" / "certificates"
    # Reading makes nothing.
    assert list(store.all()) == []
    assert list(store.records()) == []
    assert store.clear() == 0
    assert not (tmp_path / "new").exists()


def test_what_is_saved_is_found(store: CertificateStore, machine: dict[str, str], make_certificate: Make) -> None:
    certificate = make_certificate()
    assert store.find(certificate.domain, machine) == (None, [])
    path = saved(store, certificate)
    assert path == store.folder / f"{certificate.id}.json"
    assert store.find(certificate.domain, machine) == (certificate, [])
    assert store.find(make_certificate(order=4).domain, machine) == (None, [])
    # A newer one of the same domain and validators takes its place.
    newer = make_certificate(created="2027-01-01T00:00:00+00:00")
    assert saved(store, newer) == path
    assert store.find(certificate.domain, machine) == (newer, [])
    assert names(store) == [path.name]


def test_one_that_does_not_hold_is_named_with_what_has_changed(
    store: CertificateStore, machine: dict[str, str], make_certificate: Make
) -> None:
    certificate = make_certificate()
    saved(store, certificate)
    now = {"numba": "0.62", "cpu": "a processor"}
    found, reasons = store.find(certificate.domain, now)
    assert found is None
    assert reasons == [f"certificate {certificate.id}: numba was 0.61.2 and is 0.62"]


def test_two_versions_share_a_folder(store: CertificateStore, make_certificate: Make) -> None:
    old = make_certificate(validators={"liquid-ssm": "1"})
    new = make_certificate(validators={"liquid-ssm": "2"})
    for certificate in (old, new, old):
        saved(store, certificate)
    assert len(names(store)) == 2
    for mine, other in ((old, new), (new, old)):
        found, reasons = store.find(mine.domain, mine.validators)
        assert found == mine
        assert [other.id in reason for reason in reasons] == [True]
    assert {certificate.id for certificate in valid(store)} == {old.id, new.id}


def test_a_schema_of_the_future_is_left_alone(
    store: CertificateStore, machine: dict[str, str], make_certificate: Make
) -> None:
    certificate = make_certificate()
    document = certificate.document()
    del document["checksum"]
    newer = store.folder / f"{certificate.domain.key}-00000000.json"
    saved(store, certificate)
    newer.write_text(json.dumps(sealed({**document, "schema": 2, "backend": {"name": "new"}})))
    found, reasons = store.find(certificate.domain, machine)
    assert found == certificate
    assert reasons == [f"file {newer.name}: is written by a newer version, schema 2; this one reads 1"]
    assert newer.exists()


def damage(path: Path, kind: str) -> None:
    content = path.read_bytes()
    if kind == "directory":
        path.unlink()
        path.mkdir()
    elif kind == "loop":
        path.unlink()
        path.symlink_to(path)
    elif kind == "dangling":
        path.unlink()
        path.symlink_to(path.with_name("nothing"))
    elif kind == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif kind == "socket":
        path.unlink()
        # The path of a socket may have a hundred characters only.
        with socket.socket(socket.AF_UNIX) as listening:
            here = os.getcwd()
            os.chdir(path.parent)
            try:
                listening.bind(path.name)
            finally:
                os.chdir(here)
    else:
        changed = {
            "empty": b"",
            "truncated": content[: len(content) // 2],
            "tampered": content.replace(b"0.155", b"0.001"),
            "foreign": b'{"name": "left-pad"}',
            "binary": bytes(range(256)),
            "huge": content + b" " * MAX_CHARACTERS,
            "zeros": b"\0" * len(content),
        }
        path.write_bytes(changed[kind])


@posix
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("empty", "is empty (truncated?)"),
        ("truncated", "is not JSON (truncated?)"),
        ("tampered", "has been changed after it was written"),
        ("foreign", "is not a liquid-ssm certificate"),
        ("binary", "is not a text in UTF-8"),
        ("zeros", "is not JSON"),
        ("huge", "is larger than"),
        ("directory", "is not a regular file"),
        ("pipe", "is not a regular file"),
        ("socket", "cannot be read"),
        ("loop", "cannot be read"),
        ("dangling", "is a link to nowhere"),
    ],
)
def test_a_damaged_file_is_refused_and_the_others_serve(
    kind: str, reason: str, store: CertificateStore, machine: dict[str, str], make_certificate: Make
) -> None:
    bad = make_certificate(validators={"numba": "0.60"})
    good = make_certificate()
    path = saved(store, bad)
    saved(store, good)
    damage(path, kind)
    found, reasons = store.find(good.domain, machine)
    assert found == good
    assert len(reasons) == 1
    assert reasons[0].startswith(f"file {path.name}: {reason}")
    assert invalid(store)[path.name].startswith(reason)
    assert valid(store) == [good]
    with pytest.raises(CertificateInvalid, match="it is made again when needed"):
        store.get(bad.id)
    if kind == "directory":
        # It cannot be replaced, and a run goes on without.
        with pytest.warns(RuntimeWarning, match="cannot be kept"):
            assert store.save(bad) is None
        assert sorted(names(store)) == sorted([path.name, f"{good.id}.json"])
    else:
        saved(store, bad)
        assert store.get(bad.id) == bad


def test_a_file_under_another_name_is_foreign(
    store: CertificateStore, machine: dict[str, str], make_certificate: Make
) -> None:
    certificate = make_certificate()
    path = saved(store, certificate)
    other = make_certificate(order=4)
    # Renamed to the domain that is asked for, it would be used for what it does not cover.
    path.rename(store.folder / f"{other.id}.json")
    found, reasons = store.find(other.domain, machine)
    assert found is None
    assert len(reasons) == 1
    assert "is foreign: it holds certificate" in reasons[0]
    (store.folder / "notes.json").write_text("{}")
    assert set(invalid(store)) == {"notes.json", f"{other.id}.json"}


def test_a_domain_that_only_shares_the_key_is_another(
    store: CertificateStore, machine: dict[str, str], make_certificate: Make
) -> None:
    certificate = make_certificate()
    saved(store, certificate)
    other = make_certificate(order=4).domain
    # Made up: among the first billion domains, two share a key with a chance of 3 in 100.
    other.__dict__["key"] = certificate.domain.key
    assert store.find(other, machine) == (None, [f"file {certificate.id}.json: is about another domain"])


@posix
def test_a_file_without_permission_is_named(
    store: CertificateStore, machine: dict[str, str], make_certificate: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate()
    path = saved(store, certificate)

    # Root may read everything, so the answer of the system is made up.
    def opened(name: Any, *arguments: Any, system: Any = os.open) -> int:
        if Path(name) == path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return int(system(name, *arguments))

    monkeypatch.setattr(certificate_store.os, "open", opened)
    assert store.find(certificate.domain, machine) == (None, [f"file {path.name}: cannot be read: Permission denied"])
    assert invalid(store) == {path.name: "cannot be read: Permission denied"}


def test_a_file_that_vanishes_while_reading_is_no_error(
    store: CertificateStore, machine: dict[str, str], make_certificate: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = [make_certificate(validators={"numba": str(k)}) for k in range(3)]
    paths = [saved(store, certificate) for certificate in certificates]
    system = os.listdir

    def listed(folder: Any) -> list[str]:
        found = system(folder)
        paths[1].unlink(missing_ok=True)
        return found

    monkeypatch.setattr(certificate_store.os, "listdir", listed)
    assert {certificate.id for certificate in valid(store)} == {certificates[0].id, certificates[2].id}
    saved(store, certificates[1])
    assert store.find(certificates[0].domain, certificates[2].validators)[0] == certificates[2]
    saved(store, certificates[1])
    assert store.clear() == 2
    assert system(store.folder) == []


def test_a_path_below_a_file_is_a_reason(tmp_path: Path, machine: dict[str, str], make_certificate: Make) -> None:
    (tmp_path / "file").write_text("")
    store = CertificateStore(tmp_path / "file" / "certificates")
    certificate = make_certificate()
    found, reasons = store.find(certificate.domain, machine)
    assert found is None
    assert len(reasons) == 1
    assert "cannot be read: Not a directory" in reasons[0]
    assert [path for path, _ in store.all()] == [store.folder]
    assert store.quarantined(certificate.domain, machine) == []
    with pytest.warns(RuntimeWarning, match=r"file.certificates \(Not a directory\).*set LIQUID_SSM_CACHE_DIR"):
        assert store.save(certificate) is None


def test_get_takes_the_beginning_of_an_id(store: CertificateStore, make_certificate: Make) -> None:
    with pytest.raises(ParameterError, match="there are none"):
        store.get("ab")
    first, second = make_certificate(), make_certificate(order=4)
    for certificate in (first, second):
        saved(store, certificate)
    assert store.get(first.id) == first
    assert store.get(second.id[:6]) == second
    with pytest.raises(ParameterError, match=f"no certificate begins with 'xyz' in .*{first.id}"):
        store.get("xyz")
    with pytest.raises(ParameterError, match="no certificate begins with ''"):
        store.get("")
    third = make_certificate(validators={"numba": "0.62"})
    saved(store, third)
    with pytest.raises(ParameterError, match=rf"2 certificates begin with .*{third.id}.*; give more digits"):
        store.get(first.domain.key)


def test_remove_and_clear(store: CertificateStore, machine: dict[str, str], make_certificate: Make) -> None:
    first, second, third = (make_certificate(order=k) for k in (1, 2, 3))
    for certificate in (first, second, third):
        saved(store, certificate)
    assert store.remove(first.id[:8]).name == f"{first.id}.json"
    assert {certificate.id for certificate in valid(store)} == {second.id, third.id}
    assert store.quarantine(third, "wrong", {}) is not None
    # What is not ours stays, a folder of our name too.
    (store.folder / "notes.json").write_text("{}")
    (store.folder / f"{first.id}.json").mkdir()
    assert store.clear() == 2
    assert names(store) == sorted(["notes.json", f"{first.id}.json"])
    assert store.quarantined(third.domain, machine) == []


def test_what_cannot_be_deleted_is_said(
    store: CertificateStore, make_certificate: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_certificate(order=1), make_certificate(order=2)
    stuck = saved(store, first)
    saved(store, second)
    system = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path == stuck:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        system(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(ParameterError, match=rf"1 files of .* 1 cannot be: {first.id}.json \(Read-only file system\)"):
        store.clear()
    assert names(store) == [stuck.name]


def test_times_decide_nothing(
    store: CertificateStore, machine: dict[str, str], make_certificate: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(created="2999-01-01T00:00:00+00:00")
    path = saved(store, certificate)
    for now in (0.0, 4e9):
        monkeypatch.setattr(certificate_store.time, "time", lambda now=now: now)
        for written in (0.0, 1e9, 4e9):
            os.utime(path, (written, written))
            assert store.find(certificate.domain, machine) == (certificate, [])
        # The clock has gone back to before the certificate was made.
        earlier = make_certificate(created="1970-01-01T00:00:00+00:00")
        saved(store, earlier)
        assert store.find(certificate.domain, machine) == (earlier, [])
        saved(store, certificate)


def test_finding_is_quick_in_a_full_folder(
    store: CertificateStore, machine: dict[str, str], make_certificate: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = make_certificate()
    for k in range(200):
        saved(store, make_certificate(order=k))
    opened = []
    system = certificate_store._read_file

    def read(path: Path, *limit: int) -> bytes:
        opened.append(path.name)
        return system(path, *limit)

    monkeypatch.setattr(certificate_store, "_read_file", read)
    times = []
    for _ in range(20):
        started = time.perf_counter()
        found, _ = store.find(wanted.domain, machine)
        times.append(time.perf_counter() - started)
        assert found == wanted
    # The best of twenty: other processes only ever add.
    assert min(times) < 2e-3
    assert set(opened) == {f"{wanted.id}.json"}


# Quarantine


def test_a_quarantined_certificate_is_not_found_again(
    store: CertificateStore, machine: dict[str, str], make_certificate: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate()
    saved(store, certificate)
    path = store.quarantine(certificate, "the error was 3 times the bound", {"step": 7, "u": [1.0, 2.0]})
    assert path == store.folder / f"{certificate.id}.numba.quarantined.json"
    record = json.loads(path.read_text())
    assert record["reason"] == "the error was 3 times the bound"
    assert record["details"] == {"step": 7, "u": [1.0, 2.0]}
    assert Certificate.from_json(json.dumps(record["certificate"])) == certificate
    assert names(store) == [path.name]
    # As another process sees it.
    monkeypatch.setattr(certificate_store, "_withdrawn", {})
    for _ in range(2):
        assert store.find(certificate.domain, machine)[0] is None
        assert store.quarantined(certificate.domain, machine) == [("numba", "the error was 3 times the bound")]
        # Another process that had already chosen it saves it afterwards.
        saved(store, certificate)
    assert "it is quarantined" in store.find(certificate.domain, machine)[1][0]
    # Another machine, another domain.
    assert store.quarantined(certificate.domain, {"numba": "0.62"}) == []
    assert store.quarantined(make_certificate(order=4).domain, machine) == []


def test_the_next_choice_for_the_domain_holds(
    store: CertificateStore, machine: dict[str, str], make_certificate: Make
) -> None:
    first = make_certificate()
    chosen = replace(first.candidates[1], name="numpy:float32", status="chosen")
    second = make_certificate(backend=chosen.name, candidates=(replace(first.candidates[0], status="refused"), chosen))
    assert second.id == first.id
    saved(store, first)
    store.quarantine(first, "wrong", {})
    saved(store, second)
    assert store.find(first.domain, machine) == (second, [])
    # Quarantined a second time by a slower process, the first one takes the second one's file with it no more.
    store.quarantine(first, "wrong again", {})
    assert store.find(first.domain, machine) == (second, [])
    store.quarantine(second, "wrong too", {})
    assert store.find(first.domain, machine)[0] is None
    assert sorted(store.quarantined(first.domain, machine)) == [
        ("numba", "wrong again"),
        ("numpy:float32", "wrong too"),
    ]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", None])
def test_a_damaged_record_still_keeps_the_backend_out(
    content: bytes | None,
    store: CertificateStore,
    machine: dict[str, str],
    make_certificate: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certificate = make_certificate()
    path = store.quarantine(certificate, "wrong", {})
    assert path is not None
    path.write_bytes(path.read_bytes().replace(b"wrong", b"right") if content is None else content)
    saved(store, certificate)
    monkeypatch.setattr(certificate_store, "_withdrawn", {})
    assert store.find(certificate.domain, machine)[0] is None
    [(backend, reason)] = store.quarantined(certificate.domain, machine)
    assert backend == "numba"
    assert reason.startswith(f"the quarantine record {path.name} ")
    assert store.quarantined(certificate.domain, {"numba": "0.62"}) == []


@pytest.mark.parametrize("details", [{"x": object()}, {"x": "y" * MAX_CHARACTERS}])
def test_details_never_prevent_a_quarantine(
    details: Mapping[str, object],
    store: CertificateStore,
    machine: dict[str, str],
    make_certificate: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certificate = make_certificate()
    store.quarantine(certificate, "wrong", details)
    monkeypatch.setattr(certificate_store, "_withdrawn", {})
    assert store.quarantined(certificate.domain, machine) == [("numba", "wrong")]


def test_quarantine_holds_in_this_process_where_it_cannot_be_written(
    store: CertificateStore, machine: dict[str, str], make_certificate: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate()
    saved(store, certificate)
    read_only(monkeypatch)
    with pytest.warns(RuntimeWarning, match="Read-only file system"):
        assert store.quarantine(certificate, "wrong", {}) is None
    assert store.find(certificate.domain, machine)[0] is None
    assert CertificateStore(store.folder).find(certificate.domain, machine)[0] is None
    assert store.quarantined(certificate.domain, machine) == [("numba", "wrong")]
    assert store.quarantined(make_certificate(order=4).domain, machine) == []
    assert store.quarantined(certificate.domain, {"numba": "0.62"}) == []
    assert CertificateStore(store.folder.parent).quarantined(certificate.domain, machine) == []


# Export and import


def test_export_and_import(store: CertificateStore, tmp_path: Path, make_certificate: Make) -> None:
    here, elsewhere = make_certificate(), make_certificate(validators={"numba": "0.60"})
    bad = saved(store, make_certificate(order=9))
    bad.write_text("{")
    for certificate in (here, elsewhere):
        saved(store, certificate)
    outcome = dict(store.export([], tmp_path / "all.json"))
    assert outcome.pop(bad.name).startswith("is not JSON")
    assert outcome == {here.id: "exported", elsewhere.id: "exported"}
    assert store.export([here.id[:20]], tmp_path / "one.json") == [(here.id, "exported")]

    other = CertificateStore(tmp_path / "other")
    assert other.import_(tmp_path / "one.json") == [(here.id, "imported")]
    outcome = dict(other.import_(tmp_path / "all.json"))
    why = "numba was 0.60 and is 0.61.2; cpu was not recorded and is a processor"
    assert outcome == {
        here.id: "is already here, and stays as it is",
        elsewhere.id: f"imported, but will not be used here: {why}",
    }
    assert sorted(valid(other), key=lambda c: c.id) == sorted([here, elsewhere], key=lambda c: c.id)
    # A single certificate's file is taken too, and repairs a damaged one.
    (other.folder / f"{here.id}.json").write_text("")
    assert other.import_(store.folder / f"{here.id}.json") == [(here.id, "imported")]
    assert other.get(here.id) == here


def test_what_another_version_wrote_survives_export_and_import(
    store: CertificateStore, tmp_path: Path, make_certificate: Make
) -> None:
    certificate = make_certificate()
    document = certificate.document()
    del document["checksum"]
    path = saved(store, certificate)
    path.write_text(json.dumps(sealed({**document, "new": [1.5]})))
    store.export([], tmp_path / "all.json")
    other = CertificateStore(tmp_path / "other")
    assert other.import_(tmp_path / "all.json") == [(certificate.id, "imported")]
    assert json.loads((other.folder / path.name).read_text())["new"] == [1.5]
    assert other.get(certificate.id) == certificate


def test_import_checks_every_certificate(store: CertificateStore, tmp_path: Path, make_certificate: Make) -> None:
    good = make_certificate()
    changed = {**make_certificate(order=5).document(), "backend": "numpy"}
    newer = {**make_certificate(order=6).document(), "schema": 2}
    export = {"kind": "liquid-ssm certificates", "schema": 1}
    path = tmp_path / "mixed.json"
    path.write_text(json.dumps({**export, "certificates": [changed, 5, good.document(), newer, None, []]}))
    outcome = store.import_(path)
    assert outcome[0] == ("entry 0", "has been changed after it was written: its checksum is another")
    assert outcome[1] == ("entry 1", "is 5, not an object of JSON")
    assert outcome[2] == (good.id, "imported")
    assert outcome[3] == ("entry 3", "is written by a newer version, schema 2; this one reads 1")
    assert names(store) == [f"{good.id}.json"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "is empty"),
        ("[", "is not JSON"),
        ("[]", "is no export of certificates"),
        ('{"kind": "liquid-ssm/report"}', "is no export of certificates"),
        ('{"kind": "liquid-ssm certificates", "schema": 2, "certificates": []}', "this version reads schema 1"),
        ('{"kind": "liquid-ssm certificates", "schema": 1, "certificates": {}}', "this version reads schema 1"),
        ("[" * 100_000, "nested deeper"),
    ],
)
def test_import_refuses_what_is_no_export(content: str, reason: str, store: CertificateStore, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(CertificateInvalid, match=f"{reason}.*Nothing is imported"):
        store.import_(path)
    with pytest.raises(ParameterError, match="there is no file"):
        store.import_(tmp_path / "none.json")
    with pytest.raises(CertificateInvalid, match="not a regular file"):
        store.import_(tmp_path)
    assert names(store) == []


def test_import_says_what_is_quarantined_here(store: CertificateStore, tmp_path: Path, make_certificate: Make) -> None:
    certificate = make_certificate()
    saved(store, certificate)
    store.export([], tmp_path / "all.json")
    store.quarantine(certificate, "wrong", {})
    [(_, outcome)] = store.import_(tmp_path / "all.json")
    assert "imported, but will not be used here: it is quarantined" in outcome


@pytest.mark.parametrize(
    "error",
    [
        BackendUnavailable("torch is not installed"),
        AssertionError("Torch not compiled with CUDA enabled"),
        RuntimeError("No CUDA GPUs are available"),
    ],
)
def test_import_of_what_this_machine_cannot_compute(
    error: Exception,
    store: CertificateStore,
    tmp_path: Path,
    make_certificate: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def unknown(*arguments: str) -> dict[str, str]:
        asked.append(arguments)
        raise error

    monkeypatch.setattr(validators, "validators", unknown)
    certificate = make_certificate(arrays="torch", device="cuda:1")
    path = CertificateStore(tmp_path / "other").save(certificate)
    assert path is not None
    why = f"torch on cuda:1 cannot be used here: {error}"
    assert store.import_(path) == [(certificate.id, f"imported, but will not be used here: {why}")]
    assert asked == [("torch", "cuda:1")]
    assert store.get(certificate.id) == certificate


def test_export_into_a_place_that_is_none(store: CertificateStore, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="cannot be written: No such file or directory"):
        store.export([], tmp_path / "none" / "x.json")


# Faults


def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's answer on a read-only disk; as root, permissions would not do."""
    system = os.open

    def opened(name: Any, flags: int, *arguments: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(name))
        return system(name, flags, *arguments)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(certificate_store.os, "open", opened)
    monkeypatch.setattr(Path, "unlink", refuse)


def test_a_read_only_folder_warns_once_and_serves(
    store: CertificateStore, machine: dict[str, str], make_certificate: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate()
    saved(store, certificate)
    read_only(monkeypatch)
    with pytest.warns(RuntimeWarning) as warned:
        assert store.save(certificate) is None
    [warning] = warned
    assert warning.filename == __file__
    assert str(warning.message) == (
        f"certificates cannot be kept in {store.folder} (Read-only file system), so every process selects its "
        "backends again; make room or set LIQUID_SSM_CACHE_DIR to a folder that can be written to"
    )
    # Warnings are errors here, so a second one would fail.
    assert store.save(certificate) is None
    assert store.find(certificate.domain, machine) == (certificate, [])


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs the read-only folders of Linux's /proc")
def test_a_folder_that_cannot_be_made(machine: dict[str, str], make_certificate: Make) -> None:
    store = CertificateStore(Path("/proc/liquid-ssm/certificates"))
    with pytest.warns(RuntimeWarning, match="/proc/liquid-ssm/certificates"):
        assert store.save(make_certificate()) is None
    assert store.find(make_certificate().domain, machine) == (None, [])


@pytest.mark.parametrize("step", ["write", "fsync", "close", "replace"])
def test_a_full_disk_loses_nothing(
    step: str,
    store: CertificateStore,
    machine: dict[str, str],
    make_certificate: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certificate = make_certificate()
    saved(store, certificate)
    system = getattr(os, step)
    calls = 0

    def fail(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if step == "write" and calls == 1:
            # Some bytes still fit.
            return system(arguments[0], arguments[1][:100])
        if step == "close":
            system(*arguments)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(certificate_store.os, step, fail)
        with pytest.warns(RuntimeWarning, match="No space left on device"):
            assert store.save(replace(certificate, created="later")) is None
        assert calls == (2 if step == "write" else 1)
    assert names(store) == [f"{certificate.id}.json"]
    assert store.find(certificate.domain, machine) == (certificate, [])


def test_short_writes_are_continued(
    store: CertificateStore, make_certificate: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = os.write
    monkeypatch.setattr(certificate_store.os, "write", lambda descriptor, data: system(descriptor, data[:17]))
    saved(store, make_certificate())
    assert valid(store) == [make_certificate()]


# A process of its own that has read a certificate from its standard input.
CHILD = """
import os, random, signal, sys, time
from dataclasses import replace
from pathlib import Path
from liquid_ssm import certificate_store
from liquid_ssm.certificate import Certificate
from liquid_ssm.certificate_store import CertificateStore
certificate = Certificate.from_json(sys.stdin.read())
store = CertificateStore(Path(sys.argv[1]))
def version(k):
    return replace(certificate, validators={"version": str(k)})
"""


def child(store: CertificateStore, certificate: Certificate, code: str, *arguments: object) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD + code, str(store.folder), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(certificate.to_json())
    process.stdin.close()
    process.stdin = None  # communicate() would flush it
    return process


FULL = """
import resource
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
print(store.save(replace(certificate, created="later")))
print(sorted(os.listdir(store.folder)))
"""


@posix
def test_a_limit_of_the_system_on_file_sizes(store: CertificateStore, make_certificate: Make) -> None:
    certificate = make_certificate()
    path = saved(store, certificate)
    out, err = child(store, certificate, FULL).communicate(timeout=60)
    assert out.splitlines() == ["None", f"['{path.name}']"]
    assert err.count("RuntimeWarning") == 1
    assert "File too large" in err
    assert valid(store) == [certificate]


KILLED = """
def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
def some(descriptor, data, write=os.write):
    write(descriptor, data[:1000])
    kill()
setattr(os, sys.argv[2], some if sys.argv[2] == "write" else kill)
store.save(replace(certificate, created="later"))
store.save(version(1))
"""


@posix
@pytest.mark.parametrize("step", ["write", "fsync", "close", "replace"])
def test_kill_9_while_writing(
    step: str, store: CertificateStore, machine: dict[str, str], make_certificate: Make
) -> None:
    certificate = make_certificate()
    path = saved(store, certificate)
    process = child(store, certificate, KILLED, step)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    # What was there is whole, and what was begun is seen by nobody.
    assert store.find(certificate.domain, machine) == (certificate, [])
    assert list(store.all()) == [(path, certificate)]
    [unfinished] = set(names(store)) - {path.name}
    assert unfinished.endswith(".unfinished")
    assert store.clear() == 2
    assert names(store) == []


LOOP = """
print("ready", flush=True)
while True:
    store.save(replace(certificate, created=str(random.random())))
    store.save(version(random.randrange(5)))
"""


@posix
def test_kill_9_at_any_time(store: CertificateStore, machine: dict[str, str], make_certificate: Make) -> None:
    certificate = make_certificate()
    saved(store, certificate)
    chance = random.Random(0)
    for _ in range(5):
        # Four at a time: starting Python takes longer than all the rest.
        processes = [child(store, certificate, LOOP) for _ in range(4)]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            time.sleep(chance.uniform(0, 0.02))
            process.kill()
            process.communicate(timeout=60)
        assert invalid(store) == {}
        found, _ = store.find(certificate.domain, machine)
        assert found is not None
        assert replace(found, created=certificate.created) == certificate
    store.clear()
    assert names(store) == []


AT_ONCE = """
process = int(sys.argv[2])
mine = 0
end = time.monotonic() + 1
while time.monotonic() < end:
    store.save(replace(certificate, created=f"process {process}"))
    own = replace(certificate, validators={"process": str(process), "k": str(mine)})
    store.save(own)
    mine += 1
    for wanted in (certificate, own):
        found, reasons = store.find(wanted.domain, wanted.validators)
        assert found is not None and found.validators == wanted.validators, reasons
        assert all(reason.startswith("certificate ") for reason in reasons), reasons
    if mine == 15:
        break
for k in range(mine):
    wanted = {"process": str(process), "k": str(k)}
    found, reasons = store.find(certificate.domain, wanted)
    assert found is not None and found.validators == wanted, reasons
print(mine)
"""


def test_eight_processes_at_once(store: CertificateStore, make_certificate: Make) -> None:
    certificate = make_certificate()
    processes = [child(store, certificate, AT_ONCE, k) for k in range(8)]
    made = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        made.append(int(out))
    assert min(made) > 0
    # Nobody's certificate is lost, and nothing is left over.
    expected = {certificate.id} | {
        make_certificate(validators={"process": str(p), "k": str(k)}).id for p in range(8) for k in range(made[p])
    }
    assert {found.id for found in valid(store)} == expected
    assert names(store) == sorted(f"{name}.json" for name in expected)


def test_threads_at_once(store: CertificateStore, machine: dict[str, str], make_certificate: Make) -> None:
    versions = [make_certificate(created=str(k)) for k in range(200)]
    with ThreadPoolExecutor(8) as pool:
        # A failure to save warns, and warnings are errors here.
        assert None not in list(pool.map(store.save, versions))
    found, reasons = store.find(versions[0].domain, machine)
    assert found in versions
    assert reasons == []
    assert names(store) == [f"{versions[0].id}.json"]


@posix
def test_clear_leaves_what_is_being_written(store: CertificateStore, make_certificate: Make) -> None:
    saved(store, make_certificate())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = certificate_store._host()
    unfinished = {
        "alive": f".x.json.{host}-{os.getpid()}-00000000.unfinished",
        "ended": f".x.json.{host}-{ended.pid}-00000000.unfinished",
        "impossible": f".x.json.{host}-{10**30}-00000000.unfinished",
        "of another machine": f".x.json.{'0' * 6}-{ended.pid}-00000000.unfinished",
        "old": f".x.json.{host}-{os.getpid()}-11111111.unfinished",
        "of the future": f".x.json.{'0' * 6}-{ended.pid}-11111111.unfinished",
    }
    for name in unfinished.values():
        (store.folder / name).write_text("{")
    for key, shift in (("old", -7200), ("of the future", 7200)):
        at = time.time() + shift
        os.utime(store.folder / unfinished[key], (at, at))
    assert len(list(store.all())) == 1
    assert store.clear() == 5
    assert set(names(store)) == {unfinished["alive"], unfinished["of another machine"]}
