"""Where kernels can run, found out without importing torch or triton."""

from __future__ import annotations

import os
import re
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

# Oldest versions whose features the kernels use.
OLDEST_TRITON, OLDEST_INTERPRETER, OLDEST_TORCH = (3, 3), (3, 9), (2, 4)


def has_gpu() -> bool:
    """Whether torch sees a CUDA GPU, or, before it has been imported, whether the driver says that there is one."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "cuda"):
        return _torch_sees_one()
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0") not in ("", "-1") and _driver_has_one()


@cache
def version(package: str) -> tuple[int, ...]:
    """The installed version as numbers; nothing is imported for it."""
    release = metadata.version(package).partition("+")[0]
    return tuple(int(part) for part in re.findall(r"\d+", release)[:3])


@cache
def _torch_sees_one() -> bool:
    return bool(sys.modules["torch"].cuda.is_available())


@cache
def _driver_has_one() -> bool:
    # The last one is that of Windows' subsystem for Linux.
    return any(Path(place).exists() for place in ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg"))
