"""What decides whether a proof made earlier, or by another process, still holds here.

A proof that a backend is within its bounds, and the fastest, was made by certain code, with certain libraries, on a
certain processor, under certain settings.  `validators` names all of that, `changed` says what has become different,
and `live` watches the few things that can change inside a running process.
"""

from __future__ import annotations

import hashlib
import os
import platform
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import blas, machine
from .environment import matmul_precision, package_version
from .errors import BackendUnavailable, unknown_name
from .registry import ENTRY_POINT_GROUP

# The last two hold the vector functions that Numba calls where they are installed.
PACKAGES = (
    *("liquid-ssm", "numpy", "scipy", "numba", "llvmlite", "torch", "triton", "pykeops", "keopscore"),
    *("icc-rt", "intel-cmplr-lib-rt"),
)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
# What else changes which instructions are run: in Numba's code, in MKL, in the C library, in what KeOps compiles.
CODE_VARIABLES = (
    *("NUMBA_DISABLE_JIT", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_ENABLE_AVX", "NUMBA_DISABLE_INTEL_SVML"),
    *("NUMBA_OPT", "NUMBA_LOOP_VECTORIZE", "NUMBA_SLP_VECTORIZE", "NUMBA_BOUNDSCHECK"),
    *("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "GLIBC_TUNABLES", "CXX", "CXXFLAGS"),
)
ARRAYS = ("numpy", "torch")

NOT_SET = "not set"
_NOT_INSTALLED = "not installed"
# Values that are sets of words, and keys that are plural.
_SETS = ("CPU features", "NumPy's CPU features")
_PLURAL = ("third-party backends", "usable cores", "BLAS threads", "numba threads", "torch threads")

# Made from bits, since a processor that flushes to zero may also read the text of a number as zero.
_SUBNORMAL: float = struct.unpack("<d", b"\x01" + bytes(7))[0]
# Names, not literals, so that Python multiplies and adds them when asked and not when it compiles.
_ONE, _LITTLE = 1.0, 2.0**-80


def validators(arrays: str = "numpy", device: str = "cpu") -> dict[str, str]:
    """Everything outside its inputs on which the correctness or the speed of a selected backend depends, by name.

    The same in every process of a machine with the same settings, whatever has been imported.  What cannot change
    while a process runs (versions, code, processor) is found out once; see `forget`.

    Args:
        arrays: `numpy` or `torch`, the kind of array that is computed with; `torch` adds torch's settings.
        device: where: `cpu`, or `cuda` with an optional index, which adds the GPU's.  Of other devices nothing more is
            known than torch's version.

    Returns:
        for all arrays: `python`; the versions in `PACKAGES`; `code` and `third-party backends` (hashes of sources);
        `BLAS`, `BLAS threads`, `NumPy's CPU features`, `C++ compiler` (that of KeOps); `system`, `C library`, `CPU`,
        `CPU features`, `usable cores`, `CPU quota`; the environment variables in `THREAD_VARIABLES` and
        `CODE_VARIABLES`; `numba threads`; `flush to zero` and `rounding` of this thread.

        for torch: `torch float32 matmul`, `torch float32 matmul on cuda`, `torch float32 convolution on cuda`,
        `torch deterministic algorithms`, `torch threads`, `torch CPU capability`, `TRITON_INTERPRET`.

        for cuda: `GPU`, `GPU compute capability`, `GPU driver`, `CUDA`, `cuDNN`, `NVIDIA_TF32_OVERRIDE`.

    Raises:
        ParameterError: another kind of array.
        BackendUnavailable: torch is asked about and not installed.
    """
    if arrays not in ARRAYS:
        raise unknown_name("kind of arrays", arrays, ARRAYS)
    found = {
        **_fixed(),
        "BLAS threads": _known(blas.threads()),
        "C++ compiler": _cpp_compiler(),
        "usable cores": str(machine.cores()[1]),
        "CPU quota": _quota(machine.cpu_quota()),
        **{name: os.environ.get(name, NOT_SET) for name in (*THREAD_VARIABLES, *CODE_VARIABLES)},
        "numba threads": _known(_numba_threads(_unloaded_numba_threads), _NOT_INSTALLED),
        "flush to zero": "on" if _flushes_to_zero() else "off",
        "rounding": _rounding(),
    }
    if arrays == "torch":
        found |= _torch()
    return found | _cuda(device) if device.partition(":")[0] == "cuda" else found


def live(arrays: str = "numpy") -> tuple[object, ...]:
    """What can change inside a running process, to compare with an earlier answer; takes microseconds.

    Numba's threads, flush to zero and rounding of this thread; for torch also its threads, the formats that factors of
    float32 products may be rounded to, and whether algorithms are deterministic.  Imports nothing.
    """
    found = (_numba_threads(_default_numba_threads), _SUBNORMAL * _ONE == 0.0, _ONE + _LITTLE, _ONE - _LITTLE)
    torch = sys.modules.get("torch") if arrays == "torch" else None
    if torch is None:
        return found
    settings = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    return (*found, *settings, *[precision() for precision in _precisions(torch)])


def changed(recorded: Mapping[str, str], current: Mapping[str, str]) -> list[str]:
    """One sentence for each validator that is not what it was; empty if all are.

    Args:
        recorded: what `validators` said when the proof was made.
        current: what it says now.
    """
    names = [*current, *(name for name in recorded if name not in current)]
    pairs = ((name, recorded.get(name), current.get(name)) for name in names)
    return [_sentence(name, old, new) for name, old, new in pairs if old != new]


def forget() -> None:
    """Find out anew what is otherwise found out once per process: versions, code, processor.  For tests."""
    cached = (_fixed, _code, _third_party, _default_numba_threads, _precisions, _pykeops_installed)
    for function in (*cached, blas.name_and_version, machine.cpu_model, machine.cpu_features, machine.c_library):
        function.cache_clear()
    machine.compiler_version.cache_clear()
    machine.nvidia_driver.cache_clear()


def _sentence(name: str, old: str | None, new: str | None) -> str:
    was, now = ("were", "are") if name in _PLURAL else ("was", "is")
    if old is None:
        return f"{name} {was} not recorded and {now} {new}"
    if new is None:
        return f"{name} {was} {old} and {now} not known here"
    if name == "code":
        return f"code of liquid_ssm has changed ({old} to {new})"
    if name in _SETS:
        before, after = set(old.split()), set(new.split())
        lost, gained = sorted(before - after), sorted(after - before)
        parts = [*([f"without {' '.join(lost)}"] if lost else []), *([f"with {' '.join(gained)}"] if gained else [])]
        return f"{name} have changed: now {' and '.join(parts)}"
    return f"{name} {was} {old} and {now} {new}"


@cache
def _fixed() -> dict[str, str]:
    """What stays as it is while a process runs."""
    name, version = blas.name_and_version()
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **{package: package_version(package) for package in PACKAGES},
        "code": _code(),
        "third-party backends": _third_party(),
        "BLAS": f"{name} {version}, {blas.kernels() or 'unknown'} kernels",
        "NumPy's CPU features": _numpy_features(),
        "system": f"{platform.system()} {platform.machine()}",
        "C library": machine.c_library(),
        "CPU": machine.cpu_model(),
        "CPU features": " ".join(machine.cpu_features()) or "unknown",
    }


@cache
def _code() -> str:
    """Hash of every source file of the package, its backends and its oracle; 16 hexadecimal digits."""
    found: dict[str, Path] = {}
    # In a checkout the last two lie beside the package, in an installation inside it.
    for package in ("liquid_ssm", "liquid_ssm.backends", "liquid_ssm.oracle"):
        spec = find_spec(package)
        if spec and spec.submodule_search_locations:
            # Not the further ones: in a checkout that is all of it, tests and documents too.
            folder, prefix = Path(spec.submodule_search_locations[0]), package.replace(".", "/")
            found |= {f"{prefix}/{name}": path for name, path in _files(folder, (".py",))}
    return _digest(found.items())


@cache
def _third_party() -> str:
    """Names, targets, distributions and code of the backends that other distributions have installed."""
    from importlib.metadata import entry_points

    points = sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: (point.name, point.value))
    return "; ".join(_described(point) for point in points) or "none"


def _described(point: Any) -> str:
    distribution = f"{point.dist.name} {point.dist.version}, " if point.dist is not None else ""
    files = _module_files(point.value.partition(":")[0])
    return f"{point.name} = {point.value} ({distribution}{f'code {_digest(files)}' if files else 'no such file'})"


def _module_files(module: str) -> list[tuple[str, Path]]:
    """The files of a module, and of all others in its package, without importing any of them."""
    top, _, rest = module.partition(".")
    try:
        spec = find_spec(top)
    except ValueError:  # no name at all, or a module that was made by hand
        spec = None
    if spec is None:
        return []
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    if not folders:
        return [(top, Path(spec.origin))] if spec.origin and Path(spec.origin).is_file() else []
    *between, last = rest.split(".")
    places = [folder.joinpath(*between) for folder in folders]
    packages = [place / last for place in places if last and (place / last).is_dir()]
    suffixes = (".py", *EXTENSION_SUFFIXES)
    return [file for place in packages or places for file in _files(place, suffixes)]


def _files(folder: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for path in folder.rglob("*"):
        if path.name.endswith(suffixes) and path.is_file():
            yield path.relative_to(folder).as_posix(), path


def _digest(files: Iterable[tuple[str, Path]]) -> str:
    digest = hashlib.sha256()
    for name, path in sorted(files):
        content = path.read_bytes()
        # With its length each file begins where it does, whatever is in it.
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def _numpy_features() -> str:
    """The vector extensions that NumPy's own loops use, which NPY_DISABLE_CPU_FEATURES can take away."""
    import numpy as np

    config = np.show_config(mode="dicts")
    simd = config.get("SIMD Extensions", {}) if config else {}
    return " ".join([*simd.get("baseline", ()), *simd.get("found", ())]) or "unknown"


def _cpp_compiler() -> str:
    if not _pykeops_installed():
        return "not needed without pykeops"
    path = machine.cpp_compiler()
    return machine.compiler_version(path) if path else "none found"


@cache
def _pykeops_installed() -> bool:
    return package_version("pykeops") != _NOT_INSTALLED


def _numba_threads(unloaded: Callable[[], int | None]) -> int | None:
    """Threads that Numba is set to, or, where it is not imported, would be set to; None where it is not installed."""
    config = sys.modules.get("numba.core.config")
    threads: int | None = getattr(config, "NUMBA_NUM_THREADS", None)
    return unloaded() if threads is None else threads


def _unloaded_numba_threads() -> int | None:
    if package_version("numba") == _NOT_INSTALLED:
        return None
    try:
        return int(os.environ["NUMBA_NUM_THREADS"])
    except (KeyError, ValueError):
        # Numba warns of a value that is no number, and takes its default.
        return max(1, machine.cores()[1])


# Until Numba is imported, `live` has no time to ask again.
_default_numba_threads = cache(_unloaded_numba_threads)


def _flushes_to_zero() -> bool:
    """Whether this thread takes numbers below the normal range for zero: then no bound holds near it."""
    return _SUBNORMAL * _ONE == 0.0


def _rounding() -> str:
    """The direction in which this thread rounds; every bound is derived for nearest."""
    up, down, less = _ONE + _LITTLE > _ONE, -_ONE - _LITTLE < -_ONE, _ONE - _LITTLE < _ONE
    directions = {(False, False, False): "to nearest", (True, False, False): "up", (False, True, True): "down"}
    return directions.get((up, down, less), "towards zero")


def _import_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise BackendUnavailable(
            f"validators of torch were asked for, and torch cannot be imported ({error}). "
            "Run: pip install 'liquid-ssm[torch]'"
        ) from error
    return torch


def _torch() -> dict[str, str]:
    torch = _import_torch()
    matmul, on_cuda, convolution = (str(precision()) for precision in _precisions(torch))
    return {
        "torch float32 matmul": matmul,
        "torch float32 matmul on cuda": on_cuda,
        "torch float32 convolution on cuda": convolution,
        "torch deterministic algorithms": str(torch.are_deterministic_algorithms_enabled()),
        "torch threads": str(torch.get_num_threads()),
        "torch CPU capability": str(torch.backends.cpu.get_cpu_capability()),
        "TRITON_INTERPRET": os.environ.get("TRITON_INTERPRET", NOT_SET),
    }


@cache
def _precisions(torch: Any) -> tuple[Callable[[], object], ...]:
    """Functions that ask to which formats torch may round factors of float32: in products, on CUDA, in convolutions."""
    own = getattr(torch._C, "_get_fp32_precision_getter", None)
    if own is not None:
        # What torch.backends.….fp32_precision calls, a microsecond later.
        return partial(own, "mkldnn", "matmul"), partial(own, "cuda", "matmul"), partial(own, "cuda", "conv")
    return (
        lambda: matmul_precision(torch, "mkldnn"),
        lambda: "tf32" if torch.backends.cuda.matmul.allow_tf32 else "none",
        lambda: "tf32" if torch.backends.cudnn.allow_tf32 else "none",
    )


def _cuda(device: str) -> dict[str, str]:
    torch = _import_torch()
    return {
        "GPU": str(torch.cuda.get_device_name(device)),
        "GPU compute capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
        "GPU driver": machine.nvidia_driver(),
        "CUDA": str(torch.version.cuda or f"HIP {torch.version.hip}"),
        "cuDNN": str(torch.backends.cudnn.version()),
        "NVIDIA_TF32_OVERRIDE": os.environ.get("NVIDIA_TF32_OVERRIDE", NOT_SET),
    }


def _known(number: int | None, otherwise: str = "unknown") -> str:
    return otherwise if number is None else str(number)


def _quota(cores: float | None) -> str:
    return "none" if cores is None else f"{cores:g} cores"
