"""What `liquid-ssm info` reports: this machine, the packages on it, and what is missing.

Every function gives one group, name to value, of text, numbers, lists and None for JSON.
"""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from . import blas as linear_algebra
from . import machine as hardware
from .cache_folder import ENVIRONMENT_VARIABLE, cache_folder
from .environment import package_version
from .validators import CODE_VARIABLES, THREAD_VARIABLES

Group = dict[str, object]

_NOT_INSTALLED = "not installed"


class _Optional(NamedTuple):
    """A package that adds something, and what pip is told to install it."""

    package: str
    adds: str
    extra: str = ""
    systems: tuple[str, ...] = ()


OPTIONAL = (
    _Optional("numba", "kernels compiled for this CPU: backends numba and numba-wide-state", "numba"),
    _Optional("torch", "tensors, their gradients and GPUs: backends torch and torch-split-real", "torch"),
    _Optional("triton", "GPU kernels: backend triton", "triton", ("Linux",)),
    _Optional("pykeops", "convolution kernels in linear memory: backend keops", "keops", ("Linux", "Darwin")),
    _Optional("hypothesis", "liquid-ssm certify, the property suite on a backend of your own"),
    _Optional("matplotlib", "plots of liquid-ssm bench and verify", "plots"),
)


def machine() -> Group:
    """The system, the processor and what of it this process may use, the memory."""
    total, usable = hardware.cores()
    quota, memory = hardware.cpu_quota(), hardware.memory()
    return {
        "system": f"{platform.platform()}, {hardware.c_library()}",
        "cpu": hardware.cpu_model(),
        "vector extensions": list(hardware.cpu_features()) or "not told by this system",
        "cores": total,
        "usable cores": usable,
        "cpu quota": "none" if quota is None else f"the time of {quota:g} cores",
        "memory": "not told by this system" if memory is None else f"{memory / 2**30:.1f} GiB",
    }


def threads(torch: Any) -> Group:
    """What decides how many threads compute.

    Args:
        torch: the module, or None.
    """
    config = sys.modules.get("numba.core.config")
    return {
        **{name: os.environ.get(name, "not set") for name in THREAD_VARIABLES},
        "numba": getattr(config, "NUMBA_NUM_THREADS", None),
        "numba threading layer": _threading_layer(config),
        "torch": None if torch is None else torch.get_num_threads(),
        "blas": linear_algebra.threads(),
    }


def _threading_layer(config: Any) -> str | None:
    if config is None:
        return None
    return f"{config.THREADING_LAYER} (not used: backend numba shares its work out to threads of its own)"


def blas() -> Group:
    """NumPy's linear algebra library, and whether it runs the right kernels for this processor."""
    name, version = linear_algebra.name_and_version()
    chosen, asked = linear_algebra.kernels(), os.environ.get("OPENBLAS_CORETYPE")
    label = "OpenBLAS" if "openblas" in name.lower() else name
    return {
        "library": f"{name} {version}".strip(),
        "kernels": chosen or None,
        "OPENBLAS_CORETYPE": asked or "not set",
        "verdict": linear_algebra.verdict(chosen, hardware.cpu_features(), platform.machine(), asked, label),
    }


def imported(package: str) -> tuple[Any, str]:
    """A package, imported, or None and why not.

    What is installed may be broken in any way: a library that is missing or of the wrong version, a conflict with
    another package.  To say so is what this command is for, so here, and only here, every exception is caught.
    """
    try:
        return import_module(package), ""
    except ModuleNotFoundError as error:
        if error.name == package:
            return None, _NOT_INSTALLED
        return None, _broken(error)
    except Exception as error:
        return None, _broken(error)


def _broken(error: Exception) -> str:
    first = next(iter(str(error).splitlines()), "")
    return f"installed, but cannot be imported: {type(error).__name__}: {first}"


def torch_state(torch: Any, problem: str) -> Group:
    """torch, how it computes on this processor, and its GPUs or why there are none.

    Args:
        torch: the module, or None.
        problem: why it is None.
    """
    if torch is None:
        return {"version": problem}
    built = [
        f"{name} {version}" for name, version in (("CUDA", torch.version.cuda), ("HIP", torch.version.hip)) if version
    ]
    gpus = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            capability = ".".join(map(str, torch.cuda.get_device_capability(index)))
            gpus.append(f"{torch.cuda.get_device_name(index)}, compute capability {capability}")
    return {
        "version": torch.__version__,
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
        "built for": " and ".join(built) or "CPUs only",
        "driver": hardware.nvidia_driver(),
        "gpus": gpus or f"none can be used: {_why_no_gpu(' and '.join(built))}",
    }


def _why_no_gpu(built: str) -> str:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not built:
        if hardware.nvidia_gpu():
            return "this torch is built for CPUs only; install a build for CUDA, as torch's own instructions say"
        return "this torch is built for CPUs only, and there is no NVIDIA GPU either"
    if hidden is not None and hidden.strip() in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES={hidden} hides them; unset it"
    if not hardware.nvidia_gpu():
        return "there is no NVIDIA GPU, or its driver is not installed"
    return f"the driver may be too old for {built}, or this process may not use the GPU"


def triton(torch: Any) -> Group:
    """Triton, and where its kernels run.

    Args:
        torch: the module, or None.
    """
    module, problem = imported("triton")
    if module is None:
        return {"version": problem}
    asked = os.environ.get("TRITON_INTERPRET")
    interpreting = (asked or "0").lower() in ("1", "true", "on", "y", "yes")
    if interpreting:
        runs = f"in its interpreter, on the CPU and slowly, since TRITON_INTERPRET is {asked}"
    elif torch is not None and torch.cuda.is_available():
        runs = "on the GPU"
    else:
        runs = "nowhere: without a GPU only in its interpreter (slow), with TRITON_INTERPRET=1 before Python starts"
    return {"version": module.__version__, "TRITON_INTERPRET": asked or "not set", "runs": runs}


def keops() -> Group:
    """KeOps and what it compiles with; it is not imported, since it then looks for compilers and prints."""
    version = package_version("pykeops")
    compiler = hardware.cpp_compiler()
    return {
        "version": version,
        "compiler": hardware.compiler_version(compiler) if compiler else "none found",
        "python headers": "found" if _has_headers() else "not found",
        **{name: os.environ[name] for name in ("CXX", "CXXFLAGS") if name in os.environ},
        "cache": os.environ.get("KEOPS_CACHE_FOLDER") or _folder(f"keops-{version}"),
    }


def _has_headers() -> bool:
    return (Path(sysconfig.get_path("include")) / "Python.h").is_file()


def numba() -> Group:
    """Numba, what it compiles for, and whether what it compiles can be kept."""
    module, problem = imported("numba")
    if module is None:
        return {"version": problem}
    from llvmlite import binding

    config = module.config
    return {
        "version": module.__version__,
        "compiles": "no: NUMBA_DISABLE_JIT is set, so kernels run in Python" if config.DISABLE_JIT else "yes",
        "compiles for": config.CPU_NAME or binding.get_host_cpu_name(),
        "svml": "used" if config.USING_SVML else "not used (its library is not installed)",
        **{name: os.environ[name] for name in CODE_VARIABLES if name.startswith("NUMBA_") and name in os.environ},
        "cache": _folder("compiled"),
    }


def caches() -> Group:
    """Where certificates and compiled kernels are kept."""
    return {
        ENVIRONMENT_VARIABLE: os.environ.get(ENVIRONMENT_VARIABLE) or "not set",
        "certificates": _folder("certificates"),
        "compiled kernels": _folder("compiled"),
    }


def _folder(name: str) -> str:
    """A folder of the cache, and why it cannot be written to if so; it is not made."""
    folder = cache_folder() / name
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not existing.is_dir():
        return f"{folder}, which cannot be made: {existing} is a file; set {ENVIRONMENT_VARIABLE} to a folder"
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        return f"{folder}, which cannot be written ({error.strerror}); set {ENVIRONMENT_VARIABLE} to another folder"
    return str(folder)


def missing() -> list[dict[str, str]]:
    """Packages and tools that are not here: `name`, what it `adds`, and what adds it: `pip` or the `system`."""
    found = [
        {"name": optional.package, "adds": optional.adds, "by": "pip"}
        for optional in OPTIONAL
        if (not optional.systems or platform.system() in optional.systems)
        and package_version(optional.package) == _NOT_INSTALLED
    ]
    if platform.system() != "Windows":
        if hardware.cpp_compiler() is None:
            found.append({"name": "g++", "adds": "the compiler of backend keops and of torch.compile", "by": "system"})
        if not _has_headers():
            found.append({"name": "python3-dev", "adds": "Python's headers, for the same two", "by": "system"})
    return found


def install(lacking: list[dict[str, str]]) -> dict[str, str]:
    """The one command that adds all that pip can add, and the one for what the system's packages must.

    Args:
        lacking: as `missing` gives it.

    Returns:
        by `pip` and by `system`; without a key where there is nothing to add.
    """
    commands = {}
    names = {entry["name"] for entry in lacking if entry["by"] == "pip"}
    chosen = [optional for optional in OPTIONAL if optional.package in names]
    extras = list(dict.fromkeys(optional.extra for optional in chosen if optional.extra))
    packages = [optional.package for optional in chosen if not optional.extra]
    if chosen:
        own = [f"'liquid-ssm[{','.join(extras)}]'"] if extras else []
        commands["pip"] = " ".join(["pip install", *own, *packages])
    tools = [entry["name"] for entry in lacking if entry["by"] == "system"]
    if tools:
        darwin = platform.system() == "Darwin"
        commands["system"] = "xcode-select --install" if darwin else " ".join(["apt-get install", *tools])
    return commands


def lines(group: Mapping[str, object]) -> list[tuple[str, str]]:
    """A group as people read it: without what is not there, lists as words."""
    return [
        (name, (", " if name == "gpus" else " ").join(map(str, value)) if isinstance(value, list) else str(value))
        for name, value in group.items()
        if value is not None
    ]
