"""The machine: its processor, what of it this process may use, its memory, its GPU's driver."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# Arm's designs, which /proc/cpuinfo gives as numbers only.
_ARM_DESIGNS = {
    "0xd03": "Cortex-A53",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse N1",
    "0xd40": "Neoverse V1",
    "0xd49": "Neoverse N2",
    "0xd4f": "Neoverse V2",
}
# Of an x86 processor's hundred flags those that say with which instructions it can compute.
_VECTOR_FLAG = re.compile(r"sse\w*|ssse3|avx\w*|fma|fma4|f16c|amx_\w+|asimd\w*|sve\w*|sme(?!p)\w*")
_UNLIMITED_PERIOD = 100_000.0


@cache
def cpu_model() -> str:
    """The processor's name as its maker, or the hypervisor, gives it."""
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or platform.machine()
    fields = _first_processor()
    if fields.get("CPU implementer") == "0x41" and "model name" not in fields:
        part = fields.get("CPU part", "")
        return f"Arm {_ARM_DESIGNS.get(part, f'design {part}')}"
    return fields.get("model name") or platform.processor() or platform.machine()


@cache
def cpu_features() -> tuple[str, ...]:
    """The vector extensions that the processor has and the system lets be used, sorted; empty where none are told."""
    fields = _first_processor()
    flags = fields.get("flags", fields.get("Features", "")).split()
    return tuple(sorted(flag for flag in flags if _VECTOR_FLAG.fullmatch(flag)))


def _first_processor(path: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """What Linux says of the first processor; the file has as many paragraphs as there are, all much the same."""
    if not path.exists():
        return {}
    fields = {}
    with path.open(errors="replace") as lines:
        for line in lines:
            key, colon, value = line.partition(":")
            if not colon:
                break
            fields[key.strip()] = value.strip()
    return fields


def cores() -> tuple[int, int]:
    """Cores of the machine (0 where not known), and how many of them this process may run on."""
    total = os.cpu_count() or 0
    return total, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total


def cpu_quota(root: Path = Path("/")) -> float | None:
    """How many cores' time the control groups of this process let it use, or None without a limit (Linux).

    Args:
        root: of the file system that is read.
    """
    limits = [limit for folder in _control_groups(root) if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def _control_groups(root: Path) -> Iterator[Path]:
    """The folders of this process' group and of those around it, in versions 1 and 2 of control groups."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            mount = root / "sys/fs/cgroup"
        elif "cpu" in controllers.split(","):
            mount = root / "sys/fs/cgroup" / controllers
            mount = mount if mount.exists() else root / "sys/fs/cgroup/cpu"
        else:
            continue
        # In a container the path may be the host's, of which only the mount itself is to be seen.
        group = mount / path.strip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(mount))


def _limit(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            words = (folder / "cpu.max").read_text().split()
            quota, period = words[0], float(words[1]) if len(words) > 1 else _UNLIMITED_PERIOD
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = float((folder / "cpu.cfs_period_us").read_text())
        return None if quota in ("max", "-1") else float(quota) / period
    except (OSError, ValueError, IndexError, ZeroDivisionError):
        return None


def memory() -> int | None:
    """The machine's main memory [bytes]; None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


@cache
def c_library() -> str:
    """The C library and its version, whose elementary functions compiled code calls; the system's version elsewhere."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or "unknown"
    except (AttributeError, OSError, ValueError):
        pass
    name, number = platform.libc_ver()
    if name:
        return f"{name} {number}"
    return f"{platform.system()} {platform.mac_ver()[0] or platform.version()}"


def cpp_compiler() -> str | None:
    """A C++ compiler, found as the backend keops finds it: what CXX names if that is there, else g++ or clang++."""
    names = (os.environ.get("CXX"), "g++", "clang++")
    return next((found for name in names if name and (found := shutil.which(name))), None)


@cache
def compiler_version(path: str) -> str:
    """The first line of what a compiler says about itself."""
    return _first_line([path, "--version"]) or f"{path}, which does not tell its version"


def nvidia_gpu() -> bool:
    """Whether the driver says that there is an NVIDIA GPU; no package is asked."""
    # The last one is that of Windows' subsystem for Linux.
    return any(Path(place).exists() for place in ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg"))


@cache
def nvidia_driver(path: Path = Path("/proc/driver/nvidia/version")) -> str:
    """The version of NVIDIA's driver, or why it is not known."""
    if path.exists():
        numbers = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", path.read_text(errors="replace"))
        if numbers:
            return numbers[0]
    program = shutil.which("nvidia-smi")
    if program:
        return _first_line([program, "--query-gpu=driver_version", "--format=csv,noheader"]) or "unknown"
    return "none found"


def _first_line(command: list[str]) -> str:
    """What a program prints first; empty if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else ""
