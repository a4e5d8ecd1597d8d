"""Generators of data in exactly the on-disk layout of the real data, for those who do not have them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from ..data_folder import Generated
from ..errors import BackendUnavailable, unknown_name

# Generators by name: where their function is.
GENERATORS = {
    "listops": "listops:generate_listops",
    "imdb": "text:generate_imdb",
    "aan": "text:generate_aan",
    "pathfinder": "pathfinder:generate_pathfinder",
    "pathx": "pathfinder:generate_pathx",
    "speech-commands": "speech_commands:generate_speech_commands",
    "bidmc": "bidmc:generate_bidmc",
}


def get_generator(name: str) -> Callable[..., Generated]:
    """The function of a generator: of (folder, *, seed, progress, …).

    Raises:
        ParameterError: an unknown name.
        BackendUnavailable: without the packages of the extra `generate`.
    """
    if name not in GENERATORS:
        raise unknown_name("generator", name, GENERATORS)
    module, member = GENERATORS[name].split(":")
    try:
        found: Callable[..., Generated] = getattr(import_module(f".{module}", __name__), member)
    except ModuleNotFoundError as missing:
        if missing.name is not None and missing.name.startswith("liquid_ssm"):
            raise
        raise BackendUnavailable(
            f"{missing.name} is not installed. Run: pip install 'liquid-ssm[generate]'"
        ) from missing
    return found
