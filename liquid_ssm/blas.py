"""NumPy's linear algebra library: name, version, threads, and whether it runs the kernels that this processor needs."""

from __future__ import annotations

import ctypes
from collections.abc import Collection
from functools import cache
from pathlib import Path

# The names by which OpenBLAS calls its families of kernels, by the instructions that they use, weakest first.
X86_KERNELS = {
    "SSE": (
        *("katmai", "coppermine", "northwood", "prescott", "banias", "atom", "core2", "penryn", "dunnington"),
        *("nehalem", "athlon", "opteron", "opteron_sse3", "barcelona", "bobcat", "nano"),
    ),
    "AVX": ("sandybridge", "bulldozer", "piledriver", "steamroller"),
    "AVX2": ("haswell", "zen", "excavator"),
    "AVX-512": ("skylakex", "cooperlake", "sapphirerapids"),
}
ARM_KERNELS = {
    "Advanced SIMD": (
        *("cortexa53", "cortexa55", "cortexa57", "cortexa72", "cortexa73", "cortexa76", "cortexx1", "neoversen1"),
        *("falkor", "thunderx", "thunderx2t99", "thunderx3t110", "tsv110", "emag8180", "vortex", "vortexm4"),
    ),
    "SVE": ("neoversev1", "neoversev2", "neoversen2", "a64fx", "armv8sve", "armv9sme"),
}
# Of which extensions each level is made.
_NEEDS = {
    "SSE": ("sse2",),
    "AVX": ("avx",),
    "AVX2": ("avx2", "fma"),
    "AVX-512": ("avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl"),
    "Advanced SIMD": ("asimd",),
    "SVE": ("sve",),
}


def description() -> str:
    """Name and version of NumPy's BLAS and, where it is an OpenBLAS from a wheel, the kernels it chose."""
    name, version = name_and_version()
    text = f"{name} {version}".strip()
    chosen = kernels()
    return f"{text}, {chosen} kernels" if chosen else text


@cache
def name_and_version() -> tuple[str, str]:
    """What NumPy was built with."""
    import numpy as np

    config = np.show_config(mode="dicts")
    built = config["Build Dependencies"]["blas"] if config else {}
    return str(built.get("name", "unknown")), str(built.get("version", ""))


def kernels() -> str:
    """The processor family whose kernels OpenBLAS runs, which can differ from the processor's own; empty if unknown."""
    for library in _openblas(_numpy_folder()):
        for symbol in ("scipy_openblas_get_corename64_", "openblas_get_corename64_"):
            if hasattr(library, symbol):
                function = getattr(library, symbol)
                function.restype = ctypes.c_char_p
                return str(function().decode())
    return ""


def threads() -> int | None:
    """How many threads OpenBLAS uses at present; None if that is not known."""
    for library in _openblas(_numpy_folder()):
        for symbol in ("scipy_openblas_get_num_threads64_", "openblas_get_num_threads64_"):
            if hasattr(library, symbol):
                return int(getattr(library, symbol)())
    return None


def _numpy_folder() -> Path:
    import numpy as np

    return Path(np.__file__).parent


@cache
def _openblas(numpy_folder: Path) -> tuple[ctypes.CDLL, ...]:
    """The OpenBLAS that came with NumPy's wheel."""
    folders = (numpy_folder.parent / "numpy.libs", numpy_folder / ".dylibs")
    # NumPy has loaded these libraries, so this gives second handles to the same ones.
    return tuple(ctypes.CDLL(str(path)) for folder in folders for path in sorted(folder.glob("*openblas*")))


def verdict(chosen: str, features: Collection[str], machine: str, asked: str | None, name: str = "OpenBLAS") -> str:
    """Whether the kernels are the right ones for the processor: a sentence that begins right, wrong or unknown.

    Args:
        chosen: the family whose kernels run, as `kernels` gives it; empty if not known.
        features: the processor's vector extensions, as `machine.cpu_features` gives them.
        machine: the architecture, as `platform.machine` gives it.
        asked: the value of OPENBLAS_CORETYPE, None if it is not set.
        name: of the library.
    """
    if not chosen:
        return f"unknown ({name} does not tell which kernels it runs)"
    levels = ARM_KERNELS if machine.lower() in ("aarch64", "arm64") else X86_KERNELS
    running = next((level for level, names in levels.items() if chosen.lower() in names), None)
    if running is None:
        return f"unknown (nothing is known here about {chosen} kernels on {machine})"
    best = next((level for level in reversed(levels) if set(_NEEDS[level]) <= set(features)), None)
    if best is None:
        return f"unknown (this system does not tell the vector extensions of its CPU; {chosen} kernels use {running})"
    if running == best:
        return f"right: {chosen} kernels use {best}, the widest that this CPU has"
    order = list(levels)
    if order.index(running) > order.index(best):
        problem = f"{chosen} kernels need {running}, which this CPU has not"
    else:
        problem = f"{chosen} kernels use {running} though this CPU has {best}"
    if asked:
        return f"wrong: {problem}; unset OPENBLAS_CORETYPE, which is {asked}"
    return f"wrong: {problem}; {name} does not know this CPU: update NumPy, or set OPENBLAS_CORETYPE={_usual(best)}"


def _usual(level: str) -> str:
    return {"AVX-512": "SkylakeX", "AVX2": "Haswell", "AVX": "Sandybridge", "SVE": "NEOVERSEV1"}.get(level, "Nehalem")
