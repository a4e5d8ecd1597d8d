"""KeOps without surprises: where it keeps its machine code, what it prints, how it is compiled, on which device.

KeOps turns each formula into C++ (or CUDA) when it is first used.  Sizes are arguments of that code, so a formula is
compiled once for each dtype, kind of device and version, whatever the shapes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

from liquid_ssm.errors import BackendUnavailable

Tensor = Any

ENVIRONMENT_VARIABLE = "LIQUID_SSM_CACHE_DIR"
# What a compiler must not be told: the values would no longer be those that the error bounds are derived for.
UNSAFE_FLAGS = ("-ffast-math", "-Ofast", "-funsafe-math-optimizations", "-fassociative-math", "-freciprocal-math")

_log = logging.getLogger("liquid_ssm")


@cache
def find_compiler() -> str | None:
    """A C++ compiler: what CXX names if that is there, else g++ or clang++; None without one."""
    names = (os.environ.get("CXX"), "g++", "clang++")
    return next((name for name in names if name and shutil.which(name)), None)


@cache
def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="liquid-ssm-keops-")  # deleted when the process ends


def _own_folder() -> str:
    """A folder for KeOps beside the other compiled kernels; `LIQUID_SSM_CACHE_DIR` names another place."""
    from platformdirs import user_cache_path

    base = os.environ.get(ENVIRONMENT_VARIABLE)
    folder = (Path(base) if base else user_cache_path("liquid-ssm")) / f"keops-{version('pykeops')}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        _log.warning(
            "what KeOps compiles cannot be kept in %s (%s), so every process compiles it again; set %s to a folder "
            "that can be written to",
            folder,
            error,
            ENVIRONMENT_VARIABLE,
        )
        return _temporary_folder().name
    return str(folder)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Environment variables that are set for a while; those that the user has set stay as they are."""
    added = [name for name in values if name not in os.environ]
    os.environ.update({name: values[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@cache
def load() -> Any:
    """`pykeops`, imported so that it prints nothing and keeps its code in this package's cache folder.

    Where the user has set KEOPS_CACHE_FOLDER or PYKEOPS_VERBOSE, or has imported pykeops before, that stands.

    Raises:
        BackendUnavailable: CXXFLAGS holds a flag that changes values.
    """
    unsafe = [flag for flag in os.environ.get("CXXFLAGS", "").split() if flag in UNSAFE_FLAGS]
    if unsafe:
        raise BackendUnavailable(
            f"CXXFLAGS is {os.environ['CXXFLAGS']!r}; with {', '.join(unsafe)} KeOps computes other values than the "
            "error bounds are derived for. Remove that from CXXFLAGS, or use another backend."
        )
    if "pykeops" not in sys.modules:
        settings = {}
        if "PYKEOPS_VERBOSE" not in os.environ:
            settings = {"PYKEOPS_VERBOSE": "0", "KEOPS_VERBOSE": "0"}
        if "KEOPS_CACHE_FOLDER" not in os.environ:
            settings["KEOPS_CACHE_FOLDER"] = _own_folder()
        compiler = find_compiler()
        if compiler:
            settings["CXX"] = compiler  # KeOps looks for clang++ on macOS only
        with _environment(**settings):
            import pykeops
    import pykeops

    return pykeops


@dataclass(frozen=True)
class Reduction:
    """Σ_j formula(x_i, y_j) by KeOps, one value per i.

    Args:
        name: how the log calls it.
        formula: in the language of `pykeops.torch.Genred`.
        inputs: of the formula, in the order of the call: `name = Vi(dim)` or `name = Vj(dim)`.
    """

    name: str
    formula: str
    inputs: tuple[str, ...]

    def __call__(self, *arrays: Tensor) -> Tensor:
        """The sums (batch, I, dim of the formula).

        Args:
            arrays: real tensors of one dtype and device, (batch or 1, I, dim) for `Vi`, (batch or 1, J, dim) for `Vj`;
                no size is 0.  No gradient is recorded.

        Raises:
            BackendUnavailable: on a GPU that KeOps does not find, or if the compiler fails.
        """
        import torch

        pykeops = load()
        device = arrays[0].device.type
        if device != "cpu" and not pykeops.config.gpu_available:
            raise BackendUnavailable(
                f"the tensors are on {device}, but KeOps found no CUDA driver with NVRTC when it was imported. Install "
                "the CUDA toolkit, or move the tensors with .cpu()."
            )
        contiguous = [array.contiguous() for array in arrays]
        with torch.no_grad(), _compiling(self, str(arrays[0].dtype), device):
            # Said outright: KeOps' own choice, and the published code, is the GPU wherever there is one.
            return _operation(self)(*contiguous, backend="CPU" if device == "cpu" else "GPU_1D")


@cache
def _operation(reduction: Reduction) -> Any:
    from pykeops.torch import Genred

    # KeOps' default on a GPU is fast maths: sines of large angles would lose all their digits.
    return Genred(reduction.formula, list(reduction.inputs), axis=1, use_fast_math=False)


_compiled: set[tuple[Reduction, str, str]] = set()


@contextmanager
def _compiling(reduction: Reduction, dtype: str, device: str) -> Iterator[None]:
    """Around a call of the reduction: if that will compile it, by one process at a time, and saying so."""
    key = (reduction, dtype, device)
    if key in _compiled:
        yield
        return
    import fcntl  # which Windows does not have, and neither has KeOps

    pykeops = load()
    folder = Path(pykeops.get_build_folder())
    folder.mkdir(parents=True, exist_ok=True)
    flags = pykeops.config.pykeops_base.get_cpp_flags()
    digest = hashlib.sha256(repr((reduction, dtype, device, flags)).encode()).hexdigest()[:16]
    # Written when the code is there.
    mark = folder / f"liquid_ssm_{reduction.name}_{digest}"
    if mark.exists():
        with _failing_clearly(reduction):
            yield
        _compiled.add(key)
        return
    with open(folder / "liquid_ssm_lock", "w") as lock:
        # KeOps takes a library that another process has not finished for one that is there.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if sys.stderr.isatty() and not mark.exists():
            print(
                f"liquid-ssm: KeOps compiles {reduction.name}, once, for some seconds (kept in {folder})",
                file=sys.stderr,
                flush=True,
            )
        started = perf_counter()
        with _failing_clearly(reduction):
            yield
        if not mark.exists():
            seconds = perf_counter() - started
            _log.info("KeOps compiled %s for %s on %s in %.1f s (%s)", reduction.name, dtype, device, seconds, folder)
            mark.touch()
    _compiled.add(key)


@contextmanager
def _failing_clearly(reduction: Reduction) -> Iterator[None]:
    """KeOps does not look at what its compiler answers; it fails when it imports what should be there."""
    try:
        yield
    except ImportError as error:
        if not (error.name or "").startswith("pykeops_"):
            raise
        raise BackendUnavailable(
            f"KeOps could not compile {reduction.name} with {find_compiler() or 'no C++ compiler'}. It needs a C++ "
            "compiler and Python's headers; on Debian run: apt-get install g++ python3-dev. PYKEOPS_VERBOSE=1 shows "
            "what the compiler says."
        ) from error


def concatenated(parts: Sequence[str]) -> str:
    """The formula of a vector with these parts."""
    formula = parts[-1]
    for part in reversed(parts[:-1]):
        formula = f"Concat({part}, {formula})"
    return formula
