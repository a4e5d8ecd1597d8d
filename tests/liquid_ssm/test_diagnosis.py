from __future__ import annotations

import importlib.metadata
import platform
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from liquid_ssm import diagnosis, machine
from liquid_ssm.diagnosis import (
    OPTIONAL,
    blas,
    caches,
    imported,
    install,
    keops,
    lines,
    missing,
    numba,
    threads,
    torch_state,
    triton,
)
from liquid_ssm.diagnosis import machine as machine_group


@pytest.fixture(autouse=True)
def _no_cache_of_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path / "cache"))


def module(folder: Path, name: str, text: str, patch: pytest.MonkeyPatch) -> None:
    (folder / f"{name}.py").write_text(text)
    patch.syspath_prepend(folder)
    patch.delitem(sys.modules, name, raising=False)


def test_a_package_that_is_not_there() -> None:
    assert imported("no_such_package_0") == (None, "not installed")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_package_0", "ModuleNotFoundError: No module named 'no_such_package_0'"),
        ("raise ImportError('needs NumPy 1.\\nmore')", "ImportError: needs NumPy 1."),
        ("raise OSError('lib.so: no such file')", "OSError: lib.so: no such file"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise ValueError", "ValueError: "),
    ],
)
def test_a_package_that_is_broken(text: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module(tmp_path, "a_broken_package", text, monkeypatch)
    assert imported("a_broken_package") == (None, f"installed, but cannot be imported: {said}")


def test_groups_of_what_is_broken_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "imported", lambda name: (None, f"{name} is broken"))
    assert triton(None) == {"version": "triton is broken"}
    assert numba() == {"version": "numba is broken"}
    assert torch_state(None, "torch is broken") == {"version": "torch is broken"}
    assert threads(None)["torch"] is None


def test_machine_and_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine_group()["usable cores"] == machine.cores()[1]
    monkeypatch.setattr(machine, "cpu_quota", lambda: 1.5)
    assert machine_group()["cpu quota"] == "the time of 1.5 cores"


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    found = threads(SimpleNamespace(get_num_threads=lambda: 5))
    assert (found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"], found["torch"]) == ("3", "not set", 5)


def test_verdict_on_the_blas_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(blas()["verdict"]).startswith(("right: ", "wrong: ", "unknown ("))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(machine, "cpu_features", lambda: ("avx", "avx2", "fma", "sse2"))
    monkeypatch.setattr(diagnosis.linear_algebra, "kernels", lambda: "Nehalem")
    monkeypatch.setattr(diagnosis.linear_algebra, "name_and_version", lambda: ("scipy-openblas", "0.3"))
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    assert blas() == {
        "library": "scipy-openblas 0.3",
        "kernels": "Nehalem",
        "OPENBLAS_CORETYPE": "Nehalem",
        "verdict": "wrong: Nehalem kernels use SSE though this CPU has AVX2; unset OPENBLAS_CORETYPE, which is Nehalem",
    }


def fake_torch(*, cuda: str | None, hip: str | None = None, gpus: int = 0) -> Any:
    fake: Any = ModuleType("torch")
    fake.__version__ = "9.9"
    fake.version = SimpleNamespace(cuda=cuda, hip=hip)
    fake.backends = SimpleNamespace(cpu=SimpleNamespace(get_cpu_capability=lambda: "AVX2"))
    fake.cuda = SimpleNamespace(
        is_available=lambda: gpus > 0,
        device_count=lambda: gpus,
        get_device_name=lambda index: f"GPU {index}",
        get_device_capability=lambda index: (9, index),
    )
    return fake


@pytest.mark.parametrize(
    ("torch", "gpu", "visible", "said"),
    [
        (fake_torch(cuda="12.4", gpus=2), True, None, None),
        (fake_torch(cuda=None), False, None, "built for CPUs only, and there is no NVIDIA GPU either"),
        (fake_torch(cuda=None), True, None, "built for CPUs only; install a build for CUDA"),
        (fake_torch(cuda="12.4"), False, None, "there is no NVIDIA GPU, or its driver is not installed"),
        (fake_torch(cuda="12.4"), True, "-1", "CUDA_VISIBLE_DEVICES=-1 hides them; unset it"),
        (fake_torch(cuda="12.4"), True, "0", "the driver may be too old for CUDA 12.4"),
        (fake_torch(cuda=None, hip="6.1"), True, None, "the driver may be too old for HIP 6.1"),
    ],
)
def test_gpus(torch: Any, gpu: bool, visible: str | None, said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(machine, "nvidia_gpu", lambda: gpu)
    found = torch_state(torch, "")
    assert (found["version"], found["cpu capability"]) == ("9.9", "AVX2")
    if said is None:
        assert found["gpus"] == ["GPU 0, compute capability 9.0", "GPU 1, compute capability 9.1"]
    else:
        assert said in str(found["gpus"])


@pytest.mark.parametrize(
    ("interpret", "gpus", "runs"),
    [
        ("1", 0, "in its interpreter, on the CPU and slowly, since TRITON_INTERPRET is 1"),
        ("1", 1, "in its interpreter, on the CPU and slowly, since TRITON_INTERPRET is 1"),
        ("0", 1, "on the GPU"),
        (None, 0, "nowhere: without a GPU only in its interpreter"),
    ],
)
def test_where_triton_runs(interpret: str | None, gpus: int, runs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "imported", lambda name: (SimpleNamespace(__version__="3.9"), ""))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if interpret is not None:
        monkeypatch.setenv("TRITON_INTERPRET", interpret)
    assert str(triton(fake_torch(cuda="12.4", gpus=gpus))["runs"]).startswith(runs)


def test_keops_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KEOPS_CACHE_FOLDER", raising=False)
    monkeypatch.setattr(machine, "cpp_compiler", lambda: None)
    monkeypatch.setenv("CXXFLAGS", "-O1")
    found = keops()
    assert (found["compiler"], found["CXXFLAGS"]) == ("none found", "-O1")
    assert str(found["cache"]).startswith(str(tmp_path / "cache" / "keops-"))
    monkeypatch.setenv("KEOPS_CACHE_FOLDER", "/elsewhere")
    assert keops()["cache"] == "/elsewhere"


def test_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba as installed

    found = numba()
    assert found["version"] == installed.__version__
    assert found["compiles"] == "yes"
    monkeypatch.setattr(installed.config, "DISABLE_JIT", 1)
    assert str(numba()["compiles"]).startswith("no: NUMBA_DISABLE_JIT")


def test_caches_are_named_and_not_made(tmp_path: Path) -> None:
    assert caches() == {
        "LIQUID_SSM_CACHE_DIR": str(tmp_path / "cache"),
        "certificates": str(tmp_path / "cache" / "certificates"),
        "compiled kernels": str(tmp_path / "cache" / "compiled"),
    }
    assert not (tmp_path / "cache").exists()


def test_caches_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("")
    said = str(caches()["certificates"])
    assert said.endswith(f"which cannot be made: {tmp_path / 'cache'} is a file; set LIQUID_SSM_CACHE_DIR to a folder")

    def full(**_: Any) -> None:
        raise OSError(30, "Read-only file system")

    (tmp_path / "cache").unlink()
    monkeypatch.setattr(diagnosis.tempfile, "TemporaryFile", full)
    assert "which cannot be written (Read-only file system); set LIQUID" in str(caches()["certificates"])


def lacking(patch: pytest.MonkeyPatch, system: str, *packages: str) -> list[dict[str, str]]:
    real = diagnosis.package_version
    patch.setattr(diagnosis, "package_version", lambda name: "not installed" if name in packages else real(name))
    patch.setattr(platform, "system", lambda: system)
    return missing()


EVERYTHING = [optional.package for optional in OPTIONAL]


@pytest.mark.parametrize(
    ("system", "packages", "command"),
    [
        ("Linux", [], None),
        ("Linux", ["numba"], "pip install 'liquid-ssm[numba]'"),
        ("Linux", ["hypothesis"], "pip install hypothesis"),
        ("Linux", EVERYTHING, "pip install 'liquid-ssm[numba,torch,triton,keops,plots]' hypothesis"),
        ("Darwin", EVERYTHING, "pip install 'liquid-ssm[numba,torch,keops,plots]' hypothesis"),
        ("Windows", EVERYTHING, "pip install 'liquid-ssm[numba,torch,plots]' hypothesis"),
    ],
)
def test_one_command_adds_all_packages(
    system: str, packages: list[str], command: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cpp_compiler", lambda: "/usr/bin/g++")
    monkeypatch.setattr(diagnosis, "_has_headers", lambda: True)
    assert install(lacking(monkeypatch, system, *packages)) == ({} if command is None else {"pip": command})


@pytest.mark.parametrize(
    ("system", "command"),
    [("Linux", "apt-get install g++ python3-dev"), ("Darwin", "xcode-select --install"), ("Windows", None)],
)
def test_tools_are_the_systems(system: str, command: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpp_compiler", lambda: None)
    monkeypatch.setattr(diagnosis, "_has_headers", lambda: False)
    found = lacking(monkeypatch, system)
    assert install(found) == ({} if command is None else {"system": command})
    assert [entry["name"] for entry in found] == ([] if command is None else ["g++", "python3-dev"])


def test_extras_bring_what_is_missing() -> None:
    """What the command names is in the package's own metadata."""
    requirements = importlib.metadata.requires("liquid-ssm") or []
    for optional in OPTIONAL:
        if optional.extra:
            of_extra = [line for line in requirements if f'extra == "{optional.extra}"' in line]
            assert [line for line in of_extra if line.startswith(optional.package)], optional


def test_lines_leave_out_what_is_not_there() -> None:
    group = {"a": None, "b": ["x", "y"], "gpus": ["x, 1", "y, 2"], "c": 3, "d": "text"}
    assert lines(group) == [("b", "x y"), ("gpus", "x, 1, y, 2"), ("c", "3"), ("d", "text")]
