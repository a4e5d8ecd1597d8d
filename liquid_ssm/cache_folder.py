"""Where the package keeps what it may make again: certificates, compiled kernels."""

from __future__ import annotations

import os
from pathlib import Path

ENVIRONMENT_VARIABLE = "LIQUID_SSM_CACHE_DIR"


def cache_folder() -> Path:
    """The folder of the cache, which may not exist yet; compiled kernels are kept below the same one.

    Returns:
        what `LIQUID_SSM_CACHE_DIR` names, else the user's cache folder of this operating system.
    """
    base = os.environ.get(ENVIRONMENT_VARIABLE)
    if base:
        return Path(base)
    from platformdirs import user_cache_path

    return user_cache_path("liquid-ssm")
