"""State dicts from files, read without running any code that a file holds."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from ..errors import BackendUnavailable, ParameterError

FILES = (".safetensors", ".npz", ".pt", ".pth")

# What zipfile, zlib and NumPy raise on a damaged archive; the last two come from its array headers.
_ARCHIVE_ERRORS = (ValueError, EOFError, OSError, RuntimeError, BadZipFile, zlib.error, SyntaxError, TokenError)
# What the messages of torch and NumPy say where an object was found.  Without it, junk may have looked like one.
_OBJECT_FOUND = ("Unsupported global", "unsupported GLOBAL", "Object arrays")


def read_state_dict(source: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    """Arrays or tensors by name; a mapping is returned as it is.

    Args:
        source: the mapping, or a file of one: `.safetensors`, `.npz`, or `.pt`, `.pth` with a plain state dict.

    Raises:
        ParameterError: a source of another type, another ending, a file that is missing, cannot be opened, is damaged
            or holds more than arrays.
        BackendUnavailable: a `.safetensors` file without the package safetensors.
    """
    if isinstance(source, Mapping):
        return source
    if not isinstance(source, str | Path):
        raise ParameterError(
            f"source is of type {type(source).__name__}; allowed: a mapping from names to arrays, or the path of a "
            "file of them as a str or a Path."
        )
    path = Path(source)
    if path.suffix not in FILES:
        raise ParameterError(
            f"{path.name} has the ending {path.suffix!r}; read are: {', '.join(FILES)}. Save the plain state dict as "
            "one of them, or pass a mapping from names to arrays."
        )
    # The unpickler of torch.load raises nearly anything on junk: KeyError, IndexError, struct.error, …
    errors: tuple[type[Exception], ...] = (Exception,)
    if path.suffix == ".npz":
        errors = _ARCHIVE_ERRORS
    elif path.suffix == ".safetensors":
        try:
            safetensors = import_module("safetensors.torch")
        except ModuleNotFoundError as missing:
            raise BackendUnavailable(f"{path.name} needs safetensors. Run: pip install safetensors") from missing
        errors = (import_module("safetensors").SafetensorError, OSError)
    try:
        path.open("rb").close()
    except FileNotFoundError as missing:
        raise ParameterError(
            f"there is no file {path}. Check the path; a relative one begins at the working folder."
        ) from missing
    except (OSError, ValueError) as refused:
        raise ParameterError(
            f"{path.name} cannot be opened: {refused}. Give the path of a file that you may read."
        ) from refused
    loaded: Any
    try:
        if path.suffix == ".safetensors":
            loaded = safetensors.load_file(path)
        elif path.suffix == ".npz":
            # From a path, np.load leaves a damaged archive open.
            with path.open("rb") as file:
                loaded = np.load(file, allow_pickle=False)
                if isinstance(loaded, Mapping):
                    loaded = dict(loaded)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except errors as refused:
        found = any(text in str(refused) for text in _OBJECT_FOUND)
        if found or isinstance(refused, UnpicklingError):
            raise ParameterError(
                f"{path.name} {'holds' if found else 'is damaged or holds'} more than arrays: Python objects are not "
                "read, because that can run code. Where you trust the file, load it yourself and save the plain state "
                "dict: torch.save(checkpoint['state_dict'], 'plain.pt'), or np.savez."
            ) from refused
        raise ParameterError(
            f"{path.name} is damaged, or another kind of file than its ending {path.suffix!r} says. Copy it again from "
            "where it came from, or save the plain state dict anew."
        ) from refused
    if not isinstance(loaded, Mapping):
        raise ParameterError(f"{path.name} holds a {type(loaded).__name__}; needed: a state dict, names to tensors.")
    return loaded
