"""A folder of data: what a generator says about it, and the check sums of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .errors import DataError

# Beside the data: written last, so that a folder without it is not a finished generated one.
GENERATED = "GENERATED.json"
CHECK_SUMS = "SHA256SUMS"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Generated:
    """What a generator writes beside its data: they are a stand-in, not the published set.

    Attributes:
        task: name of the generator.
        seed: of everything that is drawn.
        version: of the package that made them.
        counts: numbers of samples by part, such as train, validation, test.
        options: of the generator, enough to make the same files again.
        tools: versions of programs that the data depend on.
    """

    task: str
    seed: int
    version: str
    counts: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)


def write_generated(folder: Path, about: Generated, files: Iterable[Path]) -> None:
    """Write check sums of `files`, which lie in the folder, and then what made them."""
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in sorted(files)]
    (folder / CHECK_SUMS).write_text("".join(lines), encoding="utf-8")
    (folder / GENERATED).write_text(json.dumps(asdict(about), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_generated(folder: Path) -> Generated | None:
    """What made the data in the folder; None where no generator says so.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / GENERATED
    if not path.is_file():
        return None
    try:
        found = Generated(**json.loads(path.read_text(encoding="utf-8")))
        if not all(type(count) is int and count >= 0 for count in dict(found.counts).values()):
            raise ValueError("counts are not whole numbers")
        return found
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); generate the folder again.") from None


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def check_sums(folder: Path, said: Callable[[int, int, str], None] | None = None) -> int:
    """Compare every file that `SHA256SUMS` names with its sum, and return their number: 0 where there is no such file.

    Args:
        folder: holds the file, as `sha256sum` writes it; names are relative to the folder.
        said: told (done, total, name) after each file.

    Raises:
        DataError: a file that is missing, cannot be read or has another sum, by name; or a line that is no sum.
    """
    listed = folder / CHECK_SUMS
    if not listed.is_file():
        return 0
    try:
        lines = listed.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{listed} cannot be read ({error}); get the data again.") from None
    for i, line in enumerate(lines, start=1):
        # `sha256sum --binary` writes a star for the second blank.
        wanted, mark, name = line[:64], line[64:66], line[66:]
        if mark not in ("  ", " *") or not name:
            raise DataError(f"{listed}, line {i}, is {line!r}; expected a SHA-256, two blanks and a name.")
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path} is missing, which {CHECK_SUMS} lists; get the data again.")
        try:
            found = sha256(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from None
        if found != wanted.lower():
            raise DataError(
                f"{path} is not the file that {CHECK_SUMS} lists: SHA-256 {found[:16]}…, expected {wanted[:16]}…. It "
                "is damaged or was changed; get it again."
            )
        if said is not None:
            said(i, len(lines), name)
    return len(lines)


def sparse(said: Callable[[int, int, str], None] | None) -> Callable[[int, int, str], None]:
    """`said`, told at most a hundred times of what may be many thousands of steps; for None nothing is."""
    last = -1

    def some(done: int, total: int, what: str) -> None:
        nonlocal last
        if said is not None and done * 100 // max(total, 1) != last:
            last = done * 100 // max(total, 1)
            said(done, total, what)

    return some
