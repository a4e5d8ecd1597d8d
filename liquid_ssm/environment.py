"""Where a result was computed: versions, linear algebra library, processor, threads."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from . import blas, machine

PACKAGES = ("liquid-ssm", "numpy", "scipy", "mpmath", "python-flint", "numba", "torch", "triton", "pykeops")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def environment() -> dict[str, str]:
    """Everything outside the inputs that a result or its time may depend on, by name.

    Nothing but NumPy is imported for it; versions are those of the installed distributions.  The settings of torch are
    there if something has imported torch.
    """
    found = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
    found |= {name: package_version(name) for name in PACKAGES}
    total, usable = machine.cores()
    found |= {"blas": blas.description(), "platform": platform.platform(), "cpu": machine.cpu_model()}
    found["cores"] = f"{total}, {usable} of them usable by this process"
    found |= {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}
    return found | _torch_settings()


def _torch_settings() -> dict[str, str]:
    """The flags that decide how torch rounds, and its devices."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    found = {
        "torch float32 matmul": matmul_precision(torch, "mkldnn"),
        "torch deterministic algorithms": str(torch.are_deterministic_algorithms_enabled()),
        "torch threads": str(torch.get_num_threads()),
        "torch device": "cpu",
    }
    if torch.cuda.is_available():
        found |= {
            "torch device": torch.cuda.get_device_name(),
            "torch cuda": str(torch.version.cuda),
            "torch float32 matmul on cuda": matmul_precision(torch, "cuda"),
        }
    return found


def matmul_precision(torch: Any, library: str) -> str:
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
