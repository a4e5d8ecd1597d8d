"""Certificates as files, one each, in a folder that many processes, versions and machines may share.

A file's name is made from its domain and its validators, so two versions never write the same one.  Files appear by
being renamed, so a reader sees a whole one or none.  No time is ever compared to decide whether a certificate holds.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import stat
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from .cache_folder import ENVIRONMENT_VARIABLE, cache_folder
from .certificate import (
    KIND,
    MAX_CHARACTERS,
    Certificate,
    Domain,
    certificate_id,
    sealed,
    strict_json,
    unsealed,
)
from .errors import CertificateInvalid, LiquidSSMError, ParameterError
from .report import dump_json

QUARANTINE_KIND = "liquid-ssm quarantined certificate"
EXPORT_KIND = "liquid-ssm certificates"
EXPORT_SCHEMA = QUARANTINE_SCHEMA = 1
MAX_EXPORT = 50 * MAX_CHARACTERS
MAX_DETAILS = 100_000

# An unfinished file is left over once it is older, or its process has ended.
STALE_SECONDS = 3600

_ID = "[0-9a-f]{16}-[0-9a-f]{8}"
_CERTIFICATE_NAME = re.compile(rf"({_ID})\.json")
_RECORD_NAME = re.compile(rf"({_ID})\.(.+)\.quarantined\.json")
_UNFINISHED_NAME = re.compile(r"\..+\.([0-9a-f]{6})-([0-9]+)-[0-9a-f]{8}\.unfinished")

# One warning per process is enough.
_warned = False
# Certificates that this process has quarantined, by folder, id and backend, should the folder not take the record.
_withdrawn: dict[tuple[str, str, str], tuple[Certificate, str]] = {}


@dataclass(frozen=True)
class Quarantine:
    """The record of a certificate that turned out to be wrong.

    Attributes:
        path: its file.
        id: of the certificate.
        backend: that must not be chosen again.
        reason: what went wrong; for a record that cannot be read, why it cannot.
        certificate: what was withdrawn, None for a record that cannot be read.
    """

    path: Path
    id: str
    backend: str
    reason: str
    certificate: Certificate | None


class CertificateStore:
    """The certificates of a folder.

    Args:
        folder: where they are; None for `certificates` in the cache folder. It is made by the first `save`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = cache_folder() / "certificates" if folder is None else Path(folder)

    def save(self, certificate: Certificate) -> Path | None:
        """Write a certificate, in one step for everyone who reads at the same time.

        Args:
            certificate: to be kept. One of the same id is replaced.

        Returns:
            its file, or None where the folder cannot be written to; the first time in a process a RuntimeWarning says
            why and what to do.
        """
        return self._keep(self._path(certificate), certificate.to_json())

    def find(self, domain: Domain, current: Mapping[str, str]) -> tuple[Certificate | None, list[str]]:
        """The certificate of a domain that holds under the current validators.

        Args:
            domain: which must be exactly the certificate's.
            current: the validators now.

        Returns:
            the certificate, or None, and for each other file of this domain the reason why it was not used.
        """
        found = None
        reasons = []
        for path, certificate in self._certificates(f"{domain.key}-"):
            if isinstance(certificate, CertificateInvalid):
                reasons.append(str(certificate) if path == self.folder else f"file {path.name}: {certificate}")
            elif certificate.domain != domain:
                reasons.append(f"file {path.name}: is about another domain")
            elif why := self.why_not(certificate, current):
                reasons.append(f"certificate {certificate.id}: {'; '.join(why)}")
            elif found is None:
                found = certificate
            else:
                reasons.append(f"certificate {certificate.id}: {found.id} is used")
        return found, reasons

    def why_not(self, certificate: Certificate, current: Mapping[str, str]) -> list[str]:
        """Why a certificate does not hold under the current validators; empty if it does."""
        from .validators import changed

        quarantined = [f"it is quarantined, see {self._record_path(certificate)}"]
        return changed(certificate.validators, current) + (quarantined if self._is_quarantined(certificate) else [])

    def all(self) -> Iterator[tuple[Path, Certificate | CertificateInvalid]]:
        """Every certificate, by name; in the place of one that cannot be used, the error that says why.

        Quarantined ones are not among them, unfinished files neither.
        """
        yield from self._certificates("")

    def get(self, id_or_prefix: str) -> Certificate:
        """The certificate of an id, or of the beginning of one.

        Raises:
            ParameterError: there is none, or more than one.
            CertificateInvalid: its file cannot be used.
        """
        path = self.path(id_or_prefix)
        try:
            return _read_certificate(path)
        except FileNotFoundError:
            raise ParameterError(f"certificate {path.stem} has been removed a moment ago; list them again.") from None
        except CertificateInvalid as error:
            raise CertificateInvalid(f"file {path} {error}. Remove it; it is made again when needed.") from None

    def path(self, id_or_prefix: str) -> Path:
        """The file of an id, or of the beginning of one, whether or not it can be used.

        Raises:
            ParameterError: there is none, or more than one.
        """
        ids = [match[1] for name in self._listed() if (match := _CERTIFICATE_NAME.fullmatch(name))]
        fitting = [name for name in ids if id_or_prefix and name.startswith(id_or_prefix)]
        if len(fitting) == 1:
            return self.folder / f"{fitting[0]}.json"
        shown = ", ".join((fitting or ids)[:20]) + (", …" if len(fitting or ids) > 20 else "")
        if fitting:
            raise ParameterError(f"{len(fitting)} certificates begin with {id_or_prefix!r}: {shown}; give more digits.")
        known = f"there are: {shown}" if ids else "there are none"
        raise ParameterError(f"no certificate begins with {id_or_prefix!r} in {self.folder}; {known}.")

    def remove(self, id_or_prefix: str) -> Path:
        """Delete one certificate.

        Returns:
            the file that was deleted.

        Raises:
            ParameterError: there is none, or more than one, or it cannot be deleted.
        """
        path = self.path(id_or_prefix)
        self._unlink([path])
        return path

    def clear(self) -> int:
        """Delete certificates, quarantine records and unfinished files that are left over.

        Files of other names are not ours and stay.

        Returns:
            how many files were deleted.

        Raises:
            ParameterError: files cannot be deleted; the others are.
        """
        kept = (_CERTIFICATE_NAME, _RECORD_NAME)
        ours = [self.folder / name for name in self._listed() if any(pattern.fullmatch(name) for pattern in kept)]
        for key in [key for key in _withdrawn if key[0] == str(self.folder)]:
            del _withdrawn[key]
        return self._unlink([*ours, *self._left_over()])

    def quarantine(self, certificate: Certificate, reason: str, details: Mapping[str, object]) -> Path | None:
        """Withdraw a certificate, so that its backend is not used for its domain while the validators stay.

        Args:
            certificate: which `find` must not return again.
            reason: what went wrong, in a sentence.
            details: whatever reproduces it. JSON values.

        Returns:
            the file with reason, details and certificate, or None where the folder cannot be written to: the
            certificate is then withdrawn in this process only, and a RuntimeWarning says so as for `save`.
        """
        _withdrawn[self._withdrawal(certificate)] = certificate, reason
        kept = self._keep(self._record_path(certificate), _record(certificate, reason, details))
        path = self._path(certificate)
        # Another process may have chosen another backend for the domain meanwhile.
        with suppress(OSError, CertificateInvalid):
            if _read_certificate(path).backend == certificate.backend:
                path.unlink()
        return kept

    def quarantined(self, domain: Domain, current: Mapping[str, str]) -> list[tuple[str, str]]:
        """The backends that must not be chosen for a domain while the validators are the current ones.

        Returns:
            pairs of backend and reason.
        """
        from .validators import changed

        withdrawn = {
            certificate.backend: reason
            for (folder, _, _), (certificate, reason) in _withdrawn.items()
            if folder == str(self.folder) and certificate.domain == domain
            if not changed(certificate.validators, current)
        }
        for record in self.records(f"{domain.key}-"):
            if record.certificate is None:
                # Its name still says what it is about.
                applies = record.id == certificate_id(domain, current)
            else:
                applies = record.certificate.domain == domain and not changed(record.certificate.validators, current)
            if applies:
                withdrawn[record.backend] = record.reason
        return list(withdrawn.items())

    def records(self, prefix: str = "") -> Iterator[Quarantine]:
        """Every quarantine record whose certificate's id begins with `prefix`; none in a folder without access."""
        try:
            names = self._listed(".quarantined.json")
        except ParameterError:
            return  # who reads the certificates themselves is told
        for name in names:
            match = _RECORD_NAME.fullmatch(name)
            if match is None or not name.startswith(prefix):
                continue
            path = self.folder / name
            backend = unquote(match[2], errors="surrogatepass")
            try:
                reason, certificate = _read_record(path)
                if (certificate.id, certificate.backend) != (match[1], backend):
                    raise CertificateInvalid(f"holds a record about {certificate.id}, which its name does not say")
            except FileNotFoundError:
                continue
            except CertificateInvalid as error:
                yield Quarantine(path, match[1], backend, f"the quarantine record {name} {error}", None)
            else:
                yield Quarantine(path, match[1], backend, reason, certificate)

    def export(self, ids: Sequence[str], path: Path) -> list[tuple[str, str]]:
        """Write certificates into one file.

        Args:
            ids: of the certificates, or their beginnings; empty for all.
            path: the file, which is replaced.

        Returns:
            pairs of each certificate's id, or file name, and `exported` or the reason why it was not.

        Raises:
            ParameterError: an id is unknown or ambiguous, or the file cannot be written.
        """
        wanted = [self.path(name) for name in ids] or [self.folder / name for name in self._listed(".json")]
        documents = []
        outcome = []
        for source in dict.fromkeys(wanted):
            if _RECORD_NAME.fullmatch(source.name):
                continue
            try:
                certificate = _read_certificate(source)
                # As it is in the file, with what another version has put there.
                documents.append(strict_json(_read_file(source)))
            except (FileNotFoundError, CertificateInvalid) as error:
                gone = isinstance(error, FileNotFoundError)
                outcome.append((source.name, "has been removed a moment ago" if gone else str(error)))
            else:
                outcome.append((certificate.id, "exported"))
        text = dump_json({"kind": EXPORT_KIND, "schema": EXPORT_SCHEMA, "certificates": documents})
        try:
            _write(path, text)
        except OSError as error:
            raise ParameterError(f"{str(path)!r} cannot be written: {error.strerror}. Choose another place.") from None
        return outcome

    def import_(self, path: Path) -> list[tuple[str, str]]:
        """Take over certificates from a file that `export` wrote, or from a single certificate's file.

        Certificates of other machines are kept too, since a folder may serve several; the outcome says that they are
        not used here.  One that is already here stays as it is.

        Args:
            path: the file.

        Returns:
            pairs of each certificate's id, or its place in the file, and `imported` or what happened instead.

        Raises:
            ParameterError: the file cannot be read.
            CertificateInvalid: it is neither an export nor a certificate.
        """
        try:
            document = strict_json(_read_file(path, MAX_EXPORT), MAX_EXPORT)
        except FileNotFoundError:
            raise ParameterError(f"there is no file {str(path)!r} to import.") from None
        except CertificateInvalid as error:
            raise CertificateInvalid(f"file {str(path)!r} {error}. Nothing is imported.") from None
        return [self._import_one(k, entry) for k, entry in enumerate(_entries(document, path))]

    def _import_one(self, k: int, entry: object) -> tuple[str, str]:
        try:
            text = dump_json(entry)
            certificate = Certificate.from_json(text)
        except CertificateInvalid as error:
            return f"entry {k}", str(error)
        except RecursionError:
            return f"entry {k}", "is nested deeper than a certificate ever is"
        path = self._path(certificate)
        with suppress(FileNotFoundError, CertificateInvalid):
            _read_certificate(path)
            return certificate.id, "is already here, and stays as it is"
        if self._keep(path, text) is None:
            return certificate.id, f"cannot be kept in {self.folder}"
        current, trouble = validators_here(certificate.domain)
        why = trouble or self.why_not(certificate, current)
        return certificate.id, f"imported, but will not be used here: {'; '.join(why)}" if why else "imported"

    def _path(self, certificate: Certificate) -> Path:
        return self.folder / f"{certificate.id}.json"

    def _record_path(self, certificate: Certificate) -> Path:
        # A domain may lose one backend after the other, each with a record of its own.
        return (
            self.folder
            / f"{certificate.id}.{quote(certificate.backend, safe='', errors='surrogatepass')}.quarantined.json"
        )

    def _withdrawal(self, certificate: Certificate) -> tuple[str, str, str]:
        return str(self.folder), certificate.id, certificate.backend

    def _is_quarantined(self, certificate: Certificate) -> bool:
        # The record's name is enough, so that a damaged record still holds.
        return self._withdrawal(certificate) in _withdrawn or os.path.lexists(self._record_path(certificate))

    def _listed(self, ending: str = "") -> list[str]:
        """Names in the folder; none where there is no folder.

        Raises:
            ParameterError: the folder cannot be read.
        """
        try:
            return sorted(name for name in os.listdir(self.folder) if name.endswith(ending))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ParameterError(
                f"the folder {str(self.folder)!r} cannot be read: {error.strerror}. Set {ENVIRONMENT_VARIABLE} to "
                "another folder."
            ) from None

    def _certificates(self, prefix: str) -> Iterator[tuple[Path, Certificate | CertificateInvalid]]:
        try:
            names = self._listed(".json")
        except ParameterError as error:
            yield self.folder, CertificateInvalid(str(error))
            return
        for name in names:
            if not name.startswith(prefix) or _RECORD_NAME.fullmatch(name):
                continue
            path = self.folder / name
            try:
                found: Certificate | CertificateInvalid = _read_certificate(path)
            except FileNotFoundError:
                continue  # removed since the folder was listed
            except CertificateInvalid as error:
                found = error
            yield path, found

    def _keep(self, path: Path, text: str) -> Path | None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(path, text)
        except OSError as error:
            self._warn(error)
            return None
        return path

    def _warn(self, error: OSError) -> None:
        global _warned
        if _warned:
            return
        _warned = True
        warnings.warn(
            f"certificates cannot be kept in {self.folder} ({error.strerror or error}), so every process selects its "
            f"backends again; make room or set {ENVIRONMENT_VARIABLE} to a folder that can be written to",
            RuntimeWarning,
            stacklevel=4,
        )

    def _left_over(self) -> Iterator[Path]:
        """Unfinished files that nobody is writing."""
        for name in self._listed(".unfinished"):
            match = _UNFINISHED_NAME.fullmatch(name)
            if match is None:
                continue
            path = self.folder / name
            with suppress(OSError):
                # Either way round: a clock may have gone backwards.
                old = abs(time.time() - path.lstat().st_mtime) > STALE_SECONDS
                if old or (match[1] == _host() and not _is_running(int(match[2]))):
                    yield path

    def _unlink(self, paths: Iterable[Path]) -> int:
        removed = 0
        failures = []
        for path in paths:
            try:
                if not stat.S_ISDIR(path.lstat().st_mode):  # a folder is not ours
                    path.unlink()
                    removed += 1
            except FileNotFoundError:
                continue
            except OSError as error:
                failures.append(f"{path.name} ({error.strerror})")
        if failures:
            raise ParameterError(
                f"{removed} files of {self.folder} were removed; {len(failures)} cannot be: {', '.join(failures[:5])}. "
                "Remove them by hand."
            )
        return removed


def validators_here(domain: Domain) -> tuple[dict[str, str], list[str]]:
    """The validators now, those that matter for a domain.

    Returns:
        the validators, and why they cannot be found out, as on a machine without the domain's device: no certificate
        of the domain holds there.
    """
    from .validators import validators

    try:
        return validators(domain.arrays, domain.device), []
    except (LiquidSSMError, AssertionError, RuntimeError, OSError) as error:
        # The last three are torch's, about a GPU that is not there or an installation that is broken.
        return {}, [f"{domain.arrays} on {domain.device} cannot be used here: {error}"]


def _entries(document: object, path: Path) -> list[object]:
    kind = document.get("kind") if isinstance(document, dict) else None
    if kind == KIND:
        return [document]
    if not isinstance(document, dict) or kind != EXPORT_KIND:
        raise CertificateInvalid(
            f"file {str(path)!r} is no export of certificates: its kind must be {EXPORT_KIND!r}. Nothing is imported."
        )
    schema, entries = document.get("schema"), document.get("certificates")
    if not isinstance(schema, int) or not 1 <= schema <= EXPORT_SCHEMA or not isinstance(entries, list):
        raise CertificateInvalid(
            f"file {str(path)!r} has the schema {schema!r} and {type(entries).__name__} of certificates; this version "
            f"reads schema {EXPORT_SCHEMA} with a list. Nothing is imported."
        )
    return entries


def _record(certificate: Certificate, reason: str, details: Mapping[str, object]) -> str:
    record = {
        "kind": QUARANTINE_KIND,
        "schema": QUARANTINE_SCHEMA,
        "reason": reason,
        "certificate": certificate.document(),
    }
    with suppress(TypeError, ValueError, RecursionError):
        text = dump_json(sealed({**record, "details": details}))
        if len(text) < MAX_CHARACTERS:
            return text
    # The record matters more than that its details are JSON of some length.
    return dump_json(sealed({**record, "details": {"repr": repr(details)[:MAX_DETAILS]}}))


def _read_certificate(path: Path) -> Certificate:
    """The certificate in a file that has its name.

    Raises:
        CertificateInvalid: for every reason except that there is no file.
        FileNotFoundError: there is none.
    """
    certificate = Certificate.from_json(_read_file(path))
    if path.name != f"{certificate.id}.json":
        raise CertificateInvalid(f"is foreign: it holds certificate {certificate.id}, which its name does not say")
    return certificate


def _read_record(path: Path) -> tuple[str, Certificate]:
    record = unsealed(strict_json(_read_file(path)), QUARANTINE_KIND, QUARANTINE_SCHEMA)
    reason = record.get("reason")
    if not isinstance(reason, str) or "certificate" not in record:
        raise CertificateInvalid("has no reason that is a text, or no certificate")
    return reason, Certificate.from_json(dump_json(record["certificate"]))


def _read_file(path: Path, limit: int = MAX_CHARACTERS) -> bytes:
    try:
        # Without O_NONBLOCK, opening a pipe waits for its other end.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CertificateInvalid("is not a regular file")
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(limit + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        if os.path.islink(path):
            raise CertificateInvalid("is a link to nowhere") from None
        raise
    except OSError as error:
        raise CertificateInvalid(f"cannot be read: {error.strerror or error}") from None


def _write(path: Path, text: str) -> None:
    """Replace a file in one step, after its content is on the disk."""
    unfinished = path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{os.urandom(4).hex()}.unfinished")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        try:
            rest = memoryview((text + "\n").encode("utf-8"))
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(unfinished, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(unfinished)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Put the new name on the disk.  Without it a power cut may lose the file, but not leave half of one."""
    if os.name != "posix":
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _host() -> str:
    # Process ids of another machine that shares the folder say nothing here.
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def _is_running(process: int) -> bool:
    if os.name != "posix":
        return True  # os.kill would end it
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # of another user
    return True
