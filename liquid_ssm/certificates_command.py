"""The commands `liquid-ssm certificates list`, `show`, `verify`, `clear`, `export` and `import`.

Exit codes: 0 done, 1 a certificate is not valid here or could not be exported or imported, 2 usage or input error.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .certificate import Candidate, Certificate
from .certificate_store import CertificateStore, Quarantine, validators_here
from .console import check_target, write_json
from .errors import CertificateInvalid, ParameterError
from .report import dump_json

if TYPE_CHECKING:
    from rich.console import Console

NOT_VALID = 1
# Where no terminal sets a width, lines are as long as what they say.
UNLIMITED_WIDTH = 10_000

certificates = typer.Typer(
    name="certificates",
    help="Which backend was chosen for what, and why: kept as files, and checked before each use.",
    no_args_is_help=True,
)

IdsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Ids, or their beginnings. Default: all.")
]
JsonOption = Annotated[
    str | None,
    typer.Option("--json", metavar="PATH", help="Write JSON; - for standard output, which then carries nothing else."),
]


@certificates.command("list")
def list_(json: JsonOption = None) -> None:
    """Print every certificate: backend, what it covers, and whether it is valid here."""
    check_target("--json", json)
    store = CertificateStore()
    entries = _entries(store, store.all())
    records = list(store.records())
    if json != "-":
        if entries:
            _print_table(*_table(entries))
            _print()
        for entry in entries:
            for reason in entry["reasons"]:
                _print(f"not valid here: {entry['id']}: {reason}")
        for record in records:
            _print(f"quarantined: {record.backend}, {record.id}: {record.reason}")
        _print(f"{_count(len(entries), 'certificate')} in {store.folder}")
    quarantined = [_record_entry(record) for record in records]
    write_json(dump_json({"folder": str(store.folder), "certificates": entries, "quarantined": quarantined}), json)


@certificates.command()
def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="An id, or its beginning.")],
    json: JsonOption = None,
) -> None:
    """Print one certificate: its domain, every candidate, the reference, and what has changed since."""
    check_target("--json", json)
    store = CertificateStore()
    certificate = store.get(id)
    current, trouble = validators_here(certificate.domain)
    why = trouble or store.why_not(certificate, current)
    if json != "-":
        _print(f"certificate {certificate.id}: {certificate.backend}, made {certificate.created}", "bold")
        _print_pairs("Domain: every call that is covered", certificate.domain.describe())
        _print_heading("Candidates: error and bound relative to the largest |y|")
        _print_table(*_candidates(certificate.candidates))
        for candidate in certificate.candidates:
            if candidate.reason:
                _print(f"{candidate.name}, {candidate.status}: {candidate.reason}")
        _print_pairs("Problem: what was computed", _flat(certificate.problem))
        _print_pairs("Reference: what it was compared with", _flat(certificate.oracle))
        _print_pairs("Validators: what must stay the same", _compared(certificate.validators, current))
        _print_heading("Valid here: " + ("no" if why else "yes"))
        for reason in why:
            _print(f"  - {reason}")
    document = {
        "id": certificate.id,
        "valid": not why,
        "reasons": why,
        "certificate": certificate.document(),
        "current_validators": current,
    }
    write_json(dump_json(document), json)


@certificates.command()
def verify(ids: IdsArgument = None, json: JsonOption = None) -> None:
    """Check that files are whole and that everything they depend on is as it was; exit code 1 if one is not valid."""
    check_target("--json", json)
    store = CertificateStore()
    wanted = [store.path(id) for id in ids or ()]
    entries = _entries(store, ((path, found) for path, found in store.all() if path in wanted or not ids))
    # A damaged record still keeps its backend out, but cannot say why.
    damaged = [] if ids else [record for record in store.records() if record.certificate is None]
    invalid = sum(not entry["valid"] for entry in entries)
    if json != "-":
        for entry in entries:
            _print(f"{entry['id']}: {'valid' if entry['valid'] else 'NOT VALID'}")
            for reason in entry["reasons"]:
                _print(f"  - {reason}")
        for record in damaged:
            _print(f"NOT VALID: {record.reason}")
        _print(f"{len(entries) - invalid} of {_count(len(entries), 'certificate')} valid here, in {store.folder}")
    document = {
        "folder": str(store.folder),
        "valid": not invalid and not damaged,
        "certificates": entries,
        "damaged_records": [_record_entry(record) for record in damaged],
    }
    write_json(dump_json(document), json)
    if not document["valid"]:
        raise typer.Exit(NOT_VALID)


@certificates.command()
def clear(yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Delete every certificate, quarantine record and unfinished file; backends are then selected anew."""
    store = CertificateStore()
    if not yes:
        if not sys.stdin.isatty():
            raise ParameterError("clear asks before it deletes, and there is no terminal to ask on; give --yes.")
        if not typer.confirm(f"Delete every certificate and quarantine record in {store.folder}?"):
            _print("nothing was removed")
            return
    _print(f"removed {_count(store.clear(), 'file')} from {store.folder}")


@certificates.command()
def export(
    path: Annotated[str, typer.Argument(metavar="PATH", help="The file to write, JSON.")], ids: IdsArgument = None
) -> None:
    """Write certificates into one file, for another machine or a colleague."""
    if path == "-":
        raise ParameterError("export writes a file, not standard output; give its name.")
    check_target("export", path)
    outcome = CertificateStore().export(ids or [], Path(path))
    _print_outcome(outcome)
    written = sum(what == "exported" for _, what in outcome)
    _print(f"{_count(written, 'certificate')} exported to {path}")
    if written < len(outcome):
        raise typer.Exit(NOT_VALID)


@certificates.command("import")
def import_(path: Annotated[str, typer.Argument(metavar="PATH", help="A file that export wrote.")]) -> None:
    """Take over certificates from a file, each checked; those of another machine are kept, but not used here."""
    store = CertificateStore()
    outcome = store.import_(Path(path))
    _print_outcome(outcome)
    taken = sum(what.startswith(("imported", "is already here")) for _, what in outcome)
    _print(f"{taken} of {_count(len(outcome), 'certificate')} now in {store.folder}")
    if taken < len(outcome):
        raise typer.Exit(NOT_VALID)


def _entries(
    store: CertificateStore, found: Iterable[tuple[Path, Certificate | CertificateInvalid]]
) -> list[dict[str, Any]]:
    return [_entry(store, path, certificate) for path, certificate in found]


def _entry(store: CertificateStore, path: Path, found: Certificate | CertificateInvalid) -> dict[str, Any]:
    """One certificate in a few words, or why there is none."""
    if isinstance(found, CertificateInvalid):
        return {"id": path.name, "file": str(path), "valid": False, "reasons": [f"the file {found}"]}
    domain = found.domain
    words = dict(domain.describe())
    current, trouble = validators_here(domain)
    why = trouble or store.why_not(found, current)
    return {
        "id": found.id,
        "file": str(path),
        "backend": found.backend,
        "mode": words["mode"],
        "structure": domain.structure,
        "arrays": words["arrays"],
        "batch": words["batch"],
        "channels": words["channels"],
        "modes": words["modes per channel"],
        "length": words["length"],
        "tolerance": words["tolerance"],
        "created": found.created,
        "valid": not why,
        "reasons": why,
    }


def _record_entry(record: Quarantine) -> dict[str, str]:
    return {"file": str(record.path), "id": record.id, "backend": record.backend, "reason": record.reason}


def _table(entries: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    headers = ["id", "valid here", "backend", "mode", "structure", "arrays", "batch x channels x length", "tolerance"]
    names = ["id", "valid", "backend", "mode", "structure", "arrays", "sizes", "tolerance"]
    rows = []
    for entry in entries:
        sizes = " x ".join(
            entry[name].replace(" to ", "-") for name in ("batch", "channels", "length") if name in entry
        )
        shown = {**entry, "valid": "yes" if entry["valid"] else "no", "sizes": sizes or "-"}
        rows.append([str(shown.get(name, "-")) for name in names])
    return headers, rows


def _candidates(candidates: Sequence[Candidate]) -> tuple[list[str], list[list[str]]]:
    headers = ["backend", "status", "error", "bound", "error/bound", "time", "fastest", "slowest", "runs", "compiling"]
    rows = [
        [
            *(candidate.name, candidate.status),
            *(_number(x) for x in (candidate.error, candidate.bound, candidate.error_over_bound)),
            *(_seconds(x) for x in (candidate.seconds, candidate.seconds_min, candidate.seconds_max)),
            *(str(candidate.runs), _seconds(candidate.compile_seconds)),
        ]
        for candidate in candidates
    ]
    return headers, rows


def _compared(recorded: Mapping[str, str], current: Mapping[str, str]) -> list[tuple[str, str]]:
    pairs = []
    for name in dict.fromkeys([*recorded, *current]):
        was, now = recorded.get(name, "not recorded"), current.get(name, "not looked at")
        pairs.append((name, was if was == now else f"{was}   <- now: {now}"))
    return pairs


def _flat(values: Mapping[str, object], within: str = "") -> list[tuple[str, str]]:
    """Nested objects as pairs of a dotted name and a text."""
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{within}{name}.")
        elif isinstance(value, list):
            pairs.append((within + name, ", ".join(map(str, value))))
        else:
            pairs.append((within + name, str(value)))
    return pairs


def _number(value: float | None) -> str:
    return "-" if value is None else "0" if value == 0 else f"{value:.1e}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} µs"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _console() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else UNLIMITED_WIDTH)


def _print(line: str = "", style: str = "") -> None:
    from rich.text import Text

    # Text, not str: rich would read brackets in a name as markup.
    _console().print(Text(line, style=style))


def _print_heading(title: str) -> None:
    _print(f"\n{title}", "bold")


def _print_pairs(title: str, pairs: Iterable[tuple[str, str]]) -> None:
    _print_heading(title)
    _print_table(None, pairs)


def _print_table(headers: Sequence[str] | None, rows: Iterable[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold", show_header=headers is not None)
    for header in headers or ():
        # What people copy stays whole.
        table.add_column(header, no_wrap=header in ("id", "backend", "structure"), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console = _console()
    with console.capture() as captured:
        console.print(table)
    # Without the blanks that fill the last column.
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _print_outcome(outcome: Iterable[tuple[str, str]]) -> None:
    for name, what in outcome:
        _print(f"{name}: {what}")
