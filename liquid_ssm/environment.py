"""Where a result was computed: versions, linear algebra library, processor, threads."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("liquid-ssm", "numpy", "scipy", "mpmath", "python-flint", "numba", "torch", "triton", "pykeops")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def environment() -> dict[str, str]:
    """Everything outside the inputs that a result or its time may depend on, by name.

    Nothing but NumPy is imported for it; versions are those of the installed distributions.  The settings of torch are
    there if something has imported torch.
    """
    found = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
    found |= {name: package_version(name) for name in PACKAGES}
    found |= {"blas": _blas(), "platform": platform.platform(), "cpu": _cpu(), "cores": _cores()}
    found |= {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}
    return found | _torch_settings()


def _torch_settings() -> dict[str, str]:
    """The flags that decide how torch rounds, and its devices."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    found = {
        "torch float32 matmul": _matmul_precision(torch, "mkldnn"),
        "torch deterministic algorithms": str(torch.are_deterministic_algorithms_enabled()),
        "torch threads": str(torch.get_num_threads()),
        "torch device": "cpu",
    }
    if torch.cuda.is_available():
        found |= {
            "torch device": torch.cuda.get_device_name(),
            "torch cuda": str(torch.version.cuda),
            "torch float32 matmul on cuda": _matmul_precision(torch, "cuda"),
        }
    return found


def _matmul_precision(torch: Any, library: str) -> str:
    """The format to which factors of float32 matrix products may be rounded; `none` for float32 itself."""
    # Since torch 2.9 each library has a flag of its own, and asking for the old one may raise.
    own = getattr(getattr(getattr(torch.backends, library, None), "matmul", None), "fp32_precision", None)
    return str(torch.get_float32_matmul_precision() if own is None else own)


def package_version(name: str) -> str:
    """The installed version of a distribution, or `not installed`."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _blas() -> str:
    """Name and version of NumPy's BLAS and, where it is an OpenBLAS from a wheel, the kernels it chose."""
    import numpy as np

    config = np.show_config(mode="dicts")
    built = config["Build Dependencies"]["blas"] if config else {}
    text = f"{built.get('name', 'unknown')} {built.get('version', '')}".strip()
    kernels = _openblas_kernels(Path(np.__file__).parent)
    return f"{text}, {kernels} kernels" if kernels else text


def _openblas_kernels(numpy_folder: Path) -> str:
    """The processor family whose kernels OpenBLAS runs; it can differ from the processor's own."""
    folders = (numpy_folder.parent / "numpy.libs", numpy_folder / ".dylibs")
    for path in (path for folder in folders for path in sorted(folder.glob("*openblas*"))):
        # NumPy has loaded this library, so this gives a second handle to the same one.
        library = ctypes.CDLL(str(path))
        for symbol in ("scipy_openblas_get_corename64_", "openblas_get_corename64_"):
            if hasattr(library, symbol):
                function = getattr(library, symbol)
                function.restype = ctypes.c_char_p
                return str(function().decode())
    return ""


def _cpu() -> str:
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or platform.machine()
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _cores() -> str:
    total = os.cpu_count() or 0
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    return f"{total}, {usable} of them usable by this process"
