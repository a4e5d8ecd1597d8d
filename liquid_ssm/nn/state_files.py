"""State dicts from files, read without running any code that a file holds."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from ..errors import BackendUnavailable, ParameterError

FILES = (".safetensors", ".npz", ".pt", ".pth")


def read_state_dict(source: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    """Arrays or tensors by name; a mapping is returned as it is.

    Args:
        source: the mapping, or a file of one: `.safetensors`, `.npz`, or `.pt`, `.pth` with a plain state dict.

    Raises:
        ParameterError: another ending, a file that is damaged or holds more than arrays.
        BackendUnavailable: a `.safetensors` file without the package safetensors.
    """
    if isinstance(source, Mapping):
        return source
    path = Path(source)
    if path.suffix not in FILES:
        raise ParameterError(
            f"{path.name} has the ending {path.suffix!r}; read are: {', '.join(FILES)}. Save the plain state dict as "
            "one of them, or pass a mapping from names to arrays."
        )
    if path.suffix == ".safetensors":
        try:
            safetensors = import_module("safetensors.torch")
        except ModuleNotFoundError as missing:
            raise BackendUnavailable(f"{path.name} needs safetensors. Run: pip install safetensors") from missing
        tensors: Mapping[str, Any] = safetensors.load_file(path)
        return tensors
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as held:
                return dict(held)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (ValueError, UnpicklingError) as refused:
        raise ParameterError(
            f"{path.name} is damaged or holds more than arrays: Python objects are not read, because that can run "
            "code. Where you trust the file, load it yourself and save the plain state dict: "
            "torch.save(checkpoint['state_dict'], 'plain.pt'), or np.savez."
        ) from refused
    if not isinstance(loaded, Mapping):
        raise ParameterError(f"{path.name} holds a {type(loaded).__name__}; needed: a state dict, names to tensors.")
    return loaded
