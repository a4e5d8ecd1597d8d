"""What makes a report again: the command line, and the hash of the file that it reads."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path


def command_line(command: str, options: Mapping[str, object]) -> str:
    """A command as one would type it into a shell.

    Args:
        command: name of the subcommand.
        options: by Python's name of the parameter; None and empty lists are left out, True is a flag, False is left
            out, lists repeat the option.
    """
    words = ["liquid-ssm", command]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            words.append(flag)
        elif value is not None and value is not False:
            values = value if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
            for one in values:
                words += [flag, str(one)]
    return shlex.join(words)


def file_hash(path: str) -> str:
    """SHA-256 of a signal's file in hexadecimal digits, as `sha256sum` prints it; for `a.npz:name` the archive's."""
    archive = re.fullmatch(r"(.+\.npz):.*", path, re.IGNORECASE | re.DOTALL)
    file = Path(archive[1]) if archive and not Path(path).exists() else Path(path)
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
